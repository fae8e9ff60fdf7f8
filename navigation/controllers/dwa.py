"""Dynamic window approach along a route (Fox, Burgard, Thrun 1997), vectorised over candidates.

Each tick it samples speeds and turn rates the robot can reach, rolls each out as an arc among what the lidar
sees, moved on as it moves, and takes the one with the best sum of progress towards a point ahead on the
route, clearance and speed. ``closing_speeds`` and ``choose`` run in numpy as they stand and compile as they
stand (numba), so that robots and searches drive with the same text.
"""

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.observation import BEAMS
from contracts.robot import RobotModel
from navigation.controllers.recovery import MEMORY, recover
from navigation.controllers.sight import over_blind_sectors

INTERVAL_S = 0.1
"""Between the two scans of an observation (``contracts.observation.ObservationLayout.history_interval_s``)."""
CLOSING_MIN_MPS = 0.2
"""Slower is taken as noise of the lidar."""
CLOSING_MAX_MPS = 2.5
"""Faster is no person or robot but another thing that came into sight."""


class DwaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the controller; weights are per metre, per metre and per m/s."""

    speeds: int = 7
    turn_rates: int = 15
    window_s: float = 0.4
    horizon_s: float = 1.1
    arc_points: int = 8
    target_m: float = 1.5
    """How far ahead on the route the point lies that it drives to; between the nearest and farthest carrot."""
    weight_progress: float = 1.0
    weight_turn: float = 0.25
    """Per radian that the arc's end looks past the point ahead."""
    weight_clearance: float = 0.35
    weight_speed: float = 0.5
    clearance_enough_m: float = 0.35
    clearance_min_m: float = 0.10
    closing_for_s: float = 0.8
    """How far ahead in time what approaches is moved on."""
    keep_right_m: float = 0.3
    """How far to the right of the route it aims while something approaches from ahead."""
    keep_right_s: float = 2.0
    slow_within_m: float = 1.0
    stuck_after_s: float = 1.2
    """Standing this long, or up to twice as long, short of the goal starts a recovery: back off, turning right."""
    recovery_s: float = 1.5
    recovery_speed_mps: float = -0.25
    recovery_turn_radps: float = -0.7


class DwaNumbers(NamedTuple):
    """What ``choose`` computes with: the config's numbers, the robot's and the candidates' grid."""

    window_s: float
    horizon_s: float
    target_m: float
    weight_progress: float
    weight_turn: float
    weight_clearance: float
    weight_speed: float
    clearance_enough_m: float
    clearance_min_m: float
    closing_for_s: float
    keep_right_m: float
    keep_right_s: float
    slow_within_m: float
    radius_m: float
    speed_max_mps: float
    turn_rate_max_radps: float
    acceleration_mps2: float
    braking_mps2: float
    turn_acceleration_radps2: float
    tick_s: float
    cosines: Any
    """float64[36], of the beams' directions in the base frame."""
    sines: Any
    times_s: Any
    """float64[points, 1] along an arc."""
    speed_share: Any
    """float64[candidates] in [0, 1], where in the window each candidate lies."""
    turn_share: Any


def dwa_numbers(config: DwaConfig, model: RobotModel, tick_s: float) -> DwaNumbers:
    """The numbers of ``choose`` for one robot model and tick."""
    cosines, sines = beam_directions(model)
    speed_share, turn_share = np.meshgrid(
        np.linspace(0.0, 1.0, config.speeds), np.linspace(0.0, 1.0, config.turn_rates), indexing="ij"
    )
    named = {name: getattr(config, name) for name in DwaNumbers._fields if name in config.__struct_fields__}
    return DwaNumbers(
        **named,
        radius_m=model.footprint_radius_m,
        speed_max_mps=model.speed_max_mps,
        turn_rate_max_radps=model.turn_rate_max_radps,
        acceleration_mps2=model.acceleration_max_mps2,
        braking_mps2=model.braking_mps2,
        turn_acceleration_radps2=model.turn_acceleration_max_radps2,
        tick_s=tick_s,
        cosines=cosines,
        sines=sines,
        times_s=np.arange(1, config.arc_points + 1)[:, None] / config.arc_points * config.horizon_s,
        speed_share=speed_share.reshape(-1),
        turn_share=turn_share.reshape(-1),
    )


def beam_directions(model: RobotModel) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosines and sines float64[36] of the middles of the beams' sectors, base frame."""
    angles = (np.arange(BEAMS) + 0.5) * (2 * math.pi / BEAMS) + model.lidar.angle_min_rad
    angles -= 0.5 * model.lidar.angle_step_rad
    return np.cos(angles), np.sin(angles)


def closing_speeds(observation: Any, cosines: Any) -> Any:
    """How fast what each beam sees comes nearer by itself, float64[36] m/s in [0, 2.5]; from two scans.

    The least of a sector and its neighbours 0.1 s ago, less the robot's own way, is where a thing at rest is
    expected: turning and passing along walls therefore count as no approach.
    """
    before = observation[36:72].astype(np.float64)
    ring = np.concatenate((before[-1:], before, before[:1]))
    least = np.minimum(np.minimum(ring[:-2], ring[1:-1]), ring[2:])
    moved = (least - observation[:36]) / INTERVAL_S - observation[81] * cosines
    return np.where(moved > CLOSING_MIN_MPS, np.minimum(moved, CLOSING_MAX_MPS), 0.0)


