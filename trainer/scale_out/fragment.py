"""What travels between learner and actors: weights one way, fragments of experience the other way.

A fragment says who collected it, as which of its fragments and with which weights, under a checksum. The learner holds
all of that against what it had asked for: whatever does not fit is refused, so that a batch holds each sample once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from contracts.canonical import hash_of
from contracts.observation import ROUTING_LAYOUT
from trainer.errors import FragmentError

Arrays = dict[str, npt.NDArray[Any]]
Layout = dict[str, tuple[tuple[int, ...], str]]
STEPS = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs")
"""[T, E, ...]: the rollout buffer of stable-baselines3 by its own names, T steps of E environments."""
ENDS = ("last_values", "last_dones")
"""[E]: value of the state after the last step, by the same weights; whether an episode ended with that step."""
TRIPS = ("trip_outcome", "trip_s", "trip_return")
"""[n]: the trips that ended, in order."""


class Request(msgspec.Struct, frozen=True):
    """What is asked of an actor: its ``number``-th fragment, with the weights of ``version``, in ``stage``'s worlds."""

    actor: int
    number: int
    version: int
    stage: int


@dataclass(frozen=True)
class Weights:
    """A version of the policy, its normaliser among the tensors, and what goes with it into the worlds."""

    version: int
    stage: int
    multipliers: tuple[float, float]
    tensors: Arrays


@dataclass(frozen=True)
class Fragment:
    """A batch's steps of one actor's environments. ``arrays`` holds ``STEPS``, ``ENDS`` and ``TRIPS``."""

    request: Request
    arrays: Arrays
    reduced_mean: float
    checksum: str

    @classmethod
    def sealed(cls, request: Request, arrays: Arrays, reduced_mean: float) -> "Fragment":
        """A fragment with its checksum."""
        return cls(request, arrays, reduced_mean, checksum(request, arrays, reduced_mean))

    @property
    def samples(self) -> int:
        """Robot-steps."""
        return int(self.arrays["rewards"].size)


def checksum(request: Request, arrays: Arrays, reduced_mean: float) -> str:
    """SHA-256 over the request, the share and each array's name, type, shape and bytes."""
    digest = hashlib.sha256(msgspec.json.encode([request, reduced_mean]))
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def layout_of(buffer: Any, environments: int) -> Layout:
    """Shapes and types of a fragment's arrays of ``STEPS`` and ``ENDS``, for a rollout buffer and E environments."""
    layout = {}
    for name in STEPS:
        array = getattr(buffer, name)
        layout[name] = ((buffer.buffer_size, environments, *array.shape[2:]), str(array.dtype))
    return {**layout, "last_values": ((environments,), "float32"), "last_dones": ((environments,), "bool")}


def check(fragment: Fragment, asked: Request, layout: Layout) -> None:
    """Hold a fragment against what was asked for.

    Raises:
        FragmentError: it answers another request (a duplicate, or out of order), is damaged, of another shape, or
            holds what is no number.
    """
    if fragment.request != asked:
        raise FragmentError(f"fragment answers {fragment.request}; asked was {asked}")
    came = checksum(fragment.request, fragment.arrays, fragment.reduced_mean)
    if came != fragment.checksum:
        raise FragmentError(f"fragment's checksum is {fragment.checksum[:12]}, its content gives {came[:12]}")
    if fragment.arrays.keys() != layout.keys() | set(TRIPS):
        raise FragmentError(f"fragment holds {sorted(fragment.arrays)}; expected {sorted([*layout, *TRIPS])}")
    for name, expected in layout.items():
        array = fragment.arrays[name]
        if (array.shape, str(array.dtype)) != expected:
            raise FragmentError(f"fragment's {name} is {array.dtype}{array.shape}; expected {expected}")
    for name, array in fragment.arrays.items():
        if not np.isfinite(array).all():
            raise FragmentError(f"fragment's {name} holds NaN or infinity")


def fill(buffer: Any, fragments: Sequence[Fragment]) -> None:
    """Put fragments side by side into a rollout buffer, and estimate advantages as stable-baselines3 does.

    Each column keeps the value of its own last state, by the weights that it was collected with: generalised
    advantage estimation (Schulman et al. 2016) never reaches from one fragment into another.
    """
    buffer.reset()
    for name in STEPS:
        getattr(buffer, name)[:] = np.concatenate([fragment.arrays[name] for fragment in fragments], axis=1)
    buffer.pos, buffer.full = buffer.buffer_size, True
    last = {name: np.concatenate([fragment.arrays[name] for fragment in fragments]) for name in ENDS}
    buffer.compute_returns_and_advantage(torch.from_numpy(last["last_values"]), last["last_dones"])


def protocol_hash() -> str:
    """The version of what travels: both sides exchange it before the first fragment."""
    fields = {kind.__name__: list(kind.__annotations__) for kind in (Request, Weights, Fragment)}
    return hash_of([fields, STEPS, ENDS, TRIPS, ROUTING_LAYOUT.hash(), str(torch.__version__)])
