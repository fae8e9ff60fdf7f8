"""What a Ray actor is: some of the run's worlds, random streams of its own, and a copy of the policy.

It collects with stable-baselines3's own ``collect_rollouts``, so that time limits, clipping and exploration are those
of a run in one process.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from trainer.learning.algorithms import algorithm_of
from trainer.learning.config import TrainConfig
from trainer.learning.scene import enter_stage, make_environment
from trainer.scale_out.fragment import STEPS, Arrays, Fragment, Request, Weights


class FragmentCollector:
    """Collects one fragment a call.

    Args:
        config: the run's, with as many worlds as this actor holds, and this actor's seed.
        first_world: number of its first world in the run; says on which floors they are.
        stage: of the curriculum.
    """

    def __init__(self, config: TrainConfig, first_world: int, stage: int) -> None:
        torch.set_num_threads(1)
        self._config, self._first_world, self._stage = config, first_world, stage
        algorithm = algorithm_of(config)
        self._table = algorithm.table(config)
        self._environment = make_environment(config, self._table, stage, first_world)
        with _learner_only_warnings():
            self._model = algorithm.make(config, self._environment, config.seed)
        self._trips = _Trips()
        _, self._callback = self._model._setup_learn(0, self._trips)

    def ping(self) -> None:
        """Answers, while a fragment is collected too."""

    def collect(self, weights: Weights, request: Request) -> Fragment:
        """Take over ``weights``, go on with the episodes, and hand over what came."""
        torch.set_num_threads(1)  # Ray calls from a thread of its own, and OpenMP counts by thread.
        model, environment = self._model, self._environment
        if weights.stage != self._stage:
            self._stage = weights.stage
            enter_stage(model, environment, self._config, self._table, self._stage, self._first_world)
        environment.multipliers[:] = weights.multipliers
        model.policy.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in weights.tensors.items()}
        )
        buffer = model.rollout_buffer
        self._trips.rows = []
        model.collect_rollouts(environment, self._callback, buffer, model.n_steps)
        sent = Request(request.actor, request.number, weights.version, self._stage)
        arrays = {**{name: getattr(buffer, name) for name in STEPS}, **self._ends(), **self._trips.arrays()}
        return Fragment.sealed(sent, arrays, environment.take_reduced_mean())

    def _ends(self) -> Arrays:
        model = self._model
        with torch.no_grad():
            values = model.policy.predict_values(torch.from_numpy(model._last_obs))
        return {
            "last_values": values.numpy().reshape(-1),
            "last_dones": np.array(model._last_episode_starts, dtype=np.bool_),
        }


class _Trips(BaseCallback):  # type: ignore[misc]
    """Keeps the trips that end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, float, float]] = []

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        self.rows += [(info["outcome"], info["trip_s"], info["episode"]["r"]) for info in infos if info]
        return True

    def arrays(self) -> Arrays:
        """int64[n], float64[n] in s, float64[n]."""
        columns = list(zip(*self.rows, strict=True)) or [(), (), ()]
        kinds = np.int64, np.float64, np.float64
        names = "trip_outcome", "trip_s", "trip_return"
        return {
            name: np.array(column, dtype=kind)
            for name, column, kind in zip(names, columns, kinds, strict=True)
        }


@contextmanager
def _learner_only_warnings() -> Iterator[None]:
    """The batch size is the learner's; it need not divide what one actor collects."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="You have specified a mini-batch size", category=UserWarning
        )
        yield


def actor_config(config: TrainConfig, worlds: int, seed: int) -> TrainConfig:
    """The run's config for one actor: its share of the worlds, on one thread, with its seed."""
    return msgspec.structs.replace(config, worlds=worlds, seed=seed, sim_threads=1)


def actor_seed(config: TrainConfig, begun_at: int, actor: int) -> int:
    """The seed of the ``actor``-th actor of a run that begins, or goes on, at ``begun_at`` robot-steps.

    That of a new run's first actor is the run's own: alone, it collects what a run in one process does. No other
    comes twice, however often actors are replaced or the run resumed.
    """
    if begun_at == 0 and actor == 0:
        return config.seed
    words = np.random.SeedSequence([config.seed, begun_at, actor]).generate_state(1, np.uint32)
    return int(words[0]) % 2**31
