"""The Gymnasium environment: passes Gymnasium's own checker, one trip an episode, clear errors."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.passive_env_checker import env_render_passive_checker

from navigation.action import encode_command
from navigation.controllers.dwa import DwaController
from navigation.errors import WarehouseError
from sim.errors import CommandError, SimConfigError
from sim.gym_env import ENVIRONMENT_ID, WarehouseEnv
from sim.tasks.delivery import Outcome
from sim.world.generate import generate_warehouse
from sim.world.state import Contact


@pytest.fixture
def make():
    made = []

    def build(**settings):
        made.append(WarehouseEnv(**{"warehouse": "small", **settings}))
        return made[-1]

    yield build
    for environment in made:
        environment.close()


@pytest.mark.parametrize("physics", ["planar", "wheeled"])
def test_gymnasiums_checker_passes(physics):
    environment = gymnasium.make(ENVIRONMENT_ID, warehouse="small", physics=physics, render_mode="rgb_array")
    # Its render check would open a window too; pictures are checked on their own.
    check_env(environment.unwrapped, skip_render_check=True)
    environment.reset(seed=0)
    env_render_passive_checker(environment.unwrapped)
    environment.close()
    environment.close()


def episode(environment, seed, drive, options=None):
    observation, info = environment.reset(seed=seed, options=options)
    rows, ended = [observation], False
    assert info["outcome"] == Outcome.RUNNING
    while not ended:
        observation, reward, terminated, truncated, info = environment.step(drive(observation))
        assert environment.observation_space.contains(observation)
        assert math.isfinite(reward)
        rows.append(observation)
        ended = terminated or truncated
    return np.array(rows), terminated, truncated, info


def rule_based(environment):
    controller = DwaController(environment.simulation.model, environment.simulation.step_s)
    return lambda seen: encode_command(np.array(controller.command(seen)), environment.simulation.model)


@pytest.mark.parametrize("control_hz", [10, 20])
def test_a_trip_ends_where_the_robot_arrives(make, control_hz):
    environment = make(people=0, robots=2, control_hz=control_hz)
    rows, terminated, truncated, info = episode(environment, 4, rule_based(environment))
    assert (terminated, truncated) == (True, False)
    assert info["is_success"] is True
    assert info["outcome"] == Outcome.ARRIVED
    assert info["contact"] == Contact.NONE
    assert info["trip_s"] == pytest.approx((len(rows) - 1) / control_hz)
    assert np.hypot(*rows[-1][78:80]) < 0.36, "the last observation is that of the goal, not of the next trip"
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        environment.step(np.zeros(2, dtype=np.float32))
    environment.reset()
    environment.step(np.zeros(2, dtype=np.float32))


def test_touching_something_ends_the_trip(make):
    environment = make(people=0, robots=1, guarded=False)
    full = np.array([1.0, 0.0], dtype=np.float32)
    for seed in range(6):
        _, terminated, truncated, info = episode(environment, seed, lambda _: full)
        assert (terminated, truncated) == (True, False)
        if info["outcome"] == Outcome.CONTACT:
            assert info["is_success"] is False
            assert info["contact"] == Contact.STATIC
            return
    raise AssertionError("driven straight ahead without a monitor, it touched nothing in six trips")


def test_standing_still_is_truncated(make):
    environment = make(people=0, robots=1)
    rows, terminated, truncated, info = episode(environment, 0, lambda _: np.zeros(2, dtype=np.float32))
    assert (terminated, truncated) == (False, True)
    assert info["outcome"] == Outcome.TIMEOUT
    assert info["trip_s"] == pytest.approx(60.0)
    assert len(rows) == 601


@pytest.mark.parametrize("physics", ["planar", "wheeled"])
def test_same_seed_same_trip_whatever_came_before(make, physics):
    runs = []
    for history in (0, 40):
        environment = make(physics=physics, robots=3)
        environment.reset(seed=99)
        for _ in range(history):
            environment.step(np.array([0.8, 0.3], dtype=np.float32))
        rng = np.random.default_rng(0)
        rows = [environment.reset(seed=5)[0]]
        for _ in range(60):
            rows.append(environment.step(rng.uniform(-0.5, 1.0, 2).astype(np.float32))[0])
        runs.append(np.array(rows).tobytes())
        assert environment.reset()[0].tobytes() != rows[0].tobytes(), "without a seed another trip follows"
    assert runs[0] == runs[1]


def test_reset_can_change_the_floor(make, tmp_path):
    environment = make(robots=1)
    floor = generate_warehouse(12)
    on_it, _ = environment.reset(seed=1, options={"warehouse": floor})
    assert environment.simulation.state.warehouses[0] == floor
    on_small, _ = environment.reset(seed=1, options={"warehouse": "small"})
    assert on_it.tobytes() != on_small.tobytes()
    again, _ = environment.reset(seed=1, options={"warehouse": floor})
    assert again.tobytes() == on_it.tobytes()
    with pytest.raises(WarehouseError):
        environment.reset(options={"warehouse": tmp_path / "none.yaml"})
    assert environment.simulation.state.warehouses[0] == floor
    with pytest.raises(SimConfigError, match="no option colour"):
        environment.reset(options={"colour": "red"})


@pytest.mark.parametrize(
    "action", [[math.nan, 0.0], [0.0, math.inf], [0.0], [0.0, 0.0, 0.0]], ids=["nan", "inf", "short", "long"]
)
def test_bad_action_is_refused_and_nothing_moves(make, action):
    environment = make(robots=2)
    environment.reset(seed=0)
    before = environment.simulation.state.pose.tobytes()
    with pytest.raises(CommandError, match="two finite numbers") as caught:
        environment.step(np.array(action, dtype=np.float32))
    assert isinstance(caught.value, ValueError)
    assert environment.simulation.state.pose.tobytes() == before
    environment.step(np.zeros(2, dtype=np.float32))


def test_picture_has_the_floor_on_it(make):
    environment = make(render_mode="rgb_array")
    environment.reset(seed=0)
    picture = environment.render()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.std() > 10
    assert make().render() is None


@pytest.mark.parametrize(
    "settings",
    [{"render_mode": "ansi"}, {"physics": "hover"}, {"robots": 0}, {"control_hz": 15}, {"people": -1}],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(SimConfigError):
        WarehouseEnv("small", **settings)


def test_window_without_a_display_is_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SimConfigError, match="no display"):
        WarehouseEnv("small", render_mode="human")


def test_closed_environment_says_so(make):
    environment = make()
    environment.close()
    environment.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        environment.reset()
