"""A checkpoint: everything a run needs to go on bit for bit, and nothing that runs when it is read.

One file of ``torch.save``, read with ``weights_only``: weights and optimisers, the environment's snapshot, the last
observations, the replay buffer where there is one, all random streams, and the run's ``Progress``.
"""

import hashlib
import io
import json
import pickle
import random
import zipfile
from typing import Any

import msgspec
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr, recursive_setattr
from stable_baselines3.common.vec_env import VecEnv

from contracts.observation import ROUTING_LAYOUT
from sim.errors import SimError
from sim.tasks.spaces import action_space, observation_space
from trainer.episodes.vec_env import BatchedVecEnv
from trainer.errors import RunError
from trainer.learning.algorithms import algorithm_of
from trainer.learning.progress import Progress
from trainer.learning.run import RunFolder

FORMAT = 3
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of a checkpoint that is text."""

    format: int
    layout_hash: str
    algorithm: str
    counters: dict[str, float]
    replay: tuple[int, bool] | None
    """Position in the replay buffer, and whether it is full."""
    random: dict[str, Any]
    progress: Progress


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint as it was read: its head, state dictionaries, single tensors and arrays."""

    head: Head
    parameters: dict[str, Any]
    variables: dict[str, torch.Tensor]
    arrays: dict[str, torch.Tensor]

    @property
    def steps(self) -> int:
        """Robot-steps that the run had taken."""
        return int(self.head.counters["num_timesteps"])


def encode_checkpoint(model: BaseAlgorithm, environment: BatchedVecEnv, progress: Progress) -> bytes:
    """The complete state between two batches. ``model`` has an observation to go on from."""
    arrays = {f"environment.{name}": value for name, value in environment.snapshot().items()}
    arrays["last_obs"], arrays["last_episode_starts"] = model._last_obs, model._last_episode_starts
    replay = getattr(model, "replay_buffer", None)
    if replay is not None:
        filled = replay.buffer_size if replay.full else replay.pos
        arrays |= {f"replay.{name}": getattr(replay, name)[:filled] for name in REPLAY}
    head = Head(
        FORMAT,
        ROUTING_LAYOUT.hash(),
        type(model).__name__,
        {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
        None if replay is None else (int(replay.pos), bool(replay.full)),
        _random_state(model),
        progress,
    )
    _, variables = model._get_torch_save_params()
    stream = io.BytesIO()
    torch.save(
        {
            "head": json.dumps(msgspec.to_builtins(head)),
            "parameters": model.get_parameters(),
            "variables": {name: recursive_getattr(model, name).detach() for name in variables},
            "arrays": {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()},
        },
        stream,
    )
    return stream.getvalue()


def read_checkpoint(run: RunFolder) -> Checkpoint:
    """The newest whole checkpoint of a run.

    Raises:
        RunError: there is none, it is torn or of another version, or was made for another observation layout.
    """
    path = run.require_checkpoint()
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        head = msgspec.convert(json.loads(data["head"]), Head)
        read = Checkpoint(head, data["parameters"], data["variables"], data["arrays"])
    except MemoryError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise _unreadable(path, error) from None
    if head.layout_hash != ROUTING_LAYOUT.hash():
        raise RunError(
            f"{path} was made for observation layout {head.layout_hash[:12]}, this version has"
            f" {ROUTING_LAYOUT.hash()[:12]}; train anew, or go on with the version it was made with"
        )
    return read


def _unreadable(path: object, error: Exception) -> RunError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return RunError(f"{path} is not a checkpoint of this version: {reason}; train anew")


def restore(checkpoint: Checkpoint, model: BaseAlgorithm, environment: BatchedVecEnv) -> None:
    """Put ``model`` and ``environment``, freshly made from the run's config, where the checkpoint was written.

    Raises:
        RunError: the checkpoint belongs to another algorithm or config.
    """
    restore_weights(checkpoint, model)
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.arrays.items()}
    head = checkpoint.head
    for name, value in head.counters.items():
        setattr(model, name, value)
    try:
        prefix = "environment."
        worlds = {
            name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
        }
        if worlds:
            environment.restore(worlds)
        if head.replay is not None:
            replay = model.replay_buffer
            replay.pos, replay.full = head.replay
            for name in REPLAY:
                array = arrays[f"replay.{name}"]
                getattr(replay, name)[: len(array)] = array
    except (KeyError, ValueError, SimError) as error:
        raise RunError(f"the checkpoint does not fit the run's worlds: {error}; train anew") from None
    if worlds:  # Where Ray actors held them, none are kept; stable-baselines3 then begins anew.
        model._last_obs, model._last_episode_starts = arrays["last_obs"], arrays["last_episode_starts"]
    _restore_random(model, head.random)


def restore_weights(checkpoint: Checkpoint, model: BaseAlgorithm) -> None:
    """Weights, normaliser and optimisers only.

    Raises:
        RunError: the checkpoint belongs to another algorithm or network.
    """
    if checkpoint.head.algorithm != type(model).__name__:
        raise RunError(
            f"the checkpoint is one of {checkpoint.head.algorithm}, expected {type(model).__name__}"
        )
    try:
        model.set_parameters(checkpoint.parameters, exact_match=True, device="cpu")
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"the checkpoint's network does not fit the config: {reason}") from None
    for name, tensor in checkpoint.variables.items():
        recursive_setattr(model, f"{name}.data", tensor)
    model.num_timesteps = checkpoint.steps


def _random_state(model: BaseAlgorithm) -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=False)
    key = numpy_state["state"]["key"]
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key.tolist()}},
        "torch": torch.get_rng_state().tolist(),
        "actions": str(json.dumps(model.action_space.np_random.bit_generator.state)),
    }


def _restore_random(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(
        {
            **state["numpy"],
            "state": {**state["numpy"]["state"], "key": np.array(state["numpy"]["state"]["key"])},
        }
    )
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    model.action_space.np_random.bit_generator.state = json.loads(state["actions"])


class SpacesOnly(VecEnv):  # type: ignore[misc]
    """As many environments as a run has, to make its model without its worlds."""

    def __init__(self, count: int, actions: Any) -> None:
        super().__init__(count, observation_space(), actions)

    def _none(self, *_: Any, **__: Any) -> Any:
        return [None] * self.num_envs

    reset = step_async = step_wait = close = set_attr = env_method = get_attr = _none

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Never."""
        del wrapper_class, indices
        return [False] * self.num_envs


def load_policy(run: RunFolder) -> BaseAlgorithm:
    """The trained model of a run, without its worlds.

    Raises:
        RunError: there is no checkpoint, or it cannot be read.
    """
    import gymnasium

    checkpoint = read_checkpoint(run)
    algorithm = algorithm_of(run.config)
    table = algorithm.table(run.config)
    actions = action_space() if table is None else gymnasium.spaces.Discrete(len(table))
    environment = SpacesOnly(run.config.worlds * run.config.robots, actions)
    model = algorithm.make(run.config, environment, None)
    restore_weights(checkpoint, model)
    return model


def weights_hash(run: RunFolder) -> str:
    """SHA-256 over names, types, shapes and bytes of the policy's tensors, in order; its normaliser among them.

    Raises:
        RunError: there is no checkpoint, or it cannot be read.
    """
    digest = hashlib.sha256()
    for name, tensor in read_checkpoint(run).parameters["policy"].items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
