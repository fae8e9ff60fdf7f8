"""What cannot be met needs no second look: the bound against the two circles, grown step by step."""

import math

import numpy as np
import pytest

from contracts.robot import AMR_SMALL, TUGGER
from safety.config import MonitorConfig
from safety.movers import (
    ALIVE,
    CHANGED_MPS,
    COLUMNS,
    KNOWN,
    LOOK_SLACK_S,
    PAST,
    RADIUS,
    SEEN_S,
    SPEED_X,
    SPEED_Y,
    TRACKS,
    Floats,
    Movers,
    X,
    follow,
    may_meet,
)


def least_gap_m(seen, near_m, pace, reach_s):
    """How near the track comes to the circle of all places that one at ``pace`` may be at, m; below zero they meet."""
    x, y, speed_x, speed_y, spread_mps = seen
    t = np.linspace(0.0, reach_s, 4001)
    return float((np.hypot(x + speed_x * t, y + speed_y * t) - near_m - (pace + spread_mps) * t).min())


def test_it_is_false_only_where_the_circles_stay_apart():
    rng = np.random.default_rng(2)
    met = apart = 0
    for _ in range(3000):
        seen = (*rng.uniform(-3.0, 3.0, 2), *rng.uniform(-1.8, 1.8, 2), rng.choice([0.1, 0.6]))
        near_m, pace, reach_s = rng.uniform(0.3, 1.1), rng.uniform(0.0, 1.2), rng.uniform(0.2, 1.4)
        gap_m = least_gap_m(seen, near_m, pace, reach_s)
        if abs(gap_m) < 1e-3:
            continue
        assert may_meet(seen, near_m, pace, reach_s) == (gap_m < 0.0), (seen, near_m, pace, reach_s)
        met, apart = met + (gap_m < 0.0), apart + (gap_m > 0.0)
    assert min(met, apart) > 500


@pytest.mark.parametrize(
    ("seen", "meets"),
    [
        ((2.0, 0.0, -1.5, 0.0, 0.0), True),  # comes straight at a robot that stands
        ((2.0, 0.0, 1.5, 0.0, 0.0), False),  # goes away
        ((-2.0, 0.499, 4.0, 0.0, 0.0), True),  # past, nearest between begin and end: a centimetre too near
        ((-2.0, 0.501, 4.0, 0.0, 0.0), False),
        ((0.45, 0.0, 5.0, 0.0, 0.0), True),  # near at the begin only
        ((5.0, 0.0, -4.45, 0.0, 0.0), False),  # nearest at the end
        ((5.0, 0.0, -4.55, 0.0, 0.0), True),
        ((1.55, 0.0, 0.0, 0.0, 1.0), False),  # stands, ever less sure where
        ((1.45, 0.0, 0.0, 0.0, 1.0), True),
        ((1.45, 0.0, 0.0, 0.0, 0.0), False),
        ((math.nan, 0.0, 0.0, 0.0, 0.0), True),  # nobody knows
    ],
)
def test_seen_from_a_robot_that_stands_half_a_metre_wide(seen, meets):
    assert may_meet(seen, 0.5, 0.0, 1.0) is meets


def test_a_robots_own_pace_counts_whichever_way_it_drives():
    ahead = (1.5, 0.0, 0.0, 0.0, 0.0)
    assert may_meet(ahead, 0.5, 1.01, 1.0)
    assert not may_meet(ahead, 0.5, 0.99, 1.0)
    assert may_meet((-1.5, 0.0, 0.0, 0.0, 0.0), 0.5, 1.01, 1.0)


@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
@pytest.mark.parametrize("speed", [5e-324, 1e-309, -1e-309])
def test_a_speed_that_is_as_good_as_none_is_ruled_as_none(model, speed):
    """Turning at it, the bend overflowed: no number was compared with the gap. (Warnings are errors here.)"""
    movers = Movers(MonitorConfig(), model)
    track = movers._tracks[0]
    assert track.size == COLUMNS
    track[[ALIVE, KNOWN]] = 1.0
    track[X], track[RADIUS] = 0.5, 0.25
    movers._followed = movers.tracks.tolist()
    assert movers.share((0.5, 1.5), 0.05) < 1.0, "there is somebody to mind"
    assert movers.share((speed, 1.5), 0.05) == movers.share((0.0, 1.5), 0.05) == 1.0


def test_where_all_tracks_are_taken_the_one_unseen_for_longest_makes_room():
    tracks, past, taken = (
        np.zeros((TRACKS, COLUMNS)),
        np.zeros((TRACKS, PAST, 3)),
        np.zeros(TRACKS, dtype=bool),
    )
    tracks[:, ALIVE], tracks[:, X], tracks[:, SEEN_S] = 1.0, 50.0, 3.0
    tracks[5, SEEN_S] = 2.9
    follow(tracks, past, taken, 3.05, 0.6, 1.0, 0.5, 0.2, True)
    assert (tracks[:, X] == 1.0).nonzero()[0].tolist() == [5]
    assert taken.nonzero()[0].tolist() == [5]
    assert tracks[5, KNOWN] == 0.0, "nothing of the old one is left"


def test_of_tracks_unseen_for_equally_long_the_first_makes_room():
    """Which one matters little; that both reckonings take the same one matters."""
    tracks, past, taken = (
        np.zeros((TRACKS, COLUMNS)),
        np.zeros((TRACKS, PAST, 3)),
        np.zeros(TRACKS, dtype=bool),
    )
    tracks[:, ALIVE], tracks[:, X], tracks[:, SEEN_S] = 1.0, 50.0, 3.0
    follow(tracks, past, taken, 3.05, 0.6, 1.0, 0.5, 0.2, True)
    assert (tracks[:, X] == 1.0).nonzero()[0].tolist() == [0]


