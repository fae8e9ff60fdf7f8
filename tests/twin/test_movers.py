"""What moves beside the robot: the monitor's text and the twin's compiled copy, on scans of real walkers."""

import math
import os

import numpy as np
import pytest

from contracts.robot import AMR_SMALL, TUGGER
from safety.config import MonitorConfig
from safety.monitor import SafetyMonitor
from safety.movers import (
    ALIVE,
    COLUMNS,
    KNOWN,
    MOVED_S,
    RADIUS,
    RADIUS_MAX_M,
    SEEN_S,
    SPEED_X,
    SPEED_Y,
    TRACKS,
    UNSEEN_MAX_S,
    Movers,
    X,
    Y,
    mover_numbers,
)
from sim.sensors.lidar import ray_table
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.randomise import Randomisation
from sim.twin.guard import guard_settings, roll_out_one
from sim.twin.movers import advance_one, mover_arrays, share_one, take_one
from sim.world.generate import generate_mixed

CONFIG = MonitorConfig()
COSINES, SINES = ray_table(AMR_SMALL.lidar)
SCENES = int(os.environ.get("OUTRIDER_SCENES", "25"))
"""With walkers that hide behind pillars; some thousands when the rule or its compiled copy is changed."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("hz", [10, 20])
@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
def test_the_compiled_movers_are_the_monitors(model, hz):
    """Shares and tracks to 1e-9, over some hundred steps of robots that drive at random among people."""
    settings = SimulationConfig(worlds=4, robots=1, people=30, control_hz=hz, randomise=Randomisation())
    simulation = Simulation(generate_mixed(4, 77), settings, seed=3, model=model)
    cosines, sines = ray_table(model.lidar)
    numbers, discs = mover_numbers(CONFIG, model), np.array(model.footprint_offsets_m)
    written = [Movers(CONFIG, model) for _ in range(4)]
    compiled = mover_arrays((4, 1), model.lidar.rays)
    rng, shares, followed = np.random.default_rng(5), [], 0
    for step in range(20 * hz):
        for world, movers in enumerate(written):
            velocity, ranges = simulation.disturbance.measured[world, 0], simulation.ranges[world, 0]
            wanted = (float(rng.uniform(-0.3, 1.2)), float(rng.choice([0.0, rng.uniform(-1.5, 1.5)])))
            if simulation.outcome[world, 0] > 1:
                continue
            movers.advance(simulation.step_s, tuple(velocity.tolist()))
            advance_one(compiled, world, 0, simulation.step_s, velocity)
            share = movers.share(wanted, 0.05)
            assert abs(share_one(compiled, world, 0, numbers, discs, *wanted, 0.05) - share) < 1e-9, step
            movers.take(ranges)
            if step % 3:
                movers.settle()
                assert np.allclose(movers._tracks, compiled_after(compiled, world, numbers, ranges, cosines, sines),
                                   rtol=0.0, atol=1e-9), step  # fmt: skip
            else:
                compiled_after(compiled, world, numbers, ranges, cosines, sines)
            shares.append(share)
            followed += len(movers.tracks)
        simulation.step(
            np.zeros((4, 1, 2), dtype=np.float32), rng.uniform([-0.2, -1.0], [1.2, 1.0], (4, 1, 2))
        )
    simulation.close()
    assert followed > 50
    assert 0.002 < np.mean(np.array(shares) < 1.0) < 0.9, "the cases are worth something"


@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
def test_the_compiled_ruling_over_a_turn_of_a_rolling_base_is_the_monitors(model):
    """The same command to 1e-9, over some hundred steps of robots among people; each of the three answers is given."""
    settings = SimulationConfig(
        worlds=4, robots=1, people=30, control_hz=20, guarded=False, randomise=Randomisation()
    )
    simulation = Simulation(generate_mixed(4, 78), settings, seed=4, model=model)
    cosines, sines = ray_table(model.lidar)
    numbers, guard = mover_numbers(CONFIG, model), guard_settings(CONFIG, model)
    discs, compiled = np.array(model.footprint_offsets_m), mover_arrays((4, 1), model.lidar.rays)
    monitors = [SafetyMonitor(model, CONFIG) for _ in range(4)]
    rng, answers = np.random.default_rng(6), {"as asked": 0, "less": 0, "none": 0}
    for step in range(300):
        for world, monitor in enumerate(monitors):
            velocity, ranges = simulation.disturbance.measured[world, 0], simulation.ranges[world, 0]
            if simulation.outcome[world, 0] > 1:
                continue
            monitor._movers.advance(simulation.step_s, tuple(velocity.tolist()))
            monitor._admission.see(ranges)
            advance_one(compiled, world, 0, simulation.step_s, velocity)
            asked = (0.0, float(rng.choice([0.0, rng.uniform(-1.8, 1.8)])))
            written = monitor._rolled_out(asked, tuple(velocity.tolist()), 0.05)
            command = np.array(asked)
            roll_out_one(
                guard, ranges, cosines, sines, compiled, world, 0, numbers, discs, command, velocity, 0.05
            )
            assert np.abs(command - written).max() < 1e-9, step
            if asked[1] != 0.0:
                kind = "as asked" if written[1] == asked[1] else "less" if written[1] != 0.0 else "none"
                answers[kind] += 1
            monitor._movers.take(ranges)
            monitor._movers.settle()
            compiled_after(compiled, world, numbers, ranges, cosines, sines)
        simulation.step(
            np.zeros((4, 1, 2), dtype=np.float32), rng.uniform([-0.2, -1.0], [1.2, 1.0], (4, 1, 2))
        )
    simulation.close()
    assert min(answers.values()) > 2, answers


def compiled_after(compiled, world, numbers, ranges, cosines, sines):
    take_one(compiled, world, 0, numbers, ranges, cosines, sines)
    return compiled.tracks[world, 0]


def scan_of(discs, wall_m=6.0):
    """Ranges to discs (x, y, radius) in a round hall, robot in its middle: float32[rays]."""
    ranges = np.full(AMR_SMALL.lidar.rays, wall_m)
    for x, y, radius in discs:
        along, across = x * COSINES + y * SINES, y * COSINES - x * SINES
        inside = (np.abs(across) < radius) & (along > 0.0)
        hit = along - np.sqrt(np.maximum(radius**2 - across**2, 0.0))
        ranges = np.where(inside & (hit < ranges), hit, ranges)
    return ranges.astype(np.float32)


def hidden_track(rng, now_s):
    """Something that is followed and was seen at most ``UNSEEN_MAX_S`` and a tick ago: float64[COLUMNS]."""
    track = np.zeros(COLUMNS)
    track[ALIVE], track[KNOWN] = 1.0, float(rng.random() < 0.8)
    angle, way = rng.uniform(-math.pi, math.pi, 2)
    apart, pace = rng.uniform(0.2, 4.0), rng.uniform(0.0, 2.5)
    track[X], track[Y] = apart * math.cos(angle), apart * math.sin(angle)
    if rng.random() < 0.7:  # towards the robot, or nearly
        way = angle + math.pi + rng.normal(0.0, 0.3)
    if track[KNOWN]:
        track[SPEED_X], track[SPEED_Y] = pace * math.cos(way), pace * math.sin(way)
    track[RADIUS] = rng.uniform(0.0, RADIUS_MAX_M)
    track[SEEN_S] = track[MOVED_S] = now_s - rng.uniform(0.0, UNSEEN_MAX_S + 0.1)
    return track


@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
@pytest.mark.parametrize(
    "config", [CONFIG, MonitorConfig(mover_spread_mps=1.0)], ids=["built-in", "less-sure"]
)
def test_what_hides_is_minded_where_it_is_by_now(model, config):
    """The twin passes by what is too far off to be met: it must reckon from where that is, not from where it was."""
    rng = np.random.default_rng(11)
    numbers, discs = mover_numbers(config, model), np.array(model.footprint_offsets_m)
    reduced = 0
    for case in range(1500):
        written, compiled = Movers(config, model), mover_arrays((1, 1), model.lidar.rays)
        now_s = float(rng.uniform(0.0, 50.0))
        for index in range(rng.integers(1, TRACKS + 1)):
            written._tracks[index] = hidden_track(rng, now_s)
        written._followed, written._now_s = written.tracks.tolist(), now_s
        compiled.tracks[0, 0], compiled.now_s[0, 0] = written._tracks, now_s
        wanted = (float(rng.uniform(-0.3, 1.2)), float(rng.choice([0.0, rng.uniform(-1.8, 1.8)])))
        age_s = float(rng.uniform(0.0, 0.3))
        share = written.share(wanted, age_s)
        assert abs(share_one(compiled, 0, 0, numbers, discs, *wanted, age_s) - share) < 1e-9, case
        reduced += share < 1.0
    assert 300 < reduced < 1400, "the cases are worth something"


def hider(rng):
    """Place in m at time s of somebody who walks up and down behind a pillar, and the pillar: (x, y, radius)."""
    bearing, apart = rng.uniform(-math.pi, math.pi), rng.uniform(0.9, 2.2)
    pillar = (apart * math.cos(bearing), apart * math.sin(bearing), rng.uniform(0.15, 0.4))
    begin, pace = rng.uniform(-1.0, 1.0), rng.uniform(0.5, 1.6) * rng.choice([-1.0, 1.0])
    way = bearing + rng.choice([0.5 * math.pi, rng.uniform(-math.pi, math.pi)])
    turns_s = rng.uniform(0.3, 2.0)

    def place(t):
        gone = pace * (turns_s - abs(t % (2.0 * turns_s) - turns_s)) + begin
        behind = apart + pillar[2] + 0.35
        return (
            behind * math.cos(bearing) + gone * math.cos(way),
            behind * math.sin(bearing) + gone * math.sin(way),
        )

    return place, pillar


@pytest.mark.timeout(600)
def test_who_hides_and_comes_out_again_is_the_same_to_both():
    """Scans of a driving robot among pillars, with people who vanish behind them and come out again."""
    rng = np.random.default_rng(SCENES)
    numbers, discs = mover_numbers(CONFIG, AMR_SMALL), np.array(AMR_SMALL.footprint_offsets_m)
    unseen, reduced = 0, 0
    for scene in range(SCENES):
        written, compiled = Movers(CONFIG, AMR_SMALL), mover_arrays((1, 1), AMR_SMALL.lidar.rays)
        hiders = [hider(rng) for _ in range(3)]
        x, y, heading = 0.0, 0.0, 0.0
        velocity = (float(rng.uniform(-0.1, 0.5)), float(rng.normal(0.0, 0.3)))
        for tick in range(40):
            things = [pillar for _, pillar in hiders] + [(*place(0.05 * tick), 0.25) for place, _ in hiders]
            cosine, sine = math.cos(heading), math.sin(heading)
            ranges = scan_of(
                [
                    (cosine * (a - x) + sine * (b - y), cosine * (b - y) - sine * (a - x), radius)
                    for a, b, radius in things
                ]
            )
            written.take(ranges)
            written.settle()
            assert np.allclose(
                written._tracks,
                compiled_after(compiled, 0, numbers, ranges, COSINES, SINES),
                rtol=0,
                atol=1e-9,
            ), (scene, tick)
            written.advance(0.05, velocity)
            advance_one(compiled, 0, 0, 0.05, np.array(velocity))
            for wanted in (
                (1.2, 0.0),
                (-0.3, 0.2),
                (float(rng.uniform(0.0, 1.2)), float(rng.uniform(-1.8, 1.8))),
            ):
                share = written.share(wanted, 0.05)
                assert abs(share_one(compiled, 0, 0, numbers, discs, *wanted, 0.05) - share) < 1e-9, (
                    scene,
                    tick,
                )
                reduced += share < 1.0
            unseen += int((written._now_s - written.tracks[:, SEEN_S] > 0.11).any())
            x, y, heading = (
                x + 0.05 * velocity[0] * cosine,
                y + 0.05 * velocity[0] * sine,
                heading + 0.05 * velocity[1],
            )
    assert unseen > 3 * SCENES, "some were hidden while they were followed"
    assert reduced > 3 * SCENES


def watched(place, seconds=1.0, hz=20, velocity=(0.0, 0.0)):
    """``Movers`` of a robot that stands while ``place(t)`` says where somebody is."""
    movers = Movers(CONFIG, AMR_SMALL)
    for tick in range(round(seconds * hz)):
        movers.advance(1.0 / hz, velocity)
        movers.take(scan_of([(*place(tick / hz), 0.25)]))
        movers.settle()
    return movers


def test_a_walker_is_followed_at_its_velocity():
    movers = watched(lambda t: (2.5 - 1.2 * t, 0.6))
    (track,) = movers.tracks
    assert track[SPEED_X] == pytest.approx(-1.2, abs=0.2)
    assert track[SPEED_Y] == pytest.approx(0.0, abs=0.2)


def test_what_stands_is_not_followed():
    movers = watched(lambda _: (0.9, 0.0))
    assert not movers.tracks.size
    assert movers.share((0.5, 0.0), 0.05) == 1.0


@pytest.mark.parametrize(
    ("place", "least", "most"),
    [
        (lambda t: (2.6 - 1.4 * t, 0.0), 0.0, 0.3),  # head on, near
        (lambda t: (1.0 + 1.2 * t, 0.0), 0.9, 1.0),  # ahead, walking away
        (lambda t: (0.3, 2.0 - 1.2 * t), 0.0, 0.8),  # from the side, at the robot
        (lambda t: (1.1, 2.2 - 1.3 * t), 0.0, 0.6),  # across its way
        (lambda t: (-1.0 - 1.0 * t, 0.0), 1.0, 1.0),  # behind, walking away
        (lambda t: (2.6 - 1.4 * t, 1.4), 0.9, 1.0),  # past, at a distance
    ],
    ids=["head-on", "ahead-away", "side", "across", "behind-away", "past"],
)
def test_only_what_would_be_met_takes_speed(place, least, most):
    share = watched(place).share((1.2, 0.0), 0.05)
    assert least <= share <= most


def test_backwards_it_minds_what_comes_from_behind():
    movers = watched(lambda t: (-2.2 + 1.2 * t, 0.0))
    assert movers.share((-0.3, 0.0), 0.05) < 1.0


def test_turning_on_the_spot_and_standing_pass():
    movers = watched(lambda t: (2.0 - 1.2 * t, 0.0))
    assert movers.share((0.0, 1.5), 0.05) == 1.0


def test_who_stops_is_minded_for_a_while_and_then_is_part_of_the_floor():
    movers = watched(lambda t: (max(2.5 - 1.3 * t, 1.2), 0.0), seconds=1.3)
    assert movers.tracks.size
    movers = watched(lambda t: (max(2.5 - 1.3 * t, 1.2), 0.0), seconds=1.3 + CONFIG.mover_hold_s + 0.5)
    assert not movers.tracks.size


def test_a_robot_that_turns_among_shelves_follows_nothing():
    """Own motion, reckoned, is not taken for somebody else's."""
    movers, heading = Movers(CONFIG, AMR_SMALL), 0.0
    for tick in range(60):
        heading += 1.2 * 0.05
        posts = [
            (r * math.cos(a - heading), r * math.sin(a - heading), 0.2) for r, a in ((1.5, 0.0), (2.0, 2.0))
        ]
        movers.advance(0.05, (0.0, 1.2))
        movers.take(scan_of(posts))
        movers.settle()
        assert not movers.tracks.size, tick


def test_settling_is_made_up_for_and_nothing_is_counted_twice():
    early, late = Movers(CONFIG, AMR_SMALL), Movers(CONFIG, AMR_SMALL)
    for tick in range(20):
        for movers in (early, late):
            movers.advance(0.05, (0.0, 0.0))
            movers.take(scan_of([(2.5 - 0.06 * tick, 0.3, 0.25)]))
        early.settle()
        early.settle()
    late.settle()
    assert np.array_equal(early._tracks, late._tracks)
    assert early._tracks[:, ALIVE].sum() == 1.0


def test_forgotten_is_forgotten():
    movers = watched(lambda t: (2.5 - 1.2 * t, 0.0))
    movers.forget()
    assert not movers.tracks.size
    assert movers.share((1.2, 0.0), 0.05) == 1.0
