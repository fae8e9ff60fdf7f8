"""A run folder: its config, its facts, its curve and its checkpoint. Every file is replaced whole or appended to."""

import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from contracts.canonical import digest_hex
from trainer.errors import RunError
from trainer.learning.config import TrainConfig

CONFIG_FILE, FACTS_FILE, CURVE_FILE, CHECKPOINT_FILE = (
    "config.json",
    "facts.json",
    "curve.jsonl",
    "checkpoint.zip",
)


class CurvePoint(msgspec.Struct, frozen=True):
    """The state of learning after one batch; rates over the last thousand trips, times in s.

    ``trips`` is how many trips the rates rest on. The first to end in a run are the short ones: while ``trips``
    is small, rates flatter.
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


class RunFolder:
    """``PATH`` with everything a run leaves behind."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> "RunFolder":
        """Begin a new run.

        Raises:
            RunError: there is a run already; resume it or choose another folder.
        """
        if (path / CONFIG_FILE).exists():
            raise RunError(
                f"{path} holds a run already; continue it with --resume {path}, or choose another --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_whole(path / CONFIG_FILE, msgspec.json.format(msgspec.json.encode(config)))
            write_whole(path / FACTS_FILE, json.dumps(run_facts(config), indent=2).encode())
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

    def save_checkpoint(self, save: Callable[[Path], None]) -> None:
        """Let ``save`` write a file, then put it in the checkpoint's place: a cut leaves the old one whole."""
        fresh = self.path / "checkpoint.new.zip"
        save(fresh)
        with fresh.open("rb") as stream:
            os.fsync(stream.fileno())
        fresh.replace(self.checkpoint)

    def append_curve(self, point: CurvePoint) -> None:
        """Add a line to the curve."""
        with (self.path / CURVE_FILE).open("ab") as stream:
            stream.write(msgspec.json.encode(point) + b"\n")

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


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a cut leaves the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def run_facts(config: TrainConfig) -> dict[str, Any]:
    """Where the run was made: commit, versions, machine, config hash."""
    import numba
    import numpy
    import stable_baselines3
    import torch

    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "config_hash": config.hash(),
        "reward_hash": config.reward.hash(),
        "monitor_hash": config.monitor.hash(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
