"""Free ways, speeds, zones and scans against what can be reckoned by hand."""

import math

import numpy as np
import pytest

from contracts.decision import Reason
from contracts.robot import AMR_SMALL, TUGGER, LidarModel
from safety.config import MonitorConfig, WatchConfig
from safety.errors import ZoneError
from safety.geometry import ESCAPE_COSINE, STILL_MPS, STRAIGHT_RADPM, Arc, Points, speed_cap
from safety.scan import ScanCleaner
from safety.zones import DEEPER_M, SAMPLES, Zone, ZoneGuard, _far, _places, rectangle, signed_distance

RADIUS_M, REACH_M = 0.25, 6.0


def free(arcs, *places, radius_m=RADIUS_M, reach_m=REACH_M):
    """Free distances in m along arcs with something at each of the places (x, y)."""
    ranges = np.array([math.hypot(*place) for place in places])
    directions = np.array(
        [np.array(place) / max(size, 1e-12) for place, size in zip(places, ranges, strict=True)]
    ).T
    points = Points(len(places))
    points.put(ranges, tuple(np.ascontiguousarray(directions)))
    return [points.free_distance(arc, radius_m, reach_m) for arc in arcs]


@pytest.mark.parametrize(
    ("speed", "place", "expected"),
    [(0.5, (2.0, 0.0), 1.75), (0.5, (2.0, 0.15), 1.8), (0.5, (2.0, -0.2), 1.85), (0.5, (2.0, 0.251), REACH_M),
     (0.5, (2.0, -0.251), REACH_M), (0.5, (-2.0, 0.0), REACH_M), (-0.5, (-2.0, 0.15), 1.8), (-0.5, (2.0, 0.0), REACH_M),
     (0.5, (6.3, 0.0), REACH_M), (0.5, (0.2, 0.0), 0.0), (0.5, (-0.2, 0.0), REACH_M), (-0.5, (-0.2, 0.0), 0.0),
     (-0.5, (0.2, 0.0), REACH_M), (0.5, (0.25, 0.0), 0.0)],
)  # fmt: skip
def test_straight_on_a_disc_touches_where_its_circle_meets_the_point(speed, place, expected):
    assert free([Arc(speed, 0.0)], place) == pytest.approx([expected])


@pytest.mark.parametrize("way", [1.0, -1.0])
@pytest.mark.parametrize("speed", [1.0, -1.0])
@pytest.mark.parametrize(
    ("angle", "out_m"),
    [(0.5 * math.pi, 0.0), (1.0, 0.1), (2.5, -0.2), (4.0, 0.05), (6.0, 0.0), (0.7, -0.249)],
)
def test_on_an_arc_it_is_the_angle_less_the_half_angle_of_the_law_of_cosines(way, speed, angle, out_m):
    """Radius 2, centre at (0, 2 way); the point ``out_m`` outside of the circle at ``angle`` from the begin."""
    size, far = 2.0, 2.0 + out_m
    turn_rate = way * speed / size  # to the left where both are positive
    place = (far * math.sin(angle), way * (size - far * math.cos(angle)))
    if speed < 0.0:
        place = (-place[0], place[1])
    half = math.acos((size * size + far * far - RADIUS_M**2) / (2.0 * size * far))
    expected = min(size * ((angle - half) % math.tau), 20.0)
    assert free([Arc(speed, turn_rate)], place, reach_m=20.0) == pytest.approx([expected])
    beside = (far + math.copysign(RADIUS_M + 1e-3, out_m or 1.0)) if out_m else size + RADIUS_M + 1e-3
    aside = (beside * math.sin(angle) * math.copysign(1.0, speed), way * (size - beside * math.cos(angle)))
    if abs(beside - size) > RADIUS_M:
        assert free([Arc(speed, turn_rate)], aside, reach_m=20.0) == [20.0]


