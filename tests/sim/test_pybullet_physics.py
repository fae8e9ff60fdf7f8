"""PyBullet's robots move as the reference says, touch what they touch, and never pass through it."""

import math

import numpy as np
import pybullet
import pytest

from contracts.robot import AMR_SMALL
from navigation.warehouse import Shelf, Warehouse
from sim.errors import SimConfigError
from sim.physics.pybullet_physics import PyBulletPhysics, ray_test
from sim.physics.ramp import RAMP_STEP_S, ramp_velocity
from sim.sensors.lidar import scan_state
from sim.world.generate import generate_warehouse
from sim.world.run import FloorRun
from sim.world.state import Contact, WorldState

OPEN = Warehouse("open", 40.0, 40.0, (), ())
SHELF = Warehouse("shelf", 20.0, 20.0, (Shelf(10.0, 10.0, 0.4, 4.0),), ())
KINDS = ["planar", "wheeled"]
PLANAR_ERROR_MAX_M, PLANAR_ERROR_MAX_RAD = 1e-3, 1e-3
WHEELED_ERROR_MAX_M, WHEELED_ERROR_MAX_RAD = 0.035, 0.02


def _world(warehouse, poses, people=()):
    state = WorldState([warehouse], AMR_SMALL, len(poses), len(people))
    state.pose[0] = poses
    if people:
        state.person_xy[0] = people
    return state


@pytest.fixture
def make():
    made = []

    def build(state, kind, **settings):
        made.append(PyBulletPhysics(state, AMR_SMALL, kind, **settings))
        return made[-1]

    yield build
    for physics in made:
        physics.close()


def _reference(pose, velocity, command, step_s):
    """The exact unicycle with ramped speeds, written out as scalars."""
    for _ in range(round(step_s / RAMP_STEP_S)):
        for axis, (up, down) in enumerate([(1.2, 1.6), (5.0, 5.0)]):
            grows = abs(command[axis]) > abs(velocity[axis]) and command[axis] * velocity[axis] >= 0
            most = (up if grows else down) * RAMP_STEP_S
            velocity[axis] += min(max(command[axis] - velocity[axis], -most), most)
        middle = pose[2] + velocity[1] * RAMP_STEP_S / 2
        pose[0] += velocity[0] * math.cos(middle) * RAMP_STEP_S
        pose[1] += velocity[0] * math.sin(middle) * RAMP_STEP_S
        pose[2] += velocity[1] * RAMP_STEP_S


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("kind", "error_max_m", "error_max_rad"),
    [
        ("planar", PLANAR_ERROR_MAX_M, PLANAR_ERROR_MAX_RAD),
        ("wheeled", WHEELED_ERROR_MAX_M, WHEELED_ERROR_MAX_RAD),
    ],
)
def test_motion_is_the_reference_unicycle(make, kind, error_max_m, error_max_rad, seed):
    state = _world(OPEN, [[20.0, 20.0, 0.3]])
    physics = make(state, kind)
    pose, velocity = [20.0, 20.0, 0.3], [0.0, 0.0]
    rng = np.random.default_rng(seed)
    for step in range(100):
        if step % 10 == 0:
            command = [rng.uniform(-0.3, 1.2), rng.uniform(-1.8, 1.8)]
        physics.advance(state, np.array([[command]]), 0.1)
        _reference(pose, velocity, command, 0.1)
        assert math.hypot(state.pose[0, 0, 0] - pose[0], state.pose[0, 0, 1] - pose[1]) < error_max_m
        assert abs(math.remainder(state.pose[0, 0, 2] - pose[2], 2 * math.pi)) < error_max_rad
        assert state.contact[0, 0] == Contact.NONE
    if kind == "planar":
        assert state.velocity[0, 0] == pytest.approx(velocity, abs=1e-6)


