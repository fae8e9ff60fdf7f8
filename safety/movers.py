"""What moves around the robot, and how fast it may go beside it.

A place that an earlier scan saw to be free and that is now taken belongs to something that moves; its piece of the
scan is followed from scan to scan, which gives its velocity. A command passes at the highest share at which the robot,
braking after its reaction time, does not come near anything followed, if that goes on as it does.

``follow``, ``reckon`` and ``expected`` are compiled as they stand for the twin (``sim.twin.movers``); the rest has a
compiled copy there, and a test holds both to the same numbers. Own frame: where the robot was when it began, dead
reckoned.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.config import MonitorConfig

Floats = npt.NDArray[np.float64]
Seen = tuple[float, float, float, float, float]
"""Of ``expected``: x, y in m, speeds along both in m/s, robot's frame; how fast that becomes unsure, m/s."""
SCANS, TRACKS, PAST = 10, 8, 8
"""Scans that are kept, things that are followed, places kept of each."""
ALIVE, X, Y, SPEED_X, SPEED_Y, RADIUS, MOVED_S, SEEN_S, KNOWN, COUNT = range(10)
"""Columns of a track; times in s of the own clock, ``KNOWN`` whether there is a velocity yet."""
COLUMNS = 10
LOOKS_S = (0.2, 0.4)
"""How long ago a place must have been free: a walker leaves it in that time, a slow one in the longer."""
LOOK_SLACK_S = 0.06
SCAN_GAP_S = 0.04
"""Scans that follow each other more closely are not all kept."""
WINDOW_S, WINDOW_MIN_S = 0.45, 0.09
"""Velocity is the way over at most the first and at least the second."""
RECENT_S, CHANGED_MPS = 0.17, 0.6
"""What goes otherwise over this time than over the window, by more than this, has set off, halted or turned: what it
did before is forgotten, and the window begins anew. The shorter time alone would be too noisy."""
UNSEEN_MAX_S = 0.5
SPEED_MAX_MPS = 1.8
RADIUS_MAX_M = 0.4
SEEN_BEYOND_M = 0.5
"""Pieces reach this much farther than the places that are looked at."""
FLAGS_MIN = 2
"""One ray alone is noise."""
SHARES, TIMES = 10, 12
BLIND_M = 0.01
"""Invalid rays lie at the lidar's least range."""
SLOWED_M = 0.5
"""What is faster than ``SPEED_MAX_MPS`` for a moment is expected as far off as this."""
CLOSER_M = 1e-9
APART_SLACK_M2 = 1e-6
"""More than rounding: what is farther apart than this is so in any reckoning."""
STRAIGHT_RADPM = 1e-6
PACE_MIN_MPS = 1e-300
"""At less, the bend of a turn would overflow, and what is no number is never nearer than anything."""
RATE_MAX = 100.0
"""m/s or rad/s. No robot's: reckoned with, places would be so far off that nothing is told from anything."""
LONG_AGO = -1e9
ATAN = (0.999866, -0.3302995, 0.180141, -0.085133, 0.0208351)


class Numbers(NamedTuple):
    """The settings, as floats that compile."""

    reach_m: float
    range_min_m: float
    beyond_m: float
    beyond_share: float
    gap_m: float
    width_m: float
    gate_m: float
    hold_s: float
    reaction_s: float
    braking_mps2: float
    radius_m: float
    spread_mps: float
    unknown_mps: float
    angle_min_rad: float
    angle_step_rad: float


def mover_numbers(config: MonitorConfig, model: RobotModel) -> Numbers:
    """The settings for one robot; ``radius_m`` is its disc's and the margin."""
    return Numbers(
        config.mover_reach_m,
        model.lidar.range_min_m + BLIND_M,
        config.mover_beyond_m,
        config.mover_beyond_share,
        config.mover_gap_m,
        config.mover_width_m,
        config.mover_gate_m,
        config.mover_hold_s,
        config.mover_reaction_s,
        config.mover_braking_share * model.braking_mps2,
        model.footprint_radius_m + config.mover_margin_m,
        config.mover_spread_mps,
        config.mover_unknown_mps,
        model.lidar.angle_min_rad,
        model.lidar.angle_step_rad,
    )


