"""What must hold for every scan and every command: the monitor only reduces, and braking stays possible."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.robot import AMR_SMALL, TUGGER
from safety.admission import Admission
from safety.config import MonitorConfig
from safety.geometry import STRAIGHT_RADPM, Arc, Points, speed_cap
from safety.monitor import NS, Inputs, SafetyMonitor
from sim.physics.ramp import RAMP_STEP_S, ramp_velocity
from sim.sensors.lidar import ray_table
from sim.twin.guard import admit_one, guard_settings

CONFIG = MonitorConfig()
LIDAR = AMR_SMALL.lidar
COSINES, SINES = ray_table(LIDAR)
RADIUS_M = AMR_SMALL.footprint_radius_m

any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)
seeds = st.integers(0, 2**32 - 1)


def random_scan(rng):
    """Something between an empty hall and a crowd; float32[rays]."""
    ranges = np.full(LIDAR.rays, LIDAR.range_max_m, dtype=np.float32)
    for _ in range(rng.integers(0, 8)):
        middle, width = rng.integers(LIDAR.rays), rng.integers(1, 40)
        ranges[np.arange(middle, middle + width) % LIDAR.rays] = rng.uniform(0.05, 4.0)
    return np.minimum(ranges, rng.uniform(0.3, 8.0, LIDAR.rays).astype(np.float32) + 1.0)


@settings(max_examples=200, deadline=None)
@given(seeds, any_float, any_float, any_float, any_float)
def test_output_is_never_larger_than_input(seed, speed, turn, measured, measured_turn):
    rng = np.random.default_rng(seed)
    monitor = SafetyMonitor(AMR_SMALL)
    monitor.arm()
    ranges = random_scan(rng)
    ranges[rng.random(LIDAR.rays) < rng.choice([0.0, 0.02, 0.2])] = rng.choice([math.nan, math.inf, -1.0])
    for tick in range(4):
        now_ns = tick * 50_000_000
        ruling = monitor.step(
            Inputs(now_ns, ranges, now_ns, (measured, measured_turn), now_ns, (speed, turn))
        )
        final, final_turn = ruling.command
        assert math.isfinite(final)
        assert math.isfinite(final_turn)
        if math.isfinite(speed) and math.isfinite(turn):
            assert abs(final) <= abs(speed)
            assert abs(final_turn) <= abs(turn)
            assert final * speed >= 0.0
            assert final_turn * turn >= 0.0
        else:
            assert (final, final_turn) == (0.0, 0.0)
        assert -AMR_SMALL.reverse_max_mps <= final <= AMR_SMALL.speed_max_mps
        assert abs(final_turn) <= AMR_SMALL.turn_rate_max_radps


def room_scan(x_m, y_m, heading, side_m):
    """Ranges in an empty square room, by hand: float32[rays]."""
    cosine = math.cos(heading) * COSINES - math.sin(heading) * SINES
    sine = math.sin(heading) * COSINES + math.cos(heading) * SINES
    with np.errstate(divide="ignore"):
        along_x = np.where(cosine > 0, (side_m - x_m) / cosine, -x_m / cosine)
        along_y = np.where(sine > 0, (side_m - y_m) / sine, -y_m / sine)
    return np.minimum(np.minimum(along_x, along_y), LIDAR.range_max_m).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    speed=st.sampled_from([1.2, 0.8, -0.3, 0.0]),
    turn=st.one_of(st.just(0.0), st.floats(-1.8, 1.8)),
    tick_steps=st.sampled_from([1, 2]),
    model=st.sampled_from([AMR_SMALL, TUGGER]),
)
def test_driven_at_a_wall_it_never_touches_it(seed, speed, turn, tick_steps, model):
    rng = np.random.default_rng(seed)
    side_m = 5.0
    x_m, y_m = rng.uniform(model.reach_m + 0.05, side_m - model.reach_m - 0.05, 2).tolist()
    heading = float(rng.uniform(-math.pi, math.pi))
    monitor, velocity = SafetyMonitor(model), np.zeros(2)
    monitor.arm()
    now_ns, tick_ns = 0, round(tick_steps * RAMP_STEP_S * NS)
    for _ in range(160 // tick_steps):
        ranges = room_scan(x_m, y_m, heading, side_m)
        ruling = monitor.step(Inputs(now_ns, ranges, now_ns, tuple(velocity.tolist()), now_ns, (speed, turn)))
        for _ in range(tick_steps):
            velocity = ramp_velocity(velocity, np.array(ruling.command), model)
            heading += velocity[1] * RAMP_STEP_S
            x_m += velocity[0] * math.cos(heading) * RAMP_STEP_S
            y_m += velocity[0] * math.sin(heading) * RAMP_STEP_S
        for offset_m in model.footprint_offsets_m:
            disc_x, disc_y = x_m + offset_m * math.cos(heading), y_m + offset_m * math.sin(heading)
            gap_m = min(disc_x, disc_y, side_m - disc_x, side_m - disc_y) - model.footprint_radius_m
            assert gap_m > 0.0
        now_ns += tick_ns


def test_it_stops_close_enough_to_be_useful():
    """Numeric acceptance: straight at a wall the robot ends within 30 cm of it, and does not stop early."""
    monitor, velocity, x_m = SafetyMonitor(AMR_SMALL), np.zeros(2), 1.0
    monitor.arm()
    for tick in range(300):
        ranges = room_scan(x_m, 4.0, 0.0, 8.0)
        now_ns = tick * 50_000_000
        ruling = monitor.step(Inputs(now_ns, ranges, now_ns, tuple(velocity.tolist()), now_ns, (1.2, 0.0)))
        velocity = ramp_velocity(velocity, np.array(ruling.command), AMR_SMALL)
        x_m += velocity[0] * 0.05
    assert 0.0 < 8.0 - x_m - RADIUS_M < 0.30


def free_distance(x, y, arc, radius_m, reach_m):
    """``Points.free_distance`` of points float64[n] that are no scan."""
    points = Points(len(x))
    distance = np.hypot(x, y)
    points.put(distance, (x / distance, y / distance))
    return points.free_distance(arc, radius_m, reach_m)


@settings(max_examples=150, deadline=None)
@given(
    seeds, st.floats(-1.2, 1.2).filter(lambda v: abs(v) > 0.01), st.one_of(st.just(0.0), st.floats(-1.8, 1.8))
)
def test_free_distance_is_that_of_a_march_along_the_arc(seed, speed, turn):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    distance, bearing = rng.uniform(0.3, 4.0, count), rng.uniform(-math.pi, math.pi, count)
    x, y = distance * np.cos(bearing), distance * np.sin(bearing)
    radius_m, reach_m = 0.36, 3.0
    free_m = free_distance(x, y, Arc(speed, turn), radius_m, reach_m)
    outside = np.hypot(x, y) >= radius_m
    inside_ahead = ~outside & (math.copysign(1.0, speed) * x > 0.35 * np.hypot(x, y))
    if inside_ahead.any():
        assert free_m == 0.0
        return
    # A curvature below the limit is taken as straight; the arc then bends away by this much at most.
    curvature = turn / speed
    slack_m = 1e-6 if abs(curvature) > STRAIGHT_RADPM else 0.5 * STRAIGHT_RADPM * reach_m**2 + 1e-6
    along = np.linspace(0.0, free_m, 2000) * math.copysign(1.0, speed)
    angle = along * curvature
    if abs(curvature) < 1e-9:
        at_x, at_y = along, np.zeros_like(along)
    else:
        at_x, at_y = np.sin(angle) / curvature, (1.0 - np.cos(angle)) / curvature
    if outside.any():
        gaps = np.hypot(at_x[:, None] - x[outside], at_y[:, None] - y[outside]).min(axis=1) - radius_m
        assert gaps.min() > -slack_m
        if free_m < reach_m:
            assert gaps[-1] == pytest.approx(0.0, abs=slack_m)
    else:
        assert free_m == reach_m


def test_no_way_is_travelled_without_speed():
    admission = Admission(CONFIG, AMR_SMALL)
    admission.see(np.full(LIDAR.rays, 0.31, dtype=np.float32))
    assert admission.admit((0.0, 1.0), (0.0, 1.0), 0.0) == (0.0, 1.0, CONFIG.reach_m)


@given(st.floats(-1.0, 6.0), st.floats(0.05, 0.6), st.floats(0.1, 1.5))
def test_speed_cap_is_the_braking_law(free_m, reaction_s, obstacle_mps):
    cap = speed_cap(free_m, 1.6, reaction_s, obstacle_mps)
    assert cap >= 0.0
    used_m = cap * reaction_s + cap**2 / 3.2 + obstacle_mps * (reaction_s + cap / 1.6)
    if cap > 0.0:
        assert used_m == pytest.approx(free_m, abs=1e-9)
    else:
        assert used_m >= free_m - 1e-9


@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
def test_compiled_guard_is_the_monitors_admission(model):
    """``sim.twin.guard.admit_one`` against ``safety.admission.Admission``: 6,000 random cases to 1e-9."""
    rng = np.random.default_rng(0)
    count = 6000
    ranges = np.stack([random_scan(rng) for _ in range(count)])
    command = np.stack([rng.uniform(-0.3, 1.2, count), rng.uniform(-1.8, 1.8, count)], axis=-1)
    velocity = command + rng.normal(0.0, 0.2, (count, 2))
    command[::7, 1] = 0.0
    command[::11, 0] = 0.0
    velocity[::13] = 0.0
    velocity[::5] = command[::5]
    age_s = rng.uniform(0.0, 0.3, count)
    admission = Admission(CONFIG, model)
    written, free_m = np.empty((count, 2)), np.empty(count)
    for k in range(count):
        admission.see(ranges[k])
        *written[k], free_m[k] = admission.admit(
            tuple(command[k].tolist()), tuple(velocity[k].tolist()), float(age_s[k])
        )
    numbers = guard_settings(CONFIG, model)
    compiled = command.copy()
    compiled_free_m = np.array(
        [
            admit_one(numbers, ranges[k], COSINES, SINES, compiled[k], velocity[k], age_s[k])
            for k in range(count)
        ]
    )
    assert np.abs(compiled - written).max() < 1e-9
    assert np.abs(compiled_free_m - free_m).max() < 1e-9
    reduced = np.abs(written[:, 0]) < np.abs(command[:, 0]) - 1e-9
    assert 0.2 < reduced.mean() < 0.95, "the cases are worth something"
