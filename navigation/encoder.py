"""The observation encoder: what a policy sees, the same in the twin, in PyBullet and on the robot.

``pool_beams`` and ``encode_tail`` are written so that numpy runs them as they stand and ``sim`` can compile
the very same text; nothing of the encoding exists twice.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.errors import ObservationContractError
from contracts.observation import BEAMS, CARROT_DISTANCES_M, OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.robot import RobotModel
from navigation.route import Route

CARROTS = len(CARROT_DISTANCES_M)
TAIL = 2 * BEAMS
"""Index of the first value after the beams."""


def pool_beams(
    ranges: Any,
    rays_per_beam: int,
    beams: Any,
) -> None:
    """Nearest range of each sector: float32[rays] -> ``beams`` float32[36], both in m.

    ``ranges`` must be clean: finite, 0 for an invalid ray, the maximum where nothing is seen.
    """
    beams[:] = ranges[0::rays_per_beam]
    for ray in range(1, rays_per_beam):
        beams[:] = np.minimum(beams, ranges[ray::rays_per_beam])


def encode_tail(
    out: Any,
    x_m: float,
    y_m: float,
    heading_rad: float,
    speed: float,
    turn_rate: float,
    goal_x_m: float,
    goal_y_m: float,
    points: Any,
    left_m: float,
) -> None:
    """Write carrots, goal, route cost, speed and turn rate into ``out`` float32[83] behind the beams.

    ``points`` float64[6] are the carrots (x and y in turn, map frame, m); all values are clipped to the
    ranges of ``contracts.observation.ROUTING_LAYOUT``.
    """
    cosine, sine = math.cos(heading_rad), math.sin(heading_rad)
    for k in range(3):
        dx, dy = points[2 * k] - x_m, points[2 * k + 1] - y_m
        out[72 + 2 * k] = min(max(cosine * dx + sine * dy, -3.0), 3.0)
        out[73 + 2 * k] = min(max(cosine * dy - sine * dx, -3.0), 3.0)
    dx, dy = goal_x_m - x_m, goal_y_m - y_m
    out[78] = min(max(cosine * dx + sine * dy, -20.0), 20.0)
    out[79] = min(max(cosine * dy - sine * dx, -20.0), 20.0)
    out[80] = min(left_m, 60.0)
    out[81] = min(max(speed, -2.0), 2.0)
    out[82] = min(max(turn_rate, -4.0), 4.0)


class ObservationEncoder:
    """Encodes one robot's observations tick by tick; keeps the beams of one history interval ago.

    Args:
        model: the robot; its lidar must have a multiple of 36 rays.
        tick_s: time between two calls of ``encode``, s; divides the layout's history interval.

    Raises:
        ObservationContractError: the lidar or the tick does not fit the layout.
    """

    def __init__(self, model: RobotModel, tick_s: float) -> None:
        if model.lidar.rays % BEAMS:
            raise ObservationContractError(
                f"lidar has {model.lidar.rays} rays; the layout needs a multiple of {BEAMS}; resample the scan"
            )
        ticks = ROUTING_LAYOUT.history_interval_s / tick_s
        if abs(ticks - round(ticks)) > 1e-6 or round(ticks) < 1:
            raise ObservationContractError(
                f"a tick of {tick_s} s does not divide the history interval of"
                f" {ROUTING_LAYOUT.history_interval_s} s; use a rate that is a multiple of 10 Hz"
            )
        self._rays_per_beam = model.lidar.rays // BEAMS
        self._history = np.empty((round(ticks) + 1, BEAMS), dtype=np.float32)
        self._newest = 0
        self._filled = False
        self._points = [0.0] * (2 * CARROTS)
        self.observation = np.zeros(OBSERVATION_SIZE, dtype=np.float32)
        self.carrots_map: list[float] = self._points

    def reset(self) -> None:
        """Forget the history, as at the start of an episode."""
        self._filled = False

    def encode(
        self,
        ranges_m: npt.NDArray[np.float32],
        pose: tuple[float, float, float],
        velocity: tuple[float, float],
        route: Route,
    ) -> npt.NDArray[np.float32]:
        """Encode one tick; returns ``self.observation`` float32[83], overwritten by the next call.

        Args:
            ranges_m: clean ranges float32[rays], base frame.
            pose: x, y in m and heading in rad, map frame.
            velocity: measured speed in m/s and turn rate in rad/s.
            route: to the goal.
        """
        self._newest = (self._newest + 1) % len(self._history)
        now = self._history[self._newest]
        pool_beams(ranges_m, self._rays_per_beam, now)
        if not self._filled:
            self._history[:] = now
            self._filled = True
        self.observation[:BEAMS] = now
        self.observation[BEAMS:TAIL] = self._history[(self._newest + 1) % len(self._history)]
        x_m, y_m, heading_rad = pose
        left_m = route.ahead(x_m, y_m, CARROT_DISTANCES_M, self._points)
        encode_tail(self.observation, x_m, y_m, heading_rad, *velocity, *route.goal_m, self._points, left_m)
        return self.observation
