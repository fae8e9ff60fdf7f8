"""The adversarial campaign: its figures come from the real monitor, and what it counts can be more than nothing."""

import math

import msgspec
import numpy as np
import pytest

from benchmarks._adversary.benign import COURSE, deliveries
from benchmarks._adversary.campaign import (
    CROWDS,
    HURRY,
    WALK_MAX_MPS,
    Course,
    Drive,
    Tally,
    View,
    campaign_floors,
)
from benchmarks._adversary.families import FAMILIES, PARAMETERS, Searched
from benchmarks._adversary.guards import Floats, Monitors, Senses, Unguarded
from benchmarks._adversary.nav2_rules import SLOWDOWN_RATIO, Nav2Rules
from benchmarks._adversary.search import Found, chase, search
from benchmarks.adversary import SEARCHED, run_campaign, total
from contracts.robot import AMR_SMALL
from sim.world.floors import Floors

SUITE_TICKS = 20_000
"""Of single robots; `make campaign` drives a million."""
IN_VIEW_MAX = 1
"""The monitor of today is touched about twice in 100,000 ticks (docs/safety/adversary.md); 0 for the next one."""
SHORT = Course(CROWDS["rude"], worlds=4, ticks=120, seed=5)


@pytest.fixture(scope="module")
def floors() -> Floors:
    return campaign_floors(2)


def senses(ranges: Floats, speed: float = 0.0) -> Senses:
    scan = np.asarray(ranges, dtype=np.float32).reshape(1, -1)
    return Senses(10**9, scan, np.array([10**9]), np.array([[speed, 0.0]]))


def open_floor() -> Floats:
    return np.full(AMR_SMALL.lidar.rays, np.inf)


def thing_ahead(distance_m: float, half_rad: float = 0.3) -> Floats:
    lidar = AMR_SMALL.lidar
    angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
    return np.where(np.abs(angles) < half_rad, distance_m, np.inf)


class Ahead:
    """Full speed straight ahead."""

    def commands(self, view: View) -> Floats:
        return np.tile([AMR_SMALL.speed_max_mps, 0.0], (len(view.pose), 1))


def test_without_a_monitor_policies_touch_walls_and_people(floors: Floors) -> None:
    tally = Drive(msgspec.structs.replace(SHORT, worlds=8, ticks=250), floors, Unguarded()).run(
        FAMILIES["to_person"](AMR_SMALL, 0)
    )
    assert tally.static_contacts > 0
    assert tally.moving_contacts >= tally.moving_contacts_in_view > 0
    assert tally.ticks == 8 * 250
    people = [event for event in tally.events if event.kind == "person"]
    assert len(people) == tally.moving_contacts
    assert all(abs(event.speed_mps) > 0.05 for event in people)
    assert sum(event.in_view_s >= 0.5 - 1e-9 for event in people) == tally.moving_contacts_in_view


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_family_gets_past_the_monitor(floors: Floors) -> None:
    found = Found(chase(), Tally(events=[]))
    rows = run_campaign(lambda: Monitors(AMR_SMALL), floors, SUITE_TICKS, found)
    assert set(rows) == {*FAMILIES, SEARCHED}
    together = total(rows)
    assert together.ticks >= SUITE_TICKS
    assert together.static_contacts == 0, together.events
    assert together.moving_contacts_in_view <= IN_VIEW_MAX, together.events


def test_same_course_same_numbers(floors: Floors) -> None:
    first, second = (
        Drive(SHORT, floors, Monitors(AMR_SMALL)).run(FAMILIES["graze"](AMR_SMALL, 3)) for _ in range(2)
    )
    assert msgspec.to_builtins(first) == msgspec.to_builtins(second)
    assert first.driven_m > 0.0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_drive_where_nothing_stops_them(floors: Floors, family: str) -> None:
    tally = Drive(SHORT, floors, Unguarded()).run(FAMILIES[family](AMR_SMALL, 0))
    assert tally.driven_m > 1.0


