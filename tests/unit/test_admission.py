"""What of a command passes, against the same rule written out slowly and against cases reckoned by hand."""

import math

import numpy as np
import pytest

from contracts.robot import AMR_SMALL, TUGGER
from safety.admission import BETWEEN, MOVING_MPS, Admission
from safety.config import MonitorConfig
from safety.geometry import Arc, Points, speed_cap

CONFIG = MonitorConfig()
AGE_S = 0.1
FAR_M = 8.0


def admission(model, ranges):
    made = Admission(CONFIG, model)
    made.see(np.asarray(ranges, dtype=np.float32))
    return made


def way_of(model, ranges):
    """A function that says how far a disc gets along an arc, m."""
    lidar = model.lidar
    angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
    points = Points(lidar.rays)
    points.put(np.asarray(ranges, dtype=np.float32).astype(float), (np.cos(angles), np.sin(angles)))
    radius_m = model.footprint_radius_m + CONFIG.margin_m
    return lambda arc: points.free_distance(arc, radius_m, CONFIG.reach_m)


def allowed(model, way, arc, age_s):
    """Share of an arc's pace that braking leaves, and its free way; 1 and all of the reach for a disc that stands."""
    pace = math.hypot(arc.speed, arc.turn_rate * arc.offset_m)
    if pace < 1e-6:
        return math.inf, CONFIG.reach_m, 0.0
    free_m = way(arc)
    closing_mps = CONFIG.obstacle_mps * abs(arc.speed) / pace
    cap = speed_cap(free_m - CONFIG.standoff_m, model.braking_mps2, CONFIG.reaction_s + age_s, closing_mps)
    return cap, free_m, pace


def slowly(model, ranges, command, velocity, age_s):
    """Admission's docstring, disc by disc."""
    way = way_of(model, ranges)
    moving = velocity[0] if abs(velocity[0]) > MOVING_MPS else 0.0
    shares, turns, ways = [1.0], [1.0], [CONFIG.reach_m]
    for offset_m in model.footprint_offsets_m:
        cap, free_m, pace = allowed(model, way, Arc(*command, offset_m), age_s)
        now_cap, now_m, _ = allowed(model, way, Arc(moving, velocity[1], offset_m), age_s)
        if command[0] * moving > 0.0:
            cap = min(cap, now_cap)
        if pace:
            shares.append(cap / pace)
        turn_cap, _, turn_pace = allowed(model, way, Arc(0.0, command[1], offset_m), age_s)
        if turn_pace:
            turns.append(turn_cap / turn_pace)
        ways += [free_m, now_m]
    if command[0] == 0.0 or min(shares) < CONFIG.turn_on_the_spot_below:
        return 0.0, command[1] * min(turns), min(ways)
    return command[0] * min(shares), command[1] * min(shares), min(ways)


@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
def test_it_is_the_rule_written_out_slowly(model):
    rng = np.random.default_rng(4)
    kinds = {"whole": 0, "part": 0, "on the spot": 0}
    for _ in range(250):
        ranges = np.minimum(
            np.full(model.lidar.rays, FAR_M), rng.uniform(0.3, 9.0) + rng.uniform(0, 3.0, model.lidar.rays)
        )
        ranges[rng.integers(model.lidar.rays, size=6)] = rng.uniform(0.35, 2.5, 6)
        command = (rng.choice([-0.3, 0.0, 0.4, 1.2]), rng.choice([0.0, -1.2, 0.3, 1.2]))
        velocity = (rng.choice([-0.3, 0.0, MOVING_MPS, 0.06, 1.0]), rng.choice([0.0, 0.7, -1.0]))
        found = admission(model, ranges).admit(command, velocity, AGE_S)
        expected = slowly(model, ranges, command, velocity, AGE_S)
        assert found == pytest.approx(expected, abs=1e-9), (command, velocity)
        kinds["whole" if found[:2] == command else "part" if found[0] else "on the spot"] += 1
        way = way_of(model, ranges)
        if command[0]:
            shares = [1.0]
            for offset_m in model.footprint_offsets_m:
                for part in BETWEEN:
                    turn_rate = velocity[1] * (1.0 - part) + command[1] * part
                    cap, _, pace = allowed(model, way, Arc(command[0], turn_rate, offset_m), AGE_S)
                    shares.append(cap / pace)
            share = min(shares)
            wanted = (
                (0.0, command[1])
                if share < CONFIG.turn_on_the_spot_below
                else (command[0] * share, command[1] * share)
            )
            between = admission(model, ranges).between(command, velocity[1], AGE_S)
            assert between == pytest.approx(wanted, abs=1e-9), (command, velocity)
    assert min(kinds.values()) > 20, kinds


@pytest.mark.parametrize("gap_m", [0.2, 0.5, 1.0])
def test_towards_a_wall_it_is_the_speed_that_stops_before_it(gap_m):
    lidar = AMR_SMALL.lidar
    angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
    wall_m = AMR_SMALL.footprint_radius_m + CONFIG.margin_m + gap_m
    ranges = np.where(np.cos(angles) > 0.1, wall_m / np.maximum(np.cos(angles), 0.1), FAR_M)
    speed, turn, free_m = admission(AMR_SMALL, ranges).admit((1.2, 0.6), (0.0, 0.0), AGE_S)
    del speed, turn
    straight, _, free_m = admission(AMR_SMALL, ranges).admit((1.2, 0.0), (0.0, 0.0), AGE_S)
    assert free_m == pytest.approx(gap_m, abs=1e-3)
    cap = speed_cap(
        gap_m - CONFIG.standoff_m, AMR_SMALL.braking_mps2, CONFIG.reaction_s + AGE_S, CONFIG.obstacle_mps
    )
    expected = 0.0 if cap / 1.2 < CONFIG.turn_on_the_spot_below else cap
    assert straight == pytest.approx(expected, abs=2e-3)
    back = admission(AMR_SMALL, ranges).admit((-0.3, 0.0), (0.0, 0.0), AGE_S)
    assert back[:2] == (-0.3, 0.0)


def test_a_long_robot_does_not_turn_into_what_is_beside_its_ends_and_a_round_one_does_not_care():
    ranges = np.full(TUGGER.lidar.rays, FAR_M)
    beside = TUGGER.lidar.rays // 2 + round(math.radians(30) / TUGGER.lidar.angle_step_rad)
    ranges[beside] = 0.62
    turn = admission(TUGGER, ranges).admit((0.0, 1.2), (0.0, 0.0), 0.0)
    assert turn[0] == 0.0
    assert 0.0 < turn[1] < 0.5
    assert admission(TUGGER, ranges).admit((0.0, -1.2), (0.0, 0.0), 0.0)[:2] == (0.0, -1.2)
    assert admission(AMR_SMALL, ranges).admit((0.0, 1.2), (0.0, 0.0), 0.0)[:2] == (0.0, 1.2)
