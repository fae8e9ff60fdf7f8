"""Batches drive as the single controllers do, MPPI plans as pytorch-mppi does, searches go on where they stopped."""

import json
import math

import msgspec
import numpy as np
import pytest
import pytorch_mppi
import torch
from typer.testing import CliRunner

from contracts.robot import AMR_SMALL
from navigation.controllers.dwa import DwaConfig, DwaController, closing_speeds
from navigation.controllers.pure_pursuit import PurePursuitConfig, PurePursuitController
from outrider.verbs.tune import app
from sim.simulation import Simulation, SimulationConfig
from sim.world.generate import generate_warehouse
from trainer.baselines import mppi
from trainer.baselines.catalogue import BASELINES, SEARCH, build, check_config, config_type, tuned_config
from trainer.baselines.mppi import MppiBatch, MppiConfig
from trainer.baselines.orca import OrcaBatch, OrcaConfig, perceive
from trainer.baselines.trips import Course, TripsConfig, TripsResult
from trainer.baselines.tune import SearchLog, rate, tune
from trainer.errors import RunError, TrainConfigError
from trainer.evaluation.controllers import make_controller

TINY = TripsConfig(floors=1, robots=2, people=1, trips=1)
TICK_S = 0.1


@pytest.fixture(scope="module")
def recorded():
    """Observations float32[ticks, 6, 83] of a drive among people."""
    floors = [generate_warehouse(seed) for seed in (11, 12)]
    simulation = Simulation(floors, SimulationConfig(worlds=2, robots=3, people=6), seed=4)
    controller = build("dwa", DwaConfig(), AMR_SMALL, TICK_S)
    controller.begin(6)
    ticks = []
    for _ in range(150):
        observation = simulation.observation.reshape(6, -1)
        ticks.append(observation.copy())
        command = controller.commands(observation).reshape(2, 3, 2)
        simulation.step(np.zeros((2, 3, 2), dtype=np.float32), command)
    return np.array(ticks)


