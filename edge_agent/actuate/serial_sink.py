"""Commands to the motor controller over the serial link, beside whatever carries them else."""

import time
from collections.abc import Callable

from edge_agent.actuate.sink import CommandSink
from edge_agent.observe.slots import Stamp
from firmware_interface.errors import FieldRangeError, FirmwareError
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol.frames import Fault, State, Status, StopReason
from firmware_interface.transport.ports import Transport, open_port

REPEAT_S = 0.02
"""Between ticks of 50 ms the link sends the last command again, older: a lost frame does not stop the robot."""
EXPIRY_US = 120_000
"""A tick may be this late after the one before. A process that is gone stops the robot sooner: the board's watchdog
waits 80 ms for the next frame."""
SILENT_MAX_S = 0.5


class SerialSink:
    """Sends each command to a board too. Arms it only when told to, and says when it has stopped by itself.

    Args:
        port: a serial port, or ``tcp://HOST:PORT``.
        also: where commands go besides.
        open_line: opens the port; for tests.
    """

    def __init__(
        self, port: str, also: CommandSink, open_line: Callable[[str], Transport] = open_port
    ) -> None:
        self._port, self._also = port, also
        self._link = FirmwareLink(lambda: open_line(port), repeat_s=REPEAT_S)
        self._link.start()
        self._armed = False
        self._before: Status | None = None

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Send one, now; it lives for 120 ms. Never waits: what finds no room is dropped, and counted by the link."""
        self._also.send(speed_mps, turn_rate_radps, stamp)
        try:
            self._link.send_command(speed_mps, turn_rate_radps, time.monotonic_ns(), EXPIRY_US)
        except FieldRangeError:
            self._link.stop()

    def arm(self) -> str:
        """Have the board arm; "" or why not. Waits for its answer, so not in the tick."""
        try:
            self._link.wait_open(SILENT_MAX_S)
            self._link.arm()
        except FirmwareError as error:
            return f"motor controller on {self._port}: {error}"
        # What the board said before it armed has come before its answer, and says nothing about now.
        self._before = self._link.latest(Status)
        self._armed = True
        return ""

    def stop(self) -> None:
        """Stop the wheels and disarm the board."""
        self._armed = False
        self._link.stop()

    def stopped(self) -> str:
        """Why the board, which was armed, is not any longer; "" while it is, or was not asked to be."""
        if not self._armed:
            return ""
        status = self._link.latest(Status)
        if not self._link.open:
            why = "the link is lost"
        elif status is None or status is self._before or status.state == State.ARMED:
            return ""
        elif status.faults:
            why = ", ".join(str(fault.name).lower().replace("_", " ") for fault in Fault(status.faults))
        else:
            why = StopReason(status.stop_reason).name.lower().replace("_", " ")
        self._armed = False
        return f"the motor controller stopped by itself ({why}); arm the robot to go on"

    def close(self) -> None:
        """Stop, and let go of the port."""
        self._armed = False
        self._link.close()
