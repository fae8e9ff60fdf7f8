"""Commands to the motor controller over the serial link, beside whatever carries them else."""

from collections.abc import Callable

from edge_agent.actuate.sink import CommandSink
from edge_agent.observe.slots import Stamp
from firmware_interface.errors import FieldRangeError, FirmwareError
from firmware_interface.link.client import FirmwareLink, FrameKind
from firmware_interface.protocol.frames import Fault, State, Status, StopReason
from firmware_interface.transport.ports import Transport, open_port

REPEAT_S = 0.02
"""Between ticks of 50 ms the link sends the last command again, older: a lost frame does not stop the robot."""
EXPIRY_US = 120_000
"""A tick may be this late after the one before. A process that is gone stops the robot sooner: the board's watchdog
waits 80 ms for the next frame."""
SILENT_MAX_S = 0.5
FIGURES_FILE = "serial.json"
"""In the agent's state folder, when control has ended: how the link did."""


class SerialSink:
    """Sends each command to a board too. Arms it only when told to, and says when it has stopped by itself.

    Args:
        port: a serial port, or ``tcp://HOST:PORT``.
        also: where commands go besides.
        factor: robot seconds in a second: the clock of an emulated board in a faster simulation.
        open_line: opens the port; for tests.
    """

    def __init__(
        self,
        port: str,
        also: CommandSink,
        factor: float = 1.0,
        open_line: Callable[[str], Transport] = open_port,
    ) -> None:
        self._port, self._also, self._factor = port, also, factor
        self._link = FirmwareLink(lambda: open_line(port), repeat_s=REPEAT_S, rate=factor)
        self._link.start()
        self._armed = False
        self._before: Status | None = None

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Send one, now; it lives for 120 ms. Never waits: what finds no room is dropped, and counted by the link.

        The board first: what else takes commands may keep this thread waiting, as ROS did for up to 33 ms.
        """
        try:
            self._link.send_command(speed_mps, turn_rate_radps, self._link.now_ns(), EXPIRY_US)
        except FieldRangeError:
            self._link.stop()
        self._also.send(speed_mps, turn_rate_radps, stamp)

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

    def clear(self) -> str:
        """Have the board forget faults whose cause is gone; it stays disarmed. "" or why not. Waits, as ``arm``."""
        try:
            self._link.wait_open(SILENT_MAX_S)
            self._link.clear_faults()
        except FirmwareError as error:
            return f"motor controller on {self._port}: {error}"
        return ""

    def latest(self, kind: type[FrameKind]) -> FrameKind | None:
        """The board's newest feedback of a kind; None before the first, and while the link is lost."""
        return self._link.latest(kind) if self._link.open else None

    def trouble(self) -> str:
        """Why there is no link now, in words; "" while there is one."""
        return "" if self._link.open else str(self._link.failure or "")

    def figures(self) -> dict[str, float]:
        """How the link does: ``firmware_interface.link.statistics``, its times in this machine's us."""
        found = self._link.statistics.as_dict()
        return found | {key: value / self._factor for key, value in found.items() if key.endswith("_us")}

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
            why = f"the link is lost: {self.trouble()}"
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
