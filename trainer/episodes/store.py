"""The fleet's own trips as training data: episodes of the hub's replay store, as arrays and as a torch ``Dataset``."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as pads
import torch
from torch.utils.data import Dataset

from contracts.observation import OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.replay import STORE_FOLDER, StoredFile, stored_files
from sim.tasks.delivery import RewardConfig
from trainer.errors import TrainerError

_COLUMNS = ["seq", "mono_ns", "observation", "raw_speed_mps", "raw_turn_rate_radps", "final_speed_mps",
            "final_turn_rate_radps", "source", "policy_digest"]  # fmt: skip
_ROUTE_LEFT = ROUTING_LAYOUT.offset("route_left")
_ROUTE_LEFT_MAX_M = ROUTING_LAYOUT.observation[4].high
Floats = npt.NDArray[np.float32]


class NoEpisodesError(TrainerError):
    """The store holds no episode that was asked for."""


class EpisodeRef(NamedTuple):
    """Which records an episode is, and how it ended."""

    robot: str
    log_id: str
    first_seq: int
    last_seq: int
    start_wall_ns: int
    policy_digest: str
    outcome: str
    """"arrived" or "aborted"."""
    time_s: float


class Episode(NamedTuple):
    """One trip of T ticks."""

    ref: EpisodeRef
    seqs: npt.NDArray[np.int64]
    """int64[T]; a gap is a record that was lost."""
    observations: Floats
    """float32[T, 83], before each command."""
    commands: Floats
    """float32[T, 2], as asked for: m/s and rad/s in the base frame."""
    admitted: Floats
    """float32[T, 2], as the safety monitor let it through."""
    sources: npt.NDArray[np.uint8]
    """uint8[T], ``contracts.decision.Source``: who asked."""
    rewards: Floats
    """float32[T], those terms of the reward that a record tells (``told_rewards``); NaN where it tells none."""


class EpisodeDataset(Dataset[dict[str, Any]]):
    """Episodes of a hub's data folder, read one by one; item ``i`` holds the fields of ``Episode`` as tensors."""

    def __init__(
        self,
        data: Path,
        robot: str = "",
        policy_digest: str = "",
        outcome: str = "",
        reward: RewardConfig | None = None,
    ) -> None:
        """Find the episodes of a robot, policy (the beginning of its digest) and outcome; "" is all.

        Raises:
            StoreFormatError: There is no replay store.
            NoEpisodesError: None fits.
        """
        self._store = data / STORE_FOLDER
        self._reward = reward or RewardConfig()
        columns = list(EpisodeRef._fields)
        self.refs: list[EpisodeRef] = []
        for file in stored_files(self._store, "episodes", robot):
            table = pads.dataset(str(self._store / file.path)).to_table(columns)
            rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
            self.refs += [EpisodeRef(*row) for row in rows]
        self.refs = [
            ref
            for ref in self.refs
            if ref.policy_digest.startswith(policy_digest) and outcome in ("", ref.outcome)
        ]
        if not self.refs:
            raise NoEpisodesError(
                f"no episodes of robot {robot or 'any'}, policy {policy_digest[:12] or 'any'}, outcome "
                f"{outcome or 'any'} in {self._store}; see `outrider episodes query 'SELECT * FROM episodes'`"
            )
        self._files: dict[tuple[str, str], list[StoredFile]] = {}
        for file in stored_files(self._store, "decisions", robot):
            self._files.setdefault((file.robot, file.log_id), []).append(file)

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        episode = self.episode(index)
        arrays = {n: getattr(episode, n) for n in Episode._fields if n != "ref"}
        found: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return found | {"arrived": episode.ref.outcome == "arrived"}

    def episode(self, index: int) -> Episode:
        """Episode ``index`` as arrays; only row groups that hold it are read."""
        ref = self.refs[index]
        paths = [
            str(self._store / file.path)
            for file in self._files.get((ref.robot, ref.log_id), [])
            if file.first_seq <= ref.last_seq and file.last_seq >= ref.first_seq
        ]
        inside = (pads.field("seq") >= ref.first_seq) & (pads.field("seq") <= ref.last_seq)
        table = pads.dataset(paths).to_table(_COLUMNS, filter=inside).sort_by("seq").combine_chunks()
        column = {name: table.column(name).to_numpy() for name in _COLUMNS if name != "observation"}
        # Of a sliced or filtered list array only flatten() respects where it begins.
        flat = table.column("observation").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        observations = flat.reshape(-1, OBSERVATION_SIZE).astype(np.float32)
        commands = np.column_stack([column["raw_speed_mps"], column["raw_turn_rate_radps"]])
        admitted = np.column_stack([column["final_speed_mps"], column["final_turn_rate_radps"]])
        rewards = told_rewards(observations, column["mono_ns"], ref.outcome == "arrived", self._reward)
        seqs, sources = column["seq"].copy(), column["source"].copy()
        return Episode(ref, seqs, observations, commands, admitted, sources, rewards)


def told_rewards(
    observations: Floats, mono_ns: npt.NDArray[np.int64], arrived: bool, reward: RewardConfig
) -> Floats:
    """Reward of each tick as far as its record tells: progress, time and arrival (``sim.tasks.kernels``).

    What a robot does not know is left out: contacts (they may go unnoticed), nearness, change of the action and the
    share that the monitor took. NaN where the observation does not say how much of the route is left.

    Args:
        observations: float32[T, 83].
        mono_ns: int64[T].
        arrived: whether the last tick ended in arrival.
        reward: the weights.

    Returns:
        float32[T]; the last tick has no successor, its progress and time count as 0.
    """
    left_m = observations[:, _ROUTE_LEFT].astype(np.float64)
    left_m[~((left_m > 0.0) & (left_m < _ROUTE_LEFT_MAX_M))] = np.nan
    progress_m = -np.diff(left_m, append=left_m[-1:])
    took_s = np.diff(mono_ns, append=mono_ns[-1:]) / 1e9
    told = reward.progress * progress_m + reward.step_s * took_s
    if arrived and len(told):
        told[-1] = reward.arrived
    return told.astype(np.float32)