@pytest.mark.parametrize(
    ("name", "config", "single"),
    [
        ("dwa", DwaConfig(), DwaController),
        ("dwa", DwaConfig(horizon_s=2.0, target_m=0.8, speeds=5, keep_right_m=0.0), DwaController),
        ("pure_pursuit", PurePursuitConfig(), PurePursuitController),
    ],
)
def test_the_batch_commands_what_the_single_controller_does(recorded, name, config, single):
    batch = build(name, config, AMR_SMALL, TICK_S)
    batch.begin(6)
    ones = [single(AMR_SMALL, TICK_S, config) for _ in range(6)]
    for observations in recorded:
        expected = [one.command(observation) for one, observation in zip(ones, observations, strict=True)]
        np.testing.assert_allclose(batch.commands(observations), expected, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_commands_stay_within_the_robots_limits_and_repeat(recorded, name):
    def drive():
        controller = build(name, config_type(name)(), AMR_SMALL, TICK_S, seed=3)
        controller.begin(6)
        return np.array([controller.commands(observations) for observations in recorded])

    commands = drive()
    assert np.array_equal(commands, drive())
    assert commands[..., 0].min() >= -AMR_SMALL.reverse_max_mps
    assert commands[..., 0].max() <= AMR_SMALL.speed_max_mps
    assert np.abs(commands[..., 1]).max() <= AMR_SMALL.turn_rate_max_radps
    assert commands[..., 0].mean() > 0.1


def test_mppi_plans_as_pytorch_mppi_does(recorded):
    """The library samples, bounds, weights and averages; model and cost are ours in both."""
    config = MppiConfig(samples=32, steps=8, temperature=0.8)
    s = mppi.mppi_numbers(config, AMR_SMALL, TICK_S)
    noise = mppi.noise_banks(config, 1)[0]
    sigma = torch.tensor([config.sigma_speed_mps, config.sigma_turn_radps], dtype=torch.float64)

    class Given(pytorch_mppi.MPPI):
        def _sample_noise(self, _shape):
            return torch.from_numpy(noise) * sigma

    for observation in recorded[40:140:20, 0]:
        scene = mppi.look(observation, closing_speeds(observation, s.cosines), s)
        before = {}

        def dynamics(state, action, _step, before=before):
            moved = state.numpy().copy()
            before["state"] = state.numpy().copy()
            for row, (speed, turn) in zip(moved, action.numpy(), strict=True):
                mppi.advance(row, speed, turn, s)
            return torch.from_numpy(moved)

        def cost(state, _action, step, before=before, scene=scene):
            pairs = zip(state.numpy(), before["state"], strict=True)
            return torch.tensor(
                [mppi.step_cost(now, then, step, scene, s) for now, then in pairs], dtype=torch.float64
            )

        begin = np.tile([0.5, 0.1], (config.steps, 1))
        theirs = Given(
            dynamics,
            cost,
            7,
            torch.diag(sigma**2),
            num_samples=config.samples,
            horizon=config.steps,
            lambda_=config.temperature,
            u_min=torch.tensor([0.0, -s.turn_max_radps], dtype=torch.float64),
            u_max=torch.tensor([1.2, s.turn_max_radps], dtype=torch.float64),
            U_init=torch.from_numpy(begin.copy()),
            step_dependent_dynamics=True,
        )
        v, w = float(observation[81]), float(observation[82])
        theirs.command(np.array([0.0, 0.0, 0.0, v, w, v, w]), shift_nominal_trajectory=False)
        ours = begin.copy()
        mppi.plan(observation, scene, noise, 1.2, s, ours)
        assert np.abs(ours - begin).max() > 0.02
        np.testing.assert_allclose(ours, theirs.U.numpy(), atol=1e-9)


def test_mppi_draws_other_noise_with_another_seed(recorded):
    commands = []
    for seed in (0, 0, 1):
        controller = MppiBatch(AMR_SMALL, TICK_S, MppiConfig(), seed)
        controller.begin(6)
        commands.append(controller.commands(recorded[50]))
    assert np.array_equal(commands[0], commands[1])
    assert not np.array_equal(commands[0], commands[2])


def among(*, ahead_m=None, before_m=None, speed=0.0):
    """Open floor with the goal ahead, and one narrow thing (two beams wide) ahead, now and before."""
    out = np.full(83, 8.0, dtype=np.float32)
    if ahead_m is not None:
        out[17:19] = ahead_m
        out[36 + 17 : 36 + 19] = before_m
    out[72:80] = 0.6, 0.0, 1.5, 0.0, 3.0, 0.0, 6.0, 0.0
    out[80], out[81], out[82] = 6.0, speed, 0.0
    return out


def test_orca_finds_a_person_and_how_it_moves():
    controller = OrcaBatch(AMR_SMALL, TICK_S, OrcaConfig())
    args = (controller._cosines, controller._sines, 4.0, 0.5, 0.8, 0.3)
    agents, walls = perceive(among(ahead_m=2.0, before_m=2.2, speed=0.8), *args)
    assert walls.shape == (0, 4)
    # It came 0.2 m nearer in 0.1 s, of which the robot drove 0.08 m: 1.2 m/s towards the robot.
    assert agents[0] == pytest.approx([2.3, 0.0, -1.2, 0.0], abs=0.05)
    wide = among()
    wide[12:24] = 1.0
    agents, walls = perceive(wide, *args)
    assert len(agents) == 0
    assert len(walls) == 11


def test_orca_prefers_the_route_and_gives_way_to_what_comes():
    controller = OrcaBatch(AMR_SMALL, TICK_S, OrcaConfig())
    assert controller.velocity(among()) == pytest.approx((AMR_SMALL.speed_max_mps, 0.0), abs=1e-5)
    velocity = controller.velocity(among(ahead_m=1.2, before_m=1.3, speed=0.6))
    assert velocity[0] < 0.9 * AMR_SMALL.speed_max_mps
    walled = among()
    walled[9:27] = 0.45
    assert math.hypot(*controller.velocity(walled)) < 0.5


@pytest.mark.parametrize("name", BASELINES)
def test_tuned_settings_are_there_and_drive(name, recorded):
    controller = make_controller(name, AMR_SMALL, TICK_S, seed=0)
    controller.begin(6)
    assert controller.name == name
    assert controller.commands(recorded[0]).shape == (6, 2)


@pytest.mark.parametrize("name", BASELINES)
def test_the_defaults_lie_within_what_is_searched(name):
    check_config(name, msgspec.to_builtins(config_type(name)()))
    assert set(SEARCH[name]) <= set(config_type(name).__struct_fields__)


def test_settings_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(TrainConfigError, match="no baseline 'teb'; choose one of pure_pursuit, dwa"):
        tuned_config("teb")
    with pytest.raises(TrainConfigError, match=r"dwa\.yaml cannot be read"):
        tuned_config("dwa", tmp_path)
    for text, reason in (
        ("window: 1.0", "unknown field"),
        ("window_s: 9.0", "window_s is 9.0; it must be 0.15 to 0.8"),
        ("window_s: .nan", "window_s is nan"),
        ("window_s: [", "no YAML"),
        ("speeds: many", "Expected `int`"),
    ):
        (tmp_path / "dwa.yaml").write_text(text)
        with pytest.raises(TrainConfigError, match=reason):
            tuned_config("dwa", tmp_path)


def test_trips_are_counted_and_repeat():
    course = Course(TINY)
    first, second = (
        course.drive(build("pure_pursuit", PurePursuitConfig(), AMR_SMALL, TICK_S)) for _ in range(2)
    )
    assert msgspec.structs.replace(first, seconds=0.0) == msgspec.structs.replace(second, seconds=0.0)
    assert first.trips == 2
    assert round(first.success * first.trips) + first.contacts + first.timeouts == first.trips


def test_a_search_goes_on_where_it_stopped_and_tries_the_same(tmp_path):
    whole = tune("pure_pursuit", tmp_path / "whole", 4, TINY)
    tune("pure_pursuit", tmp_path / "parts", 2, TINY)
    log = tmp_path / "parts" / "pure_pursuit.jsonl"
    # The process ended in the middle of a line.
    log.write_bytes(log.read_bytes()[:-20])
    parts = tune("pure_pursuit", tmp_path / "parts", 4, TINY)
    assert [(t.params, t.value) for t in parts.trials] == [(t.params, t.value) for t in whole.trials]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line.get("trial") for line in lines] == [None, 0, 1, 2, 3]
    assert lines[0]["name"] == "pure_pursuit"
    assert lines[1]["params"]["ahead_min_m"] == PurePursuitConfig().ahead_min_m
    assert whole.best.value == min(t.value for t in whole.trials)
    best = tuned_config("pure_pursuit", tmp_path / "whole")
    assert best.ahead_s == pytest.approx(whole.best.params["ahead_s"])


