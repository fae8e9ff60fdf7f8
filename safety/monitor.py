"""The monitor of one robot: runs every tick, whether or not a command arrives, and has the last word.

Pure: time comes in as an argument. Faults are ordered; the most restrictive wins. A data fault stops the robot
in the same tick, and disarms it when it lasts. An emergency stop is latched until it is reset by a person.
What each reason leads to is in one table, ``safety.faults``.
"""

import math

import numpy as np
import numpy.typing as npt

from contracts.decision import Reason, Verdict
from contracts.robot import RobotModel
from safety.admission import Admission
from safety.config import MonitorConfig, WatchConfig
from safety.faults import DISARMING, REACTION
from safety.fields import FieldGuard, ProtectiveField
from safety.inputs import NS, Inputs, Ruling
from safety.movers import BLIND_M, Movers
from safety.scan import ScanCleaner
from safety.watch.board import GAP_MAX_S, WatchBoard
from safety.watch.policy import Advice
from safety.zones import Zone, ZoneGuard

__all__ = ["NS", "Inputs", "Ruling", "SafetyMonitor"]
CHANGE_MIN = 1e-9
ROUNDING = 1e-6
"""A policy's limit in float32 may lie this far beyond the model's, m/s or rad/s: clipped, but no one's fault."""
ROLLING_MPS = 0.15
"""Measured speed in m/s above which a base that is to stand does not stand yet."""
TICK_MAX_S = 0.2
"""A longer gap between ticks does not let the command grow any further."""
Pair = tuple[float, float]
STAND: Pair = (0.0, 0.0)


