"""The worlds of a run, held by Ray actors: what the training loop has in the place of its environment."""

from collections.abc import Callable
from typing import Any

import gymnasium
import msgspec
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sim.tasks.spaces import action_space
from trainer.episodes.vec_env import Snapshot
from trainer.errors import RunError, TrainConfigError
from trainer.learning.algorithms import Algorithm
from trainer.learning.checkpoint import SpacesOnly
from trainer.learning.config import TrainConfig
from trainer.learning.run import RunFolder
from trainer.scale_out.cluster import connect
from trainer.scale_out.config import ScaleOutConfig
from trainer.scale_out.fragment import Fragment, Weights, fill, layout_of
from trainer.scale_out.pool import ActorPool, Counts

LEDGER_FILE = "fragments.jsonl"


class LedgerLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one batch was learned from: where each sample comes from, and what had happened until then."""

    version: int
    samples: int
    fragments: tuple[tuple[int, int, int, str, str], ...]
    """Actor, its fragment's number, version of the weights, checksum, node."""
    counts: Counts


class RemoteWorlds(SpacesOnly):
    """All worlds of a run, as the loop sees them; ``attach`` lets a model collect in them.

    Args:
        config: of the run.
        algorithm: that of the config.
        settings: how the run is spread.
        run: where the ledger of fragments is kept.

    Attributes:
        multipliers: as ``BatchedVecEnv``'s; travel with the weights.
        stage: of the curriculum; travels with the weights.
        fragments: of the last batch.

    Raises:
        TrainConfigError: the run cannot be spread so.
        ScaleOutError: Ray is missing, or no cluster answers.
    """

    def __init__(
        self, config: TrainConfig, algorithm: Algorithm, settings: ScaleOutConfig, run: RunFolder
    ) -> None:
        settings.check(config)
        table = algorithm.table(config)
        actions = action_space() if table is None else gymnasium.spaces.Discrete(len(table))
        super().__init__(config.worlds * config.robots, actions)
        self.multipliers = np.zeros(2)
        self.stage = 0
        self._config, self._settings, self._ledger = config, settings, run.path / LEDGER_FILE
        self._version = 0
        self.fragments: list[Fragment] = []
        self._pool: ActorPool | None = None
        self._ray, self._disconnect = connect(settings)

    @property
    def pool(self) -> ActorPool:
        """The actors; there are none before ``attach``."""
        assert self._pool is not None
        return self._pool

    def attach(self, model: BaseAlgorithm, stage: int) -> None:
        """Start the actors, and have ``model`` collect through them.

        Raises:
            TrainConfigError: the model learns from a replay buffer, not from rollouts.
            ScaleOutError: no actor comes up.
        """
        if not isinstance(model, OnPolicyAlgorithm):
            raise TrainConfigError(
                f"--ray collects rollouts; {type(model).__name__} learns from a replay buffer. Use ppo, or leave --ray"
            )
        self.stage = stage
        each = self.num_envs // self._settings.actors
        layout = layout_of(model.rollout_buffer, each)
        begun_at = int(model.num_timesteps)
        self._pool = ActorPool(self._ray, self._config, self._settings, layout, begun_at, stage)
        # By instance, not by subclass: a checkpoint names the model's class, and every on-policy algorithm fits.
        model.collect_rollouts = self._collector(model)

    def collect(self, model: BaseAlgorithm) -> int:
        """A batch with the model's weights into its rollout buffer; robot-steps.

        Raises:
            ScaleOutError: actors are lost again and again, or none answers.
            TrainerError: what an actor's worlds or policy raised.
        """
        fragments = self.pool.gather(self._weights(model))
        self._version += 1
        fill(model.rollout_buffer, fragments)
        self._write_down(fragments)
        self.fragments = fragments
        return sum(fragment.samples for fragment in fragments)

    def _collector(self, model: BaseAlgorithm) -> Callable[..., bool]:
        def collect_rollouts(
            env: Any, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int
        ) -> bool:
            """As ``OnPolicyAlgorithm.collect_rollouts``, the steps taken by the actors."""
            del env, rollout_buffer, n_rollout_steps
            callback.on_rollout_start()
            model.num_timesteps += self.collect(model)
            for fragment in self.fragments:
                callback.update_locals({"infos": trip_infos(fragment)})
                callback.on_step()
            callback.on_rollout_end()
            return True

        return collect_rollouts

    def _weights(self, model: BaseAlgorithm) -> Weights:
        tensors = {name: tensor.numpy().copy() for name, tensor in model.policy.state_dict().items()}
        contact, reduced = self.multipliers
        return Weights(self._version, self.stage, (float(contact), float(reduced)), tensors)

    def _write_down(self, fragments: list[Fragment]) -> None:
        told = tuple(
            (
                fragment.request.actor,
                fragment.request.number,
                fragment.request.version,
                fragment.checksum,
                self.pool.nodes[fragment.request.actor],
            )
            for fragment in fragments
        )
        samples = sum(fragment.samples for fragment in fragments)
        line = LedgerLine(self._version - 1, samples, told, self.pool.counts)
        with self._ledger.open("ab") as stream:
            stream.write(msgspec.json.encode(line) + b"\n")

    def reset(self) -> npt.NDArray[np.float32]:
        """Zeros: no observation is acted on here."""
        return np.zeros((self.num_envs, *self.observation_space.shape), dtype=np.float32)

    def take_reduced_mean(self) -> float:
        """As ``BatchedVecEnv``'s, of the last batch."""
        return float(np.mean([fragment.reduced_mean for fragment in self.fragments]))

    def snapshot(self) -> Snapshot:
        """Nothing: the actors' worlds are begun anew when the run goes on."""
        return {}

    def restore(self, snapshot: Snapshot) -> None:
        """Whatever worlds there were, others are begun."""

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        try:
            if self._pool is not None:
                self._pool.close()
        finally:
            self._disconnect()


def trip_infos(fragment: Fragment) -> list[dict[str, Any]]:
    """The trips that ended in a fragment, as ``BatchedVecEnv`` tells of them."""
    columns = (fragment.arrays[name].tolist() for name in ("trip_outcome", "trip_s", "trip_return"))
    return [
        {"outcome": outcome, "trip_s": trip_s, "episode": {"r": episode_return}}
        for outcome, trip_s, episode_return in zip(*columns, strict=True)
    ]


def read_ledger(run: RunFolder) -> list[LedgerLine]:
    """What each batch of a run was learned from.

    Raises:
        RunError: there is no ledger, or it is not one of this version.
    """
    path = run.path / LEDGER_FILE
    try:
        return msgspec.json.Decoder(LedgerLine).decode_lines(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
