"""A hall with pillars and two people who walk, seen by a lidar: random ranges would all seem to move."""

import math

import numpy as np
import numpy.typing as npt

LONG_M, WIDE_M = 14.0, 10.0
NOISE_M = 0.01
PILLARS = ((3.0, 2.0, 0.3), (-3.5, 1.5, 0.4), (-2.0, -3.0, 0.25), (4.0, -2.5, 0.3))
PERSON_RADIUS_M, WALK_M, WALK_S = 0.25, 6.0, 5.0
"""Each walks 6 m up and down, 1.2 m/s."""


class Hall:
    """Centred on the origin; ``scan`` casts every ray.

    Args:
        rays: of the lidar, evenly around, the first one backwards.
        range_max_m: farther walls give inf.
    """

    def __init__(self, rays: int, range_max_m: float) -> None:
        self._angles = -math.pi + np.arange(rays) * 2.0 * math.pi / rays
        self._far_m, self._rng = range_max_m, np.random.default_rng(5)

    def scan(self, pose: tuple[float, float, float], time_s: float) -> npt.NDArray[np.float32]:
        """What is seen from ``pose`` (m, rad), float32[rays]; one ray in 1,500 without an answer."""
        x, y, heading = pose
        cosines, sines = np.cos(self._angles + heading), np.sin(self._angles + heading)
        with np.errstate(divide="ignore"):
            along = np.where(cosines > 0.0, 0.5 * LONG_M - x, -0.5 * LONG_M - x) / cosines
            across = np.where(sines > 0.0, 0.5 * WIDE_M - y, -0.5 * WIDE_M - y) / sines
        ranges = np.minimum(along, across)
        part = abs(time_s / WALK_S % 2.0 - 1.0)
        people = (
            (WALK_M * (part - 0.5), 2.4, PERSON_RADIUS_M),
            (2.6, WALK_M * (0.5 - part), PERSON_RADIUS_M),
        )
        for centre_x, centre_y, radius in (*PILLARS, *people):
            ahead = (centre_x - x) * cosines + (centre_y - y) * sines
            beside = (centre_y - y) * cosines - (centre_x - x) * sines
            hit = ahead - np.sqrt(np.maximum(radius**2 - beside**2, 0.0))
            ranges = np.where((np.abs(beside) < radius) & (ahead > 0.0), np.minimum(ranges, hit), ranges)
        ranges += self._rng.normal(0.0, NOISE_M, ranges.size)
        ranges[ranges > self._far_m] = math.inf
        ranges[self._rng.random(ranges.size) < 1.0 / 1500.0] = math.nan
        return ranges.astype(np.float32)
