"""The monitor of one robot: runs every tick, whether or not a command arrives, and has the last word.

Pure: time comes in as an argument. Faults are ordered; the most restrictive wins. A data fault stops the robot
in the same tick, and disarms it when it lasts. An emergency stop is latched until it is reset by a person.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import Reason, Verdict
from contracts.robot import RobotModel
from safety.admission import admit
from safety.config import MonitorConfig

NS = 1_000_000_000
CHANGE_MIN = 1e-9


class Inputs(msgspec.Struct):
    """What the robot knows in one tick. ``None`` means it never arrived. Times are monotonic ns."""

    now_ns: int
    ranges_m: npt.NDArray[np.float32] | None = None
    """float32[rays] as the lidar sent them: inf = nothing in range, NaN or negative = invalid."""
    scan_ns: int = 0
    velocity: tuple[float, float] | None = None
    """Measured speed in m/s and turn rate in rad/s."""
    odometry_ns: int = 0
    command: tuple[float, float] | None = None
    """What the policy or controller wants: speed in m/s, turn rate in rad/s."""


class Ruling(msgspec.Struct):
    """What the robot may do in this tick."""

    command: tuple[float, float]
    verdict: Verdict
    reason: Reason
    clearance_m: float


class SafetyMonitor:
    """Last word over one robot's command. Not thread-safe: the control thread owns it.

    Args:
        model: the robot's shape, limits and lidar.
        config: checked settings.

    Raises:
        MonitorConfigError: a setting is zero, negative or not finite.
    """

    def __init__(self, model: RobotModel, config: MonitorConfig | None = None) -> None:
        self.model = model
        self.config = (config or MonitorConfig()).check()
        lidar = model.lidar
        angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
        self._cos, self._sin = np.cos(angles), np.sin(angles)
        self._clean = np.empty(lidar.rays, dtype=np.float32)
        self.armed = False
        self.emergency = False
        self.stop_requested = False
        self._fault_since_ns: int | None = None
        self._last_command = (0.0, 0.0)
        self._last_ns: int | None = None

    def arm(self) -> str:
        """Allow motion; returns "" or the reason why not."""
        if self.emergency:
            return "the emergency stop is latched; reset it first"
        if self._fault_since_ns is not None:
            return "a sensor fault is present; see the safety status"
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

    def clean_ranges(self, ranges_m: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Ranges as encoder and admission want them: finite, within the lidar's limits. Reused buffer.

        Nothing in range is the maximum. A lone invalid ray takes its nearer neighbour: it can hide no more than
        the gap between two good ones. Several side by side can hide anything: they become the minimum, and
        block motion towards them.
        """
        lidar, clean = self.model.lidar, self._clean
        np.minimum(ranges_m, np.float32(lidar.range_max_m), out=clean)
        invalid = ~(ranges_m >= lidar.range_min_m)
        if invalid.any():
            clean[invalid] = 0.0
            nearer = np.minimum(np.roll(clean, 1), np.roll(clean, -1))
            clean[invalid] = np.maximum(nearer[invalid], np.float32(lidar.range_min_m))
        return clean

    def step(self, inputs: Inputs) -> Ruling:
        """Rule over one tick. Never raises on bad data: it stops."""
        verdict, reason = self._fault(inputs)
        data_fault = verdict is Verdict.STOP and reason is not Reason.STOP_REQUESTED
        if data_fault and reason not in (Reason.COMMAND_MISSING, Reason.NO_GOAL):
            if self._fault_since_ns is None:
                self._fault_since_ns = inputs.now_ns
            elif inputs.now_ns - self._fault_since_ns > self.config.disarm_after_s * NS:
                self.armed = False
        else:
            self._fault_since_ns = None
        if self.emergency:
            verdict, reason = Verdict.EMERGENCY_STOP, Reason.EMERGENCY_STOP_LATCHED
        elif not self.armed:
            verdict = Verdict.DISARM
            reason = reason if data_fault else Reason.NOT_ARMED
        if verdict is Verdict.PASS:
            return self._admit(inputs)
        return self._remember(inputs, Ruling((0.0, 0.0), verdict, reason, 0.0))

    def _fault(self, inputs: Inputs) -> tuple[Verdict, Reason]:
        """The first reason to stop, most serious first; PASS when there is none."""
        reason = self._scan_fault(inputs) or self._odometry_fault(inputs)
        if reason is None and self.stop_requested:
            reason = Reason.STOP_REQUESTED
        if reason is None:
            if inputs.command is None:
                reason = Reason.COMMAND_MISSING
            elif not (math.isfinite(inputs.command[0]) and math.isfinite(inputs.command[1])):
                reason = Reason.COMMAND_NOT_FINITE
        return (Verdict.PASS, Reason.CLEAR) if reason is None else (Verdict.STOP, reason)

    def _scan_fault(self, inputs: Inputs) -> Reason | None:
        ranges = inputs.ranges_m
        if ranges is None:
            return Reason.SCAN_MISSING
        age_ns = inputs.now_ns - inputs.scan_ns
        if age_ns > self.config.scan_stale_max_s * NS:
            return Reason.SCAN_STALE
        if age_ns < -self.config.future_max_s * NS:
            return Reason.SCAN_FROM_FUTURE
        if ranges.shape != self._clean.shape:
            return Reason.SCAN_WRONG_SHAPE
        invalid = ranges.size - int(np.count_nonzero(ranges >= self.model.lidar.range_min_m))
        if invalid > self.config.invalid_fraction_max * ranges.size:
            return Reason.SCAN_INVALID
        return None

    def _odometry_fault(self, inputs: Inputs) -> Reason | None:
        if inputs.velocity is None:
            return Reason.ODOMETRY_MISSING
        age_ns = inputs.now_ns - inputs.odometry_ns
        if age_ns > self.config.odometry_stale_max_s * NS or age_ns < -self.config.future_max_s * NS:
            return Reason.ODOMETRY_STALE
        if not (math.isfinite(inputs.velocity[0]) and math.isfinite(inputs.velocity[1])):
            return Reason.ODOMETRY_NOT_FINITE
        return None

    def _admit(self, inputs: Inputs) -> Ruling:
        assert inputs.ranges_m is not None
        assert inputs.command is not None
        assert inputs.velocity is not None
        wanted = inputs.command
        command, reason = self._within_limits(wanted, inputs.now_ns)
        ranges = self.clean_ranges(inputs.ranges_m).astype(np.float64)
        admitted, free_m = admit(
            self.config,
            self.model,
            ranges * self._cos,
            ranges * self._sin,
            np.array(command),
            np.array(inputs.velocity),
            np.array(max(0, inputs.now_ns - inputs.scan_ns) / NS),
        )
        final = (float(admitted[0]), float(admitted[1]))
        if abs(final[0]) < abs(command[0]) - CHANGE_MIN or abs(final[1]) < abs(command[1]) - CHANGE_MIN:
            reason = Reason.OBSTACLE_AHEAD
        verdict = Verdict.PASS if reason is Reason.CLEAR else Verdict.LIMIT
        return self._remember(inputs, Ruling(final, verdict, reason, float(free_m)))

    def _within_limits(self, wanted: tuple[float, float], now_ns: int) -> tuple[tuple[float, float], Reason]:
        """Clip to the robot's speed and turn limits, then to its acceleration since the last tick."""
        model = self.model
        speed = min(max(wanted[0], -model.reverse_max_mps), model.speed_max_mps)
        turn = min(max(wanted[1], -model.turn_rate_max_radps), model.turn_rate_max_radps)
        beyond = abs(speed - wanted[0]) > CHANGE_MIN or abs(turn - wanted[1]) > CHANGE_MIN
        elapsed_s = 0.0 if self._last_ns is None else min(max(now_ns - self._last_ns, 0) / NS, 0.2)
        slow = _ramped(speed, self._last_command[0], model.acceleration_max_mps2 * elapsed_s)
        turn_slow = _ramped(turn, self._last_command[1], model.turn_acceleration_max_radps2 * elapsed_s)
        ramped = slow != speed or turn_slow != turn
        reason = (
            Reason.COMMAND_OUT_OF_LIMITS
            if beyond
            else Reason.ACCELERATION_LIMITED
            if ramped
            else Reason.CLEAR
        )
        return (slow, turn_slow), reason

    def _remember(self, inputs: Inputs, ruling: Ruling) -> Ruling:
        self._last_command, self._last_ns = ruling.command, inputs.now_ns
        return ruling


def _ramped(wanted: float, last: float, step: float) -> float:
    """``wanted`` where its size grows by at most ``step`` since ``last``; slowing down is always allowed."""
    if wanted * last < 0.0:
        return max(-step, min(step, wanted))
    allowed = abs(last) + step
    return math.copysign(min(abs(wanted), allowed), wanted)
