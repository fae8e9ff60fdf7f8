"""Who teaches in ``trainer.learning.imitation``: a tuned baseline, or a folder of trained policies asked together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.canonical import digest_hex, hash_of
from contracts.errors import BundleError, reason_of
from contracts.robot import RobotModel
from trainer.baselines.catalogue import build, tuned_config
from trainer.errors import TrainConfigError
from trainer.evaluation.controllers import OnnxPolicy
from trainer.evaluation.policies import export_run, members_of, read_network
from trainer.learning.run import RunFolder

NEVER_S = 1e9


class Teacher(Protocol):
    """Says what it would do."""

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] (m/s, rad/s) for observations float32[n, 83]."""


class PolicyMedian:
    """Several networks as one: speed and turn rate are each the median of what they would do.

    They differ where each learned its own noise, and are wrong in different places: the median of five drove better
    than any of them (``docs/evaluation.md``). The mean is no good where half of them pass on the left.
    """

    def __init__(self, networks: Sequence[bytes]) -> None:
        self._policies = [OnnxPolicy(network, str(number)) for number, network in enumerate(networks)]

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2]."""
        told = np.stack([policy.commands(observations) for policy in self._policies])
        median: npt.NDArray[np.float64] = np.median(told, axis=0)
        return median


def is_folder(teacher: str) -> bool:
    """Whether ``teacher`` of a config is a folder of policies; a baseline's name holds no slash."""
    return "/" in teacher


def teacher_hash(teacher: str) -> str:
    """What says which teacher it was: hash of a baseline's settings, or of all the networks' digests and weights.

    Raises:
        TrainConfigError: as ``make_teacher``.
    """
    if is_folder(teacher):
        from trainer.learning.checkpoint import weights_hash

        runs, files = _members(teacher)
        return hash_of([*(weights_hash(run) for run in runs), *(digest_hex(_read(file)) for file in files)])
    return hash_of(tuned_config(teacher))


def make_teacher(teacher: str, model: RobotModel, tick_s: float, robots: int) -> Teacher:
    """The teacher that a config names, for ``robots`` robots that are told every ``tick_s``.

    A baseline comes without its recovery: that depends on how long it has stood, which no policy sees.

    Raises:
        TrainConfigError: no baseline of that name or without tuned settings; nothing in that folder, or a network
            that a robot would refuse.
        RunError: a run or network that cannot be read.
    """
    if is_folder(teacher):
        runs, files = _members(teacher)
        return PolicyMedian([*(export_run(run, model) for run in runs), *(_read(file) for file in files)])
    config = msgspec.structs.replace(tuned_config(teacher), stuck_after_s=NEVER_S)
    baseline = build(teacher, config, model, tick_s)
    baseline.begin(robots)
    return baseline


def _members(folder: str) -> tuple[list[RunFolder], list[Path]]:
    try:
        return members_of(Path(folder))
    except OSError as error:
        raise TrainConfigError(f"teacher {folder} cannot be read: {reason_of(error)}") from None


def _read(file: Path) -> bytes:
    try:
        return read_network(file)
    except BundleError as error:
        raise TrainConfigError(f"teacher {file}: {error}") from None
