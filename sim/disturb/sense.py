"""From the true scan and place to what a robot is told: noise, dropouts, delay, drift, faults. Compiled."""

import math

import numba
import numpy as np

from sim.disturb.state import (
    BIAS,
    BLIND,
    BLIND_MIDDLE,
    DROPOUT,
    LOCALISATION,
    LOCALISATION_HEADING,
    NOISE,
    OBSERVATION_DELAY,
    RING,
    Fault,
)
from sim.world.random import restart, uniform

DEAD, FROZEN, LOST = int(Fault.DEAD_LIDAR), int(Fault.FROZEN_SCAN), int(Fault.LOST_LOCALISATION)
WANDER_S = 4.0
"""Time in which the error of localisation forgets where it was."""
LOST_M, LOST_RAD = 2.5, 0.6
BLIND_BEHIND_RAD = 1.2
"""The blind sector's middle lies within this of straight behind."""


@numba.njit(cache=True)
def begin_disturbance(d, e, r, trip):  # type: ignore[no-untyped-def]
    """Draw the properties of robot ``r`` of world ``e`` for its trip number ``trip``; delay lines start empty."""
    index = e * d.fault.shape[1] + r
    restart(d.random, d.base, index, trip)
    for k in range(d.low.shape[0]):
        draw = uniform(d.random, index)
        d.properties[e, r, k] = d.low[k] + draw * (d.high[k] - d.low[k])
        if k >= OBSERVATION_DELAY:
            d.properties[e, r, k] = d.low[k] + math.floor(draw * (d.high[k] - d.low[k] + 1.0))
    side = uniform(d.random, index) * 2.0 - 1.0
    d.properties[e, r, BLIND_MIDDLE] = math.pi + side * BLIND_BEHIND_RAD


@numba.njit(cache=True)
def reset_lines(d, e, r):  # type: ignore[no-untyped-def]
    """Forget commands, scans and drift on their way: the robot was put elsewhere."""
    d.clock[e, r] = 0
    d.lagged[e, r] = 0.0
    d.actuated[e, r] = 0.0
    d.measured[e, r] = 0.0
    d.drift[e, r] = 0.0


@numba.njit(cache=True)
def corrupt_scan(d, e, r, ranges, angle_min):  # type: ignore[no-untyped-def]
    """Turn clean ``ranges`` float32[rays] in place into what this robot's lidar gives; an invalid ray becomes 0."""
    p, index = d.properties[e, r], e * d.fault.shape[1] + r
    if d.fault[e, r] & DEAD:
        ranges[:] = 0.0
        return
    low, high = d.constants[6], d.constants[7]
    # Two uniform draws added: a triangle with the standard deviation asked for.
    spread = p[NOISE] * math.sqrt(6.0)
    for ray in range(ranges.shape[0]):
        if ranges[ray] < high:
            noise = 0.0
            if spread > 0.0:
                noise = spread * (uniform(d.random, index) + uniform(d.random, index) - 1.0)
            ranges[ray] = min(max(ranges[ray] + p[BIAS] + noise, low), high)
        if p[DROPOUT] > 0.0 and uniform(d.random, index) < p[DROPOUT]:
            ranges[ray] = 0.0
    if p[BLIND] > 0.0:
        step = 2.0 * math.pi / ranges.shape[0]
        first = int((p[BLIND_MIDDLE] - 0.5 * p[BLIND] - angle_min) / step)
        for slot in range(first, first + int(p[BLIND] / step) + 1):
            ranges[slot % ranges.shape[0]] = 0.0


@numba.njit(cache=True)
def fill_invalid(ranges, range_min):  # type: ignore[no-untyped-def]
    """``SafetyMonitor.clean_ranges``: a lone invalid ray takes its nearer neighbour, several become ``range_min``."""
    rays = ranges.shape[0]
    before, first = ranges[rays - 1], ranges[0]
    for ray in range(rays):
        here = ranges[ray]
        after = ranges[ray + 1] if ray + 1 < rays else first
        if here < range_min:
            ranges[ray] = max(min(before, after), np.float32(range_min))
        before = here


@numba.njit(cache=True)
def localise(d, e, r, pose):  # type: ignore[no-untyped-def]
    """Write ``d.estimated`` from the true pose float64[3]; the error wanders within its standard deviation."""
    p, index, step_s = d.properties[e, r], e * d.fault.shape[1] + r, d.constants[0]
    drift = d.drift[e, r]
    if d.fault[e, r] & LOST:
        drift[0], drift[1], drift[2] = LOST_M, -LOST_M, LOST_RAD
    elif p[LOCALISATION] > 0.0 or p[LOCALISATION_HEADING] > 0.0:
        keep = math.exp(-step_s / WANDER_S)
        fresh = math.sqrt(6.0 * (1.0 - keep * keep))
        for k in range(3):
            size = p[LOCALISATION] if k < 2 else p[LOCALISATION_HEADING]
            draw = uniform(d.random, index) + uniform(d.random, index) - 1.0
            drift[k] = keep * drift[k] + fresh * size * draw
    else:
        drift[0], drift[1], drift[2] = 0.0, 0.0, 0.0
    for k in range(3):
        d.estimated[e, r, k] = pose[k] + drift[k]


@numba.njit(cache=True)
def delay_senses(d, e, r, ranges):  # type: ignore[no-untyped-def]
    """Put scan, estimated pose and odometry into the delay lines and take out what the robot is told now."""
    clock = d.clock[e, r]
    slot = clock % RING
    if clock > 0 and d.fault[e, r] & FROZEN:
        d.scans[e, r, slot] = d.scans[e, r, (clock - 1) % RING]
    else:
        d.scans[e, r, slot] = ranges
    place = d.places[e, r, slot]
    place[0:3] = d.estimated[e, r]
    place[3:5] = d.measured[e, r]
    delay = min(int(d.properties[e, r, OBSERVATION_DELAY]), clock)
    then = (clock - delay) % RING
    ranges[:] = d.scans[e, r, then]
    d.estimated[e, r] = d.places[e, r, then, 0:3]
    d.measured[e, r] = d.places[e, r, then, 3:5]
