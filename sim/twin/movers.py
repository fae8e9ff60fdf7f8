"""``safety.movers.Movers``, compiled for the twin. A test holds both to the same numbers."""

import math
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from safety import movers
from safety.movers import (
    ALIVE,
    ATAN,
    CLOSER_M,
    COLUMNS,
    FLAGS_MIN,
    LONG_AGO,
    LOOK_SLACK_S,
    LOOKS_S,
    MOVED_S,
    PACE_MIN_MPS,
    PAST,
    RADIUS,
    RADIUS_MAX_M,
    RATE_MAX,
    SCAN_GAP_S,
    SCANS,
    SEEN_BEYOND_M,
    SEEN_S,
    SHARES,
    SPEED_MAX_MPS,
    STRAIGHT_RADPM,
    TIMES,
    TRACKS,
    UNSEEN_MAX_S,
)

follow = numba.njit(cache=True)(movers.follow)
reckon = numba.njit(cache=True)(movers.reckon)
expected = numba.njit(cache=True)(movers.expected)


ROUNDING = 1.5 * 2.0**52


class MoverArrays(NamedTuple):
    """The state of all robots' ``Movers``; ``E`` worlds, ``R`` robots.

    Attributes:
        free: float32[E, R, SCANS, rays]; poses float64[E, R, SCANS, 3]; times float64[E, R, SCANS].
        tracks: float64[E, R, TRACKS, COLUMNS]; past float64[E, R, TRACKS, PAST, 3].
        pose: float64[E, R, 3]; now_s float64[E, R]; taken int64[E, R].
    """

    free: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]
    tracks: npt.NDArray[np.float64]
    past: npt.NDArray[np.float64]
    pose: npt.NDArray[np.float64]
    now_s: npt.NDArray[np.float64]
    taken: npt.NDArray[np.int64]


def mover_arrays(shape: tuple[int, int], rays: int) -> MoverArrays:
    """State of robots that have just been put there."""
    return MoverArrays(
        free=np.zeros((*shape, SCANS, rays), dtype=np.float32),
        poses=np.zeros((*shape, SCANS, 3)),
        times=np.full((*shape, SCANS), LONG_AGO),
        tracks=np.zeros((*shape, TRACKS, COLUMNS)),
        past=np.full((*shape, TRACKS, PAST, 3), LONG_AGO),
        pose=np.zeros((*shape, 3)),
        now_s=np.zeros(shape),
        taken=np.zeros(shape, dtype=np.int64),
    )


@numba.njit(cache=True)
def forget_one(a, e, r):  # type: ignore[no-untyped-def]
    """``Movers.forget``."""
    a.tracks[e, r] = 0.0
    a.times[e, r] = LONG_AGO
    a.taken[e, r] = 0


@numba.njit(cache=True)
def advance_one(a, e, r, elapsed_s, velocity):  # type: ignore[no-untyped-def]
    """``Movers.advance``."""
    a.now_s[e, r] += elapsed_s
    pose = a.pose[e, r]
    pose[0], pose[1], pose[2] = reckon(pose[0], pose[1], pose[2], elapsed_s, velocity[0], velocity[1])


@numba.njit(cache=True)
def share_one(a, e, r, n, offsets, speed, turn_rate, scan_age_s):  # type: ignore[no-untyped-def]
    """``Movers.share``."""
    if speed == 0.0:
        return 1.0
    pose, now_s, tracks = a.pose[e, r], a.now_s[e, r], a.tracks[e, r]
    pace, reaction_s = abs(speed), n.reaction_s + scan_age_s
    unsure_mps = max(n.unknown_mps, n.spread_mps)
    far_m = (pace + SPEED_MAX_MPS + unsure_mps) * (reaction_s + pace / n.braking_mps2) + np.max(
        np.abs(offsets)
    )
    if not max(pace, abs(turn_rate)) <= RATE_MAX and tracks[:, ALIVE].any():
        return 0.0
    rank, agreed = 0, 0
    # All must be free at one and the same rank: what is free of one may not be free of another any more.
    while agreed < TRACKS:
        for index in range(TRACKS):
            agreed += 1
            track = tracks[index]
            if track[ALIVE] == 0.0:
                continue
            apart = math.hypot(track[movers.X] - pose[0], track[movers.Y] - pose[1])
            # Where it was seen last is not where it is: what hides for a moment walks on.
            nearer = track[RADIUS] + n.radius_m + SPEED_MAX_MPS * (now_s - track[SEEN_S])
            if apart - nearer >= far_m:
                continue
            free = _share_rank(track, pose, now_s, n, offsets, speed, turn_rate, reaction_s, rank)
            if free == SHARES:
                return 0.0
            if free > rank:
                rank, agreed = free, 1
    return _share_of(rank)


@numba.njit(cache=True)
def _share_of(rank):  # type: ignore[no-untyped-def]
    """``np.linspace(1, 1 / SHARES, SHARES)[rank]``."""
    return 1.0 + rank * ((1.0 / SHARES - 1.0) / (SHARES - 1))


