"""Watches over how the robot moves: against its limits, against its commands, and against its own pose."""

import math
from collections import deque

from contracts.robot import RobotModel
from safety.config import WatchConfig
from safety.watch.debounce import Debounce

Pair = tuple[float, float]
Pose = tuple[float, float, float]


def turned(angle_rad: float) -> float:
    """An angle in rad, brought into [-pi, pi]."""
    return math.remainder(angle_rad, 2.0 * math.pi)


class OverspeedWatch:
    """Measured motion beyond what the robot can be commanded to, by more than odometry's error."""

    def __init__(self, config: WatchConfig, model: RobotModel) -> None:
        most = 1.0 + config.overspeed_share
        self._forward_mps = most * model.speed_max_mps
        self._reverse_mps = most * model.reverse_max_mps + config.runaway_mps
        self._turn_radps = most * model.turn_rate_max_radps
        self._debounce = Debounce(config.overspeed_ticks, config.overspeed_clear_ticks)

    def step(self, velocity: Pair) -> bool:
        """Whether the robot is too fast."""
        within = -self._reverse_mps <= velocity[0] <= self._forward_mps
        return self._debounce.step(not within or abs(velocity[1]) > self._turn_radps)


class _Envelope:
    """The most motion, one way, that the commands so far explain: it falls no faster than the robot surely brakes."""

    def __init__(self, config: WatchConfig, braking: float, slack: float) -> None:
        self._braking = config.runaway_braking_share * braking
        self._reaction_s = config.runaway_reaction_s
        self._share, self._slack = 1.0 + config.runaway_share, slack
        self._most: float | None = None
        self._now_s = 0.0
        self._recent: deque[tuple[float, float]] = deque()
        """When and what was commanded within the reaction time: falling, the largest first."""

    def beyond(self, commanded: float, measured: float, elapsed_s: float) -> bool:
        """Whether motion is beyond it, after ``elapsed_s`` under ``commanded``; both are negative the other way."""
        recent = self._recent
        most = max(measured, 0.0) if self._most is None else self._most
        while recent and recent[-1][1] <= commanded:
            recent.pop()
        self._now_s += elapsed_s
        recent.append((self._now_s, commanded))
        while recent[0][0] < self._now_s - self._reaction_s:
            recent.popleft()
        self._most = most = max(recent[0][1], most - self._braking * elapsed_s, 0.0)
        return measured > most * self._share + self._slack


class RunawayWatch:
    """Motion that no command explains: faster than commanded, the other way, or on after the time to brake."""

    def __init__(self, config: WatchConfig, model: RobotModel) -> None:
        speed = (config, model.braking_mps2, config.runaway_mps)
        turn = (config, model.turn_acceleration_max_radps2, config.runaway_radps)
        self._forward, self._reverse = _Envelope(*speed), _Envelope(*speed)
        self._left, self._right = _Envelope(*turn), _Envelope(*turn)
        self._debounce = Debounce(config.runaway_ticks)

    def step(self, command: Pair, velocity: Pair, elapsed_s: float) -> bool:
        """Whether it runs away; ``command`` is the last one that went out."""
        beyond = self._forward.beyond(command[0], velocity[0], elapsed_s)
        beyond |= self._reverse.beyond(-command[0], -velocity[0], elapsed_s)
        beyond |= self._left.beyond(command[1], velocity[1], elapsed_s)
        beyond |= self._right.beyond(-command[1], -velocity[1], elapsed_s)
        return self._debounce.step(beyond)


class StuckWatch:
    """Commanded to move for long, and does not: held for a while, then tried again."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._tried_s = self._held_s = 0.0

    def step(self, command: Pair, velocity: Pair, elapsed_s: float) -> bool:
        """Whether it is stuck; ``command`` is the last one that went out."""
        config = self._config
        if self._tried_s >= config.stuck_after_s:
            self._held_s += elapsed_s
            if self._held_s < config.stuck_hold_s:
                return True
            self._tried_s = self._held_s = 0.0
            return False
        wanted = abs(command[0]) >= config.stuck_command_mps or abs(command[1]) >= config.stuck_command_radps
        stands = (
            abs(velocity[0]) < config.stuck_measured_mps and abs(velocity[1]) < config.stuck_measured_radps
        )
        self._tried_s = self._tried_s + elapsed_s if wanted and stands else 0.0
        return self._tried_s >= config.stuck_after_s


class PoseJumpWatch:
    """A pose farther from the last than the robot can have driven: localisation is lost, or was until now."""

    def __init__(self, config: WatchConfig, model: RobotModel) -> None:
        self._config, self._model = config, model
        self._last: Pose | None = None
        self._debounce = Debounce(1, config.pose_steady_ticks)

    def step(self, pose: Pose, elapsed_s: float) -> bool:
        """Whether the pose (map frame, finite) jumped, or did so a short while ago."""
        last, self._last = self._last or pose, pose
        config, model = self._config, self._model
        way_m = math.hypot(pose[0] - last[0], pose[1] - last[1])
        far = way_m > config.pose_jump_m + (1.0 + config.overspeed_share) * model.speed_max_mps * elapsed_s
        turn_rad = abs(turned(pose[2] - last[2]))
        most_rad = (1.0 + config.overspeed_share) * model.turn_rate_max_radps * elapsed_s
        return self._debounce.step(far or turn_rad > config.pose_jump_rad + most_rad)


class SlipWatch:
    """Odometry's way and the pose's way over a window disagree: wheels slip, or localisation drifts."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._start: Pose | None = None
        self._reckoned: Pose = (0.0, 0.0, 0.0)
        self._way_m = self._turn_rad = self._spent_s = 0.0
        self._disagrees = False

    def step(self, velocity: Pair, pose: Pose, elapsed_s: float, jumped: bool) -> bool:
        """Whether they disagree; a fault lasts until they agree for one whole window."""
        config = self._config
        if self._start is None or jumped or self._spent_s >= config.slip_window_s:
            agreed = self._start is not None and not jumped
            if agreed and not self._apart(pose):
                self._disagrees = False
            self._start = self._reckoned = pose
            self._way_m = self._turn_rad = self._spent_s = 0.0
            return self._disagrees
        x, y, heading = self._reckoned
        middle = heading + 0.5 * velocity[1] * elapsed_s
        way_m = velocity[0] * elapsed_s
        self._reckoned = (
            x + way_m * math.cos(middle),
            y + way_m * math.sin(middle),
            heading + velocity[1] * elapsed_s,
        )
        self._way_m += abs(way_m)
        self._turn_rad += abs(velocity[1] * elapsed_s)
        self._spent_s += elapsed_s
        self._disagrees |= self._apart(pose)
        return self._disagrees

    def _apart(self, pose: Pose) -> bool:
        config, reckoned = self._config, self._reckoned
        apart_m = math.hypot(pose[0] - reckoned[0], pose[1] - reckoned[1])
        apart_rad = abs(turned(pose[2] - reckoned[2]))
        return (
            apart_m > config.slip_m + config.slip_share * self._way_m
            or apart_rad > config.slip_rad + config.slip_share * self._turn_rad
        )


class TiltWatch:
    """Leaning more than a floor does: on a ramp, on an obstacle or about to fall. Not a number counts as tilted."""

    def __init__(self, config: WatchConfig) -> None:
        self._tilt_max_rad = config.tilt_max_rad
        self._debounce = Debounce(config.tilt_ticks, config.tilt_clear_ticks)

    def step(self, tilt_rad: float) -> bool:
        """Whether it leans too far."""
        return self._debounce.step(not abs(tilt_rad) <= self._tilt_max_rad)
