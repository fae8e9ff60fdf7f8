"""One tick of the monitor alone: somebody else's command in, what may pass of it out. No policy, no ROS.

Whatever goes wrong, a command goes out in the same tick; a tick never raises. It is never more than was asked.
"""

import time
from collections import deque
from collections.abc import Callable

import msgspec

from edge_agent.actuate.sink import CommandSink, send_ruling
from edge_agent.guard.gate import STOPPED, Gate
from edge_agent.guard.sensed import take_sensed
from edge_agent.observe.slots import UNSTAMPED, Slots
from safety.inputs import NS, Inputs, Ruling

ERRORS_IN_A_ROW_MAX = 3
EVENTS_MAX = 64
Command = tuple[float, float]


class Asked(msgspec.Struct, frozen=True):
    """A command as it came: speed in m/s, turn rate in rad/s."""

    command: Command
    arrived_ns: int


class Filtered(msgspec.Struct, frozen=True):
    """The last tick, for whoever publishes status beside it; named as in ``edge_agent.tick.Snapshot``."""

    tick: int
    ruling: Ruling
    raw: Command | None
    """None: no command, or one too old."""
    armed: bool
    latched: bool
    total_ns: int
    missed: int
    late: int


class FilterCore:
    """What ``edge_agent.loop.ControlLoop`` runs; owned by its thread, but for ``asked``, which a callback sets.

    Args:
        slots, gate, sink: the stages, in order.
        period_ns: between two ticks.
        command_stale_max_s: an older command is none.
        stamped: whether the sensors' stamps come from a clock that goes as ours does; a simulator's need not.
        clock_ns: monotonic.
    """

    def __init__(
        self,
        slots: Slots,
        gate: Gate,
        sink: CommandSink,
        period_ns: int,
        command_stale_max_s: float,
        stamped: bool = True,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.slots, self.gate, self.sink = slots, gate, sink
        self.asked: Asked | None = None
        self.latest: Filtered | None = None
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)
        self._period_ns, self._stale_ns = period_ns, round(command_stale_max_s * NS)
        self._stamped, self._clock_ns = stamped, clock_ns
        self._inputs = Inputs(0)
        self._ticks = self._late = self._errors_in_a_row = 0

    def tick(self, deadline_ns: int, missed: int) -> None:
        """Run one tick that was due at ``deadline_ns``; ``missed`` deadlines were skipped since the start."""
        began_ns = self._clock_ns()
        self._ticks += 1
        asked, raw, failed = self.asked, None, ""
        if asked is not None and began_ns - asked.arrived_ns <= self._stale_ns:
            raw = asked.command
        try:
            ruling = self._rule(began_ns, raw)
        except Exception as error:
            ruling, failed = STOPPED, f"ruling failed: {error!r}"
        try:
            send_ruling(self.sink, ruling, self.slots.scan)
            self.gate.monitor.settle()
        except Exception as error:
            failed = f"sending failed: {error!r}"
        self._note(failed)
        ended_ns = self._clock_ns()
        self._late += ended_ns > deadline_ns + self._period_ns
        self.latest = Filtered(
            self._ticks,
            ruling,
            raw,
            self.gate.armed,
            self.gate.latched,
            ended_ns - began_ns,
            missed,
            self._late,
        )

    def warm(self) -> None:
        """Nothing: the loop offers time before a tick, and the monitor alone is quick without."""

    def stop_command(self) -> None:
        """Send a stop outside a tick: at the start and at the end."""
        self.sink.send(0.0, 0.0, UNSTAMPED)

    def _rule(self, now_ns: int, command: Command | None) -> Ruling:
        inputs, slots = self._inputs, self.slots
        take_sensed(inputs, now_ns, slots.scan, slots.odometry, self._stamped)
        inputs.command = command
        return self.gate.rule(inputs)

    def _note(self, failed: str) -> None:
        self._errors_in_a_row = self._errors_in_a_row + 1 if failed else 0
        if failed and self._errors_in_a_row <= ERRORS_IN_A_ROW_MAX:
            self.events.append(f"tick {self._ticks}: {failed}"[:200])
        if self._errors_in_a_row == ERRORS_IN_A_ROW_MAX:
            self.gate.disarm()
            self.events.append(f"disarmed: {ERRORS_IN_A_ROW_MAX} ticks in a row failed")
