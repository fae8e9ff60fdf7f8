"""``outrider train``: train a policy, go on with a run, train several seeds, or train a recorded run again."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import fail

if TYPE_CHECKING:
    from trainer.learning.config import TrainConfig
    from trainer.learning.run import CurvePoint
    from trainer.scale_out.config import ScaleOutConfig

app = typer.Typer(add_completion=False)
DEFAULT_STEPS = 4_000_000

EXAMPLES = """
Examples:

  outrider train --out runs/first

  outrider train --out runs/second --steps 5000000 --config my.yaml

  outrider train --resume runs/first

  outrider train --resume runs/first --steps 1000000

  outrider train --from runs/first --out runs/third

  outrider train --seeds 5 --parallel 2 --out runs/five

  outrider train --replay runs/first --out runs/again

  outrider train --ray 10.0.0.5:6379 --ray-actors 16 --out runs/wide

  tensorboard --logdir runs
"""


@app.command(epilog=EXAMPLES)
def train(
    out: Annotated[Path | None, typer.Option(help="Folder of the new run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with, bit for bit.")] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Folder of a run to train again in --out; compares the weights.")
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option("--from", help="Folder of a run whose weights the new one begins with.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; keys left out keep their defaults.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=f"{DEFAULT_STEPS}; resumed: what was asked before",
            help="Robot-steps to take; of a resumed run, in addition.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, help="Stop after this long at the latest.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the config's seed.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Train as many runs, OUT/seed-K, from the seed on.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Processes for --seeds.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Collect on this Ray cluster: host:port, auto, or local for one here."
        ),
    ] = None,
    ray_actors: Annotated[
        int, typer.Option(min=1, max=1024, help="Actors on it, a CPU each; they share the config's worlds.")
    ] = 2,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the last point of the curve as JSON.")
    ] = False,
) -> None:
    """Train a policy on the compiled twin, behind the safety monitor; resumable, Ctrl-C keeps a whole checkpoint."""
    if (out is None) == (resume is None):
        raise fail("give either --out for a new run or --resume for one that exists", 2)
    if resume is not None and any(given is not None for given in (config, seed, seeds, warm_start, replay)):
        raise fail("a resumed run keeps its own config and seed; only --steps and --seconds go with it", 2)
    if replay is not None and any(
        given is not None for given in (config, seed, seeds, warm_start, steps, seconds)
    ):
        raise fail("a replay takes config, seed and steps from the recorded run; only --out goes with it", 2)
    if seeds is not None and (warm_start is not None or seconds is not None):
        raise fail("--seeds trains from scratch for --steps; --from and --seconds do not go with it", 2)
    if ray is not None and (seeds is not None or replay is not None):
        raise fail("--ray spreads one run; --seeds and --replay do not go with it", 2)
    from sim.errors import SimError
    from trainer.errors import TrainerError

    try:
        if replay is not None and out is not None:
            _replay(replay, out, as_json)
        elif seeds is not None and out is not None:
            _seeds(_settings(config, seed), out, seeds, steps or DEFAULT_STEPS, parallel, as_json)
        else:
            scale_out = _scale_out(ray, ray_actors)
            _one(out, resume, warm_start, config, steps, seconds, seed, as_json, scale_out)
    except KeyboardInterrupt:
        raise fail(_interrupted(out or resume, seeds is not None), 130) from None
    except (TrainerError, SimError) as error:
        raise fail(str(error)) from None


def _settings(config: Path | None, seed: int | None) -> "TrainConfig":
    import msgspec

    from trainer.learning.config import TrainConfig, load_train_config

    settings = load_train_config(config) if config is not None else TrainConfig()
    return settings if seed is None else msgspec.structs.replace(settings, seed=seed)


def _one(
    out: Path | None,
    resume: Path | None,
    warm_start: Path | None,
    config: Path | None,
    steps: int | None,
    seconds: float | None,
    seed: int | None,
    as_json: bool,
    scale_out: "ScaleOutConfig | None",
) -> None:
    from outrider.progress import training_progress
    from trainer.learning.algorithms import algorithm_of
    from trainer.learning.checkpoint import read_checkpoint
    from trainer.learning.run import RunFolder
    from trainer.learning.train import train as run_training

    parent = RunFolder.open(warm_start) if warm_start is not None else None
    if resume is not None:
        folder = RunFolder.open(resume)
        done, goal = read_checkpoint(folder).steps, folder.goal()
        ahead = steps or (max(1, goal.target_steps - done) if goal else 1)
    else:
        assert out is not None
        settings = _settings(config, seed)
        algorithm_of(settings)
        if scale_out is not None:
            scale_out.check(settings)
        folder = RunFolder.create(out, settings, (parent,) if parent else ())
        steps = ahead = steps or DEFAULT_STEPS
    # Ray prints the end of a node to standard output, where --json has to stand alone.
    ray_notes = nullcontext() if scale_out is None else redirect_stdout(sys.stderr)
    with training_progress(ahead) as report, ray_notes:
        last = run_training(folder, steps, resume is not None, report, seconds, parent, scale_out=scale_out)
    if last is None:
        raise fail(f"{folder.path} has no curve; there is nothing to tell")
    goal = folder.goal()
    _tell(
        last,
        f"{folder.path}:",
        f"; stopped: {goal.ended_early}" if goal and goal.ended_early else "",
        as_json,
    )


def _scale_out(address: str | None, actors: int) -> "ScaleOutConfig | None":
    """Seen to before a run folder is made."""
    if address is None:
        return None
    from trainer.scale_out.cluster import require
    from trainer.scale_out.config import ScaleOutConfig

    settings = ScaleOutConfig(address=address, actors=actors)
    require(settings)
    return settings


def _tell(last: "CurvePoint", name: str, note: str, as_json: bool) -> None:
    import msgspec

    if as_json:
        typer.echo(msgspec.json.encode(last).decode())
        return
    typer.echo(
        f"{name} {last.steps:,} steps in {last.seconds:.0f} s, success {last.success:.1%},"
        f" contact {last.contact:.1%}, {last.trip_s:.1f} s a trip (twin, training floors){note}"
    )


def _seeds(config: "TrainConfig", out: Path, count: int, steps: int, parallel: int, as_json: bool) -> None:
    import msgspec

    from trainer.learning.algorithms import algorithm_of
    from trainer.learning.seeds import train_seeds

    algorithm_of(config)
    summary = train_seeds(
        config,
        out,
        count,
        steps,
        parallel,
        None if as_json else lambda number, point: _tell(point, f"seed {number}:", "", False),
    )
    if as_json:
        typer.echo(msgspec.json.encode(summary).decode())
        return
    for name, spread, scale, unit in (
        ("success", summary.success, 100.0, " %"),
        ("contact", summary.contact, 100.0, " %"),
        ("trip", summary.trip_s, 1.0, " s"),
    ):
        low, high = spread.lowest * scale, spread.highest * scale
        typer.echo(
            f"{name:8} {spread.mean * scale:.1f} ± {spread.deviation * scale:.1f}{unit} ({low:.1f} to {high:.1f})"
        )


def _replay(recorded: Path, out: Path, as_json: bool) -> None:
    import msgspec

    from outrider.progress import training_progress
    from trainer.learning.checkpoint import read_checkpoint
    from trainer.learning.replay import replay
    from trainer.learning.run import RunFolder

    folder = RunFolder.open(recorded)
    with training_progress(read_checkpoint(folder).steps) as report:
        result = replay(folder, out, report)
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
    elif result.same:
        typer.echo(f"same: {result.steps:,} steps, weights {result.came}")
    if not result.same:
        why = ", ".join(result.differing) or "none of those recorded"
        raise fail(
            f"other weights: recorded {result.recorded[:12]}, came {result.came[:12]}; facts that differ: {why}"
        )


def _interrupted(kept: Path | None, several: bool) -> str:
    if several:
        return f"interrupted; go on with the same command, --out {kept}"
    if kept is None or not kept.exists():
        return "interrupted before anything was written"
    if not (kept / "checkpoint.zip").exists():
        return f"interrupted before the first checkpoint; remove {kept} and train anew"
    return f"interrupted; the checkpoint is whole, go on with --resume {kept}"