@numba.njit(cache=True)
def _share_rank(track, pose, now_s, n, offsets, speed, turn_rate, reaction_s, first):  # type: ignore[no-untyped-def]
    """The first share from ``first`` on at which no disc comes near a track; ``SHARES`` for none."""
    x, y, speed_x, speed_y, spread = expected(
        track, pose[0], pose[1], pose[2], now_s, n.unknown_mps, n.spread_mps
    )
    pace, sign = abs(speed), math.copysign(1.0, speed)
    bend = turn_rate / max(pace, PACE_MIN_MPS)
    radius = n.radius_m + track[RADIUS]
    for rank in range(first, SHARES):
        slow = pace * _share_of(rank)
        end_s = reaction_s + slow / n.braking_mps2
        met = False
        for disc in range(offsets.shape[0]):
            for step in range(TIMES):
                t = end_s * (step / (TIMES - 1))
                late = max(t - reaction_s, 0.0)
                turned = bend * (slow * t - 0.5 * n.braking_mps2 * late * late)
                if abs(bend) > STRAIGHT_RADPM:
                    disc_x, disc_y = sign * math.sin(turned) / bend, sign * (1.0 - math.cos(turned)) / bend
                else:
                    disc_x, disc_y = sign * (slow * t - 0.5 * n.braking_mps2 * late * late), 0.0
                disc_x += offsets[disc] * math.cos(turned)
                disc_y += offsets[disc] * math.sin(turned)
                near = radius + spread * t
                there_x, there_y = x + speed_x * t, y + speed_y * t
                gap = math.hypot(there_x - disc_x, there_y - disc_y) - near
                standing = math.hypot(there_x - offsets[disc], there_y) - near
                if gap < 0.0 and gap < standing - CLOSER_M:
                    met = True
                    break
            if met:
                break
        if not met:
            return rank
    return SHARES


@numba.njit(cache=True)
def take_one(a, e, r, n, ranges, cosines, sines):  # type: ignore[no-untyped-def]
    """``Movers.take`` and ``Movers.settle``."""
    now_s, count, rays = a.now_s[e, r], a.taken[e, r], ranges.shape[0]
    times, tracks = a.times[e, r], a.tracks[e, r]
    if count > 0 and now_s - times[(count - 1) % SCANS] < SCAN_GAP_S:
        return
    slot = count % SCANS
    times[slot] = now_s
    a.taken[e, r] = count + 1
    pose, free = a.poses[e, r, slot], a.free[e, r, slot]
    pose[:] = a.pose[e, r]
    free[0] = min(min(ranges[rays - 1], ranges[0]), ranges[1])
    for ray in range(1, rays - 1):
        free[ray] = min(min(ranges[ray - 1], ranges[ray]), ranges[ray + 1])
    free[rays - 1] = min(min(ranges[rays - 2], ranges[rays - 1]), ranges[0])
    moved = np.zeros(rays, dtype=np.bool_)
    any_moved = _moved_one(times, slot, a.poses[e, r], a.free[e, r], n, ranges, cosines, sines, moved)
    any_alive = False
    for index in range(TRACKS):
        if now_s - tracks[index, MOVED_S] > n.hold_s or now_s - tracks[index, SEEN_S] > UNSEEN_MAX_S:
            tracks[index, ALIVE] = 0.0
        any_alive |= tracks[index, ALIVE] > 0.0
    if any_moved or any_alive:
        _pieces_one(tracks, a.past[e, r], pose, now_s, n, ranges, cosines, sines, moved, any_alive)


@numba.njit(cache=True, inline="always")
def _bearing(x, y):  # type: ignore[no-untyped-def]
    """``safety.movers._bearing``; chooses instead of branching, so that it is worked out for several rays at once."""
    wide, high = abs(x), abs(y)
    least, most = (wide, high) if wide < high else (high, wide)
    part = least / (most if most > CLOSER_M else CLOSER_M)
    square = part * part
    angle = part * (ATAN[0] + square * (ATAN[1] + square * (ATAN[2] + square * (ATAN[3] + square * ATAN[4]))))
    angle = 0.5 * math.pi - angle if high > wide else angle
    angle = math.pi - angle if x < 0.0 else angle
    return -angle if y < 0.0 else angle


@numba.njit(cache=True, inline="always")
def _past_of(times, slot, look_s):  # type: ignore[no-untyped-def]
    """Which scan is nearest to ``look_s`` before that in ``slot``; -1 where none is near enough."""
    past, least = 0, math.inf
    for index in range(SCANS):
        off = abs(times[slot] - times[index] - look_s)
        if off < least:
            past, least = index, off
    return past if least < LOOK_SLACK_S else -1


