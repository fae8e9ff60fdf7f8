"""How far a circular footprint can move along an arc before it touches what the lidar sees. One robot, numpy.

All points are in the robot's base frame, m. ``sim`` compiles the same geometry; a test holds both together.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

ESCAPE_COSINE = 0.35
"""A point within the radius blocks motion that heads for it more directly than this; sliding past is allowed."""
STILL_MPS = 1e-6
"""A part of the footprint that moves slower than this stands still."""
STRAIGHT_RADPM = 1e-3
"""Curvature in rad/m below which an arc is taken as straight."""
TURN = 2.0 * math.pi
TINY_M = 1e-12
"""Least turning radius: what is smaller turns on the spot, and must not divide by zero."""
INSIDE_SLACK_M = 1e-6
"""Where nothing is nearer than the disc's radius and this, nothing is within it, whatever the rounding."""


class Arc(NamedTuple):
    """The way of one disc of the footprint: the base's speed m/s (signed) and turn rate rad/s, the disc's place.

    A disc at ``offset_m`` ahead of the base frame is a round robot of its own: it moves on a circle around the
    same centre, as fast as the base where that drives straight, sideways where the base turns on the spot.
    """

    speed: float
    turn_rate: float
    offset_m: float = 0.0

    @property
    def pace(self) -> float:
        """The disc's own speed in m/s, never negative; zero where it stands still."""
        if self.offset_m == 0.0:
            return abs(self.speed)
        pace = math.hypot(self.speed, self.turn_rate * self.offset_m)
        return pace if pace >= STILL_MPS else 0.0


class Points:
    """What one scan sees. Buffers are made once and reused: a call of numpy costs more than its arithmetic here.

    Args:
        count: points in a scan.
    """

    def __init__(self, count: int) -> None:
        self._ranges, self._squared = np.empty(count), np.empty(count)
        self.x, self.y = np.empty(count), np.empty(count)
        self._work, self._mask = np.empty(count), np.empty(count, dtype=bool)
        self._nearest_m: float | None = None

    def put(self, ranges_m: Array, directions: tuple[Array, Array]) -> None:
        """Take over a scan: float64[count] m, finite, kept by reference; cosines and sines of its rays, [count]."""
        self._ranges = ranges_m
        cosines, sines = directions
        np.multiply(ranges_m, cosines, self.x)
        np.multiply(ranges_m, sines, self.y)
        np.multiply(ranges_m, ranges_m, self._squared)
        self._nearest_m = None

    def free_distance(self, arc: Arc, radius_m: float, reach_m: float) -> float:
        """Distance along an arc until its disc touches a point.

        Args:
            arc: with a pace above zero.
            radius_m: the disc's radius with margin.
            reach_m: points beyond the arc's first ``reach_m`` do not count.

        Returns:
            m in [0, reach_m]. A point that is already within the radius blocks motion towards it, not away from it.

        Source:
            Law of cosines on the turning circle, as in Fox, Burgard, Thrun: The dynamic window approach, 1997.
        """
        pace, (speed, turn_rate, offset_m) = arc.pace, arc
        cosine, sine = speed / pace, turn_rate * offset_m / pace
        straight = abs(turn_rate) <= STRAIGHT_RADPM * pace
        size = math.inf if straight else max(pace / abs(turn_rate), TINY_M)
        if straight:
            chosen = self._beside_line(cosine, sine, offset_m, radius_m)
        else:
            chosen = self._beside_circle(speed / turn_rate, size, radius_m)
        if not chosen.size:
            return reach_m
        x, y = self.x.take(chosen), self.y.take(chosen)
        if offset_m != 0.0:
            x -= offset_m
        if cosine != 1.0:
            # The disc's own frame: x along its motion.
            x, y = cosine * x + sine * y, cosine * y - sine * x
        along = _along_line(x, y, radius_m) if straight else _turned(x, y, radius_m, size, turn_rate > 0.0)
        if self._nearest_m is None:
            self._nearest_m = float(np.minimum.reduce(self._ranges))
        if self._nearest_m < radius_m + abs(offset_m) + INSIDE_SLACK_M:
            _mind_inside(along, x, y, radius_m)
        nearest = float(np.minimum.reduce(along))
        return min(nearest if straight else size * nearest, reach_m)

    def _beside_line(self, cosine: float, sine: float, offset_m: float, radius_m: float) -> Indices:
        """Which points a straight arc may touch: beside the x axis, to which an offset disc's line leans a little."""
        far_m = float(self._ranges.max()) if sine != 0.0 else 0.0
        half_m = (radius_m + abs(sine) * (far_m + abs(offset_m))) / abs(cosine)
        return np.less(np.abs(self.y, self._work), half_m, self._mask).nonzero()[0]

    def _beside_circle(self, centre: float, size: float, radius_m: float) -> Indices:
        """Which points a bent arc may touch: between the squared radii about (0, centre), without a square root, as
        their distance^2 is r^2 - 2 y c + c^2."""
        outer, inner = (size + radius_m) ** 2, max(size - radius_m, 0.0) ** 2
        middle = 0.5 * (outer + inner)
        half = outer - middle if inner > 0.0 else middle + TINY_M
        work = self._work
        np.multiply(self.y, -2.0 * centre, work)
        work += self._squared
        work += centre * centre - middle
        return np.less(np.abs(work, work), half, self._mask).nonzero()[0]


