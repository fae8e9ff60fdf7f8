"""What no braking can help, worked out by hand; and that nothing else is excused."""

import math

import pytest

from benchmarks._adversary.unavoidable import STOOD_S, Moment, unavoidable
from contracts.robot import AMR_SMALL, TUGGER
from sim.world.state import PERSON_RADIUS_M

STEP_S = 0.05
NEAR_M = AMR_SMALL.footprint_radius_m + PERSON_RADIUS_M
BRAKING_M = 1.2**2 / (2.0 * AMR_SMALL.braking_mps2)
"""What a base needs from 1.2 m/s."""


def past(robot, person, ticks=40, model=AMR_SMALL):
    """Moments up to the contact: ``robot(t)`` gives x, y, heading, speed, turn rate; ``person(t)`` x, y, pace, seen.

    ``t`` is 0 at the contact, and negative before.
    """
    del model
    found = []
    for tick in range(-ticks, 1):
        x, y, heading, speed, turn_rate = robot(tick * STEP_S)
        person_x, person_y, pace, seen = person(tick * STEP_S)
        found.append(Moment((x, y, heading), (speed, turn_rate), (person_x, person_y), pace, seen))
    return found


def ahead(t, speed=1.2):
    """Straight on at full speed, and never braked."""
    return (speed * t, 0.0, 0.0, speed, 0.0)


def steps_off(since_s, pace=1.6, at_m=NEAR_M - 0.01, side_m=0.0, stood_s=math.inf):
    """Somebody who stands beside the way, walks straight into it ``since_s`` before the contact, and is touched."""

    def person(t):
        walked_s = max(t + since_s, 0.0)
        stands = t <= -since_s + 1e-9 and t > -since_s - stood_s + 1e-9
        return (at_m, side_m + pace * (since_s - walked_s), 0.0 if stands else pace, True)

    return person


def test_who_steps_off_at_the_last_moment_is_touched_by_whoever_brakes():
    moments = past(ahead, steps_off(since_s=0.3))
    # 0.3 s before, the robot is 0.36 m away from where they meet; it needs 0.45 m.
    assert BRAKING_M > 1.2 * 0.3
    assert unavoidable(moments, STEP_S, AMR_SMALL)


@pytest.mark.parametrize("since_s", [0.45, 0.6, 1.0, 1.4])
def test_who_sets_off_early_enough_to_be_braked_for_is_not_excused(since_s):
    assert 1.2 * since_s > BRAKING_M
    assert not unavoidable(past(ahead, steps_off(since_s)), STEP_S, AMR_SMALL)


@pytest.mark.parametrize(("since_s", "excused"), [(0.35, True), (0.40, False)])
def test_the_border_is_the_braking_distance(since_s, excused):
    """To the contact remain 0.42 or 0.48 m; they are 1 cm deep in it, and the last 5 cm/s do not count."""
    assert 1.2 * 0.35 < BRAKING_M < 1.2 * 0.40
    assert unavoidable(past(ahead, steps_off(since_s)), STEP_S, AMR_SMALL) is excused


def test_who_walks_all_along_is_not_excused_however_near():
    assert not unavoidable(past(ahead, steps_off(since_s=10.0)), STEP_S, AMR_SMALL)


def test_who_halts_for_less_than_standing_is_still_walking():
    assert not unavoidable(past(ahead, steps_off(0.3, stood_s=STOOD_S - STEP_S)), STEP_S, AMR_SMALL)
    assert unavoidable(past(ahead, steps_off(0.3, stood_s=STOOD_S)), STEP_S, AMR_SMALL)


def test_who_stands_all_along_is_not_excused():
    assert not unavoidable(past(ahead, lambda _: (NEAR_M - 0.01, 0.0, 0.0, True)), STEP_S, AMR_SMALL)


@pytest.mark.parametrize(("since_s", "excused"), [(0.3, True), (0.6, False)])
def test_who_comes_into_view_too_late_is_no_ones_fault(since_s, excused):
    moments = past(ahead, lambda t: (NEAR_M - 0.01, 1.6 * -t, 1.6, t >= -since_s + 1e-9))
    assert unavoidable(moments, STEP_S, AMR_SMALL) is excused


def test_who_was_never_seen_has_just_come():
    moments = past(ahead, lambda t: (NEAR_M - 0.01, 1.6 * -t, 1.6, False))
    assert unavoidable(moments, STEP_S, AMR_SMALL), "from the contact on, nothing can be braked any more"


def test_the_later_of_the_two_counts():
    """Set off long ago behind a shelf, and out of it at the last moment."""
    behind = steps_off(since_s=1.2)

    def person(t):
        x, y, pace, _ = behind(t)
        return (x, y, pace, t >= -0.2 + 1e-9)

    assert unavoidable(past(ahead, person), STEP_S, AMR_SMALL)


def test_a_robot_that_turned_in_could_have_gone_straight_on():
    """Only braking along the arc touches: whoever lets go of the turn as well passes by."""

    def turning(t):
        angle = 2.0 * t
        return (0.6 * math.sin(angle), 0.6 * (1.0 - math.cos(angle)), angle, 1.2, 2.0)

    at = (NEAR_M * math.cos(0.35), NEAR_M * math.sin(0.35))
    moments = past(turning, lambda t: (*at, 0.0 if t < -0.25 else 0.1, True))
    assert not unavoidable(moments, STEP_S, AMR_SMALL)


def test_backwards_is_braked_as_well():
    moments = past(lambda t: (-1.2 * t, 0.0, 0.0, -1.2, 0.0), steps_off(0.3, at_m=-NEAR_M + 0.01))
    assert unavoidable(moments, STEP_S, AMR_SMALL)
    moments = past(lambda t: (-0.3 * t, 0.0, 0.0, -0.3, 0.0), steps_off(0.3, at_m=-NEAR_M + 0.01))
    assert not unavoidable(moments, STEP_S, AMR_SMALL)


def test_a_long_footprint_is_touched_at_its_front():
    front_m = max(TUGGER.footprint_offsets_m)
    at_m = front_m + TUGGER.footprint_radius_m + PERSON_RADIUS_M - 0.01
    speed = TUGGER.speed_max_mps
    short_s, long_s = 0.5 * speed / 2.0 / TUGGER.braking_mps2, 2.0 * speed / TUGGER.braking_mps2
    robot = lambda t: ahead(t, speed)  # noqa: E731
    assert unavoidable(past(robot, steps_off(short_s, at_m=at_m)), STEP_S, TUGGER)
    assert not unavoidable(past(robot, steps_off(long_s, at_m=at_m), ticks=80), STEP_S, TUGGER)
