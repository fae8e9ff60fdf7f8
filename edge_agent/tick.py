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

from contracts.decision import (
    FLAG_ARMED,
    FLAG_BLENDED,
    FLAG_PROBATION,
    INTERVENTION_SHARE,
    INTERVENTIONS,
    TURN_WEIGHT_M,
    Mode,
    Reason,
    Source,
    Verdict,
)
from contracts.robot import RobotModel
from edge_agent.actuate.blend import Blend
from edge_agent.actuate.record import U32_MAX, Recorder
from edge_agent.actuate.sink import CommandSink, send_ruling
from edge_agent.guard.beside import WouldBe
from edge_agent.guard.gate import STOPPED, Gate
from edge_agent.guard.modes import Modes
from edge_agent.guard.sensed import take_sensed
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.proposer import Command, Floats, Proposer
from edge_agent.infer.trial import Stage
from edge_agent.observe.slots import UNSTAMPED, Odometry, Scan, Slots
from navigation.encoder import ObservationEncoder
from safety.monitor import Inputs, Ruling, SafetyMonitor
from safety.watch.policy import Advice

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

    def touch(self, record: npt.NDArray[np.void]) -> None:
        """Get ready for a push; passes nothing on."""

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
    mode: Mode
    other: Command | None


class TickCore:
    """Everything a tick needs; owned by the control thread.

    Args:
        model: the robot.
        rate_hz: ticks in a robot second.
        real_time_factor: robot seconds in a second; ages and accelerations count in robot time.
        slots, ladder, gate, sink, ring: the stages, in order.
        clock_ns, wall_ns: monotonic and wall clock.
        modes: who may drive; None is always the policy.
        stamped: whether the sensors' stamps come from a clock that goes as ours does; a simulator's need not.
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
        modes: Modes | None = None,
        stamped: bool = True,
    ) -> None:
        self._encoder = ObservationEncoder(model, 1.0 / rate_hz)
        self._rays = model.lidar.rays
        self._factor = real_time_factor
        self._period_ns = round(NS / (rate_hz * real_time_factor))
        self.slots, self.ladder, self.gate, self.sink, self._ring = slots, ladder, gate, sink, ring
        self._clock_ns, self._wall_ns = clock_ns, wall_ns
        self.modes, self._stamped = modes or Modes(), stamped
        self._recorder = Recorder()
        self._inputs = Inputs(0)
        self._would_be = WouldBe(model, gate.monitor)
        self._blend = Blend(model, 1.0 / rate_hz)
        self._sent: Command = (0.0, 0.0)
        self._driver: Proposer | None = None
        self._other: Command | None = None
        self._advice = Advice.NONE
        self._spare_encoder = ObservationEncoder(model, 1.0 / rate_hz)
        self._spare_monitor = SafetyMonitor(model, gate.monitor.config)
        self._spare_inputs = Inputs(0)
        self._spare_recorder = Recorder()
        self._errors_in_a_row = 0
        self._encoded = self._failed = False
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
        self._failed = False
        flags = self.ladder.flip(began_ns)
        scan, odometry, goal = self.slots.scan, self.slots.odometry, self.slots.goal
        self._asked, self._encoded, encoded_ns = None, False, began_ns
        raw: Command | None = None
        source, idle = Source.NONE, False
        try:
            observation, idle = self._observe(scan, odometry)
            encoded_ns = self._clock_ns()
            if observation is not None:
                raw, source = self._propose(observation, began_ns)
        except Exception as error:
            self._note("proposing", error)
        proposed_ns = self._clock_ns()
        wanted = raw
        try:
            if raw is not None and self._blend.active and math.isfinite(raw[0]) and math.isfinite(raw[1]):
                wanted = self._blend.step(raw, self._sent)
                flags |= FLAG_BLENDED if wanted is not raw else 0
            self._inputs.command_from_policy = source is Source.POLICY
            ruling = self._rule(began_ns, scan, odometry, (0.0, 0.0) if idle else wanted)
            if idle and ruling.verdict <= Verdict.LIMIT:
                ruling = Ruling((0.0, 0.0), Verdict.STOP, Reason.NO_GOAL, ruling.clearance_m)
                self.gate.monitor.sent(ruling.command)
        except Exception as error:
            ruling = STOPPED
            self._note("ruling", error)
        ruled_ns = self._clock_ns()
        try:
            self._sent = send_ruling(self.sink, ruling, scan)
        except Exception as error:
            self._note("sending", error)
        sent_ns = self._clock_ns()
        late = sent_ns > deadline_ns + self._period_ns
        self.late += late
        try:
            flags |= self._look_back(source, ruling, late)
        except Exception as error:
            self._note("looking back", error)
        self._errors_in_a_row = self._errors_in_a_row + 1 if self._failed else 0
        if self._errors_in_a_row == ERRORS_IN_A_ROW_MAX:
            self.gate.disarm()
            self.events.append(f"disarmed: {ERRORS_IN_A_ROW_MAX} ticks in a row failed")
        try:
            observation = self._encoder.observation if self._encoded else None
            self._recorder.decided(
                self.ticks, began_ns, self._wall_ns(), self._asked, source, ruling, raw, flags, observation
            )
            self._recorder.beside(self.modes.mode, self._other, self._would_be.reduction)
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
            missed, self.late, self.modes.mode, self._other,
        )  # fmt: skip

    def _propose(self, observation: Floats, now_ns: int) -> tuple[Command, Source]:
        """The command of whoever may drive; a change of driver begins a blend."""
        ladder = self.ladder
        policy = ladder.policy
        if not self.gate.armed:
            ladder.rest()
        drives = (
            policy is not None
            and self._advice is Advice.NONE
            and self.modes.policy_drives(policy.digest, now_ns)
        )
        self._asked = policy if drives else None
        proposal = ladder.propose(observation, drives)
        if ladder.driver is not self._driver:
            self._driver = ladder.driver
            self._blend.begin()
        return proposal

    def _look_back(self, source: Source, ruling: Ruling, late: bool) -> int:
        """After the command has gone: ask who does not drive, tell the trial how it went; flags of the record."""
        ladder, armed = self.ladder, self.gate.armed
        known = ladder.policy.novelty if ladder.policy is not None and self._encoded else None
        self._inputs.novelty = None if known is None else known.of(self._encoder.observation)
        self.gate.monitor.settle()
        advice = self.gate.monitor.advise(self._inputs)
        self._other = None
        self._would_be.reduction = math.nan
        trial = ladder.trial
        flags = (FLAG_ARMED if armed else 0) | (
            FLAG_PROBATION if trial is not None and trial.stage is Stage.PROBATION else 0
        )
        if not armed:
            self.modes.revoke()
        if not self._encoded or source is Source.NONE:
            ladder.rest()
            return flags
        mode = self.modes.mode
        beside = self._asked is None and (mode is Mode.SHADOW or mode is Mode.ASSIST)
        self._other = ladder.beside(self._encoder.observation, beside)
        if beside and ladder.policy is not None:
            self._asked = ladder.policy
            if self._other is not None:
                self._judge_other(self._other)
        if advice is not self._advice:
            self._advised(advice)
        took = armed and ruling.reason in INTERVENTIONS and _took_most(self._inputs.command, ruling.command)
        ladder.judge(self._asked is not None, late, took)
        return flags

    def warm(self) -> None:
        """Go through a tick idly, just before a real one: 50 ms of other people's work empty every cache.

        Policies keep no state; of encoder, rules and monitor spare ones run, whose results nobody sees.
        """
        scan, odometry, route = self.slots.scan, self.slots.odometry, self.slots.route()
        if scan is None or odometry is None or route is None or not odometry.finite:
            return
        if scan.ranges_m.size != self._rays:
            return
        spare, inputs = self._spare_monitor, self._spare_inputs
        # What fails here will fail in the tick, and be counted there.
        with suppress(Exception):
            take_sensed(inputs, self._clock_ns(), scan, odometry, self._stamped, self._factor)
            ranges = spare.clean_ranges(scan.ranges_m, inputs.scan_ns)
            observation = self._spare_encoder.encode(ranges, odometry.pose, odometry.velocity, route)
            inputs.command, inputs.command_from_policy = self.ladder.warm(observation), True
            # To one that does not know what was sent the robot runs away: it would stop, and not look at the way.
            spare.armed, spare.emergency = True, False
            spare.sent(self._sent)
            ruling = spare.step(inputs)
            recorder = self._spare_recorder
            recorder.decided(
                self.ticks, 0, 0, self.ladder.policy, Source.POLICY, ruling, inputs.command, 0, observation
            )
            recorder.beside(self.modes.mode, None, math.nan)
            recorder.sensed(odometry, self.slots.goal, 0, 0)
            recorder.timed(0, 0, 0, 0, 0, 0)
            self._ring.touch(recorder.record)

    def _advised(self, advice: Advice) -> None:
        """The monitor says whether the policy should go on; until it is content again the rules drive."""
        self._advice = advice
        if advice is Advice.NONE:
            return
        self.ladder.advised(advice.name.lower())

    def _judge_other(self, other: Command) -> None:
        """What the monitor would have left of a command that does not drive."""
        inputs = self._inputs
        assert inputs.ranges_m is not None
        assert inputs.velocity is not None
        ranges = self.gate.monitor.clean_ranges(inputs.ranges_m, inputs.scan_ns)
        self._would_be.step(ranges, inputs.velocity, (inputs.now_ns - inputs.scan_ns) / NS, other)

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
        ranges = self.gate.monitor.clean_ranges(scan.ranges_m, int(scan.arrived_ns * self._factor))
        observation = self._encoder.encode(ranges, odometry.pose, odometry.velocity, route)
        self._encoded = True
        return observation, False

    def _rule(
        self, now_ns: int, scan: Scan | None, odometry: Odometry | None, command: Command | None
    ) -> Ruling:
        inputs = self._inputs
        take_sensed(inputs, now_ns, scan, odometry, self._stamped, self._factor)
        inputs.command = command
        return self.gate.rule(inputs)

    def _ages(self, now_ns: int, scan: Scan | None, odometry: Odometry | None) -> tuple[int, int]:
        """Ages of scan and odometry in ns of robot time, since they arrived.

        Header ages are not added: that needs one clock for sensors and robot.
        """
        scan_ns = int((now_ns - scan.arrived_ns) * self._factor) if scan else _AGE_UNKNOWN_NS
        return scan_ns, int((now_ns - odometry.arrived_ns) * self._factor) if odometry else _AGE_UNKNOWN_NS

    def _note(self, doing: str, error: Exception) -> None:
        self._failed = True
        self.errors += 1
        if self.errors > EVENTS_WHOLE_MAX and self.errors % EVENTS_SHARE:
            return
        self.events.append(f"tick {self.ticks}: {doing} failed: {error!r}"[:200])


def _took_most(wanted: Command | None, left: Command) -> bool:
    """Whether an intervention was a large one: braking a little in passing is the monitor's daily work."""
    if wanted is None or not (math.isfinite(wanted[0]) and math.isfinite(wanted[1])):
        return True
    wished = abs(wanted[0]) + TURN_WEIGHT_M * abs(wanted[1])
    return abs(left[0]) + TURN_WEIGHT_M * abs(left[1]) < INTERVENTION_SHARE * wished
