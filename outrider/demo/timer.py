"""A bare timer beside the robots: the same cadence and priority, nothing to do. What it misses, the machine missed.

``python -m outrider.demo.timer --period-ms 33 --out FILE`` writes a JSON line for every deadline it came too late
for, until SIGTERM.
"""

import argparse
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PRIORITY = -10


def main() -> None:
    """Keep absolute deadlines; note each that was passed by a whole period."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--period-ms", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    period_ns = int(arguments.period_ms * 1e6)
    with arguments.out.open("w", buffering=1) as out:
        deadline_ns = time.monotonic_ns() + period_ns
        while not stopping:
            time.sleep(max(0, deadline_ns - time.monotonic_ns()) / 1e9)
            skipped = (time.monotonic_ns() - deadline_ns) // period_ns
            if skipped > 0:
                out.write(json.dumps({"wall_ns": time.time_ns(), "skipped": skipped}) + "\n")
                deadline_ns += skipped * period_ns
            deadline_ns += period_ns


if __name__ == "__main__":
    main()