def follow(
    tracks: Floats,
    past: Floats,
    taken: npt.NDArray[np.bool_],
    now_s: float,
    gate_m: float,
    x: float,
    y: float,
    radius_m: float,
    moved: bool,
) -> None:
    """Write one piece of the scan into the track it belongs to; into a new one if it moved and belongs to none.

    Args:
        tracks: float64[TRACKS, COLUMNS]; past: float64[TRACKS, PAST, 3] time, x, y of each.
        taken: bool[TRACKS], tracks that have got theirs of this scan.
        now_s: own clock; gate_m: farthest it may be from where a track was expected.
        x, y: its centre, own frame, m; radius_m: its size; moved: whether it stands where it was free.
    """
    best, nearest = -1, gate_m
    for index in range(tracks.shape[0]):
        if tracks[index, ALIVE] == 0.0 or taken[index]:
            continue
        unseen_s = now_s - tracks[index, SEEN_S]
        ahead_x = tracks[index, X] + tracks[index, SPEED_X] * unseen_s - x
        ahead_y = tracks[index, Y] + tracks[index, SPEED_Y] * unseen_s - y
        apart = math.sqrt(ahead_x * ahead_x + ahead_y * ahead_y)
        if apart < nearest:
            best, nearest = index, apart
    if best < 0:
        if not moved:
            return
        best = 0
        for index in range(tracks.shape[0]):
            if tracks[index, ALIVE] == 0.0:
                best = index
                break
            if tracks[index, SEEN_S] < tracks[best, SEEN_S]:
                best = index
        tracks[best] = 0.0
        tracks[best, ALIVE] = 1.0
        past[best] = LONG_AGO
    taken[best] = True
    tracks[best, X], tracks[best, Y] = x, y
    tracks[best, RADIUS], tracks[best, SEEN_S] = radius_m, now_s
    if moved:
        tracks[best, MOVED_S] = now_s
    oldest, recent = -1, -1
    for index in range(past.shape[1]):
        since = past[best, index, 0]
        if since > now_s - WINDOW_S and (oldest < 0 or since < past[best, oldest, 0]):
            oldest = index
        if since > now_s - RECENT_S and (recent < 0 or since < past[best, recent, 0]):
            recent = index
    if oldest >= 0 and now_s - past[best, oldest, 0] >= WINDOW_MIN_S:
        elapsed_s = now_s - past[best, oldest, 0]
        speed_x, speed_y = (x - past[best, oldest, 1]) / elapsed_s, (y - past[best, oldest, 2]) / elapsed_s
        if recent >= 0 and now_s - past[best, recent, 0] >= WINDOW_MIN_S:
            elapsed_s = now_s - past[best, recent, 0]
            other_x, other_y = (
                (x - past[best, recent, 1]) / elapsed_s,
                (y - past[best, recent, 2]) / elapsed_s,
            )
            change_x, change_y = other_x - speed_x, other_y - speed_y
            if math.sqrt(change_x * change_x + change_y * change_y) > CHANGED_MPS:
                speed_x, speed_y = other_x, other_y
                for index in range(past.shape[1]):
                    if past[best, index, 0] < past[best, recent, 0]:
                        past[best, index, 0] = LONG_AGO
        tracks[best, SPEED_X], tracks[best, SPEED_Y] = speed_x, speed_y
        tracks[best, KNOWN] = 1.0
    place = int(tracks[best, COUNT]) % past.shape[1]
    past[best, place, 0], past[best, place, 1], past[best, place, 2] = now_s, x, y
    tracks[best, COUNT] += 1.0