class SafetyMonitor:
    """Last word over one robot's command. Not thread-safe: the control thread owns it.

    Args:
        model: the robot's shape, limits and lidar.
        config: checked settings that policies are trained behind.
        watch: checked settings of the watches.
        zones: of the map; with any, a missing pose stops the robot.
        fields: speed-indexed ones around the robot.

    Raises:
        MonitorConfigError: a setting is zero, negative or not finite.
        ZoneError: a zone or field is none.
    """

    def __init__(
        self,
        model: RobotModel,
        config: MonitorConfig | None = None,
        watch: WatchConfig | None = None,
        zones: tuple[Zone, ...] = (),
        fields: tuple[ProtectiveField, ...] = (),
    ) -> None:
        self.model = model
        self._config = (config or MonitorConfig()).check()
        self._watch = (watch or WatchConfig()).check()
        self._admission = Admission(self._config, model)
        self._movers = Movers(self._config, model)
        self._taken_ns: int | None = None
        self._cleaner = ScanCleaner(model.lidar)
        self._board = WatchBoard(self._watch, model, pose_needed=bool(zones))
        self._zones = ZoneGuard(zones, model, self._config, self._watch)
        self._fields = FieldGuard(fields, model)
        self._field_scan_ns: int | None = None
        self._blind_rays = max(2, math.ceil(self._watch.blind_sector_rad / model.lidar.angle_step_rad))
        self.armed = False
        self.emergency = False
        self.stop_requested = False
        self._fault_since_ns: int | None = None
        self._last_command = STAND
        self._gain_mps2 = 0.0
        """How fast the speed that was let through grew; 0 where it did not."""
        self._last_ns: int | None = None
        self._elapsed_s = 0.0
        self._sees = False
        """Whether scan and odometry are there and in order, but for what the watches say."""

    @property
    def config(self) -> MonitorConfig:
        """The settings; frozen, and never exchanged."""
        return self._config

    @property
    def watch(self) -> WatchConfig:
        """The watches' settings; the same holds."""
        return self._watch

    def arm(self) -> str:
        """Allow motion; returns "" or the reason why not."""
        if self.emergency:
            return "the emergency stop is latched; reset it first"
        if self._fault_since_ns is not None:
            return "a fault is present; see the safety status"
        self.armed, self.stop_requested = True, False
        return ""

    def disarm(self) -> None:
        """Forbid motion until someone arms the robot again."""
        self.armed = False

    def request_stop(self, emergency: bool) -> None:
        """Stop and hold; with ``emergency`` latched, and never restarted without a reset (ISO 3691-4)."""
        self.stop_requested = True
        if emergency:
            self.emergency, self.armed = True, False

    def reset_emergency(self) -> str:
        """Clear the emergency latch; the robot stays disarmed. Returns "" or why not."""
        if not self.emergency:
            return "the emergency stop is not latched"
        self.emergency = False
        return ""

    def clean_ranges(
        self, ranges_m: npt.NDArray[np.float32], scan_ns: int | None = None
    ) -> npt.NDArray[np.float32]:
        """See ``safety.scan.ScanCleaner.clean``; with the ``scan_ns`` of ``Inputs``, a tick cleans a scan once."""
        return self._cleaner.clean(ranges_m, scan_ns)

    def step(self, inputs: Inputs) -> Ruling:
        """Rule over one tick. Never raises on bad data: it stops."""
        elapsed_s = 0.0 if self._last_ns is None else max(inputs.now_ns - self._last_ns, 0) / NS
        reason = self._fault(inputs, elapsed_s)
        self._reckon(inputs, elapsed_s)
        self._time(reason, inputs.now_ns)
        # An enum's hash is reckoned in Python: most ticks need not look into tables.
        verdict = Verdict.PASS if reason is Reason.CLEAR else REACTION[reason]
        if verdict >= Verdict.DISARM:
            self.armed = False
            self.emergency |= verdict is Verdict.EMERGENCY_STOP
        if self.emergency:
            verdict = Verdict.EMERGENCY_STOP
            reason = reason if reason is Reason.RUNAWAY else Reason.EMERGENCY_STOP_LATCHED
        elif not self.armed:
            verdict = Verdict.DISARM
            reason = Reason.NOT_ARMED if reason in (Reason.CLEAR, Reason.STOP_REQUESTED) else reason
        ruling = Ruling(STAND, verdict, reason, 0.0)
        if verdict is Verdict.PASS:
            ruling = self._admit(inputs, min(elapsed_s, TICK_MAX_S))
        self._elapsed_s = elapsed_s
        grown_mps = abs(ruling.command[0]) - abs(self._last_command[0])
        self._gain_mps2 = grown_mps / elapsed_s if grown_mps > 0.0 < elapsed_s else 0.0
        self._last_command, self._last_ns = ruling.command, inputs.now_ns
        if self._sees and inputs.ranges_m is not None and inputs.scan_ns != self._taken_ns:
            self._movers.take(self._cleaner.clean(inputs.ranges_m, inputs.scan_ns))
            self._taken_ns = inputs.scan_ns
        return ruling

    def settle(self) -> None:
        """Work out what moves around the robot, after ``step``: what the command need not wait for. ``step`` makes up
        for it where nobody did."""
        self._movers.settle()

    def advise(self, inputs: Inputs) -> Advice:
        """Whether the policy should go on, once a tick after ``step``; the command need not wait for it.

        Of a robot that may not drive nothing is said against its output: it sees the same, and rightly says the same.
        """
        return self._board.advice(inputs, self._elapsed_s, self.armed and not self.stop_requested)

    def share_beside_movers(self, command: Pair, scan_age_s: float) -> float:
        """The share of ``command``, m/s and rad/s, that passes beside what moves; see ``safety.movers``."""
        return self._movers.share(command, scan_age_s)

    def sent(self, command: Pair) -> None:
        """Say what was sent last, m/s and rad/s, where it is not what the last ruling said."""
        self._last_command, self._gain_mps2 = command, 0.0

    def _time(self, reason: Reason, now_ns: int) -> None:
        """Disarm once a fault that disarms has lasted."""
        if reason is Reason.CLEAR or reason not in DISARMING:
            self._fault_since_ns = None
        elif self._fault_since_ns is None:
            self._fault_since_ns = now_ns
        elif now_ns - self._fault_since_ns > self._config.disarm_after_s * NS:
            self.armed = False

    def _fault(self, inputs: Inputs, elapsed_s: float) -> Reason:
        """The most serious reason not to drive, the first of equals; CLEAR when there is none."""
        board, velocity, hold = self._board, inputs.velocity, self.stop_requested or not self.armed
        scan = self._scan_fault(inputs)
        odometry = self._odometry_fault(inputs)
        self._sees = scan is None and odometry is None
        if scan is None:
            known = velocity is not None and odometry is None
            scan = board.scan(inputs, self.armed, velocity if known and velocity is not None else STAND)
        motion: list[Reason] = []
        if odometry is None and velocity is not None:
            odometry = board.odometry(inputs, self.armed)
            motion = board.motion(velocity, self._last_command, elapsed_s, hold)
        if board.tilted(inputs.tilt_rad):
            motion.append(Reason.TILTED)
        found = [scan or odometry or Reason.CLEAR, *motion]
        if self.stop_requested:
            found.append(Reason.STOP_REQUESTED)
        if inputs.command is None:
            found.append(Reason.COMMAND_MISSING)
        elif not (math.isfinite(inputs.command[0]) and math.isfinite(inputs.command[1])):
            found.append(Reason.COMMAND_NOT_FINITE)
        return found[0] if len(found) == 1 else max(found, key=REACTION.__getitem__)

    def _reckon(self, inputs: Inputs, elapsed_s: float) -> None:
        """Take the movers on to this tick; without sensors, or after a gap, what is known of them is nothing."""
        if not self._sees or inputs.velocity is None or elapsed_s > GAP_MAX_S:
            self._movers.forget()
        else:
            self._movers.advance(elapsed_s, inputs.velocity)

    def _scan_fault(self, inputs: Inputs) -> Reason | None:
        ranges = inputs.ranges_m
        if ranges is None:
            return Reason.SCAN_MISSING
        age_ns = inputs.now_ns - inputs.scan_ns
        if age_ns > self._config.scan_stale_max_s * NS:
            return Reason.SCAN_STALE
        if age_ns < -self._config.future_max_s * NS:
            return Reason.SCAN_FROM_FUTURE
        if ranges.shape != (self.model.lidar.rays,):
            return Reason.SCAN_WRONG_SHAPE
        self._cleaner.clean(ranges, inputs.scan_ns)
        if self._cleaner.invalid > self._config.invalid_fraction_max * ranges.size:
            return Reason.SCAN_INVALID
        return None

    def _odometry_fault(self, inputs: Inputs) -> Reason | None:
        if inputs.velocity is None:
            return Reason.ODOMETRY_MISSING
        age_ns = inputs.now_ns - inputs.odometry_ns
        if age_ns > self._config.odometry_stale_max_s * NS:
            return Reason.ODOMETRY_STALE
        if age_ns < -self._config.future_max_s * NS:
            return Reason.ODOMETRY_FROM_FUTURE
        if not (math.isfinite(inputs.velocity[0]) and math.isfinite(inputs.velocity[1])):
            return Reason.ODOMETRY_NOT_FINITE
        return None

    def _admit(self, inputs: Inputs, elapsed_s: float) -> Ruling:
        assert inputs.ranges_m is not None
        assert inputs.command is not None
        assert inputs.velocity is not None
        command, reason = self._within_limits(inputs.command, elapsed_s)
        age_s = max(0, inputs.now_ns - inputs.scan_ns) / NS
        clean = self._cleaner.clean(inputs.ranges_m, inputs.scan_ns)
        self._admission.see(clean)
        speed, turn_rate, free_m = self._admission.admit(command, inputs.velocity, age_s)
        admitted = (speed, turn_rate)
        if speed != 0.0 and abs(turn_rate - inputs.velocity[1]) > self._watch.turn_over_radps:
            admitted = self._admission.between(admitted, inputs.velocity[1], age_s)
        if _reduced(command, admitted):
            blind = self._blinded(clean, command, inputs.velocity, age_s)
            reason = Reason.BLIND_SECTOR if blind else Reason.OBSTACLE_AHEAD
        if (share := self.share_beside_movers(admitted, age_s)) < 1.0:
            speed, turn_rate = admitted
            admitted = (speed * share, turn_rate * share if share > 0.0 else turn_rate)
            reason = Reason.MOVING_OBSTACLE
        admitted = self._rolled_out(admitted, inputs.velocity, age_s)
        if self._fields.any:
            self._look_into_fields(clean, inputs.scan_ns)
            admitted, field = self._fields.limit(admitted)
            reason = field or reason
        if inputs.pose is not None:
            age_s = max(0, inputs.now_ns - inputs.odometry_ns) / NS
            admitted, zone = self._zones.limit(admitted, inputs.velocity, inputs.pose, age_s)
            reason = zone or reason
        verdict = Verdict.PASS if reason is Reason.CLEAR else Verdict.LIMIT
        return Ruling(admitted, verdict, reason, free_m)

    def _rolled_out(self, admitted: Pair, velocity: Pair, age_s: float) -> Pair:
        """A command to turn on the spot, to a base that still rolls: the turn bends the way on which it brakes.

        It turns as asked where it can brake on that arc as well. Else as it turns now or not at all, if that leaves it
        more room, or as much.
        """
        rolls, wanted = velocity[0], admitted[1]
        if admitted[0] != 0.0 or wanted == 0.0 or abs(rolls) <= ROLLING_MPS:
            return admitted
        turn_rate, most = wanted, -1.0
        present = (
            math.copysign(min(abs(wanted), abs(velocity[1])), wanted) if wanted * velocity[1] > 0.0 else 0.0
        )
        for asked in (wanted, present, 0.0):
            if (room := self._room((rolls, asked), age_s)) >= most:
                turn_rate, most = asked, room
            if most >= 1.0:
                break
        return 0.0, turn_rate

    def _room(self, motion: Pair, age_s: float) -> float:
        """The share of ``motion``, m/s and rad/s, at which a base on that arc can still brake for all that is there."""
        return min(self._admission.room(motion, age_s), self.share_beside_movers(motion, age_s))

    def _look_into_fields(self, clean: npt.NDArray[np.float32], scan_ns: int) -> None:
        """Let the fields see each scan once; invalid rays are in none: for blind sectors the admission stops."""
        if scan_ns == self._field_scan_ns:
            return
        self._field_scan_ns = scan_ns
        self._fields.see(clean, clean > self.model.lidar.range_min_m + BLIND_M)

    def _blinded(self, clean: npt.NDArray[np.float32], command: Pair, velocity: Pair, age_s: float) -> bool:
        """Whether the command would pass if blind sectors were clear."""
        if self._cleaner.invalid < self._blind_rays:
            return False
        blind = self._cleaner.blind(self._blind_rays)
        if not blind.any():
            return False
        self._admission.see(np.where(blind, self._cleaner.range_max_m, clean))
        return not _reduced(command, self._admission.admit(command, velocity, age_s)[:2])

    def _within_limits(self, wanted: Pair, elapsed_s: float) -> tuple[Pair, Reason]:
        """Clip to the robot's speed and turn limits, then to its acceleration since the last tick.

        Acceleration itself may only grow as jerk allows, from what it was or from none.
        """
        model = self.model
        speed = min(max(wanted[0], -model.reverse_max_mps), model.speed_max_mps)
        turn = min(max(wanted[1], -model.turn_rate_max_radps), model.turn_rate_max_radps)
        gain_mps2 = self._gain_mps2 + self._watch.jerk_max_mps3 * elapsed_s
        slow = _ramped(speed, self._last_command[0], min(model.acceleration_max_mps2, gain_mps2) * elapsed_s)
        turn_slow = _ramped(turn, self._last_command[1], model.turn_acceleration_max_radps2 * elapsed_s)
        if abs(speed - wanted[0]) > ROUNDING or abs(turn - wanted[1]) > ROUNDING:
            return (slow, turn_slow), Reason.COMMAND_OUT_OF_LIMITS
        ramped = slow != speed or turn_slow != turn
        return (slow, turn_slow), Reason.ACCELERATION_LIMITED if ramped else Reason.CLEAR


def _reduced(wanted: Pair, admitted: Pair) -> bool:
    return abs(admitted[0]) < abs(wanted[0]) - CHANGE_MIN or abs(admitted[1]) < abs(wanted[1]) - CHANGE_MIN


def _ramped(wanted: float, last: float, step: float) -> float:
    """``wanted`` where its size grows by at most ``step`` since ``last``; slowing down is always allowed."""
    if wanted * last < 0.0:
        return max(-step, min(step, wanted))
    allowed = abs(last) + step
    return math.copysign(min(abs(wanted), allowed), wanted)
