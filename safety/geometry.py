"""How far a circular footprint can move along an arc before it touches what the lidar sees. Numpy, one or many.

All points are in the robot's base frame, m. ``sim`` compiles the same geometry; a test holds both together.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ESCAPE_COSINE = 0.35
"""A point within the radius blocks motion that heads for it more directly than this; sliding past is allowed."""

STILL_MPS = 1e-6
"""A part of the footprint that moves slower than this stands still."""
STRAIGHT_RADPM = 1e-3
"""Curvature in rad/m below which an arc is taken as straight."""


def free_distance(
    points_x: Array, points_y: Array, speed: Array, turn_rate: Array, radius_m: Array, reach_m: float
) -> Array:
    """Distance along the arc of (speed, turn rate) until the footprint touches a point.

    Args:
        points_x, points_y: float64[..., n] m.
        speed: float64[...] m/s, signed.
        turn_rate: float64[...] rad/s.
        radius_m: float64[...] footprint radius with margin.
        reach_m: points beyond the arc's first ``reach_m`` do not count.

    Returns:
        float64[...] m in [0, reach_m]; ``reach_m`` where the robot does not translate. A point that is
        already within the radius blocks motion towards it, and does not block motion away from it.

    Source:
        Law of cosines on the turning circle, as in Fox, Burgard, Thrun: The dynamic window approach, 1997.
    """
    v, w, radius = speed[..., None], turn_rate[..., None], radius_m[..., None]
    direction = np.sign(v)
    ahead_x = direction * points_x
    inside = points_x * points_x + points_y * points_y < radius * radius
    straight = np.abs(w) <= STRAIGHT_RADPM * np.abs(v)
    if straight.all():
        along = _along_line(ahead_x, points_y, radius)
    elif not straight.any():
        along = _along_arc(points_x, points_y, v, w, radius)
    else:
        arc = _along_arc(points_x, points_y, v, np.where(straight, 1.0, w), radius)
        along = np.where(straight, _along_line(ahead_x, points_y, radius), arc)
    towards = ahead_x > ESCAPE_COSINE * np.sqrt(points_x * points_x + points_y * points_y)
    along = np.where(inside, np.where(towards, 0.0, np.inf), along)
    nearest = np.minimum(along.min(axis=-1), reach_m)
    return np.where(speed == 0.0, reach_m, nearest)


def _along_line(ahead_x: Array, points_y: Array, radius: Array) -> Array:
    half_chord_squared = radius * radius - points_y * points_y
    along = ahead_x - np.sqrt(np.maximum(half_chord_squared, 0.0))
    return np.where((half_chord_squared > 0.0) & (along >= 0.0), along, np.inf)


def _along_arc(points_x: Array, points_y: Array, v: Array, w: Array, radius: Array) -> Array:
    turn_radius = v / w
    size = np.abs(turn_radius)
    from_centre_y = points_y - turn_radius
    distance = np.sqrt(points_x * points_x + from_centre_y * from_centre_y)
    hit = (np.abs(distance - size) < radius) & (distance > 0.0) & (size > 0.0)
    cosine = (size * size + distance * distance - radius * radius) / np.where(hit, 2.0 * size * distance, 1.0)
    half_angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    angle = np.sign(w) * (np.arctan2(from_centre_y, points_x) - np.arctan2(-turn_radius, 0.0))
    angle = np.mod(angle, 2.0 * np.pi)
    along = size * np.mod(angle - half_angle, 2.0 * np.pi)
    return np.where(hit, along, np.inf)


def speed_cap(free_m: Array, braking_mps2: float, reaction_s: Array, obstacle_mps: float | Array) -> Array:
    """Highest speed from which the robot stops within ``free_m``, after ``reaction_s``, obstacle closing in.

    Solves ``v t + v^2 / 2a + u (t + v / a) = d`` for v: the braking law of FACTS with the obstacle's speed u.

    Args:
        free_m: float64[...] m.
        braking_mps2: deceleration a that the robot surely reaches.
        reaction_s: float64[...] s, time before it begins to brake.
        obstacle_mps: assumed closing speed u of what is ahead, one for all or float64[...].

    Returns:
        float64[...] m/s, never below zero.
    """
    lag = braking_mps2 * reaction_s + obstacle_mps
    room = 2.0 * braking_mps2 * (free_m - obstacle_mps * reaction_s)
    return np.maximum(-lag + np.sqrt(np.maximum(lag * lag + room, 0.0)), 0.0)


def seen_from_disc(
    points_x: Array, points_y: Array, speed: Array, turn_rate: Array, offset_m: float
) -> tuple[Array, Array, Array]:
    """One disc of a long footprint as a round robot of its own.

    A disc at ``offset_m`` ahead of the base frame moves on a circle around the same centre: as fast as the base
    where both drive straight, sideways where the base turns on the spot.

    Args:
        points_x, points_y: float64[..., n] m in the base frame.
        speed, turn_rate: float64[...] of the base.
        offset_m: of the disc's centre along x.

    Returns:
        The points in the disc's frame, x along its motion, and the disc's speed float64[...], never negative, zero
        below ``STILL_MPS``.
    """
    across = turn_rate * offset_m
    pace = np.hypot(speed, across)
    still = pace < STILL_MPS
    cosine = np.where(still, 1.0, speed / np.where(still, 1.0, pace))[..., None]
    sine = np.where(still, 0.0, across / np.where(still, 1.0, pace))[..., None]
    x = points_x - offset_m
    return cosine * x + sine * points_y, cosine * points_y - sine * x, np.where(still, 0.0, pace)


def approach_gap(
    points_x: Array, points_y: Array, speed: Array, sector_cosine: float, radius_m: float
) -> Array:
    """Gap in m between the footprint and the nearest point in the sector around the direction of travel.

    Args:
        points_x, points_y: float64[..., n] m.
        speed: float64[...] m/s; its sign is the direction of travel.
        sector_cosine: cosine of the sector's half width.
        radius_m: of the footprint.

    Returns:
        float64[...] m, infinite where the sector is empty.
    """
    distance = np.sqrt(points_x * points_x + points_y * points_y)
    ahead = np.sign(speed)[..., None] * points_x > sector_cosine * distance
    nearest: Array = np.where(ahead, distance, np.inf).min(axis=-1)
    return nearest - radius_m
