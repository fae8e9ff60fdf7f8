"""Logged episodes: what was seen, done and earned, and how likely the logging policy was to do it."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.atomic import write_atomically
from trainer.errors import TrainerError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
FILE_MAX_BYTES = 2 * 1024**3
STEPS_MAX = 4_000_000
_TYPES = {
    "observations": np.float32,
    "actions": np.float32,
    "log_probabilities": np.float64,
    "rewards": np.float64,
    "offsets": np.int64,
    "ended": np.bool_,
    "final_observations": np.float32,
}


class EpisodesError(TrainerError):
    """Logged episodes are not what they must be, or cannot be read."""


@dataclass(frozen=True)
class LoggedEpisodes:
    """``E`` episodes of ``T`` steps in all, one after the other; checked when made.

    Attributes:
        observations: float32[T, S], before each action.
        actions: float32[T, A], as drawn, before any clipping.
        log_probabilities: float64[T], of the actions under the policy that logged them; NaN where unknown.
        rewards: float64[T].
        offsets: int64[E + 1]; episode ``e`` is steps ``offsets[e]`` to ``offsets[e + 1]``.
        ended: bool[E]: the task ended the episode (nothing could follow); False where only the log stops.
        final_observations: float32[E, S], after the last action.

    Raises:
        EpisodesError: shapes, types or values that do not fit.
    """

    observations: Floats
    actions: Floats
    log_probabilities: Doubles
    rewards: Doubles
    offsets: npt.NDArray[np.int64]
    ended: npt.NDArray[np.bool_]
    final_observations: Floats

    def __post_init__(self) -> None:
        for name, kind in _TYPES.items():
            dtype = getattr(self, name).dtype
            if dtype != kind:
                raise EpisodesError(f"{name}: expected {np.dtype(kind)}, came {dtype}; log the episodes anew")
        self._check_shapes()
        for name in ("observations", "actions", "rewards", "final_observations"):
            bad = int((~np.isfinite(getattr(self, name))).sum())
            if bad:
                raise EpisodesError(f"{name}: {bad} values are NaN or infinite; log the episodes anew")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Steps of each episode, int64[E]."""
        return np.diff(self.offsets)

    @property
    def episode_of(self) -> npt.NDArray[np.int64]:
        """The episode of each step, int64[T]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def next_observations(self) -> Floats:
        """What followed each action, float32[T, S]."""
        following = np.empty_like(self.observations)
        following[:-1] = self.observations[1:]
        following[self.offsets[1:] - 1] = self.final_observations
        return following

    def nothing_follows(self) -> npt.NDArray[np.bool_]:
        """Whether the task ended with this step, bool[T]."""
        last = np.zeros(len(self.rewards), dtype=np.bool_)
        last[self.offsets[1:] - 1] = self.ended
        return last

    def padded(self, values: Doubles, horizon: int, fill: float) -> Doubles:
        """Values float64[T] as float64[E, horizon], with ``fill`` where an episode is over."""
        table = np.full((len(self), horizon), fill)
        step = np.arange(len(values)) - np.repeat(self.offsets[:-1], self.lengths)
        within = step < horizon
        table[self.episode_of[within], step[within]] = values[within]
        return table

    def save(self, path: Path) -> None:
        """Write a compressed npz, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(self, name) for name in _TYPES})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "LoggedEpisodes":
        """Read what ``save`` wrote; never unpickles.

        Raises:
            EpisodesError: missing, too large, no npz, or not the agreed arrays.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > FILE_MAX_BYTES:
                raise EpisodesError(
                    f"{path}: {size} bytes unpacked, at most {FILE_MAX_BYTES}; log fewer episodes"
                )
            with np.load(path, allow_pickle=False) as arrays:
                if set(arrays.files) != set(_TYPES):
                    raise EpisodesError(
                        f"{path}: expected the arrays {', '.join(_TYPES)}, came {', '.join(arrays.files[:12])};"
                        " write it with 'outrider ope collect' or LoggedEpisodes.save"
                    )
                return cls(**{name: arrays[name] for name in _TYPES})
        except OSError as error:
            raise EpisodesError(f"{path}: cannot be read ({error.strerror})") from None
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise EpisodesError(f"{path}: no file of logged episodes: {error}") from None

    def _check_shapes(self) -> None:
        count = self.offsets.size - 1
        if self.offsets.ndim != 1 or count < 1 or self.offsets[0] != 0 or (np.diff(self.offsets) < 1).any():
            raise EpisodesError(
                "offsets: expected int64[E + 1] from 0, rising by at least 1 for each episode, came "
                f"{self.offsets[:6].tolist()} of shape {self.offsets.shape}"
            )
        steps = int(self.offsets[-1])
        if steps > STEPS_MAX:
            raise EpisodesError(f"expected at most {STEPS_MAX} steps, came {steps}; log fewer episodes")
        if self.observations.ndim != 2 or self.actions.ndim != 2:
            raise EpisodesError("observations and actions must have two dimensions, steps and values")
        size = self.observations.shape[1]
        for name, shape in (
            ("observations", (steps, size)),
            ("actions", (steps, self.actions.shape[1])),
            ("log_probabilities", (steps,)),
            ("rewards", (steps,)),
            ("ended", (count,)),
            ("final_observations", (count, size)),
        ):
            came = getattr(self, name).shape
            if came != shape:
                raise EpisodesError(f"{name}: expected shape {shape}, came {came}; offsets end at {steps}")