def test_all_arcs_of_a_call_are_as_each_alone():
    arcs = [
        Arc(0.5, 0.0), Arc(0.5, 1.0), Arc(-0.3, 0.4), Arc(0.5, 0.2, 0.3), Arc(0.0, 1.0, -0.3), Arc(0.5, 0.0, 0.3),
        Arc(0.5, 1e-4, 0.3),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    places = [tuple(place) for place in rng.uniform(-3.0, 3.0, (60, 2))]
    together = free(arcs, *places)
    for arc, found in zip(arcs, together, strict=True):
        assert free([arc], *places) == pytest.approx([found])
        assert free([arc], *places) == pytest.approx([min(free([arc], place)[0] for place in places)])


@pytest.mark.parametrize("offset_m", [0.3, -0.3])
def test_a_disc_at_an_offset_goes_straight_beside_and_turns_on_its_own_circle(offset_m):
    assert free([Arc(0.5, 0.0, offset_m)], (2.0, 0.15)) == pytest.approx([1.8 - offset_m])
    # On the spot it goes sideways on a circle of 0.3 m; something at a right angle, on that circle:
    side = math.copysign(1.0, offset_m)
    half = math.acos(1.0 - RADIUS_M**2 / (2.0 * 0.3**2))
    found = free([Arc(0.0, 1.0, offset_m)], (0.0, 0.3 * side))
    assert found == pytest.approx([0.3 * (0.5 * math.pi - half)])


def test_a_nearly_straight_arc_is_taken_as_straight_with_its_discs_inclination():
    arc = Arc(1.0, STRAIGHT_RADPM, 0.3)
    lean = STRAIGHT_RADPM * 0.3
    middle_m = lean * (6.0 - 0.3)
    for side in (RADIUS_M, -RADIUS_M):
        touched, passed = middle_m + 0.9995 * side, middle_m + 1.0005 * side
        assert free([arc], (6.0, touched), reach_m=9.0)[0] < 6.0
        assert free([arc], (6.0, touched), (-0.6, 0.9), reach_m=9.0)[0] < 6.0, (
            "with something nearer elsewhere"
        )
        assert free([arc], (6.0, passed), reach_m=9.0) == [9.0]


@pytest.mark.parametrize(
    ("cosine", "free_m"),
    [(ESCAPE_COSINE + 1e-3, 0.0), (ESCAPE_COSINE - 1e-3, REACH_M), (1.0, 0.0), (-1.0, REACH_M)],
)
def test_what_is_within_the_disc_blocks_only_motion_towards_it(cosine, free_m):
    sine = math.sqrt(max(1.0 - cosine * cosine, 0.0))
    for turn_rate in (0.0, 0.4):
        assert free([Arc(0.5, turn_rate)], (0.2 * cosine, 0.2 * sine), radius_m=0.3)[0] == pytest.approx(
            free_m
        )
    assert free([Arc(0.5, 0.0)], (0.3, 0.0), radius_m=0.3)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("turn_rate", [1.0, -1.0])
@pytest.mark.parametrize(("ahead", "free_m"), [(0.15, 0.0), (-0.15, REACH_M)])
def test_in_a_turn_tighter_than_the_disc_what_is_at_its_middle_is_within_the_disc_too(
    turn_rate, ahead, free_m
):
    """Turning on 0.1 m with a disc of 0.36 m, what is 0.15 m beside the centre is never outside of the disc."""
    assert free([Arc(0.1, turn_rate)], (ahead, 0.1 * turn_rate), radius_m=0.36) == [free_m]


def test_the_pace_of_a_disc():
    assert Arc(-0.5, 2.0).pace == 0.5
    assert Arc(0.3, 1.0, 0.4).pace == pytest.approx(0.5)
    assert Arc(0.3, 1.0, -0.4).pace == pytest.approx(0.5)
    assert Arc(STILL_MPS, 0.0, 0.4).pace == STILL_MPS
    assert Arc(0.9 * STILL_MPS, 0.0, 0.4).pace == 0.0


@pytest.mark.parametrize("obstacle_mps", [0.0, 0.8])
@pytest.mark.parametrize("reaction_s", [0.05, 0.3])
@pytest.mark.parametrize("speed", [0.05, 0.7, 1.2])
def test_from_the_highest_speed_it_just_stops(speed, reaction_s, obstacle_mps):
    braking = 1.6
    way_m = speed * reaction_s + speed**2 / (2.0 * braking) + obstacle_mps * (reaction_s + speed / braking)
    assert speed_cap(way_m, braking, reaction_s, obstacle_mps) == pytest.approx(speed)
    assert speed_cap(obstacle_mps * reaction_s, braking, reaction_s, obstacle_mps) == pytest.approx(
        0.0, abs=1e-12
    )
    assert speed_cap(-9.0, braking, reaction_s, obstacle_mps) == 0.0


LIDAR = LidarModel(rays=12, range_min_m=0.125, range_max_m=8.0)


def cleaned(**values):
    """A scan of 4 m with some rays changed (``r3=...``), cleaned."""
    ranges = np.full(12, 4.0, dtype=np.float32)
    for name, value in values.items():
        ranges[int(name[1:])] = value
    cleaner = ScanCleaner(LIDAR)
    return cleaner.clean(ranges).tolist(), cleaner


def test_a_range_at_the_lidars_least_is_one_and_below_it_none():
    clean, cleaner = cleaned(r3=0.125, r5=0.1249, r0=math.inf, r11=9.0)
    assert (clean[3], clean[5], clean[0], clean[11], cleaner.invalid) == (0.125, 4.0, 8.0, 8.0, 1)


def test_a_lone_gap_takes_its_nearer_neighbour_also_across_the_seam():
    assert cleaned(r0=math.nan, r11=2.0, r1=3.0)[0][0] == 2.0
    assert cleaned(r0=math.nan, r11=3.0, r1=2.0)[0][0] == 2.0
    assert cleaned(r11=math.nan, r10=5.0, r0=3.0)[0][11] == 3.0
    clean, cleaner = cleaned(r4=math.nan, r5=-1.0)
    assert (clean[4], clean[5], cleaner.invalid) == (0.125, 0.125, 2)


@pytest.mark.parametrize(
    ("rays", "rays_min", "blind"),
    [((3, 4), 2, {3, 4}), ((3, 4), 3, set()), ((3, 4, 5, 8), 2, {3, 4, 5}), ((3, 4, 5, 8), 3, {3, 4, 5}),
     ((11, 0, 1), 3, {11, 0, 1}), ((3,), 1, {3}), ((3, 4, 5, 6), 3, {3, 4, 5, 6}), ((), 2, set())],
)  # fmt: skip
def test_a_blind_sector_is_a_run_of_invalid_rays(rays, rays_min, blind):
    _, cleaner = cleaned(**{f"r{ray}": math.nan for ray in rays})
    assert set(np.flatnonzero(cleaner.blind(rays_min)).tolist()) == blind


CONFIG, WATCH = MonitorConfig(), WatchConfig()
APART_M = AMR_SMALL.reach_m + WATCH.zone_margin_m


def limited(kind, edge_m, speed, turn_rate=0.0, heading=0.0, measured=None, age_s=0.0, **more):
    """Command and reason of a robot at the origin before a zone that begins ``edge_m`` ahead."""
    low, high = (-90.0, edge_m) if kind == "stay_in" else (edge_m, 90.0)
    guard = ZoneGuard((Zone(kind, rectangle(low, -90.0, high, 90.0), **more),), AMR_SMALL, CONFIG, WATCH)
    velocity = (speed, 0.0) if measured is None else measured
    return guard.limit((speed, turn_rate), velocity, (0.0, 0.0, heading), age_s)


@pytest.mark.parametrize("kind", ["keep_out", "stay_in"])
@pytest.mark.parametrize(
    ("speed", "age_s", "measured_mps"),
    [(1.0, 0.0, 1.0), (0.6, 0.0, 0.0), (1.0, 0.2, 0.5), (0.3, 0.1, -0.9), (0.5, 0.0, 1.2)],
)
def test_before_a_forbidden_zone_the_speed_is_what_stops_in_time(kind, speed, age_s, measured_mps):
    """Looked at as far ahead as the larger of commanded and measured speed needs."""
    braking, reaction_s, fastest = (
        AMR_SMALL.braking_mps2,
        CONFIG.reaction_s + age_s,
        max(speed, abs(measured_mps)),
    )
    ahead_m = fastest * reaction_s + fastest**2 / (2.0 * braking) + CONFIG.standoff_m
    step_m = ahead_m / (SAMPLES - 2)
    reason = Reason.KEEP_OUT if kind == "keep_out" else Reason.STAY_IN
    for places in (20, 12, 5, 2):
        edge_m = APART_M + (places + 0.5) * step_m
        (admitted, turn), found = limited(kind, edge_m, speed, measured=(measured_mps, 0.0), age_s=age_s)
        expected = speed_cap(places * step_m - CONFIG.standoff_m, braking, reaction_s, 0.0)
        if expected / speed < CONFIG.turn_on_the_spot_below:
            expected = 0.0
        assert (admitted, turn) == pytest.approx((min(expected, speed), 0.0)), places
        assert found is (reason if expected < speed else Reason.CLEAR)
    far_m = APART_M + ahead_m + 2.0 * step_m
    assert limited(kind, far_m, speed, measured=(measured_mps, 0.0), age_s=age_s) == (
        (speed, 0.0),
        Reason.CLEAR,
    )


@pytest.mark.parametrize(
    ("heading", "speed", "turn_rate", "free_way"),
    [(math.pi, 0.5, 0.0, True), (math.pi, -0.3, 0.0, False), (0.0, -0.3, 0.0, True), (math.pi / 2, 0.5, 0.0, True),
     (math.pi / 2, 0.5, -1.2, False), (math.pi / 2, 0.5, 1.2, True), (-math.pi / 2, 0.5, 1.2, False),
     (-math.pi / 2, -0.3, 1.2, True), (-math.pi / 2, -0.3, -1.2, False)],
)  # fmt: skip
def test_the_way_ahead_follows_heading_direction_and_curve(heading, speed, turn_rate, free_way):
    """Backwards with a turn to the left the rear goes to the right of the way it faced."""
    _, reason = limited(
        "keep_out", APART_M + 0.015, speed, turn_rate, heading, measured=(abs(speed) * 2.0, 0.0)
    )
    assert (reason is Reason.CLEAR) == free_way


@pytest.mark.parametrize(("limit_mps", "speed"), [(0.4, 1.0), (0.4, 0.5), (0.4, 0.4), (0.4, 0.3)])
def test_inside_a_speed_zone_its_speed_holds_and_the_curve_stays(limit_mps, speed):
    (admitted, turn), reason = limited("speed_limit", -5.0, speed, 0.6, speed_mps=limit_mps)
    assert admitted == pytest.approx(min(speed, limit_mps))
    assert turn / admitted == pytest.approx(0.6 / speed)
    assert reason is (Reason.SPEED_ZONE if speed > limit_mps else Reason.CLEAR)


def test_before_a_speed_zone_it_brakes_to_its_speed():
    speed, limit_mps, braking = 1.2, 0.3, AMR_SMALL.braking_mps2
    step_m = (speed * CONFIG.reaction_s + speed**2 / (2 * braking) + CONFIG.standoff_m) / (SAMPLES - 2)
    for places in (2, 6, 12):
        lag = braking * CONFIG.reaction_s
        expected = math.sqrt(lag**2 + limit_mps**2 + 2.0 * braking * places * step_m) - lag
        (admitted, _), reason = limited(
            "speed_limit", APART_M + (places + 0.5) * step_m, speed, speed_mps=limit_mps
        )
        assert admitted == pytest.approx(min(max(expected, limit_mps), speed)), places
        assert reason is (Reason.SPEED_ZONE if admitted < speed else Reason.CLEAR)
    slow, reason = limited("speed_limit", -5.0, 0.5, speed_mps=0.02)
    assert slow[0] == pytest.approx(0.02), "a slow zone is driven in, not turned in"
    assert reason is Reason.SPEED_ZONE


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("curvature", [0.0, 2.0, -0.7])
def test_places_along_the_way_lie_on_its_circle(direction, curvature):
    x_m, y_m, heading, step_m = 1.0, -2.0, 0.3, 0.1
    for index, place in enumerate(_places((x_m, y_m, heading), direction, curvature, step_m)):
        way, bend = index * step_m, curvature * index * step_m
        if curvature:
            ahead, aside = math.sin(bend) / curvature, (1.0 - math.cos(bend)) / curvature
        else:
            ahead, aside = way, 0.0
        ahead, aside = direction * ahead, direction * aside
        expected = (
            x_m + ahead * math.cos(heading) - aside * math.sin(heading),
            y_m + ahead * math.sin(heading) + aside * math.cos(heading),
        )
        assert tuple(place) == pytest.approx(expected), index


def test_far_outside_of_where_it_must_stay_only_the_way_back_is_free():
    guard = ZoneGuard((Zone("stay_in", rectangle(0.0, 0.0, 1.0, 1.0)),), AMR_SMALL, CONFIG, WATCH)
    away = guard.limit((0.5, 0.0), (0.5, 0.0), (50.0, 0.5, 0.0), 0.0)
    assert away == ((0.0, 0.0), Reason.STAY_IN)
    back = guard.limit((0.5, 0.0), (0.5, 0.0), (50.0, 0.5, math.pi), 0.0)
    assert back == ((0.5, 0.0), Reason.CLEAR)


def test_of_several_zones_the_one_that_takes_most_is_named():
    near = Zone("keep_out", rectangle(APART_M + 0.2, -9.0, 9.0, 9.0))
    far = Zone("speed_limit", rectangle(APART_M + 0.2, -9.0, 9.0, 9.0), 0.7)
    for zones in ((near, far), (far, near)):
        guard = ZoneGuard(zones, AMR_SMALL, CONFIG, WATCH)
        (speed, _), reason = guard.limit((1.2, 0.0), (1.2, 0.0), (0.0, 0.0, 0.0), 0.0)
        assert reason is Reason.KEEP_OUT
        assert speed < 0.7


def test_deeper_is_beyond_rounding_and_within_it_is_not():
    corners = rectangle(-1.0, -9.0, 9.0, 9.0)
    guard = ZoneGuard((Zone("keep_out", corners),), AMR_SMALL, CONFIG, WATCH)
    along = guard.limit((0.5, 0.0), (0.5, 0.0), (0.0, 0.0, math.pi / 2), 0.0)
    assert along == ((0.5, 0.0), Reason.CLEAR), "along its edge it gets no deeper"
    slightly = DEEPER_M / 10.0
    assert guard.limit((0.5, 0.0), (0.5, 0.0), (0.0, 0.0, math.pi / 2 - slightly), 0.0)[1] is Reason.CLEAR
    assert guard.limit((0.5, 0.0), (0.5, 0.0), (0.0, 0.0, math.pi / 2 - 0.1), 0.0)[1] is Reason.KEEP_OUT
    assert guard.limit((0.0, 0.3), (0.5, 0.0), (0.0, 0.0, 0.0), 0.0) == ((0.0, 0.3), Reason.CLEAR)


@pytest.mark.parametrize(
    ("pose", "near"),
    [((-1.0, 0.5), True), ((2.0, 0.5), True), ((0.5, -1.0), True), ((0.5, 2.0), True), ((-3.0, 0.5), False),
     ((4.0, 0.5), False), ((0.5, -3.0), False), ((0.5, 4.0), False)],
)  # fmt: skip
def test_only_what_is_near_is_looked_at_on_every_side(pose, near):
    guard = ZoneGuard((Zone("keep_out", rectangle(0.0, 0.0, 1.0, 1.0)),), AMR_SMALL, CONFIG, WATCH)
    heading = math.atan2(0.5 - pose[1], 0.5 - pose[0])
    found = guard.limit((1.2, 0.0), (1.2, 0.0), (*pose, heading), 0.0)[1]
    assert (found is Reason.KEEP_OUT) == near


def test_far_is_beyond_the_box_around_a_zone_on_any_side():
    corners = np.array([(0.0, 1.0), (4.0, 1.0), (2.0, 7.0)])
    near = ((-0.9, 4.0), (4.9, 4.0), (2.0, 0.1), (2.0, 7.9))
    beyond = ((-1.1, 4.0), (5.1, 4.0), (2.0, -0.1), (2.0, 8.1), (-1.0, 4.0), (2.0, 8.0))
    for (x_m, y_m), far in [(at, False) for at in near] + [(at, True) for at in beyond]:
        assert _far((x_m, y_m, 0.0), corners, 1.0) is far, (x_m, y_m)


def test_signed_distance_beyond_ends_and_on_level_edges():
    square = np.array(rectangle(0.0, 0.0, 2.0, 2.0))
    places = np.array(
        [(1.0, 1.0), (3.0, 3.0), (-1.0, 1.0), (1.0, -2.0), (1.5, 1.9), (2.0, 2.0), (5.0, 0.0), (-1.0, 0.0)]
    )
    expected = [-1.0, math.sqrt(2.0), 1.0, 2.0, -0.1, 0.0, 3.0, 1.0]
    assert signed_distance(places, square) == pytest.approx(expected)
    assert signed_distance(places, square[::-1]) == pytest.approx(expected), "either way round"


@pytest.mark.parametrize(
    ("zone", "good"),
    [(Zone("keep_out", ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))), True),
     (Zone("keep_out", ((0.0, 0.0), (2e-3, 0.0), (0.0, 2e-3))), True),
     (Zone("keep_out", ((0.0, 0.0), (1e-3, 0.0), (0.0, 1e-3))), False),
     (Zone("keep_out", ((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 1.0))), False),
     (Zone("keep_out", ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))), False),
     (Zone("keep_out", ((0.0, 1.0), (0.0, 0.0), (1.0, 0.0))), True),
     (Zone("speed_limit", rectangle(0.0, 0.0, 1.0, 1.0), 1e-3), True),
     (Zone("speed_limit", rectangle(0.0, 0.0, 1.0, 1.0), -1.0), False),
     (Zone("speed_limit", rectangle(0.0, 0.0, 1.0, 1.0), math.inf), False)],
)  # fmt: skip
def test_a_zone_has_an_area_and_a_speed_where_it_needs_one(zone, good):
    if good:
        assert zone.check() is zone
    else:
        with pytest.raises(ZoneError):
            zone.check()


def test_a_long_robots_zones_take_its_farthest_point():
    guard = ZoneGuard((Zone("keep_out", rectangle(0.9, -9.0, 9.0, 9.0)),), TUGGER, CONFIG, WATCH)
    assert guard.limit((0.5, 0.0), (0.5, 0.0), (0.0, 0.0, 0.0), 0.0)[1] is Reason.KEEP_OUT
    assert TUGGER.reach_m == pytest.approx(0.6)
