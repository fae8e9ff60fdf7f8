"""The compiled twin against PyBullet: the same rays, the same motion, the same contacts; and the same bits again."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from contracts.robot import AMR_SMALL, TUGGER
from navigation.action import decode_action
from navigation.warehouse import Shelf, Station, StationKind, Warehouse
from sim.errors import CommandError, SimConfigError
from sim.physics.pybullet_physics import PyBulletPhysics, ray_test
from sim.physics.ramp import RAMP_STEP_S, ramp_velocity
from sim.sensors.lidar import scan_state
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome, RewardConfig
from sim.twin.motion import SUBSTEP_S, ramp, touches
from sim.world.generate import generate_warehouse
from sim.world.state import PERSON_RADIUS_M, Contact, WorldState

ROBOTS = (AMR_SMALL, TUGGER)
FLOORS = [generate_warehouse(seed) for seed in (3, 8)]
STATIONS = (Station("p", StationKind.PICK, 25.0, 25.0), Station("d", StationKind.DROP, 75.0, 75.0))
HALL = Warehouse("hall", 100.0, 100.0, (), STATIONS)
BOX = Warehouse(
    "box", 20.0, 20.0, (Shelf(10.0, 10.0, 2.0, 1.0),),
    (Station("p", StationKind.PICK, 2.0, 2.0), Station("d", StationKind.DROP, 18.0, 18.0)),
)  # fmt: skip


def in_pybullet(simulation, kind="planar"):
    physics = PyBulletPhysics(simulation.state, simulation.model, kind)
    simulation.use_physics(physics)
    return physics


@pytest.mark.parametrize("model", ROBOTS, ids=lambda model: model.name)
def test_rays_are_pybullets(model):
    apart, rays = 0, 0
    for seed in range(8):
        config = SimulationConfig(worlds=1, robots=6, people=6)
        simulation = Simulation([generate_warehouse(seed)], config, seed=seed, model=model)
        physics = in_pybullet(simulation)
        for robot in range(6):
            reference = ray_test(physics, simulation.state, 0, robot)
            difference = np.abs(simulation.ranges[0, robot] - reference)
            apart += int((difference > 0.01).sum())
            rays += len(reference)
        simulation.close()
    # A ray that grazes a corner or a round side hits for one and misses for the other.
    assert apart / rays < 0.005


@pytest.mark.parametrize("model", ROBOTS, ids=lambda model: model.name)
@pytest.mark.parametrize("kind", ["planar", "wheeled"])
def test_motion_is_pybullets(kind, model):
    """Within 2 cm after 10 s, on wheels too; the long robot's wheels drag its length around: 8 cm."""
    config = SimulationConfig(worlds=1, robots=4, people=0, guarded=False, trip_max_s=1e6)
    twin, reference = (Simulation([HALL], config, seed=1, model=model) for _ in range(2))
    for simulation in (twin, reference):
        simulation.state.pose[0] = [
            (40.0, 40.0, 0.0),
            (60.0, 40.0, 2.0),
            (40.0, 60.0, -1.0),
            (60.0, 60.0, 3.0),
        ]
    in_pybullet(reference, kind)
    rng = np.random.default_rng(0)
    for step in range(100):
        if step % 7 == 0:
            action = rng.uniform(-1.0, 1.0, (1, 4, 2)).astype(np.float32)
        for simulation in (twin, reference):
            simulation.step(action, decode_action(action, model))
        assert (twin.outcome == Outcome.RUNNING).all()
    apart_m = np.hypot(*(twin.state.pose - reference.state.pose)[0, :, :2].T)
    assert apart_m.mean() < 0.02 if model is AMR_SMALL else apart_m.max() < 0.08
    if kind == "planar":
        assert apart_m.max() < 1e-3
        assert np.abs(twin.state.velocity - reference.state.velocity).max() < 1e-3
        assert np.abs(twin.observation - reference.observation).max() < 0.05
    reference.close()


@pytest.mark.parametrize("gap_m", [-0.02, 0.02])
def test_contacts_of_a_long_robot_are_pybullets(gap_m):
    """Its ends count: nose at a shelf, tail at a person, flank at a wall, nose to nose with its like."""
    half_m, radius_m = TUGGER.reach_m, TUGGER.footprint_radius_m
    pose = [
        (9.0 - half_m - gap_m, 10.0, 0.0),
        (4.0, 4.0, math.pi / 2),
        (radius_m + gap_m, 12.0, math.pi / 2),
        (14.0, 5.0, 0.0),
        (14.0 + 2 * half_m + gap_m, 5.0, math.pi),
        (6.0, 16.0, 0.7),
    ]
    state = WorldState([BOX], TUGGER, len(pose), 1)
    state.pose[0] = pose
    state.person_xy[0, 0] = 4.0, 4.0 - half_m - PERSON_RADIUS_M - gap_m
    boxes, discs = BOX.boxes(), np.array(TUGGER.footprint_offsets_m)
    twin = [
        touches(state.pose[0], robot, radius_m, discs, boxes, len(boxes), state.person_xy[0], PERSON_RADIUS_M)
        for robot in range(len(pose))
    ]
    physics = PyBulletPhysics(state, TUGGER, "planar")
    physics.advance(state, np.zeros((1, len(pose), 2)), RAMP_STEP_S)
    physics.close()
    expected = [Contact.STATIC, Contact.PERSON, Contact.STATIC, Contact.ROBOT, Contact.ROBOT, Contact.NONE]
    assert twin == (expected if gap_m < 0 else [Contact.NONE] * 6)
    assert state.contact[0].tolist() == twin


