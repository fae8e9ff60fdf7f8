"""A native batched ``VecEnv``: every learning robot of every world is one environment, stepped by one call."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from contracts.observation import OBSERVATION_SIZE
from navigation.action import decode_action
from sim.simulation import Simulation
from sim.tasks.delivery import Outcome
from sim.tasks.spaces import action_space, observation_space
from trainer.errors import RunError

Snapshot = dict[str, npt.NDArray[Any]]


class BatchedVecEnv(VecEnv):  # type: ignore[misc]
    """``simulation`` as E * R environments, R the robots of a world that learn.

    ``infos`` hold ``outcome`` and ``trip_s`` where a trip ended, and what Stable-Baselines3 reads:
    ``terminal_observation``, ``TimeLimit.truncated`` and ``episode``.

    Args:
        simulation: the worlds.
        table: float32[n, 2], actions in [-1, 1]; with it the action space is the row's number.

    Attributes:
        multipliers: float64[2], what a contact, and a second in which the monitor takes all speed away, cost on
            top of the reward.
    """

    def __init__(self, simulation: Simulation, table: npt.NDArray[np.float32] | None = None) -> None:
        self._table = table
        self.multipliers = np.zeros(2)
        self._empty: dict[str, Any] = {}
        self._take(simulation)
        actions = action_space() if table is None else gymnasium.spaces.Discrete(len(table))
        super().__init__(self._return.size, observation_space(), actions)

    def _take(self, simulation: Simulation) -> None:
        self.simulation = simulation
        worlds, robots = simulation.reward.shape
        self._learners = simulation.learners
        self._action = np.zeros((worlds, robots, 2), dtype=np.float32)
        self._return = np.zeros(worlds * self._learners)
        self._length = np.zeros(self._return.size, dtype=np.int64)
        self._reduced_sum, self._reduced_steps = 0.0, 0

    def replace(self, simulation: Simulation) -> None:
        """Go on in other worlds, with as many learning robots; call ``reset`` next.

        Raises:
            RunError: the number of environments would change.
        """
        before = self.num_envs
        self.simulation.close()
        self._take(simulation)
        if self._return.size != before:
            raise RunError(f"the new worlds hold {self._return.size} learning robots; expected {before}")

    def reset(self) -> npt.NDArray[np.float32]:
        """Start all worlds anew from the environment's seed."""
        seed = self._seeds[0]
        self.simulation.reset(0 if seed is None else int(seed))
        self._return[:] = 0.0
        self._length[:] = 0
        return self._learned(self.simulation.observation)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions for ``step_wait``: float32[E * R, 2], or int64[E * R] rows of the table."""
        unit = actions if self._table is None else self._table[actions]
        shape = (len(self._action), self._learners, 2)
        self._action[:, : self._learners] = np.clip(unit, -1.0, 1.0).reshape(shape)

    def step_wait(self) -> tuple[Any, ...]:
        """Advance all worlds by one control step.

        Raises:
            RunError: the worlds gave a value that is no number.
        """
        simulation = self.simulation
        simulation.step(self._action, decode_action(self._action, simulation.model))
        observation = self._learned(simulation.observation)
        reward = simulation.reward[:, : self._learners].reshape(-1).astype(np.float32)
        require_numbers(observation, reward)
        outcome = simulation.outcome[:, : self._learners].reshape(-1)
        done = outcome != Outcome.RUNNING
        self._return += reward
        self._length += 1
        reduced = simulation.reduced[:, : self._learners]
        self._reduced_sum += float(reduced.mean())
        self._reduced_steps += 1
        if self.multipliers.any():
            cost = self.multipliers[0] * (outcome == Outcome.CONTACT)
            cost = cost + self.multipliers[1] * simulation.step_s * reduced.reshape(-1)
            reward = (reward - cost).astype(np.float32)
        infos = [self._empty] * self.num_envs
        if done.any():
            self._tell_ends(infos, outcome)
            self._return[done] = 0.0
            self._length[done] = 0
        return observation, reward, done, infos

    def _tell_ends(self, infos: list[dict[str, Any]], outcome: npt.NDArray[np.int8]) -> None:
        terminal = self._learned(self.simulation.terminal_observation)
        for index in np.flatnonzero(outcome != Outcome.RUNNING):
            infos[index] = {
                "outcome": int(outcome[index]),
                "trip_s": float(self._length[index] * self.simulation.step_s),
                "terminal_observation": terminal[index],
                "TimeLimit.truncated": bool(outcome[index] == Outcome.TIMEOUT),
                "episode": {"r": float(self._return[index]), "l": int(self._length[index]), "t": 0.0},
            }

    def _learned(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A copy of the learning robots' rows, float32[E * R, 83]."""
        rows: npt.NDArray[np.float32] = values[:, : self._learners].reshape(-1, OBSERVATION_SIZE)
        return rows.copy() if rows.base is not None else rows

    def take_reduced_mean(self) -> float:
        """Mean share of speed that the monitor took away since the last call."""
        mean = self._reduced_sum / max(1, self._reduced_steps)
        self._reduced_sum, self._reduced_steps = 0.0, 0
        return mean

    def snapshot(self) -> Snapshot:
        """The complete state between two batches; ``restore`` goes on from it bit for bit."""
        own = {"env.return": self._return.copy(), "env.length": self._length.copy()}
        return {**{f"sim.{name}": value for name, value in self.simulation.snapshot().items()}, **own}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over the state of ``snapshot``, made by an environment of the same config."""
        self._return[:], self._length[:] = snapshot["env.return"], snapshot["env.length"]
        self.simulation.restore(
            {name.removeprefix("sim."): value for name, value in snapshot.items() if name.startswith("sim.")}
        )

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


def require_numbers(observation: npt.NDArray[np.float32], reward: npt.NDArray[np.float32]) -> None:
    """Refuse an observation float32[n, size] or a reward float32[n] that is NaN or infinite.

    Raises:
        RunError: names the first environment, and the index in its observation.
    """
    # A sum is finite only where all are: a quarter of the time of looking at each.
    if np.isfinite(observation.sum(dtype=np.float64)) and np.isfinite(reward.sum(dtype=np.float64)):
        return
    bad = np.argwhere(~np.isfinite(observation))
    if len(bad):
        where = f"observation[{bad[0][1]}] of environment {bad[0][0]}"
    else:
        where = f"the reward of environment {int(np.flatnonzero(~np.isfinite(reward))[0])}"
    raise RunError(
        f"environment gave NaN or infinity in {where}; the last checkpoint is whole, mend the environment"
    )