def test_a_log_of_another_search_is_refused_and_left_alone(tmp_path):
    log = tune("pure_pursuit", tmp_path, 1, TINY)
    before = log.path.read_bytes()
    with pytest.raises(RunError, match="its search_seed is 0, not 5"):
        tune("pure_pursuit", tmp_path, 2, TINY, seed=5)
    with pytest.raises(RunError, match=r"its commit is .*, not abc"):
        SearchLog(tmp_path, msgspec.structs.replace(log.header, commit="abc"))
    assert log.path.read_bytes() == before
    log.path.write_bytes(b"hello\n")
    with pytest.raises(RunError, match="no log of a search"):
        SearchLog(tmp_path, log.header)


def test_a_contact_costs_a_minute_more_than_a_timeout():
    timed_out = TripsResult(trip_s=30.0, success=0.5, contacts=0, timeouts=2, trips=4, seconds=1.0)
    touched = msgspec.structs.replace(timed_out, contacts=1, timeouts=1)
    assert rate(timed_out) == 30.0
    assert rate(touched) - rate(timed_out) == pytest.approx(60.0 / 4)


def test_the_verb_searches_and_names_what_is_wrong(tmp_path):
    arguments = ["pure_pursuit", "--trials", "1", "--floors", "1", "--trips", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["trial"] == 0
    assert "best of 1 trials is number 0" in CliRunner().invoke(app, arguments).stdout
    wrong = CliRunner().invoke(app, ["teb", "--out", str(tmp_path)])
    assert wrong.exit_code == 1
    assert "no baseline 'teb'" in wrong.stderr
