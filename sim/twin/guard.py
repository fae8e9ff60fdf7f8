"""``safety.admission.Admission``, compiled for the twin. A test holds both to the same numbers."""

import math

import numba
import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.admission import MOVING_MPS
from safety.config import MonitorConfig
from safety.geometry import ESCAPE_COSINE, STILL_MPS, STRAIGHT_RADPM
from safety.monitor import ROLLING_MPS
from sim.twin.movers import share_one

BAND_SLACK = 1e-9


def guard_settings(config: MonitorConfig, model: RobotModel) -> npt.NDArray[np.float64]:
    """The monitor's numbers as float64[7 + discs], in the order ``admit_one`` reads them."""
    return np.array(
        [
            model.footprint_radius_m + config.margin_m,
            config.standoff_m,
            config.reaction_s,
            config.obstacle_mps,
            config.turn_on_the_spot_below,
            config.reach_m,
            model.braking_mps2,
            *model.footprint_offsets_m,
        ]
    )


@numba.njit(cache=True)
def free_distance_one(  # type: ignore[no-untyped-def]
    ranges, cosines, sines, speed, turn_rate, radius, reach, offset, way_cosine, way_sine
):
    """``safety.geometry.Points.free_distance`` for one disc; ranges float32[n] m along known ray directions.

    The disc is ``offset`` m ahead of the lidar and moves along (``way_cosine``, ``way_sine``).
    """
    if speed == 0.0:
        return reach
    nearest = reach
    direction = 1.0 if speed > 0.0 else -1.0
    straight = abs(turn_rate) <= STRAIGHT_RADPM * abs(speed)
    turn_radius = 0.0 if straight else speed / turn_rate
    size = abs(turn_radius)
    origin = math.atan2(-turn_radius, 0.0)
    turn = 1.0 if turn_rate > 0.0 else -1.0
    # Squares, wide enough for rounding, tell most rays before a root does.
    outer = (size + radius) * (size + radius) * (1.0 + BAND_SLACK)
    inner = (size - radius) * (size - radius) * (1.0 - BAND_SLACK) if size > radius else -1.0
    for ray in range(ranges.shape[0]):
        distance = ranges[ray]
        # The arc's end is at most ``reach`` away from its start, so farther points cannot be touched.
        if distance >= reach + radius + abs(offset):
            continue
        x, y = distance * cosines[ray], distance * sines[ray]
        if offset != 0.0:
            x -= offset
            x, y = way_cosine * x + way_sine * y, way_cosine * y - way_sine * x
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
        apart = x * x + across * across
        if apart > outer or apart < inner:
            continue
        apart = math.sqrt(apart)
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
def disc_cap(settings, ranges, cosines, sines, offset, speed, turn_rate, reaction):  # type: ignore[no-untyped-def]
    """Free distance, pace and allowed pace of one disc of the footprint, as ``safety.admission`` has them."""
    if offset == 0.0:
        free = free_distance_one(
            ranges, cosines, sines, speed, turn_rate, settings[0], settings[5], 0.0, 1.0, 0.0
        )
        return free, abs(speed), speed_cap_one(free - settings[1], settings[6], reaction, settings[3])
    across = turn_rate * offset
    pace = math.sqrt(speed * speed + across * across)
    if pace < STILL_MPS:
        return settings[5], 0.0, 0.0
    free = free_distance_one(
        ranges, cosines, sines, pace, turn_rate, settings[0], settings[5], offset, speed / pace, across / pace
    )
    closing = settings[3] * abs(speed) / pace
    return free, pace, speed_cap_one(free - settings[1], settings[6], reaction, closing)


@numba.njit(cache=True)
def admit_one(settings, ranges, cosines, sines, command, velocity, scan_age_s):  # type: ignore[no-untyped-def]
    """``safety.admission.Admission.admit``: reduces ``command`` float64[2] in place; returns the free distance."""
    reaction, on_the_spot = settings[2] + scan_age_s, settings[4]
    speed, turn_rate = command[0], command[1]
    moving = velocity[0] if abs(velocity[0]) > MOVING_MPS else 0.0
    least = settings[5]
    share, turn_share = 1.0, 1.0
    for k in range(7, settings.shape[0]):
        offset = settings[k]
        free, pace, cap = disc_cap(settings, ranges, cosines, sines, offset, speed, turn_rate, reaction)
        free_now, _, cap_now = disc_cap(
            settings, ranges, cosines, sines, offset, moving, velocity[1], reaction
        )
        if speed * moving > 0.0:
            cap = min(cap, cap_now)
        if pace > 0.0:
            share = min(share, cap / pace)
        if offset != 0.0 and turn_rate != 0.0:
            _, turning, turn_cap = disc_cap(
                settings, ranges, cosines, sines, offset, 0.0, turn_rate, reaction
            )
            if turning > 0.0:
                turn_share = min(turn_share, turn_cap / turning)
        least = min(least, free, free_now)
    if speed == 0.0 or share < on_the_spot:
        command[0] = 0.0
        command[1] = turn_rate * turn_share
    else:
        command[0] = speed * share
        command[1] = turn_rate * share
    return least


@numba.njit(cache=True)
def roll_out_one(  # type: ignore[no-untyped-def]
    settings, ranges, cosines, sines, movers, e, r, numbers, offsets, command, velocity, scan_age_s
):
    """``SafetyMonitor``'s ruling over a turn of a base that still rolls: reduces ``command`` float64[2] in place.

    ``movers``, ``e``, ``r``, ``numbers``, ``offsets`` as ``sim.twin.movers.share_one`` takes them.
    """
    rolls, wanted = velocity[0], command[1]
    if command[0] != 0.0 or wanted == 0.0 or abs(rolls) <= ROLLING_MPS:
        return
    reaction = settings[2] + scan_age_s
    present = 0.0
    if wanted * velocity[1] > 0.0:
        present = math.copysign(min(abs(wanted), abs(velocity[1])), wanted)
    most = -1.0
    for turn_rate in (wanted, present, 0.0):
        room = share_one(movers, e, r, numbers, offsets, rolls, turn_rate, scan_age_s)
        for k in range(7, settings.shape[0]):
            _, pace, cap = disc_cap(settings, ranges, cosines, sines, settings[k], rolls, turn_rate, reaction)
            if pace > 0.0:
                room = min(room, cap / pace)
        if room >= most:
            command[1], most = turn_rate, room
        if most >= 1.0:
            return
