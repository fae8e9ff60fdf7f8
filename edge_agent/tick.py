"""One control tick: slots -> observation -> proposal -> monitor -> command -> record. No ROS, disk or log.

Whatever goes wrong, the monitor rules and a command goes out in the same tick; a tick never raises.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import Reason, Source, Verdict
from contracts.robot import RobotModel
from edge_agent.actuate.record import U32_MAX, Recorder
from edge_agent.actuate.sink import CommandSink
from edge_agent.guard.gate import STOPPED, Gate
from edge_agent.infer.ladder import Command, Floats, Ladder, Proposer
from edge_agent.observe.slots import UNSTAMPED, Odometry, Scan, Slots
from navigation.encoder import ObservationEncoder
from safety.monitor import Inputs, Ruling, SafetyMonitor

ERRORS_IN_A_ROW_MAX = 3
EVENTS_MAX = 64
EVENTS_WHOLE_MAX, EVENTS_SHARE = 20, 100
"""So many errors are told one by one; after that, every hundredth. All are counted."""
NS = 1_000_000_000
_AGE_UNKNOWN_NS = U32_MAX * 1000


class Ring(Protocol):
    """Where records go (``contracts.ring.RingWriter``)."""

    def push(self, record: npt.NDArray[np.void]) -> bool:
        """False when it is full."""

    def beat(self, now_ns: int) -> None:
        """A sign of life."""


class Snapshot(msgspec.Struct, frozen=True):
    """The last tick, for whoever publishes status beside it."""

    tick: int
    source: Source
    ruling: Ruling
    raw: Command | None
    armed: bool
    latched: bool
    digest: str
    infer_ns: int
    total_ns: int
    missed: int
    late: int


class TickCore:
    """Everything a tick needs; owned by the control thread.

    Args:
        model: the robot.
        rate_hz: ticks in a robot second.
        real_time_factor: robot seconds in a second; ages and accelerations count in robot time.
        slots, ladder, gate, sink, ring: the stages, in order.
        clock_ns, wall_ns: monotonic and wall clock.
    """

    def __init__(
        self,
        model: RobotModel,
        rate_hz: int,
        real_time_factor: float,
        slots: Slots,
        ladder: Ladder,
        gate: Gate,
        sink: CommandSink,
        ring: Ring,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._encoder = ObservationEncoder(model, 1.0 / rate_hz)
        self._rays = model.lidar.rays
        self._factor = real_time_factor
        self._period_ns = round(NS / (rate_hz * real_time_factor))
        self.slots, self.ladder, self.gate, self.sink, self._ring = slots, ladder, gate, sink, ring
        self._clock_ns, self._wall_ns = clock_ns, wall_ns
        self._recorder = Recorder()
        self._inputs = Inputs(0)
        self._spare_encoder = ObservationEncoder(model, 1.0 / rate_hz)
        self._spare_monitor = SafetyMonitor(model, gate.monitor.config)
        self._spare_inputs = Inputs(0)
        self._errors_in_a_row = 0
        self._encoded = False
        self._asked: Proposer | None = None
        self.errors = 0
        self.ticks = 0
        self.late = 0
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)
        self.latest: Snapshot | None = None

    @property
    def record(self) -> npt.NDArray[np.void]:
        """The last tick's decision record, DECISION_DTYPE[1]; overwritten by the next."""
        return self._recorder.record

    def tick(self, deadline_ns: int, missed: int) -> None:
        """Run one tick that was due at ``deadline_ns``; ``missed`` deadlines were skipped since the start."""
        began_ns = self._clock_ns()
        self.ticks += 1
        failed = False
        swapped = self.ladder.flip()
        scan, odometry, goal = self.slots.scan, self.slots.odometry, self.slots.goal
        self._asked, self._encoded, encoded_ns = None, False, began_ns
        raw: Command | None = None
        source, idle = Source.NONE, False
        try:
            observation, idle = self._observe(scan, odometry)
            encoded_ns = self._clock_ns()
            if observation is not None:
                self._asked = self.ladder.policy
                raw, source = self.ladder.propose(observation)
        except Exception as error:
            failed = True
            self._note("proposing", error)
        proposed_ns = self._clock_ns()
        try:
            ruling = self._rule(began_ns, scan, odometry, (0.0, 0.0) if idle else raw)
            if idle and ruling.verdict <= Verdict.LIMIT:
                ruling = Ruling((0.0, 0.0), Verdict.STOP, Reason.NO_GOAL, ruling.clearance_m)
        except Exception as error:
            failed, ruling = True, STOPPED
            self._note("ruling", error)
        ruled_ns = self._clock_ns()
        try:
            self._send(ruling, scan)
        except Exception as error:
            failed = True
            self._note("sending", error)
        sent_ns = self._clock_ns()
        self._errors_in_a_row = self._errors_in_a_row + 1 if failed else 0
        if self._errors_in_a_row == ERRORS_IN_A_ROW_MAX:
            self.gate.disarm()
            self.events.append(f"disarmed: {ERRORS_IN_A_ROW_MAX} ticks in a row failed")
        if sent_ns > deadline_ns + self._period_ns:
            self.late += 1
        try:
            observation = self._encoder.observation if self._encoded else None
            self._recorder.decided(
                self.ticks, began_ns, self._wall_ns(), self._asked, source, ruling, raw, self.gate.armed,
                swapped, observation,
            )  # fmt: skip
            self._recorder.sensed(odometry, goal, *self._ages(began_ns, scan, odometry))
            self._recorder.timed(
                began_ns - deadline_ns, encoded_ns - began_ns, proposed_ns - encoded_ns,
                ruled_ns - proposed_ns, sent_ns - ruled_ns, missed,
            )  # fmt: skip
            self._ring.push(self._recorder.record)
            self._ring.beat(began_ns)
        except Exception as error:
            self._note("recording", error)
        self.latest = Snapshot(
            self.ticks, source, ruling, raw, self.gate.armed, self.gate.latched,
            self._asked.digest if self._asked else "", proposed_ns - encoded_ns, ruled_ns - began_ns,
            missed, self.late,
        )  # fmt: skip

    def warm(self) -> None:
        """Go through a tick idly, just before a real one: 50 ms of other people's work empty every cache.

        Policy and rules keep no state; of encoder and monitor spare ones run, whose results nobody sees.
        """
        scan, odometry, route = self.slots.scan, self.slots.odometry, self.slots.route()
        if scan is None or odometry is None or route is None or not odometry.finite:
            return
        if scan.ranges_m.size != self._rays:
            return
        spare, inputs = self._spare_monitor, self._spare_inputs
        # What fails here will fail in the tick, and be counted there.
        with suppress(Exception):
            ranges = spare.clean_ranges(scan.ranges_m)
            observation = self._spare_encoder.encode(ranges, odometry.pose, odometry.velocity, route)
            inputs.now_ns = inputs.scan_ns = inputs.odometry_ns = self._clock_ns()
            inputs.ranges_m, inputs.velocity = scan.ranges_m, odometry.velocity
            inputs.command = self.ladder.warm(observation)
            spare.armed = True
            spare.step(inputs)

    def stop_command(self) -> None:
        """Send a stop outside a tick: at the start and at the end."""
        self.sink.send(0.0, 0.0, UNSTAMPED)

    def _observe(self, scan: Scan | None, odometry: Odometry | None) -> tuple[Floats | None, bool]:
        """The observation, None where there can be none; and whether that is for want of a goal alone."""
        if scan is None or odometry is None or not odometry.finite or scan.ranges_m.size != self._rays:
            return None, False
        route = self.slots.route()
        if route is None:
            return None, True
        ranges = self.gate.monitor.clean_ranges(scan.ranges_m)
        observation = self._encoder.encode(ranges, odometry.pose, odometry.velocity, route)
        self._encoded = True
        return observation, False

    def _rule(
        self, now_ns: int, scan: Scan | None, odometry: Odometry | None, command: Command | None
    ) -> Ruling:
        inputs, factor = self._inputs, self._factor
        inputs.now_ns = int(now_ns * factor)
        inputs.ranges_m = scan.ranges_m if scan else None
        inputs.scan_ns = int(scan.arrived_ns * factor) if scan else 0
        inputs.velocity = odometry.velocity if odometry else None
        inputs.odometry_ns = int(odometry.arrived_ns * factor) if odometry else 0
        inputs.command = command
        return self.gate.rule(inputs)

    def _send(self, ruling: Ruling, scan: Scan | None) -> None:
        speed, turn_rate = ruling.command
        if not (math.isfinite(speed) and math.isfinite(turn_rate)):
            speed = turn_rate = 0.0
        moving = speed != 0.0 or turn_rate != 0.0
        self.sink.send(speed, turn_rate, scan.stamp if moving and scan else UNSTAMPED)

    def _ages(self, now_ns: int, scan: Scan | None, odometry: Odometry | None) -> tuple[int, int]:
        """Ages of scan and odometry in ns of robot time, since they arrived.

        Header ages are not added: that needs one clock for sensors and robot.
        """
        scan_ns = int((now_ns - scan.arrived_ns) * self._factor) if scan else _AGE_UNKNOWN_NS
        return scan_ns, int((now_ns - odometry.arrived_ns) * self._factor) if odometry else _AGE_UNKNOWN_NS

    def _note(self, doing: str, error: Exception) -> None:
        self.errors += 1
        if self.errors > EVENTS_WHOLE_MAX and self.errors % EVENTS_SHARE:
            return
        self.events.append(f"tick {self.ticks}: {doing} failed: {error!r}"[:200])
