"""``safety.admission.admit``, compiled for the twin. A test holds both to the same numbers."""

import math

import numba
import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.admission import MOVING_MPS
from safety.config import MonitorConfig
from safety.geometry import ESCAPE_COSINE, STRAIGHT_RADPM


def guard_settings(config: MonitorConfig, model: RobotModel) -> npt.NDArray[np.float64]:
    """The monitor's numbers as float64[11], in the order ``admit_one`` reads them."""
    return np.array(
        [
            model.footprint_radius_m + config.margin_m,
            config.standoff_m,
            config.reaction_s,
            config.obstacle_mps,
            config.turn_on_the_spot_below,
            config.reach_m,
            model.braking_mps2,
            config.approach_per_s,
            math.cos(config.approach_sector_rad),
            config.approach_mps,
            model.footprint_radius_m,
        ]
    )


@numba.njit(cache=True)
def free_distance_one(ranges, cosines, sines, speed, turn_rate, radius, reach):  # type: ignore[no-untyped-def]
    """``safety.geometry.free_distance`` for one robot; ranges float32[n] m along known ray directions."""
    if speed == 0.0:
        return reach
    nearest = reach
    direction = 1.0 if speed > 0.0 else -1.0
    straight = abs(turn_rate) <= STRAIGHT_RADPM * abs(speed)
    turn_radius = 0.0 if straight else speed / turn_rate
    size = abs(turn_radius)
    origin = math.atan2(-turn_radius, 0.0)
    turn = 1.0 if turn_rate > 0.0 else -1.0
    for ray in range(ranges.shape[0]):
        distance = ranges[ray]
        # The arc's end is at most ``reach`` away from its start, so farther points cannot be touched.
        if distance >= reach + radius:
            continue
        x, y = distance * cosines[ray], distance * sines[ray]
        ahead = direction * x
        if x * x + y * y < radius * radius:
            if ahead > ESCAPE_COSINE * math.sqrt(x * x + y * y):
                return 0.0
            continue
        if straight:
            half_squared = radius * radius - y * y
            if half_squared > 0.0:
                along = ahead - math.sqrt(half_squared)
                if 0.0 <= along < nearest:
                    nearest = along
            continue
        across = y - turn_radius
        apart = math.sqrt(x * x + across * across)
        if abs(apart - size) < radius and apart > 0.0:
            cosine = (size * size + apart * apart - radius * radius) / (2.0 * size * apart)
            half = math.acos(min(max(cosine, -1.0), 1.0))
            angle = turn * (math.atan2(across, x) - origin)
            angle -= 2.0 * math.pi * math.floor(angle / (2.0 * math.pi))
            angle -= half
            angle -= 2.0 * math.pi * math.floor(angle / (2.0 * math.pi))
            along = size * angle
            if along < nearest:
                nearest = along
    return nearest


@numba.njit(cache=True, inline="always")
def speed_cap_one(free_m, braking, reaction_s, obstacle):  # type: ignore[no-untyped-def]
    """``safety.geometry.speed_cap`` for one robot."""
    lag = braking * reaction_s + obstacle
    room = 2.0 * braking * (free_m - obstacle * reaction_s)
    return max(-lag + math.sqrt(max(lag * lag + room, 0.0)), 0.0)


@numba.njit(cache=True)
def approach_gap_one(ranges, cosines, direction, sector_cosine, radius):  # type: ignore[no-untyped-def]
    """``safety.geometry.approach_gap`` for one robot that travels in ``direction`` (1 or -1)."""
    nearest = math.inf
    for ray in range(ranges.shape[0]):
        if ranges[ray] < nearest and direction * cosines[ray] > sector_cosine:
            nearest = ranges[ray]
    return nearest - radius


@numba.njit(cache=True)
def admit_one(settings, ranges, cosines, sines, command, velocity, scan_age_s):  # type: ignore[no-untyped-def]
    """``safety.admission.admit`` for one robot: reduces ``command`` float64[2] in place; returns the free distance."""
    radius, standoff, reaction = settings[0], settings[1], settings[2] + scan_age_s
    obstacle, on_the_spot, reach, braking = settings[3], settings[4], settings[5], settings[6]
    speed, turn_rate = command[0], command[1]
    moving = velocity[0] if abs(velocity[0]) > MOVING_MPS else 0.0
    free = free_distance_one(ranges, cosines, sines, speed, turn_rate, radius, reach)
    cap = speed_cap_one(free - standoff, braking, reaction, obstacle)
    free_now = free_distance_one(ranges, cosines, sines, moving, velocity[1], radius, reach)
    if speed * moving > 0.0:
        cap = min(cap, speed_cap_one(free_now - standoff, braking, reaction, obstacle))
    if speed != 0.0:
        gap = approach_gap_one(ranges, cosines, math.copysign(1.0, speed), settings[8], settings[10])
        cap = min(cap, max(settings[7] * gap, settings[9]))
        share = min(1.0, cap / abs(speed))
        if share < on_the_spot:
            command[0] = 0.0
        else:
            command[0] = speed * share
            command[1] = turn_rate * share
    return min(free, free_now)
