"""How far a circular footprint can move along an arc before it touches what the lidar sees. One robot, numpy.

All points are in the robot's base frame, m. ``sim`` compiles the same geometry; a test holds both together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ESCAPE_COSINE = 0.35
"""A point within the radius blocks motion that heads for it more directly than this; sliding past is allowed."""
STILL_MPS = 1e-6
"""A part of the footprint that moves slower than this stands still."""
STRAIGHT_RADPM = 1e-3
"""Curvature in rad/m below which an arc is taken as straight."""
TURN = 2.0 * math.pi
TINY_M = 1e-12
"""Least turning radius: what is smaller turns on the spot, and must not divide by zero."""


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
    """What one scan sees. Buffers are made once and reused.

    Args:
        count: points in a scan.
        arcs_max: arcs that are asked about at once.
    """

    def __init__(self, count: int, arcs_max: int) -> None:
        self._places, self._squared = np.empty((2, count)), np.empty(count)
        self.x, self.y = self._places
        self._ranges = np.empty(count)
        self._work, self._more = np.empty((arcs_max, count)), np.empty((arcs_max, count))
        self._mask = np.empty((arcs_max, count), dtype=bool)

    def put(self, ranges_m: Array, directions: Array) -> None:
        """Take over a scan: float64[count] m, finite, kept by reference; cosines and sines of its rays, [2, count]."""
        self._ranges = ranges_m
        np.multiply(ranges_m, directions, out=self._places)
        np.multiply(ranges_m, ranges_m, out=self._squared)

    def free_distances(self, arcs: Sequence[Arc], radius_m: float, reach_m: float) -> list[float]:
        """Distance along each arc until its disc touches a point.

        Args:
            arcs: at most ``arcs_max``, each with a pace above zero.
            radius_m: the discs' radius with margin.
            reach_m: points beyond an arc's first ``reach_m`` do not count.

        Returns:
            m in [0, reach_m]. A point that is already within the radius blocks motion towards it, not away from it.

        Source:
            Law of cosines on the turning circle, as in Fox, Burgard, Thrun: The dynamic window approach, 1997.
        """
        far_m = float(self._ranges.max()) if any(arc.offset_m for arc in arcs) else 0.0
        numbers = np.array([_numbers(arc, radius_m, far_m) for arc in arcs])
        count = len(arcs)
        chosen = self._beside(numbers, count)
        along = self._work[:count]
        along.fill(math.inf)
        if chosen.size:
            row, point = np.divmod(chosen, self.x.size)
            cosine, sine, offset_m, *circle = numbers[:, 4:].take(row, axis=0).T
            from_x, from_y = self.x.take(point) - offset_m, self.y.take(point)
            # The disc's own frame: x along its motion.
            x, y = cosine * from_x + sine * from_y, cosine * from_y - sine * from_x
            along.put(chosen, _touch(x, y, circle, radius_m))
        return [min(nearest, reach_m) for nearest in along.min(axis=1).tolist()]

    def _beside(self, numbers: Array, count: int) -> npt.NDArray[np.intp]:
        """Flat indices into [arcs, points] of what an arc may touch: |a r^2 + b y + c| < d, no square root."""
        value, more, mask = self._work[:count], self._more[:count], self._mask[:count]
        np.multiply(numbers[:, 0:1], self._squared, out=value)
        np.multiply(numbers[:, 1:2], self.y, out=more)
        np.add(value, more, out=value)
        np.add(value, numbers[:, 2:3], out=value)
        np.abs(value, out=value)
        return np.flatnonzero(np.less(value, numbers[:, 3:4], out=mask))


def _numbers(arc: Arc, radius_m: float, far_m: float) -> tuple[float, ...]:
    """One arc: the band test's four numbers, direction and offset of its disc, and its circle's three (inf = straight):
    size, way round, and the angle of its begin."""
    pace, (speed, turn_rate, offset_m) = arc.pace, arc
    cosine, sine = speed / pace, turn_rate * offset_m / pace
    if abs(turn_rate) <= STRAIGHT_RADPM * pace:
        # Beside the x axis; an offset disc's line is inclined to it by a little.
        half_m = (radius_m + abs(sine) * (far_m + abs(offset_m))) / abs(cosine)
        return 0.0, 1.0, 0.0, half_m, cosine, sine, offset_m, math.inf, 1.0, 0.0
    # Beside the circle around (0, centre): between its squared radii, as distance^2 is r^2 - 2 y c + c^2.
    centre, size, way = speed / turn_rate, max(pace / abs(turn_rate), TINY_M), math.copysign(1.0, turn_rate)
    outer, inner = (size + radius_m) ** 2, max(size - radius_m, 0.0) ** 2
    middle = 0.5 * (outer + inner)
    half = outer - middle if inner > 0.0 else middle + TINY_M
    begin = -way * 0.5 * math.pi
    return 1.0, -2.0 * centre, centre * centre - middle, half, cosine, sine, offset_m, size, way, begin


def _touch(x: Array, y: Array, circle: list[Array], radius_m: float) -> Array:
    """Way until each point is touched, float64[n] m, inf for never; each in its disc's frame."""
    straight = np.isinf(circle[0])
    if straight.any():
        along, bent = np.empty_like(x), ~straight
        along[straight] = _along_line(x[straight], y[straight], radius_m)
        along[bent] = _along_arc(x[bent], y[bent], radius_m, *(each[bent] for each in circle))
    else:
        along = _along_arc(x, y, radius_m, *circle)
    squared = x * x + y * y
    inside = squared < radius_m * radius_m
    if inside.any():
        along[inside] = np.where(x > ESCAPE_COSINE * np.sqrt(squared), 0.0, math.inf)[inside]
    return along


def _along_line(x: Array, y: Array, radius_m: float) -> Array:
    half_chord_squared = radius_m * radius_m - y * y
    along = x - np.sqrt(np.maximum(half_chord_squared, 0.0))
    along[(half_chord_squared <= 0.0) | (along < 0.0)] = math.inf
    return along


def _along_arc(x: Array, y: Array, radius_m: float, size: Array, way: Array, begin: Array) -> Array:
    """Of points that the band test chose, which the circle therefore meets."""
    from_centre_y = y - size * way
    squared = x * x + from_centre_y * from_centre_y
    distance = np.maximum(np.sqrt(squared), TINY_M)
    cosine = (size * size + squared - radius_m * radius_m) / (2.0 * size * distance)
    half_angle = np.arccos(np.minimum(np.maximum(cosine, -1.0), 1.0))
    angle = way * (np.arctan2(from_centre_y, x) - begin)
    along: Array = size * np.mod(angle - half_angle, TURN)
    return along


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
