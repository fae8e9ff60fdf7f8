"""The published rules of Nav2's collision_monitor, as a reference: what robots drive behind today.

Source: https://docs.nav2.org/configuration/packages/configuring-collision-monitor.html, the package's
``params/collision_monitor_params.yaml`` and ``CollisionMonitor::process``. The zones of that file (stop, slow down,
limit, approach) are all switched on, and made larger by as much as this robot's radius exceeds the 0.22 m that Nav2's
default parameters give theirs; the approach footprint is the true one. Kind to it: where a command that is not finite
comes, Nav2 sends nothing; here the robot stops at once, as a base with a watchdog of its own would later.
"""

import numpy as np
import numpy.typing as npt

from benchmarks._adversary.guards import Flags, Floats, Senses
from contracts.robot import RobotModel

Points = npt.NDArray[np.float64]
NAV2_RADIUS_M = 0.22
STOP_M = (0.0, 0.3, 0.3)
"""Rearmost and foremost x, half width."""
SLOW_M = (-0.4, 0.4, 0.4)
LIMIT_M = (-0.5, 0.5, 0.5)
ZONE_POINTS_MIN = 4
SLOWDOWN_RATIO = 0.3
LINEAR_LIMIT_MPS, ANGULAR_LIMIT_RADPS = 0.4, 0.5
FAST = 1e3
"""Nothing drives faster; keeps the arithmetic finite."""
TIME_BEFORE_COLLISION_S, SIMULATION_STEP_S, APPROACH_POINTS_MIN = 2.0, 0.1, 6


class Nav2Rules:
    """The zones over a batch of robots; the most restrictive action wins."""

    name = "nav2"

    def __init__(self, model: RobotModel) -> None:
        self._model = model
        angles = model.lidar.angle_min_rad + np.arange(model.lidar.rays) * model.lidar.angle_step_rad
        self._cos, self._sin = np.cos(angles), np.sin(angles)

    def begin(self, which: Flags) -> None:
        """It remembers nothing."""
        del which

    def admit(self, senses: Senses, command: Floats) -> Floats:
        """See ``Guard``."""
        ranges = senses.ranges_m.astype(np.float64)
        lidar = self._model.lidar
        ranges = np.where((ranges >= lidar.range_min_m) & (ranges <= lidar.range_max_m), ranges, np.nan)
        x, y = ranges * self._cos, ranges * self._sin
        wanted = np.where(np.isfinite(command).all(-1, keepdims=True), command, 0.0)
        wanted = np.clip(wanted, -FAST, FAST)
        ratio = np.where(self._inside(x, y, SLOW_M), SLOWDOWN_RATIO, 1.0)
        ratio = np.where(self._inside(x, y, LIMIT_M), np.minimum(ratio, _limit_ratio(wanted)), ratio)
        ratio = np.minimum(ratio, self._approach_ratio(x, y, wanted))
        ratio = np.where(self._inside(x, y, STOP_M), 0.0, ratio)
        return wanted * ratio[:, None]

    def _inside(self, x: Points, y: Points, zone_m: tuple[float, float, float]) -> Flags:
        rear, front, half = (edge * self._model.footprint_radius_m / NAV2_RADIUS_M for edge in zone_m)
        inside: Flags = ((x > rear) & (x < front) & (np.abs(y) < half)).sum(-1) >= ZONE_POINTS_MIN
        return inside

    def _approach_ratio(self, x: Points, y: Points, wanted: Floats) -> Floats:
        """Share of ``wanted`` that leaves ``TIME_BEFORE_COLLISION_S`` until the footprint touches."""
        ratio = np.ones(len(wanted))
        at_x, at_y, heading = np.zeros(len(wanted)), np.zeros(len(wanted)), np.zeros(len(wanted))
        reach = self._model.footprint_radius_m
        steps = round(TIME_BEFORE_COLLISION_S / SIMULATION_STEP_S) + 1
        for step in range(steps):
            at_x += wanted[:, 0] * np.cos(heading) * SIMULATION_STEP_S
            at_y += wanted[:, 0] * np.sin(heading) * SIMULATION_STEP_S
            heading += wanted[:, 1] * SIMULATION_STEP_S
            near = (x - at_x[:, None]) ** 2 + (y - at_y[:, None]) ** 2 < reach * reach
            hit = near.sum(-1) >= APPROACH_POINTS_MIN
            ratio = np.where(hit, np.minimum(ratio, step / (steps - 1)), ratio)
        return ratio


def _limit_ratio(wanted: Floats) -> Floats:
    speed, turn = np.maximum(np.abs(wanted), 1e-9).T
    ratio: Floats = np.minimum(1.0, np.minimum(LINEAR_LIMIT_MPS / speed, ANGULAR_LIMIT_RADPS / turn))
    return ratio