@pytest.mark.parametrize(("apart_s", "looks"), [(0.14, False), (0.15, True), (0.25, True)])
def test_a_scan_is_looked_back_at_where_it_is_less_than_the_slack_off(apart_s, looks):
    """0.06 s before or after 0.2 s ago: exactly that is too far off."""
    assert (abs(apart_s - 0.2) < LOOK_SLACK_S) is looks, "the case is what it says"
    movers, ranges = Movers(MonitorConfig(), AMR_SMALL), np.full(AMR_SMALL.lidar.rays, 6.0, dtype=np.float32)
    movers.take(ranges)
    movers.advance(apart_s, (0.0, 0.0))
    ranges = ranges.copy()
    ranges[85:95] = 1.5
    movers.take(ranges)
    movers.settle()
    assert bool(movers.tracks.size) is looks


def test_who_passes_by_slowly_and_is_near_only_half_way_is_met():
    """Far off at the beginning and at the end; at less than 1 m/s, so that no other bound stands in for zero."""
    assert may_meet((1.0, 0.3, -0.9, 0.0, 0.0), 0.5, 0.0, 2.2)
    assert not may_meet((1.0, 0.6, -0.9, 0.0, 0.0), 0.5, 0.0, 2.2)


def walked(places_m: list[float], step_s: float = 0.05) -> Floats:
    """What is known of one that stood at ``places_m`` along x, a scan every ``step_s``: its track, float64[COLUMNS]."""
    tracks, past = np.zeros((TRACKS, COLUMNS)), np.full((TRACKS, PAST, 3), -1e9)
    for number, x in enumerate(places_m):
        follow(tracks, past, np.zeros(TRACKS, dtype=bool), number * step_s, 0.6, x, 0.5, 0.2, True)
    assert tracks[1:, ALIVE].sum() == 0.0, "one thing, one track"
    return tracks[0]


@pytest.mark.parametrize("mps", [1.6, 1.2, -1.0, -1.4])
@pytest.mark.parametrize("step_s", [0.05, 0.1])
def test_who_sets_off_and_who_halts_is_known_within_three_scans(mps, step_s):
    """At least three quarters of the change from then on; over the window it would be a third of it."""
    standing, way = [2.0] * 10, [2.0 + mps * step_s * n for n in range(1, 11)]
    for before, after, was, will in (
        (standing, way, 0.0, mps),
        (standing + way, [way[-1]] * 10, mps, 0.0),
        (standing + way, list(reversed(standing[-1:] + way))[1:], mps, -mps),
    ):
        known = [walked(before + after[:n], step_s)[SPEED_X] for n in range(3, 11)]
        share = (np.array(known) - was) / (will - was)
        assert share.min() >= 0.75 - 1e-9, (was, will, share)
        assert share.max() <= 1.0 + 1e-9
        assert share[-1] > 0.99


def test_who_turns_is_known_by_the_new_way_in_both_directions():
    tracks, past = np.zeros((TRACKS, COLUMNS)), np.full((TRACKS, PAST, 3), -1e9)
    places = [(2.0, 0.1 * n) for n in range(10)] + [(2.0 - 0.06 * n, 0.9) for n in range(1, 11)]
    for number, (x, y) in enumerate(places):
        follow(tracks, past, np.zeros(TRACKS, dtype=bool), number * 0.05, 0.6, x, y, 0.2, True)
        if number == 12:
            assert tracks[0, SPEED_X : SPEED_Y + 1] == pytest.approx([-0.9, 0.5], abs=0.01)
    assert tracks[0, SPEED_X : SPEED_Y + 1] == pytest.approx([-1.2, 0.0])


def test_what_was_before_a_change_does_not_come_back():
    """Three scans behind the change the shorter time alone is known; a window that reached back would forget it."""
    places = [2.0] * 10 + [2.0 + 0.05 * n for n in range(1, 10)]
    assert [walked(places[:n])[SPEED_X] for n in (13, 14, 15, 19)] == pytest.approx([1.0] * 4)


@pytest.mark.parametrize(("more", "changed"), [(0.98, False), (1.02, True)])
def test_a_change_counts_from_its_limit_on(more, changed):
    """Over 0.4 s of which it went only the last 0.15 s: five eighths of its speed apart from what it is now."""
    mps = more * CHANGED_MPS / (1.0 - 0.15 / 0.4)
    places = [2.0] * 10 + [2.0 + mps * 0.05 * n for n in (1, 2, 3)]
    assert walked(places)[SPEED_X] == pytest.approx(mps if changed else mps * 0.15 / 0.4)


def test_noise_of_a_lidar_is_no_change():
    """Two hundred walkers whose middle is seen 2 cm off: nearly always the longer, steadier way counts."""
    rng, off = np.random.default_rng(2), []
    for _ in range(200):
        places = [2.0 + 0.05 * n + rng.normal(0.0, 0.02) for n in range(12)]
        off.append(abs(walked(places)[SPEED_X] - 1.0))
    assert np.mean(np.array(off) < 0.25) > 0.95


def test_with_scans_too_far_apart_for_the_shorter_time_the_longer_counts():
    places = [2.0] * 10 + [2.0 + 1.2 * 0.2 * n for n in (1, 2)]
    assert walked(places, 0.2)[SPEED_X] == pytest.approx(1.2)
    assert walked(places[:-1], 0.2)[SPEED_X] == pytest.approx(0.6)
