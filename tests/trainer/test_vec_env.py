"""The batched environment keeps Stable-Baselines3's promises, robot by robot."""

import numpy as np
import pytest

from contracts.observation import OBSERVATION_SIZE
from navigation.action import decode_action
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome
from sim.world.generate import generate_warehouse
from trainer.episodes.vec_env import BatchedVecEnv, require_numbers
from trainer.errors import RunError

FLOORS = [generate_warehouse(seed) for seed in (3, 8)]


def make(seed=0, table=None, **config):
    settings = {"worlds": 4, "robots": 3, "people": 2, "trip_max_s": 6.0, "guarded": False, **config}
    environment = BatchedVecEnv(Simulation(FLOORS, SimulationConfig(**settings), seed=seed), table)
    environment.seed(seed)
    return environment


def test_a_batch_is_its_simulation():
    environment, twin = make(), make().simulation
    assert environment.num_envs == 12
    observation = environment.reset()
    assert observation.shape == (12, OBSERVATION_SIZE)
    assert observation.dtype == np.float32
    twin.reset(0)
    rng = np.random.default_rng(0)
    returns, lengths = np.zeros(12), np.zeros(12, dtype=int)
    endings = set()
    for _ in range(150):
        action = rng.uniform(-1.5, 1.5, (12, 2)).astype(np.float32)
        clipped = np.clip(action, -1.0, 1.0).reshape(4, 3, 2)
        observation, reward, done, infos = environment.step(action)
        twin.step(clipped, decode_action(clipped, twin.model))
        assert observation.tobytes() == twin.observation.tobytes()
        assert reward == pytest.approx(twin.reward.reshape(-1), abs=1e-5)
        assert done.dtype == np.bool_
        assert done.tolist() == (twin.outcome.reshape(-1) != Outcome.RUNNING).tolist()
        returns += reward
        lengths += 1
        assert len(infos) == 12
        for index, info in enumerate(infos):
            if not done[index]:
                assert not info
                continue
            outcome = Outcome(info["outcome"])
            endings.add(outcome)
            terminal = twin.terminal_observation.reshape(12, -1)[index]
            assert info["terminal_observation"].tobytes() == terminal.tobytes()
            assert info["TimeLimit.truncated"] == (outcome is Outcome.TIMEOUT)
            assert info["episode"]["r"] == pytest.approx(returns[index], abs=1e-4)
            assert info["episode"]["l"] == lengths[index]
            assert info["trip_s"] == pytest.approx(lengths[index] * 0.1)
            returns[index], lengths[index] = 0.0, 0
    assert endings >= {Outcome.CONTACT, Outcome.TIMEOUT}, "the run is worth something"


def test_what_is_handed_out_is_not_written_again():
    environment = make()
    first = environment.reset()
    kept = first.copy()
    second, *_ = environment.step(np.ones((12, 2), dtype=np.float32))
    assert first.tobytes() == kept.tobytes()
    kept = second.copy()
    environment.step(np.ones((12, 2), dtype=np.float32))
    assert second.tobytes() == kept.tobytes()


def test_same_seed_same_episodes():
    runs = []
    for seed in (1, 1, 2):
        environment = make(seed)
        rows = [environment.reset()]
        rows += [environment.step(np.full((12, 2), 0.3, dtype=np.float32))[0] for _ in range(20)]
        runs.append(np.array(rows).tobytes())
    assert runs[0] == runs[1] != runs[2]


def test_the_rest_of_the_interface():
    environment = make()
    assert environment.get_attr("render_mode") == [None] * 12
    assert environment.env_is_wrapped(object, [0, 1]) == [False, False]
    assert len(environment.env_method("get_attr", "num_envs", indices=[2])) == 1
    with pytest.raises(AttributeError, match="change the simulation's config"):
        environment.set_attr("seed", 1)
    environment.close()


def test_rows_of_a_table_are_actions():
    table = np.array([[1.0, 0.0], [0.5, -1.0]], dtype=np.float32)
    by_row, by_action = make(table=table), make()
    assert by_row.action_space.n == 2
    for environment in (by_row, by_action):
        environment.reset()
    rows = np.arange(12) % 2
    for _ in range(10):
        first, second = by_row.step(rows), by_action.step(table[rows])
        assert first[0].tobytes() == second[0].tobytes()


def test_the_background_is_not_handed_out():
    environment = make(robots=4, robots_rule_based=1, robots_broken=1)
    assert environment.num_envs == 8
    seen = environment.reset()
    simulation = environment.simulation
    assert seen.tobytes() == simulation.observation[:, :2].tobytes()
    for _ in range(80):
        seen, reward, done, infos = environment.step(np.ones((8, 2), dtype=np.float32))
        assert seen.tobytes() == simulation.observation[:, :2].tobytes()
        assert done.tolist() == (simulation.outcome[:, :2].reshape(-1) > 0).tolist()
        assert [bool(info) for info in infos] == done.tolist()
        assert reward.shape == (8,)


def test_multipliers_are_taken_off_the_reward_but_not_off_the_returns():
    free, limited = make(guarded=True), make(guarded=True)
    limited.multipliers[:] = 7.0, 3.0
    for environment in (free, limited):
        environment.reset()
    contacts = 0
    for _ in range(200):
        action = np.tile(np.array([1.0, 0.3], dtype=np.float32), (12, 1))
        _, reward, done, infos = free.step(action)
        _, less, _, same = limited.step(action)
        hit = np.array([info.get("outcome") == Outcome.CONTACT for info in infos])
        cost = 7.0 * hit + 3.0 * 0.1 * free.simulation.reduced.reshape(-1)
        assert reward - less == pytest.approx(cost, abs=1e-5)
        assert [info["episode"]["r"] for info in infos if info] == [i["episode"]["r"] for i in same if i]
        contacts += hit.sum()
        del done
    mean = limited.take_reduced_mean()
    assert 0.0 < mean < 1.0
    assert free.take_reduced_mean() == mean
    assert limited.take_reduced_mean() == 0.0


def test_a_snapshot_goes_on_bit_for_bit():
    environment, other = make(), make()
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (80, 12, 2)).astype(np.float32)
    for env in (environment, other):
        env.reset()
    for action in actions[:30]:
        environment.step(action)
    other.restore(environment.snapshot())
    for action in actions[30:]:
        first, second = environment.step(action), other.step(action)
        assert [part.tobytes() for part in first[:3]] == [part.tobytes() for part in second[:3]]
        assert [info.get("episode") for info in first[3]] == [info.get("episode") for info in second[3]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named(value):
    observation, reward = np.zeros((4, 83), dtype=np.float32), np.zeros(4, dtype=np.float32)
    require_numbers(observation, reward)
    reward[2] = value
    with pytest.raises(RunError, match="the reward of environment 2"):
        require_numbers(observation, reward)
    observation[1, 7] = value
    with pytest.raises(RunError, match=r"observation\[7\] of environment 1"):
        require_numbers(observation, reward)


def test_other_worlds_keep_the_number_of_environments():
    environment = make()
    environment.replace(Simulation(FLOORS, SimulationConfig(worlds=4, robots=4, robots_broken=1), seed=1))
    assert environment.reset().shape == (12, OBSERVATION_SIZE)
    with pytest.raises(RunError, match="hold 16 learning robots; expected 12"):
        environment.replace(Simulation(FLOORS, SimulationConfig(worlds=4, robots=4), seed=1))
