"""The same run with several seeds: what is luck, and what is not."""

import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import msgspec

from contracts.errors import reason_of
from trainer.errors import RunError
from trainer.learning.config import TrainConfig
from trainer.learning.run import CONFIG_FILE, CurvePoint, RunFolder, write_whole
from trainer.learning.train import train
from trainer.processes import interrupt_with_parent, run_for_parent

SUMMARY_FILE = "summary.json"


class Spread(msgspec.Struct, frozen=True):
    """Mean, sample standard deviation (0 for one seed), lowest and highest over the seeds."""

    mean: float
    deviation: float
    lowest: float
    highest: float


class SeedsSummary(msgspec.Struct, frozen=True):
    """The last point of each seed's curve, and their spread. On the training floors, in the twin."""

    points: dict[int, CurvePoint]
    success: Spread
    contact: Spread
    trip_s: Spread


def train_seeds(
    config: TrainConfig,
    out: Path,
    seeds: int,
    steps: int,
    parallel: int = 1,
    told: Callable[[int, CurvePoint], None] | None = None,
) -> SeedsSummary:
    """Train ``out/seed-K`` for ``seeds`` seeds from the config's on; those that are there already are finished.

    Args:
        config: of the first seed.
        out: their folder; ``summary.json`` is written there.
        seeds: how many.
        steps: robot-steps of each.
        parallel: processes.
        told: called with seed and last point when a seed has ended.

    Raises:
        TrainerError: as ``train``; a folder holds a run of another config.
    """
    numbers = range(config.seed, config.seed + seeds)
    points: dict[int, CurvePoint] = {}
    configs = {number: msgspec.structs.replace(config, seed=number) for number in numbers}

    def note(number: int, point: CurvePoint) -> None:
        points[number] = point
        if told is not None:
            told(number, point)

    if parallel == 1:
        for number in numbers:
            note(number, train_to(out / f"seed-{number}", configs[number], steps))
    else:
        workers = ProcessPoolExecutor(
            parallel, mp_context=get_context("spawn"), initializer=interrupt_with_parent
        )
        with workers as pool:
            futures = {
                pool.submit(run_for_parent, train_to, out / f"seed-{number}", configs[number], steps): number
                for number in numbers
            }
            for future in as_completed(futures):
                note(futures[future], future.result())
    summary = summarise(dict(sorted(points.items())))
    try:
        write_whole(out / SUMMARY_FILE, msgspec.json.format(msgspec.json.encode(summary)))
    except OSError as error:
        raise RunError(f"{out / SUMMARY_FILE} cannot be written: {reason_of(error)}") from None
    return summary


def summarise(points: dict[int, CurvePoint]) -> SeedsSummary:
    """The spread of at least one seed's last points."""
    last = points.values()
    return SeedsSummary(
        points,
        _spread([point.success for point in last]),
        _spread([point.contact for point in last]),
        _spread([point.trip_s for point in last]),
    )


def _spread(values: list[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), deviation, min(values), max(values))


def train_to(path: Path, config: TrainConfig, steps: int) -> CurvePoint:
    """Have ``path`` trained for ``steps`` robot-steps in all: begin, go on, or leave as it is.

    Raises:
        TrainerError: as ``train``; or the folder holds a run of another config.
    """
    if not (path / CONFIG_FILE).exists():
        run, resume = RunFolder.create(path, config), False
    else:
        run = RunFolder.open(path)
        if run.config != config:
            raise RunError(f"{path} holds a run of another config; choose another --out")
        resume = run.checkpoint.exists()
    goal = run.goal()
    if resume and goal is not None and goal.target_steps != steps:
        raise RunError(
            f"{path} was asked for {goal.target_steps:,} steps, not {steps:,}; choose another --out"
        )
    point = train(run, None if resume else steps, resume)
    assert point is not None
    return point
