"""A run folder: its config, its facts, its goal, its curve and its checkpoint. Every file is replaced whole or
appended to."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from contracts.canonical import digest_hex
from trainer.errors import RunError, TrainConfigError
from trainer.learning.config import TrainConfig

CONFIG_FILE, FACTS_FILE, CURVE_FILE, CHECKPOINT_FILE, GOAL_FILE = (
    "config.json",
    "facts.json",
    "curve.jsonl",
    "checkpoint.zip",
    "goal.json",
)


class CurvePoint(msgspec.Struct, frozen=True):
    """The state of learning after one batch; rates over the last thousand trips, times in s.

    ``trips`` is how many trips the rates rest on. The first to end in a run are the short ones: while ``trips``
    is small, rates flatter. ``reduced`` is that of the batch alone.
    """

    seconds: float
    steps: int
    success: float
    contact: float
    timeout: float
    trip_s: float
    reward: float
    std: float
    reduced: float
    trips: int
    stage: int = 0
    multiplier_contact: float = 0.0
    multiplier_reduced: float = 0.0


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked of a run: robot-steps in all, and why it ended before them, where it did."""

    target_steps: int
    ended_early: str = ""


class RunFolder:
    """``PATH`` with everything a run leaves behind."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: Path, config: TrainConfig, parents: tuple["RunFolder", ...] = ()) -> "RunFolder":
        """Begin a new run; ``parents`` are those it takes its first weights from.

        Raises:
            RunError: there is a run already; resume it or choose another folder.
            TrainConfigError: weights of both a parent and a teacher.
        """
        from trainer.learning.facts import run_facts

        if parents and config.imitation is not None:
            raise TrainConfigError(
                f"the weights would come from {parents[0].path} and from the teacher {config.imitation.teacher}; leave"
                " imitation out of the config, or --from"
            )
        if (path / CONFIG_FILE).exists():
            raise RunError(
                f"{path} holds a run already; continue it with --resume {path}, or choose another --out"
            )
        facts = run_facts(config, parents)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_whole(path / FACTS_FILE, json.dumps(facts, indent=2).encode())
            write_whole(path / CONFIG_FILE, msgspec.json.format(msgspec.json.encode(config)))
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error}") from None
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open a run that exists.

        Raises:
            RunError: there is none, or its config is not one of this version.
        """
        try:
            config = msgspec.json.decode((path / CONFIG_FILE).read_bytes(), type=TrainConfig)
        except OSError:
            raise RunError(
                f"{path} holds no run ({CONFIG_FILE} is missing); see 'outrider train --help'"
            ) from None
        except msgspec.MsgspecError as error:
            raise RunError(f"{path / CONFIG_FILE}: {error}; it is of another version of outrider") from None
        return cls(path, config)

    @property
    def checkpoint(self) -> Path:
        """The newest whole checkpoint."""
        return self.path / CHECKPOINT_FILE

    def require_checkpoint(self) -> Path:
        """The checkpoint's path; RunError where there is none yet."""
        if not self.checkpoint.exists():
            raise RunError(
                f"{self.path} has no checkpoint yet: it was cut off before the first one; delete it and train anew"
            )
        return self.checkpoint

    def save_checkpoint(self, data: bytes) -> None:
        """Put a checkpoint in the place of the one before; a cut at any moment leaves one of the two whole.

        Raises:
            RunError: it cannot be written; the one before is whole.
        """
        self._write(self.checkpoint, data)

    def goal(self) -> Goal | None:
        """What was asked of this run; None where nothing has been yet.

        Raises:
            RunError: the file is not one of this version.
        """
        try:
            return msgspec.json.decode((self.path / GOAL_FILE).read_bytes(), type=Goal)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(
                f"{self.path / GOAL_FILE} cannot be read: {error}; resume with --steps to write it anew"
            ) from None

    def set_goal(self, goal: Goal) -> None:
        """Write down what is asked; RunError where it cannot be written."""
        self._write(self.path / GOAL_FILE, msgspec.json.encode(goal))

    def facts(self) -> dict[str, Any]:
        """Where the run was made.

        Raises:
            RunError: the file is missing or torn.
        """
        try:
            facts: dict[str, Any] = json.loads((self.path / FACTS_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / FACTS_FILE} cannot be read: {error}") from None
        return facts

    def append_curve(self, point: CurvePoint) -> None:
        """Add a line to the curve."""
        with (self.path / CURVE_FILE).open("ab") as stream:
            stream.write(msgspec.json.encode(point) + b"\n")

    def cut_curve(self, steps: int) -> None:
        """Drop a torn last line and the points after ``steps``: those that no checkpoint has kept."""
        lines = [msgspec.json.encode(point) + b"\n" for point in self.curve() if point.steps <= steps]
        self._write(self.path / CURVE_FILE, b"".join(lines))

    def curve(self) -> list[CurvePoint]:
        """All points; a torn last line is left out."""
        points: list[CurvePoint] = []
        try:
            lines = (self.path / CURVE_FILE).read_bytes().split(b"\n")
        except OSError:
            return points
        for line in lines:
            try:
                points.append(msgspec.json.decode(line, type=CurvePoint))
            except msgspec.MsgspecError:
                continue
        return points

    def digest(self) -> str:
        """What identifies the trained policy's origin: SHA-256 over config and checkpoint."""
        return digest_hex(
            digest_hex((self.path / CONFIG_FILE).read_bytes()).encode()
            + digest_hex(self.require_checkpoint().read_bytes()).encode()
        )

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_whole(path, data)
        except OSError as error:
            raise RunError(
                f"{path} cannot be written: {error.strerror or error}; the one before is whole, make room and resume"
            ) from None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a cut leaves the old one or the new one; OSError leaves nothing half-written behind."""
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
