"""Where a run was made and what from: enough to make it again, and to say why a second one came out otherwise."""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.canonical import digest_hex, hash_of
from contracts.manifest import TrainingFacts
from contracts.observation import ROUTING_LAYOUT
from trainer.learning.config import BUILT_IN_ENVIRONMENT, TrainConfig
from trainer.source_tree import ROOT, git

if TYPE_CHECKING:
    from trainer.learning.run import RunFolder

LOCK_FILE = "requirements.lock"
NOT_COMPARED = ("command_line",)


def run_facts(config: TrainConfig, parents: tuple["RunFolder", ...] = ()) -> dict[str, Any]:
    """Commit, versions, machine and hashes; of what weights a run begins with, too."""
    import numba
    import numpy
    import stable_baselines3
    import torch

    lock = ROOT / LOCK_FILE
    facts = {
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain")),
        "lock_hash": digest_hex(lock.read_bytes()) if lock.is_file() else "",
        "config_hash": config.hash(),
        "reward_hash": config.reward.hash(),
        "monitor_hash": config.monitor.hash(),
        "layout_hash": ROUTING_LAYOUT.hash(),
        "floor_hashes": floor_hashes(config),
        "parents": [parent_facts(parent) for parent in parents],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "torch_threads": 1,
        "sim_threads": config.sim_threads,
        "command_line": sys.argv,
    }
    if config.imitation is not None:
        from trainer.learning.teachers import teacher_hash

        facts["teacher_hash"] = teacher_hash(config.imitation.teacher)
    return facts


def floor_hashes(config: TrainConfig) -> list[list[str]]:
    """The training floors' hashes, a list for each stage; none for a plugged-in environment's."""
    from trainer.learning.scene import make_floors

    if config.environment != BUILT_IN_ENVIRONMENT:
        return []
    return [[floor.hash() for floor in make_floors(config, stage)] for stage in config.stages()]


def parent_facts(parent: "RunFolder") -> dict[str, Any]:
    """What says which weights were taken over."""
    from trainer.learning.checkpoint import read_checkpoint, weights_hash

    return {
        "run": str(parent.path.resolve()),
        "steps": read_checkpoint(parent).steps,
        "weights_hash": weights_hash(parent),
    }


def differing_facts(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the facts in which two runs differ, the command line aside."""
    names = sorted((one.keys() | other.keys()) - set(NOT_COMPARED))
    return [name for name in names if one.get(name) != other.get(name)]


def run_provenance(run: "RunFolder") -> TrainingFacts:
    """A run in short, for the manifest of a bundle: what it was made from, and what came out.

    Raises:
        RunError: the run has no checkpoint or no facts.
    """
    from trainer.learning.checkpoint import read_checkpoint, weights_hash

    facts = run.facts()
    return TrainingFacts(
        algorithm=run.config.algorithm,
        seed=run.config.seed,
        steps=read_checkpoint(run).steps,
        commit=facts["commit"],
        dirty=facts["dirty"],
        lock_hash=facts["lock_hash"],
        config_hash=facts["config_hash"],
        reward_hash=facts["reward_hash"],
        floors_hash=hash_of(facts["floor_hashes"]),
        weights_hash=weights_hash(run),
        parents=(
            *(parent["weights_hash"] for parent in facts["parents"]),
            *([facts["teacher_hash"]] if "teacher_hash" in facts else []),
        ),
        versions={
            name: str(facts[name]) for name in ("python", "torch", "stable_baselines3", "numpy", "numba")
        },
    )


def cpu_name() -> str:
    """The processor's model name; the architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