def choose(observation: Any, closing: Any, s: Any, memory: Any, out: Any) -> None:
    """Write the best command float64[2] (m/s, rad/s) into ``out``.

    Args:
        observation: float32[83].
        closing: float64[36] from ``closing_speeds``.
        s: ``DwaNumbers``.
        memory: float64[3]; the third value is written, see ``navigation.controllers.recovery.MEMORY``.
        out: float64[2].
    """
    speed, turn_rate = float(observation[81]), float(observation[82])
    goal_m = math.sqrt(float(observation[78]) ** 2 + float(observation[79]) ** 2)
    # The point ahead: between two carrots, or on the way to the first.
    if s.target_m <= 1.5:
        share, near, far = (s.target_m - 0.6) / 0.9, 72, 74
    else:
        share, near, far = (s.target_m - 1.5) / 1.5, 74, 76
    target_x = float(observation[near]) + share * (float(observation[far]) - float(observation[near]))
    target_y = float(observation[near + 1]) + share * (
        float(observation[far + 1]) - float(observation[near + 1])
    )
    memory[2] = max(memory[2] - s.tick_s, 0.0)
    for beam in range(36):
        if closing[beam] > 0.3 and s.cosines[beam] > 0.8 and observation[beam] < 3.5:
            memory[2] = s.keep_right_s
    target_m = math.sqrt(target_x * target_x + target_y * target_y)
    if memory[2] > 0.0 and target_m > 0.3 and goal_m > 1.0:
        aside = s.keep_right_m / target_m
        target_x, target_y = target_x + aside * target_y, target_y - aside * target_x

    top = s.speed_max_mps * min(1.0, max(goal_m, 0.15) / s.slow_within_m)
    slowest = max(0.0, min(speed - s.braking_mps2 * s.window_s, top))
    fastest = min(top, max(speed, 0.0) + s.acceleration_mps2 * s.window_s)
    reach = s.turn_acceleration_radps2 * s.window_s
    right = max(-s.turn_rate_max_radps, turn_rate - reach)
    left = min(s.turn_rate_max_radps, turn_rate + reach)
    v = slowest + s.speed_share * (fastest - slowest)
    w = right + s.turn_share * (left - right)

    # Positions float64[points, candidates] in the base frame: chords of the arcs.
    half = 0.5 * w * s.times_s
    tiny = np.abs(half) < 1e-6
    chord = v * s.times_s * np.where(tiny, 1.0, np.sin(half) / np.where(tiny, 1.0, half))
    x, y = chord * np.cos(half), chord * np.sin(half)
    squared = np.full(x.shape, (s.radius_m + s.clearance_enough_m) ** 2)
    moving_s = np.minimum(s.times_s, s.closing_for_s)
    reach_m = s.radius_m + s.clearance_enough_m + fastest * s.horizon_s
    now_m = 8.0
    for beam in range(36):
        now_m = min(now_m, float(observation[beam]) - s.radius_m)
        if observation[beam] < reach_m + closing[beam] * s.closing_for_s:
            gap = np.maximum(float(observation[beam]) - closing[beam] * moving_s, 0.0)
            dx, dy = x - gap * s.cosines[beam], y - gap * s.sines[beam]
            squared = np.minimum(squared, dx * dx + dy * dy)
    missed = (x - target_x) ** 2 + (y - target_y) ** 2
    least, nearest = squared[0], missed[0]
    for point in range(1, squared.shape[0]):
        least, nearest = np.minimum(least, squared[point]), np.minimum(nearest, missed[point])
    clearance = np.sqrt(least) - s.radius_m
    facing = np.arctan2(target_y - y[-1], target_x - x[-1]) - w * s.horizon_s
    score = (
        s.weight_clearance * clearance
        + s.weight_speed * v
        - s.weight_progress * np.sqrt(nearest)
        - s.weight_turn * np.abs(np.arctan2(np.sin(facing), np.cos(facing)))
    )
    # Nearer to something than the least clearance already, arcs that do not get nearer still are free.
    score = np.where(clearance < min(s.clearance_min_m, now_m - 0.01), -1e9, score)
    best = int(np.argmax(score))
    if score[best] > -1e8:
        out[0] = v[best]
        out[1] = w[best]
    else:
        # Hemmed in: face the way on and wait.
        out[0] = 0.0
        out[1] = min(max(2.0 * math.atan2(target_y, target_x), -0.8), 0.8)


class DwaController:
    """Follows one robot's route around what its lidar sees; remembers only how long it has been stuck.

    Args:
        model: the robot.
        tick_s: time between two calls of ``command``, s.
        config: settings.
    """

    def __init__(self, model: RobotModel, tick_s: float = 0.1, config: DwaConfig | None = None) -> None:
        self.model = model
        self.tick_s = tick_s
        self.config = config or DwaConfig()
        self._numbers = dwa_numbers(self.config, model, tick_s)
        self._memory = [0.0] * MEMORY
        self._out = [0.0, 0.0]

    def command(self, observation: npt.NDArray[np.float32]) -> tuple[float, float]:
        """The command for one observation float32[83] (``contracts.observation.ROUTING_LAYOUT``).

        Returns:
            Speed in m/s and turn rate in rad/s, within the robot's limits.
        """
        config, out = self.config, self._out
        observation = over_blind_sectors(observation, self.model)
        recovering = recover(
            observation,
            config.stuck_after_s,
            config.recovery_s,
            config.recovery_speed_mps,
            config.recovery_turn_radps,
            self.tick_s,
            self._memory,
            out,
        )
        if not recovering:
            closing = closing_speeds(observation, self._numbers.cosines)
            choose(observation, closing, self._numbers, self._memory, out)
        return float(out[0]), float(out[1])