def test_ramp_is_the_reference_at_every_limit():
    for speed in (-0.3, 0.0, 0.02, 1.2):
        for wanted in (-9.0, -0.3, 0.0, 0.01, 1.2, 9.0):
            velocity = [speed, 0.0]
            _reference([0, 0, 0], velocity, [min(max(wanted, -0.3), 1.2), 1.8], RAMP_STEP_S)
            ramped = ramp_velocity(np.array([speed, 0.0]), np.array([wanted, 99.0]), AMR_SMALL)
            assert ramped.tolist() == pytest.approx(velocity, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_command_that_is_not_finite_stops(make, kind, bad):
    state = _world(OPEN, [[20.0, 20.0, 0.0]])
    physics = make(state, kind)
    for _ in range(10):
        physics.advance(state, np.array([[[1.0, 0.0]]]), 0.1)
    for _ in range(20):
        physics.advance(state, np.array([[[bad, bad]]]), 0.1)
    assert np.isfinite(state.pose).all()
    assert abs(state.velocity[0, 0, 0]) < 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heading", [0.0, 0.5, -1.0])
def test_shelf_is_touched_and_holds(make, kind, heading):
    state = _world(SHELF, [[8.0, 10.0, heading]])
    physics = make(state, kind)
    touched = False
    for _ in range(120):
        physics.advance(state, np.array([[[1.2, 0.0]]]), 0.1)
        touched |= state.contact[0, 0] == Contact.STATIC
        beside = abs(state.pose[0, 0, 1] - 10.0) < 2.0
        assert not beside or state.pose[0, 0, 0] < 9.8 - 0.27 or state.pose[0, 0, 0] > 10.2 + 0.27
        assert 0.27 < state.pose[0, 0, 0] < 19.73
        assert 0.27 < state.pose[0, 0, 1] < 19.73
    assert touched


@pytest.mark.parametrize("kind", KINDS)
def test_robots_touch_each_other(make, kind):
    state = _world(OPEN, [[10.0, 10.0, 0.0], [12.0, 10.0, math.pi], [20.0, 20.0, 0.0]])
    physics = make(state, kind)
    seen = np.zeros(3, dtype=int)
    for _ in range(40):
        physics.advance(state, np.array([[[0.8, 0.0], [0.8, 0.0], [0.0, 0.0]]]), 0.1)
        seen = np.maximum(seen, state.contact[0])
    assert seen.tolist() == [Contact.ROBOT, Contact.ROBOT, Contact.NONE]
    assert state.pose[0, 1, 0] - state.pose[0, 0, 0] > 0.55


@pytest.mark.parametrize("kind", KINDS)
def test_person_walks_into_a_standing_robot(make, kind):
    state = _world(OPEN, [[10.0, 10.0, 0.0]], [(10.0, 8.0)])
    physics = make(state, kind)
    first_m = None
    for _ in range(30):
        state.person_xy[0, 0, 1] += 0.05
        physics.advance(state, np.zeros((1, 1, 2)), 0.05)
        if state.contact[0, 0] and first_m is None:
            assert state.contact[0, 0] == Contact.PERSON
            first_m = 10.0 - state.person_xy[0, 0, 1]
    assert first_m == pytest.approx(0.55, abs=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_place_puts_a_body_at_rest(make, kind):
    state = _world(OPEN, [[10.0, 10.0, 0.0]])
    physics = make(state, kind)
    for _ in range(10):
        physics.advance(state, np.array([[[1.0, 1.0]]]), 0.1)
    state.pose[0, 0] = 5.0, 6.0, 2.0
    physics.place(state, 0, 0)
    physics.advance(state, np.zeros((1, 1, 2)), 0.1)
    assert state.pose[0, 0] == pytest.approx([5.0, 6.0, 2.0], abs=5e-3)
    assert state.velocity[0, 0] == pytest.approx([0.0, 0.0], abs=0.05)


def test_same_commands_same_bits():
    ends = []
    for _ in range(2):
        run = FloorRun(generate_warehouse(4), 1, 3)
        for step in range(100):
            run.step(np.full((3, 2), 0.4 + 0.001 * step))
        ends.append((run.state.pose.tobytes(), run.state.person_xy.tobytes(), run.ranges.tobytes()))
        run.close()
    assert ends[0] == ends[1]


def test_rays_see_walls_people_and_robots_but_not_themselves(make):
    state = _world(SHELF, [[5.0, 10.0, 0.0], [5.0, 13.0, 0.0]], [(5.0, 8.0)])
    physics = make(state, "planar")
    ranges = ray_test(physics, state, 0, 0)
    assert ranges.shape == (180,)
    assert ranges.dtype == np.float32
    assert ranges[90] == pytest.approx(9.8 - 5.0, abs=1e-3)
    assert ranges[135] == pytest.approx(3.0 - 0.30, abs=5e-3)
    assert ranges[45] == pytest.approx(2.0 - 0.25, abs=5e-3)
    assert ranges[0] == pytest.approx(5.0, abs=1e-3)
    alone = _world(OPEN, [[20.0, 20.0, 1.0]])
    assert (ray_test(make(alone, "planar"), alone, 0, 0) == AMR_SMALL.lidar.range_max_m).all()


@pytest.mark.parametrize("kind", KINDS)
def test_analytic_lidar_is_bullets(kind):
    run = FloorRun(generate_warehouse(11), 2, 4, kind)
    try:
        analytic = scan_state(run.state)[0]
        for robot in range(4):
            apart = np.abs(analytic[robot] - ray_test(run.physics, run.state, 0, robot))
            # A ray that grazes an edge hits for one and misses for the other.
            assert (apart > 0.01).sum() <= 3
    finally:
        run.close()


def test_urdf_is_the_model(make):
    state = _world(OPEN, [[20.0, 20.0, 0.0]])
    physics = make(state, "wheeled")
    world = physics._worlds[0]
    body, client = world._robots[0], world._client
    low, high = pybullet.getAABB(body, -1, physicsClientId=client)
    for axis in (0, 1):
        assert high[axis] - low[axis] == pytest.approx(2 * AMR_SMALL.footprint_radius_m, abs=0.02)
    assert high[2] == pytest.approx(AMR_SMALL.height_m, abs=0.02)
    left, right = (
        pybullet.getJointInfo(body, joint, physicsClientId=client)[14][1] for joint in world._wheels[0]
    )
    assert left - right == pytest.approx(AMR_SMALL.wheel_track_m)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "hover"}, "planar"),
        ({"kind": "planar", "substep_s": 0.03}, "does not divide"),
        ({"kind": "planar", "substep_s": 0.0}, "does not divide"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(SimConfigError, match=message):
        PyBulletPhysics(_world(OPEN, [[20.0, 20.0, 0.0]]), AMR_SMALL, **settings)


def test_camera_sees_the_floor(make):
    state = _world(SHELF, [[5.0, 5.0, 0.0]])
    image = make(state, "planar").camera_image(160, 120)
    assert image.shape == (120, 160, 3)
    assert image.std() > 10


def test_close_twice_is_fine(make):
    physics = make(_world(OPEN, [[20.0, 20.0, 0.0]]), "planar")
    physics.close()
    physics.close()
