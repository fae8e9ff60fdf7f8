"""A host that drives: a process of its own, so that trials can kill and freeze it.

``python -m firmware_interface.emulator.driver PORT``. It sends commands at 100 Hz, always; it arms when told so by
a line ``arm`` on standard input, and says ``armed`` or why not.
"""

import sys
import threading
import time

from firmware_interface.errors import FirmwareError
from firmware_interface.link.client import FirmwareLink
from firmware_interface.transport.ports import open_port

PERIOD_S = 0.01


def _obey(link: FirmwareLink) -> None:
    for line in sys.stdin:
        if line.strip() != "arm":
            continue
        try:
            link.wait_open()
            link.arm()
            print("armed", flush=True)
        except FirmwareError as error:
            print(f"refused: {error}", flush=True)


def main() -> None:
    """Drive until killed or standard input ends."""
    port = sys.argv[1]
    with FirmwareLink(lambda: open_port(port)) as link:
        link.wait_open()
        print("open", flush=True)
        listener = threading.Thread(target=_obey, args=(link,), daemon=True)
        listener.start()
        while listener.is_alive():
            link.send_command(0.5, 0.0)
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