@numba.njit(cache=True)
def _moved_one(times, slot, poses, frees, n, ranges, cosines, sines, moved):  # type: ignore[no-untyped-def]
    """``Movers._moved``: sets ``moved``, bool[rays], where an earlier scan saw free floor; whether there was any."""
    rays, found, count = ranges.shape[0], False, 0
    near = np.empty(rays, dtype=np.int64)
    here_x, here_y, limits, places = np.empty(rays), np.empty(rays), np.empty(rays), np.empty(rays)
    pose = poses[slot]
    cosine, sine, pose_x, pose_y = math.cos(pose[2]), math.sin(pose[2]), pose[0], pose[1]
    for look in range(len(LOOKS_S)):
        past = _past_of(times, slot, LOOKS_S[look])
        if past < 0:
            continue
        if count == 0:
            for ray in range(rays):
                distance = ranges[ray]
                if distance <= n.reach_m and distance > n.range_min_m:
                    x, y = distance * cosines[ray], distance * sines[ray]
                    here_x[count] = pose_x + cosine * x - sine * y
                    here_y[count] = pose_y + sine * x + cosine * y
                    near[count] = ray
                    count += 1
        then_x, then_y, then = poses[past, 0], poses[past, 1], poses[past, 2]
        then_cosine, then_sine = math.cos(then), math.sin(then)
        for index in range(count):
            from_x, from_y = here_x[index] - then_x, here_y[index] - then_y
            there_x = then_cosine * from_x + then_sine * from_y
            there_y = then_cosine * from_y - then_sine * from_x
            apart = math.sqrt(there_x * there_x + there_y * there_y)
            limits[index] = apart + n.beyond_m + n.beyond_share * apart
            place = (_bearing(there_x, there_y) - n.angle_min_rad) / n.angle_step_rad
            # Rounds to the nearest, a half to the even one, as ``np.rint`` does: past 2^52 no bit is left for a half.
            places[index] = (place + ROUNDING) - ROUNDING
        free = frees[past]
        for index in range(count):
            place = int(places[index])
            if place >= rays or place < 0:
                place %= rays
            if free[place] > limits[index]:
                moved[near[index]] = True
                found = True
    return found


@numba.njit(cache=True)
def _pieces_one(tracks, past, pose, now_s, n, ranges, cosines, sines, moved, any_alive):  # type: ignore[no-untyped-def]
    """Follow the pieces of a scan, in the order of their first rays."""
    rays, far = ranges.shape[0], n.reach_m + SEEN_BEYOND_M
    taken = np.zeros(TRACKS, dtype=np.bool_)
    for begin in range(rays):
        if not (ranges[begin] <= far and ranges[begin] > n.range_min_m):
            continue
        if _joined(ranges, begin, far, n):
            continue
        length = 1
        while length < rays and _joined(ranges, _wrapped(begin + length, rays), far, n):
            length += 1
        _piece_one(
            tracks, past, pose, now_s, n, ranges, cosines, sines, moved, taken, begin, length, any_alive
        )


@numba.njit(cache=True, inline="always")
def _wrapped(ray, rays):  # type: ignore[no-untyped-def]
    """``ray % rays`` of one less than twice around: a division is dearer than all that is done with a ray."""
    return ray if ray < rays else ray - rays


@numba.njit(cache=True, inline="always")
def _joined(ranges, ray, far, n):  # type: ignore[no-untyped-def]
    """Whether a ray hits what the ray before it hits."""
    here, before = ranges[ray], ranges[ray - 1]
    if here > far or not here > n.range_min_m or before > far or not before > n.range_min_m:
        return False
    return abs(here - before) <= n.gap_m


@numba.njit(cache=True)
def _piece_one(  # type: ignore[no-untyped-def]
    tracks, past, pose, now_s, n, ranges, cosines, sines, moved, taken, begin, length, any_alive
):
    """``Movers._piece``; what has not moved belongs to nothing unless something is followed already."""
    rays, flagged = ranges.shape[0], 0
    for each in range(begin, begin + length):
        flagged += moved[_wrapped(each, rays)]
    if flagged < FLAGS_MIN and not any_alive:
        return
    last = _wrapped(begin + length - 1, rays)
    wide_x = ranges[begin] * cosines[begin] - ranges[last] * cosines[last]
    wide_y = ranges[begin] * sines[begin] - ranges[last] * sines[last]
    wide = math.hypot(wide_x, wide_y) > n.width_m
    if wide and flagged < FLAGS_MIN:
        return
    middle_x, middle_y, count = 0.0, 0.0, 0
    for each in range(begin, begin + length):
        ray = _wrapped(each, rays)
        if moved[ray] or not wide:
            middle_x += ranges[ray] * cosines[ray]
            middle_y += ranges[ray] * sines[ray]
            count += 1
    middle_x /= count
    middle_y /= count
    squared = 0.0
    for each in range(begin, begin + length):
        ray = _wrapped(each, rays)
        if moved[ray] or not wide:
            x, y = ranges[ray] * cosines[ray] - middle_x, ranges[ray] * sines[ray] - middle_y
            squared = max(squared, x * x + y * y)
    cosine, sine = math.cos(pose[2]), math.sin(pose[2])
    follow(
        tracks, past, taken, now_s, n.gate_m,
        pose[0] + cosine * middle_x - sine * middle_y, pose[1] + sine * middle_x + cosine * middle_y,
        min(math.sqrt(squared), RADIUS_MAX_M), flagged >= FLAGS_MIN,
    )  # fmt: skip