def _mind_inside(along: Array, x: Array, y: Array, radius_m: float) -> None:
    """Of points that are within the disc already, those straight before it are touched at once, the others never."""
    squared = x * x + y * y
    inside = squared < radius_m * radius_m
    along[inside] = np.where(x > ESCAPE_COSINE * np.sqrt(squared), 0.0, math.inf)[inside]


def _along_line(x: Array, y: Array, radius_m: float) -> Array:
    """Way until each point is touched, float64[n] m, inf for never; in the disc's frame."""
    half_chord_squared = radius_m * radius_m - y * y
    along = x - np.sqrt(np.maximum(half_chord_squared, 0.0))
    along[(half_chord_squared <= 0.0) | (along < 0.0)] = math.inf
    return along


def _turned(x: Array, y: Array, radius_m: float, size: float, left: bool) -> Array:
    """Angle until each point is touched, float64[n] rad; of points that the circle surely meets, in the disc's frame.

    ``size`` is the circle's radius, m, ``left`` whether its centre is on the left.
    """
    from_centre_y = y - (size if left else -size)
    squared = x * x
    squared += from_centre_y * from_centre_y
    distance = np.maximum(np.sqrt(squared), TINY_M)
    squared += size * size
    squared -= radius_m * radius_m
    distance *= 2.0 * size
    squared /= distance
    half_angle = np.arccos(np.minimum(np.maximum(squared, -1.0), 1.0))
    angle: Array = np.arctan2(from_centre_y, x)
    angle = angle + 0.5 * math.pi if left else 0.5 * math.pi - angle
    angle -= half_angle
    return np.mod(angle, TURN, angle)


def speed_cap(free_m: float, braking_mps2: float, reaction_s: float, obstacle_mps: float) -> float:
    """Highest speed from which the robot stops within ``free_m``, after ``reaction_s``, obstacle closing in.

    Solves ``v t + v^2 / 2a + u (t + v / a) = d`` for v: the braking law of FACTS with the obstacle's speed u.

    Args:
        free_m: free distance d, m.
        braking_mps2: deceleration a that the robot surely reaches.
        reaction_s: time t before it begins to brake.
        obstacle_mps: assumed closing speed u of what is ahead.

    Returns:
        m/s, never below zero.
    """
    lag = braking_mps2 * reaction_s + obstacle_mps
    room = 2.0 * braking_mps2 * (free_m - obstacle_mps * reaction_s)
    return max(-lag + math.sqrt(max(lag * lag + room, 0.0)), 0.0)
