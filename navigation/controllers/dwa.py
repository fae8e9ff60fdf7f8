"""Dynamic window approach along a route (Fox, Burgard, Thrun 1997), vectorised over candidates.

Each tick it samples speeds and turn rates the robot can reach, rolls each out as an arc, and takes the one
with the best sum of progress towards the point ahead on the route, clearance and speed.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.observation import BEAMS
from contracts.robot import RobotModel


class DwaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the controller; weights are per metre, per metre and per m/s."""

    speeds: int = 7
    turn_rates: int = 15
    window_s: float = 0.4
    horizon_s: float = 1.6
    arc_points: int = 8
    weight_progress: float = 1.0
    weight_clearance: float = 0.35
    weight_speed: float = 0.25
    clearance_enough_m: float = 0.6
    clearance_min_m: float = 0.10
    slow_within_m: float = 1.0
    stuck_after_s: float = 2.0
    """Standing this long short of the goal starts a recovery: back off, turning right."""
    recovery_s: float = 1.5
    recovery_speed_mps: float = -0.25
    recovery_turn_radps: float = -0.7


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
        self._stuck_s = 0.0
        self._recovering_s = 0.0
        self.config = config or DwaConfig()
        self._times = (
            np.arange(1, self.config.arc_points + 1) / self.config.arc_points
        ) * self.config.horizon_s
        angles = (np.arange(BEAMS) + 0.5) * (2 * math.pi / BEAMS) + model.lidar.angle_min_rad
        angles -= 0.5 * model.lidar.angle_step_rad
        self._cos, self._sin = np.cos(angles), np.sin(angles)

    def command(self, observation: npt.NDArray[np.float32]) -> tuple[float, float]:
        """The command for one observation float32[83] (``contracts.observation.ROUTING_LAYOUT``).

        Returns:
            Speed in m/s and turn rate in rad/s, within the robot's limits.
        """
        config, model = self.config, self.model
        beams = observation[:BEAMS].astype(np.float64)
        carrots = observation[72:78]
        goal_x, goal_y = float(observation[78]), float(observation[79])
        speed, turn_rate = float(observation[81]), float(observation[82])
        goal_m = math.hypot(goal_x, goal_y)
        if self._recover(speed, goal_m):
            return config.recovery_speed_mps, config.recovery_turn_radps
        target_x, target_y = float(carrots[2]), float(carrots[3])
        top = model.speed_max_mps * min(1.0, max(goal_m, 0.15) / config.slow_within_m)
        speeds = np.linspace(
            max(0.0, min(speed - model.braking_mps2 * config.window_s, top)),
            min(top, max(speed, 0.0) + model.acceleration_max_mps2 * config.window_s),
            config.speeds,
        )
        reach = model.turn_acceleration_max_radps2 * config.window_s
        turns = np.linspace(
            max(-model.turn_rate_max_radps, turn_rate - reach),
            min(model.turn_rate_max_radps, turn_rate + reach),
            config.turn_rates,
        )
        v, w = (grid.reshape(-1, 1) for grid in np.meshgrid(speeds, turns, indexing="ij"))
        x, y = self._arcs(v, w)
        clearance = self._clearance(x, y, beams)
        facing = np.arctan2(target_y - y[:, -1], target_x - x[:, -1]) - (w[:, 0] * config.horizon_s)
        turned_m = 0.25 * np.abs(np.arctan2(np.sin(facing), np.cos(facing)))
        nearest_m = np.hypot(x - target_x, y - target_y).min(axis=1)
        score = (
            -config.weight_progress * (nearest_m + turned_m)
            + config.weight_clearance * np.minimum(clearance, config.clearance_enough_m)
            + config.weight_speed * v[:, 0]
        )
        blocked = clearance < config.clearance_min_m
        if blocked.all():
            return 0.0, math.copysign(0.8, math.atan2(target_y, target_x))
        score[blocked] = -np.inf
        best = int(np.argmax(score))
        return float(v[best, 0]), float(w[best, 0])

    def _recover(self, speed: float, goal_m: float) -> bool:
        """Whether to back off in this tick, having stood too long; two robots nose to nose part this way."""
        if self._recovering_s > 0.0:
            self._recovering_s -= self.tick_s
            return True
        standing = abs(speed) < 0.05 and goal_m > 0.5
        self._stuck_s = self._stuck_s + self.tick_s if standing else 0.0
        if self._stuck_s > self.config.stuck_after_s:
            self._stuck_s, self._recovering_s = 0.0, self.config.recovery_s
        return self._recovering_s > 0.0

    def _arcs(
        self, v: npt.NDArray[np.float64], w: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Positions float64[candidates, arc points] in the base frame, m."""
        turned = w * self._times
        straight = np.abs(w) < 1e-6
        safe = np.where(straight, 1.0, w)
        x = np.where(straight, v * self._times, v / safe * np.sin(turned))
        y = np.where(straight, 0.0, v / safe * (1.0 - np.cos(turned)))
        return x, y

    def _clearance(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], beams: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Smallest distance in m between the footprint along each arc and any beam's end."""
        near = beams < self.model.speed_max_mps * self.config.horizon_s + 1.0
        if not near.any():
            return np.full(x.shape[0], np.inf)
        px, py = beams[near] * self._cos[near], beams[near] * self._sin[near]
        dx, dy = x[:, :, None] - px, y[:, :, None] - py
        squared: npt.NDArray[np.float64] = (dx * dx + dy * dy).min(axis=(1, 2))
        return np.sqrt(squared) - self.model.footprint_radius_m
