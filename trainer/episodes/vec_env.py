"""A native batched ``VecEnv``: every robot of every world is one environment, stepped by one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from contracts.observation import OBSERVATION_SIZE
from navigation.action import decode_action
from sim.simulation import Simulation
from sim.tasks.delivery import Outcome
from sim.tasks.spaces import action_space, observation_space


class BatchedVecEnv(VecEnv):  # type: ignore[misc]
    """``simulation`` as E * R environments.

    ``infos`` hold ``outcome`` and ``trip_s`` where a trip ended, and what Stable-Baselines3 reads:
    ``terminal_observation``, ``TimeLimit.truncated`` and ``episode``.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._shape = simulation.reward.shape
        count = simulation.reward.size
        super().__init__(count, observation_space(), action_space())
        self._action = np.zeros((*self._shape, 2), dtype=np.float32)
        self._return = np.zeros(count)
        self._length = np.zeros(count, dtype=np.int64)
        self._empty: dict[str, Any] = {}

    def reset(self) -> npt.NDArray[np.float32]:
        """Start all worlds anew from the environment's seed."""
        seed = self._seeds[0]
        observation = self.simulation.reset(0 if seed is None else int(seed))
        self._return[:] = 0.0
        self._length[:] = 0
        return observation.reshape(self.num_envs, OBSERVATION_SIZE).copy()

    def step_async(self, actions: npt.NDArray[np.float32]) -> None:
        """Keep the actions float32[E * R, 2] for ``step_wait``."""
        self._action[:] = np.clip(actions, -1.0, 1.0).reshape(self._action.shape)

    def step_wait(self) -> tuple[Any, ...]:
        """Advance all worlds by one control step."""
        simulation = self.simulation
        simulation.step(self._action, decode_action(self._action, simulation.model))
        reward = simulation.reward.reshape(-1).astype(np.float32)
        outcome = simulation.outcome.reshape(-1)
        done = outcome != Outcome.RUNNING
        self._return += reward
        self._length += 1
        infos = [self._empty] * self.num_envs
        if done.any():
            terminal = simulation.terminal_observation.reshape(self.num_envs, OBSERVATION_SIZE)
            for index in np.flatnonzero(done):
                infos[index] = {
                    "outcome": int(outcome[index]),
                    "trip_s": float(self._length[index] * simulation.step_s),
                    "terminal_observation": terminal[index].copy(),
                    "TimeLimit.truncated": bool(outcome[index] == Outcome.TIMEOUT),
                    "episode": {"r": float(self._return[index]), "l": int(self._length[index]), "t": 0.0},
                }
            self._return[done] = 0.0
            self._length[done] = 0
        observation = simulation.observation.reshape(self.num_envs, OBSERVATION_SIZE).copy()
        return observation, reward, done, infos

    def close(self) -> None:
        """Let go of the simulation's threads."""
        self.simulation.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the batch, once for each environment asked for."""
        return [getattr(self, attr_name, None)] * len(self._indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible one by one: the environments are one batch."""
        del value, indices
        raise AttributeError(
            f"{attr_name} cannot be set on a batched environment; change the simulation's config"
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the batch once; its result stands for each environment asked for."""
        return [getattr(self, method_name)(*args, **kwargs)] * len(self._indices(indices))

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Batched environments are never wrapped one by one."""
        del wrapper_class
        return [False] * len(self._indices(indices))

    def _indices(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))
