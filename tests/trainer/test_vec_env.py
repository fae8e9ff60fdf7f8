"""The batched environment keeps Stable-Baselines3's promises, robot by robot."""

import numpy as np
import pytest

from contracts.observation import OBSERVATION_SIZE
from navigation.action import decode_action
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome
from sim.world.generate import generate_warehouse
from trainer.episodes.vec_env import BatchedVecEnv

FLOORS = [generate_warehouse(seed) for seed in (3, 8)]


def make(seed=0, **config):
    settings = {"worlds": 4, "robots": 3, "people": 2, "trip_max_s": 6.0, "guarded": False, **config}
    environment = BatchedVecEnv(Simulation(FLOORS, SimulationConfig(**settings), seed=seed))
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