def reckon(
    x: float, y: float, heading: float, elapsed_s: float, speed: float, turn_rate: float
) -> tuple[float, float, float]:
    """The pose after ``elapsed_s`` at ``speed`` and ``turn_rate``, m/s and rad/s: along the chord's heading."""
    middle, way = heading + 0.5 * turn_rate * elapsed_s, speed * elapsed_s
    return x + way * math.cos(middle), y + way * math.sin(middle), heading + turn_rate * elapsed_s


class Movers:
    """What moves around one robot. Each tick ``advance``, ``share``, ``take``; then ``settle``, when there is time.

    Args:
        config: the monitor's settings.
        model: footprint, braking and lidar.
    """

    def __init__(self, config: MonitorConfig, model: RobotModel) -> None:
        self._numbers = mover_numbers(config, model)
        self._offsets = model.footprint_offsets_m
        self._reach_m = max(abs(each) for each in self._offsets)
        rays = model.lidar.rays
        angles = model.lidar.angle_min_rad + np.arange(rays) * model.lidar.angle_step_rad
        self._directions = np.stack([np.cos(angles), np.sin(angles)])
        self._scans = np.zeros((SCANS, rays), dtype=np.float32)
        self._free_ranges = np.zeros((SCANS, rays), dtype=np.float32)
        self._poses, self._times = np.zeros((SCANS, 3)), np.full(SCANS, LONG_AGO)
        self._tracks, self._past = np.zeros((TRACKS, COLUMNS)), np.full((TRACKS, PAST, 3), LONG_AGO)
        self._taken = np.zeros(TRACKS, dtype=bool)
        self._shares = np.linspace(1.0, 1.0 / SHARES, SHARES)
        self._parts = np.linspace(0.0, 1.0, TIMES)
        self._pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self._now_s = 0.0
        self._count = 0
        self._pending = False
        self._followed: list[list[float]] = []
        """``tracks`` as floats: a tick asks about each, and reading one number out of an array costs as much as ten."""
        self._ring = np.zeros(rays + 2, dtype=np.float32)
        """The scan being worked out, its last ray once more before it and its first behind it."""
        self._sums = np.zeros(2 * rays + 1, dtype=np.intp)
        """How many of the first n rays have moved; twice around, for pieces across the seam."""

    @property
    def tracks(self) -> Floats:
        """float64[n, COLUMNS], those that are followed now."""
        return self._tracks[self._tracks[:, ALIVE] > 0.0]

    def forget(self) -> None:
        """Begin anew: the robot was carried, or its sensors were silent or spoke nonsense."""
        self._tracks[:] = 0.0
        self._times[:] = LONG_AGO
        self._count, self._pending, self._followed = 0, False, []

    def advance(self, elapsed_s: float, velocity: tuple[float, float]) -> None:
        """Reckon where the robot is now: it moved for ``elapsed_s`` at ``velocity``, m/s and rad/s.

        With a velocity beyond ``RATE_MAX`` nobody knows, and all that was known is forgotten.
        """
        self.settle()
        self._now_s += elapsed_s
        if not max(abs(velocity[0]), abs(velocity[1])) <= RATE_MAX:
            self.forget()
            self._pose = (0.0, 0.0, 0.0)
            return
        self._pose = reckon(*self._pose, elapsed_s, *velocity)

    def share(self, command: tuple[float, float], scan_age_s: float) -> float:
        """The share of ``command`` that may pass, 0 to 1 in steps of ``1 / SHARES``.

        Args:
            command: m/s and rad/s; of more than ``RATE_MAX`` nothing passes beside what moves.
            scan_age_s: s.
        """
        speed, turn_rate = command
        if speed == 0.0 or not self._followed:
            return 1.0
        n = self._numbers
        pace, reaction_s = abs(speed), n.reaction_s + scan_age_s
        if not max(pace, abs(turn_rate)) <= RATE_MAX:
            return 0.0
        reach_s = reaction_s + pace / n.braking_mps2
        threats = []
        for track in self._followed:
            seen = expected(track, *self._pose, self._now_s, n.unknown_mps, n.spread_mps)
            radius_m = n.radius_m + track[RADIUS]
            if may_meet(seen, radius_m + self._reach_m, pace, reach_s):
                threats.append((seen, radius_m))
        if not threats:
            return 1.0
        # Mostly the whole command passes; only where it does not the other shares are worth a look.
        for shares in (self._shares[:1], self._shares[1:]):
            free = self._free(shares, (speed, turn_rate), reaction_s, threats).nonzero()[0]
            if free.size:
                return float(shares[free[0]])
        return 0.0

    def _free(
        self,
        shares: Floats,
        command: tuple[float, float],
        reaction_s: float,
        threats: list[tuple[Seen, float]],
    ) -> npt.NDArray[np.bool_]:
        """At which of ``shares`` of a command no disc comes near a threat (as expected, and both radii): bool[n]."""
        n, (speed, turn_rate) = self._numbers, command
        pace, sign = abs(speed), math.copysign(1.0, speed)
        bend = turn_rate / max(pace, PACE_MIN_MPS)
        paces = pace * shares[:, None]
        times = (reaction_s + paces / n.braking_mps2) * self._parts
        way = paces * times - 0.5 * n.braking_mps2 * np.maximum(times - reaction_s, 0.0) ** 2
        turned = bend * way
        cosine, sine = np.cos(turned), np.sin(turned)
        if abs(bend) > STRAIGHT_RADPM:
            x, y = sign * sine / bend, sign * (1.0 - cosine) / bend
        else:
            x, y = sign * way, np.zeros_like(way)
        near = np.zeros(shares.size, dtype=bool)
        for offset_m in self._offsets:
            disc_x, disc_y = (x + offset_m * cosine, y + offset_m * sine) if offset_m != 0.0 else (x, y)
            for seen, radius_m in threats:
                near |= _met(seen, radius_m, offset_m, disc_x, disc_y, times)
        return ~near

    def take(self, ranges_m: npt.NDArray[np.float32]) -> None:
        """Keep a new scan, float32[rays] m, clean; ``settle`` works it out."""
        last = (self._count - 1) % SCANS
        if self._count and self._now_s - self._times[last] < SCAN_GAP_S:
            return
        slot = self._count % SCANS
        self._scans[slot], self._poses[slot], self._times[slot] = ranges_m, self._pose, self._now_s
        self._pending = True

    def settle(self) -> None:
        """Work out the scan taken last, once."""
        if self._pending:
            self._pending = False
            self._work_out()
            self._followed = self.tracks.tolist()

    def _work_out(self) -> None:
        n, slot, tracks, ring = self._numbers, self._count % SCANS, self._tracks, self._ring
        now_s = float(self._times[slot])
        ranges = self._scans[slot]
        ring[1:-1], ring[0], ring[-1] = ranges, ranges[-1], ranges[0]
        np.minimum(np.minimum(ring[:-2], ranges), ring[2:], out=self._free_ranges[slot])
        x, y = self._directions * ranges
        moved = self._moved(slot, x, y)
        gone = (now_s - tracks[:, MOVED_S] > n.hold_s) | (now_s - tracks[:, SEEN_S] > UNSEEN_MAX_S)
        tracks[gone, ALIVE] = 0.0
        self._count += 1
        if not moved.any() and not tracks[:, ALIVE].any():
            return
        self._taken[:] = False
        begins, lengths = _pieces(ring, n)
        sums = self._sums
        np.cumsum(moved, out=sums[1 : ranges.size + 1])
        np.add(sums[1 : ranges.size + 1], sums[ranges.size], out=sums[ranges.size + 1 :])
        flagged = sums[begins + lengths] - sums[begins]
        for piece in np.flatnonzero((flagged >= FLAGS_MIN) | self._expected_at(x[begins], y[begins], slot)):
            rays = _rays(begins[piece], lengths[piece], ranges.size)
            self._piece(x[rays], y[rays], moved[rays], self._poses[slot], now_s)

    def _moved(self, slot: int, x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
        """Which points stand where an earlier scan saw free floor, bool[rays]."""
        n, ranges = self._numbers, self._scans[slot]
        moved = np.zeros(ranges.size, dtype=bool)
        near = np.flatnonzero((ranges <= n.reach_m) & (ranges > n.range_min_m))
        here_x, here_y, heading = self._poses[slot].tolist()
        cosine, sine = math.cos(heading), math.sin(heading)
        for look_s in LOOKS_S:
            off = np.abs(self._times[slot] - self._times - look_s)
            past = int(np.argmin(off))
            if not off[past] < LOOK_SLACK_S:
                continue
            then_x, then_y, then = self._poses[past].tolist()
            from_x = here_x + cosine * x[near] - sine * y[near] - then_x
            from_y = here_y + sine * x[near] + cosine * y[near] - then_y
            there_x = math.cos(then) * from_x + math.sin(then) * from_y
            there_y = math.cos(then) * from_y - math.sin(then) * from_x
            distance = np.sqrt(there_x * there_x + there_y * there_y)
            ray = np.rint((_bearing(there_x, there_y) - n.angle_min_rad) / n.angle_step_rad).astype(np.intp)
            free = self._free_ranges[past][ray % ranges.size]
            moved[near] |= free > distance + n.beyond_m + n.beyond_share * distance
        return moved

    def _piece(self, x: Floats, y: Floats, moved: npt.NDArray[np.bool_], pose: Floats, now_s: float) -> None:
        """Follow one piece of the scan; of a wide one only the part that moved."""
        n, flagged = self._numbers, int(moved.sum())
        if math.hypot(x[0] - x[-1], y[0] - y[-1]) > n.width_m:
            if flagged < FLAGS_MIN:
                return
            x, y = x[moved], y[moved]
        middle_x, middle_y = float(x.sum()) / x.size, float(y.sum()) / x.size
        radius_m = math.sqrt(float(((x - middle_x) ** 2 + (y - middle_y) ** 2).max()))
        cosine, sine = math.cos(pose[2]), math.sin(pose[2])
        follow(
            self._tracks, self._past, self._taken, now_s, n.gate_m,
            pose[0] + cosine * middle_x - sine * middle_y, pose[1] + sine * middle_x + cosine * middle_y,
            min(radius_m, RADIUS_MAX_M), flagged >= FLAGS_MIN,
        )  # fmt: skip

    def _expected_at(self, x: Floats, y: Floats, slot: int) -> npt.NDArray[np.bool_]:
        """Which pieces, by their first points in the robot's frame, may be something that is followed."""
        n, near, here = self._numbers, np.zeros(x.size, dtype=bool), self._poses[slot].tolist()
        for track in self.tracks:
            at_x, at_y, *_ = expected(track, here[0], here[1], here[2], self._times[slot], 0.0, 0.0)
            near = near | (np.hypot(x - at_x, y - at_y) < n.gate_m + n.width_m + SLOWED_M)
        return near


def _met(
    seen: Seen, radius_m: float, offset_m: float, disc_x: Floats, disc_y: Floats, times: Floats
) -> npt.NDArray[np.bool_]:
    """At which shares a disc on its way, [shares, TIMES] m, comes nearer than ``radius_m`` to a track; bool[shares].

    Nearer than if it stood, that is: what comes anyway is no reason not to get out of its way.
    """
    x, y, speed_x, speed_y, spread_mps = seen
    near_m = radius_m + spread_mps * times
    there_x, there_y = x + speed_x * times, y + speed_y * times
    gap = np.hypot(there_x - disc_x, there_y - disc_y) - near_m
    standing = np.hypot(there_x - offset_m, there_y) - near_m
    met: npt.NDArray[np.bool_] = np.logical_or.reduce((gap < 0.0) & (gap < standing - CLOSER_M), axis=1)
    return met


def _bearing(x: Floats, y: Floats) -> Floats:
    """``arctan2(y, x)`` to 1e-5 rad, as the twin reckons it, where arctan2 would be most of the work.

    Source:
        Abramowitz and Stegun: Handbook of Mathematical Functions, 1964, 4.4.49.
    """
    wide, high = np.abs(x), np.abs(y)
    part = np.minimum(wide, high) / np.maximum(np.maximum(wide, high), CLOSER_M)
    square = part * part
    angle = part * (ATAN[0] + square * (ATAN[1] + square * (ATAN[2] + square * (ATAN[3] + square * ATAN[4]))))
    angle = np.where(high > wide, 0.5 * math.pi - angle, angle)
    angle = np.where(x < 0.0, math.pi - angle, angle)
    return np.where(y < 0.0, -angle, angle)


def may_meet(seen: Seen, near_m: float, pace: float, reach_s: float) -> bool:
    """Whether a track may come as near as ``near_m`` within ``reach_s`` to one who goes at most at ``pace``, any way.

    Both circles grow, his at ``pace``, the track's as it becomes unsure: less than zero is then
    ``|p + v t|^2 - (near + (pace + spread) t)^2``, quadratic in t. False only where it surely is not.
    """
    x, y, speed_x, speed_y, spread_mps = seen
    grows = pace + spread_mps
    bent = speed_x * speed_x + speed_y * speed_y - grows * grows
    slope = x * speed_x + y * speed_y - near_m * grows
    begin = x * x + y * y - near_m * near_m
    least = min(begin, begin + (2.0 * slope + bent * reach_s) * reach_s)
    if bent > 0.0 and 0.0 < -slope < bent * reach_s:
        least = begin - slope * slope / bent
    return not least >= APART_SLACK_M2


def expected(
    track: Floats | list[float],
    x: float,
    y: float,
    heading: float,
    now_s: float,
    unknown_mps: float,
    spread_mps: float,
) -> tuple[float, float, float, float, float]:
    """Where a track is now and how it moves, in the robot's frame, m and m/s; and how unsure that is, m/s.

    ``x, y, heading`` are the robot's, own frame.
    """
    cosine, sine = math.cos(heading), math.sin(heading)
    speed_x = cosine * track[SPEED_X] + sine * track[SPEED_Y]
    speed_y = cosine * track[SPEED_Y] - sine * track[SPEED_X]
    pace = math.sqrt(speed_x * speed_x + speed_y * speed_y)
    if pace > SPEED_MAX_MPS:
        speed_x, speed_y = speed_x * SPEED_MAX_MPS / pace, speed_y * SPEED_MAX_MPS / pace
    from_x, from_y, unseen_s = track[X] - x, track[Y] - y, now_s - track[SEEN_S]
    return (
        cosine * from_x + sine * from_y + speed_x * unseen_s,
        cosine * from_y - sine * from_x + speed_y * unseen_s,
        speed_x,
        speed_y,
        spread_mps if track[KNOWN] > 0.0 else unknown_mps,
    )


def _pieces(ring: npt.NDArray[np.float32], n: Numbers) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First ray and number of rays of every piece: neighbouring rays that hit one thing.

    ``ring`` is a scan float32[rays + 2], its last ray once more before it and its first behind it.
    """
    seen = (ring <= n.reach_m + SEEN_BEYOND_M) & (ring > n.range_min_m)
    apart = np.abs(ring[1:-1] - ring[:-2])
    joined = seen[1:-1] & seen[:-2] & (apart <= n.gap_m)
    begins = (seen[1:-1] & ~joined).nonzero()[0]
    ends = (~joined).nonzero()[0]
    if not begins.size:
        return begins, begins
    following = ends[ends.searchsorted(begins, side="right") % ends.size]
    return begins, (following - begins - 1) % apart.size + 1


def _rays(begin: int, length: int, count: int) -> npt.NDArray[np.intp]:
    return np.arange(begin, begin + length) % count