def test_both_ramps_are_one():
    assert SUBSTEP_S == RAMP_STEP_S
    rng = np.random.default_rng(0)
    velocity = np.stack([rng.uniform(-0.3, 1.2, 5000), rng.uniform(-1.8, 1.8, 5000)], axis=-1)
    command = np.stack([rng.uniform(-0.3, 1.2, 5000), rng.uniform(-1.8, 1.8, 5000)], axis=-1)
    velocity[::9], command[::10] = 0.0, 0.0
    up, down, turn = (
        limit * RAMP_STEP_S
        for limit in (
            AMR_SMALL.acceleration_max_mps2,
            AMR_SMALL.braking_mps2,
            AMR_SMALL.turn_acceleration_max_radps2,
        )
    )
    written = ramp_velocity(velocity, command, AMR_SMALL)
    compiled = np.array(
        [
            (ramp(v, c, up, down), ramp(w, d, turn, turn))
            for (v, w), (c, d) in zip(velocity.tolist(), command.tolist(), strict=True)
        ]
    )
    assert np.abs(written - compiled).max() < 1e-12


@pytest.mark.parametrize("gap_m", [-0.01, -0.003, 0.004, 0.05])
def test_contacts_are_pybullets(gap_m):
    """A robot set down ``gap_m`` away from a shelf, a corner, a wall, a person and another robot."""
    radius_m = AMR_SMALL.footprint_radius_m
    away_m = radius_m + gap_m
    slant_m = away_m / math.sqrt(2)
    pose = [
        (9.0 - away_m, 10.0, 0.0),
        (11.0 + slant_m, 10.5 + slant_m, 1.0),
        (5.0, 20.0 - away_m, 2.0),
        (4.0, 4.0, 0.0),
        (16.0, 6.0, 0.0),
        (16.0 + 2 * radius_m + gap_m, 6.0, 0.0),
        (4.0, 12.0, 0.0),
    ]
    state = WorldState([BOX], AMR_SMALL, len(pose), 1)
    state.pose[0] = pose
    state.person_xy[0, 0] = 4.0, 4.0 + radius_m + PERSON_RADIUS_M + gap_m
    boxes = BOX.boxes()
    twin = [
        touches(
            state.pose[0],
            robot,
            radius_m,
            np.zeros(1),
            boxes,
            len(boxes),
            state.person_xy[0],
            PERSON_RADIUS_M,
        )
        for robot in range(len(pose))
    ]
    physics = PyBulletPhysics(state, AMR_SMALL, "planar")
    physics.advance(state, np.zeros((1, len(pose), 2)), 0.05)
    physics.close()
    hit = [Contact.STATIC] * 3 + [Contact.PERSON] + [Contact.ROBOT] * 2 + [Contact.NONE]
    assert twin == (hit if gap_m < 0 else [Contact.NONE] * len(pose))
    assert state.contact[0].tolist() == twin


def drive(threads=1, seed=0, steps=200, physics=None, warehouses=FLOORS, **config):
    settings = {"worlds": 4, "robots": 3, "people": 3, **config}
    simulation = Simulation(warehouses, SimulationConfig(**settings), seed=seed, threads=threads)
    if physics:
        in_pybullet(simulation, physics)
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    outcomes = np.zeros(len(Outcome), dtype=int)
    for _ in range(steps):
        action = rng.uniform(-0.4, 1.0, (*simulation.reward.shape, 2)).astype(np.float32)
        simulation.step(action, decode_action(action, AMR_SMALL))
        for part in (simulation.observation, simulation.reward, simulation.outcome):
            digest.update(part.tobytes())
        outcomes += np.bincount(simulation.outcome.reshape(-1), minlength=len(Outcome))
    simulation.close()
    return digest.hexdigest(), outcomes


def test_same_seed_same_bits_whatever_the_threads():
    first, outcomes = drive(guarded=False)
    assert outcomes[Outcome.CONTACT] > 0, "the run is worth something"
    assert drive(guarded=False)[0] == first
    assert drive(guarded=False, threads=2)[0] == first
    assert drive(guarded=False, seed=1)[0] != first