def test_the_searched_family_takes_its_weights(floors: Floors) -> None:
    still = Drive(SHORT, floors, Unguarded()).run(Searched(AMR_SMALL, np.zeros(PARAMETERS)))
    assert still.driven_m == 0.0
    with pytest.raises(ValueError, match="reshape"):
        Searched(AMR_SMALL, np.zeros(PARAMETERS + 1))


def test_the_search_drives_what_it_counts(floors: Floors) -> None:
    course = msgspec.structs.replace(SHORT, worlds=2, ticks=20)
    found = search(Unguarded(), floors, course, ticks=800)
    assert found.tally.ticks == 800
    assert found.weights.shape == (PARAMETERS,)
    assert not np.array_equal(found.weights, chase())


def test_nobody_walks_faster_than_promised(floors: Floors) -> None:
    for crowd in CROWDS.values():
        drive = Drive(msgspec.structs.replace(SHORT, crowd=crowd), floors, Unguarded())
        fastest = 0.0
        for tick in range(SHORT.ticks):
            drive._tick(tick, Ahead())
            fastest = max(fastest, float(np.hypot(*drive.simulation.state.person_velocity.T).max()))
        assert WALK_MAX_MPS / HURRY * 0.5 < fastest <= WALK_MAX_MPS + 1e-9


def test_the_monitor_is_told_what_the_lidar_sends(floors: Floors) -> None:
    drive = Drive(SHORT, floors, Unguarded())
    ranges = []
    for tick in range(60):
        told = drive.senses(tick)
        ranges.append(told.ranges_m)
        age_s = (told.now_ns - told.taken_ns) / 1e9
        assert set(np.round(age_s, 3)) <= {0.0, drive.simulation.step_s}
        drive._tick(tick, Ahead())
    every = np.concatenate(ranges)
    assert not np.isnan(every).any()
    assert (every == 0.0).any(), "dropouts must reach the monitor"
    assert (every[np.isfinite(every)] < AMR_SMALL.lidar.range_max_m).all()


def test_a_benign_policy_delivers(floors: Floors) -> None:
    course = msgspec.structs.replace(COURSE, worlds=4, ticks=400)
    delivered, _ = deliveries(Monitors(AMR_SMALL), floors, course=course)
    assert delivered > 0.0


@pytest.mark.parametrize(
    ("ahead_m", "expected_mps"),
    [(math.inf, 1.0), (0.40, 0.0), (0.53, SLOWDOWN_RATIO)],
)
def test_nav2_zones(ahead_m: float, expected_mps: float) -> None:
    rules = Nav2Rules(AMR_SMALL)
    admitted = rules.admit(senses(thing_ahead(ahead_m)), np.array([[-0.3, 0.0]]))
    assert admitted[0, 0] == pytest.approx(-0.3 * expected_mps)


def test_nav2_approaches_with_two_seconds_to_spare() -> None:
    rules = Nav2Rules(AMR_SMALL)
    admitted = rules.admit(senses(thing_ahead(1.5)), np.array([[1.0, 0.0]]))
    assert admitted[0, 0] == pytest.approx((1.5 - 0.3) / 2.0, abs=0.06)
    assert rules.admit(senses(thing_ahead(3.0)), np.array([[1.0, 0.0]]))[0, 0] == 1.0


def test_nav2_needs_several_points_and_skips_invalid_ones() -> None:
    rules, few = Nav2Rules(AMR_SMALL), open_floor()
    few[88:91] = 0.35
    assert rules.admit(senses(few), np.array([[0.5, 0.0]]))[0, 0] == 0.5
    assert rules.admit(senses(np.zeros(AMR_SMALL.lidar.rays)), np.array([[0.5, 0.0]]))[0, 0] == 0.5
    assert (rules.admit(senses(few), np.array([[math.nan, 0.0]])) == 0.0).all()
