"""What cannot be met needs no second look: the bound against the two circles, grown step by step."""

import math

import numpy as np
import pytest

from contracts.robot import AMR_SMALL, TUGGER
from safety.config import MonitorConfig
from safety.movers import (
    ALIVE,
    COLUMNS,
    KNOWN,
    LOOK_SLACK_S,
    PAST,
    RADIUS,
    SEEN_S,
    TRACKS,
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