@pytest.mark.parametrize("kind", ["planar", "wheeled"])
def test_same_seed_same_bits_in_pybullet(kind):
    digests = {drive(physics=kind, steps=60, worlds=1, guarded=False)[0] for _ in range(2)}
    assert len(digests) == 1


def test_reset_gives_the_first_run_again():
    simulation = Simulation(FLOORS, SimulationConfig(worlds=2, robots=2, people=2), seed=3)
    first = simulation.observation.tobytes()
    runs = []
    for _ in range(2):
        assert simulation.reset(3).tobytes() == first
        action = np.full((2, 2, 2), 0.5, dtype=np.float32)
        for _ in range(50):
            simulation.step(action, decode_action(action, AMR_SMALL))
        runs.append(simulation.observation.tobytes())
    assert runs[0] == runs[1]
    assert simulation.reset(4).tobytes() != first


def test_the_guard_keeps_the_twin_off_shelves():
    simulation = Simulation(FLOORS, SimulationConfig(worlds=16, robots=1, people=0), seed=5)
    rng = np.random.default_rng(0)
    for step in range(400):
        if step % 20 == 0:
            action = rng.uniform(-1.0, 1.0, (16, 1, 2)).astype(np.float32)
            action[..., 0] = np.abs(action[..., 0])
        simulation.step(action, decode_action(action, AMR_SMALL))
        assert not (simulation.outcome == Outcome.CONTACT).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["action", "command"])
def test_bad_command_is_refused_and_nothing_moves(which, bad):
    simulation = Simulation(FLOORS, SimulationConfig(worlds=2, robots=2, people=1), seed=0)
    given = {
        "action": np.zeros((2, 2, 2), dtype=np.float32),
        "command": np.full((2, 2, 2), 0.5),
    }
    simulation.step(**given)
    before = [simulation.state.pose.tobytes(), simulation.state.person_xy.tobytes()]
    before += [simulation.observation.tobytes(), simulation.command.tobytes()]
    given[which][1, 1, 1] = bad
    with pytest.raises(CommandError, match="must be finite"):
        simulation.step(**given)
    after = [simulation.state.pose.tobytes(), simulation.state.person_xy.tobytes()]
    after += [simulation.observation.tobytes(), simulation.command.tobytes()]
    assert before == after
    given[which][1, 1, 1] = 0.0
    simulation.step(**given)
    assert np.isfinite(simulation.observation).all()


@pytest.mark.parametrize(
    "config",
    [{"worlds": 0}, {"robots": 0}, {"people": -1}, {"control_hz": 15}, {"control_hz": 5}],
)
def test_bad_sizes_are_refused(config):
    with pytest.raises(SimConfigError):
        Simulation(FLOORS, SimulationConfig(**config))
    with pytest.raises(SimConfigError, match="at least one warehouse"):
        Simulation([], SimulationConfig(worlds=1))


def test_scan_of_the_state_is_the_simulations():
    simulation = Simulation(FLOORS, SimulationConfig(worlds=3, robots=2, people=2), seed=0)
    assert scan_state(simulation.state).tobytes() == simulation.ranges.tobytes()


def test_a_trip_ends_at_its_cap():
    config = SimulationConfig(worlds=1, robots=1, people=0, trip_max_s=2.0)
    simulation = Simulation(FLOORS[:1], config, seed=0)
    still = np.zeros((1, 1, 2))
    outcomes = []
    for _ in range(40):
        simulation.step(still.astype(np.float32), still)
        outcomes.append(int(simulation.outcome[0, 0]))
    assert outcomes == ([Outcome.RUNNING] * 19 + [Outcome.TIMEOUT]) * 2


def test_progress_is_paid_along_the_route():
    """Hand-worked: with nothing near, the reward of a step is its progress minus time and change."""
    reward = RewardConfig(step_s=-0.3, change=-0.05)
    config = SimulationConfig(worlds=1, robots=1, people=0, guarded=False, reward=reward)
    simulation = Simulation([HALL], config, seed=1)
    action = np.array([[[1.0, 0.0]]], dtype=np.float32)
    for step in range(20):
        before_m = float(simulation.left_m[0, 0])
        simulation.step(action, decode_action(action, AMR_SMALL))
        change = 1.0 if step == 0 else 0.0
        progress_m = before_m - float(simulation.left_m[0, 0])
        assert simulation.reward[0, 0] == pytest.approx(progress_m - 0.3 * 0.1 - 0.05 * change)


def test_whoever_imports_numba_first_gets_the_cache_of_these_sources_too():
    """A caller's compiled code holds what it inlined from another file: an old safety rule, from an older cache."""
    code = "import numba, sim; from sim.twin import movers; print(movers.take_one._cache.cache_path)"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=100)
    assert "outrider/numba-" in found.stdout
