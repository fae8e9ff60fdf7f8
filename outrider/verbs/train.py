"""``outrider train``: train a policy, or go on with a run."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail

app = typer.Typer(add_completion=False)

EXAMPLES = """
Examples:

  outrider train --out runs/first

  outrider train --out runs/second --steps 5000000 --config my.yaml

  outrider train --resume runs/first --steps 1000000

  tensorboard --logdir runs
"""


@app.command(epilog=EXAMPLES)
def train(
    out: Annotated[Path | None, typer.Option(help="Folder of the new run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; keys left out keep their defaults.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Robot-steps to take.")] = 4_000_000,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, help="Stop after this long at the latest.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the config's seed.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the last point of the curve as JSON.")
    ] = False,
) -> None:
    """Train a policy on the compiled twin, behind the safety monitor; resumable, Ctrl-C keeps a whole checkpoint."""
    if (out is None) == (resume is None):
        raise fail("give either --out for a new run or --resume for one that exists", 2)
    if resume is not None and (config is not None or seed is not None):
        raise fail("--config and --seed belong to a new run; a resumed one keeps its own", 2)
    import msgspec

    from outrider.progress import training_progress
    from sim.errors import SimError
    from trainer.errors import TrainerError
    from trainer.learning.config import TrainConfig, load_train_config
    from trainer.learning.run import RunFolder
    from trainer.learning.train import train as run_training

    try:
        if resume is not None:
            folder = RunFolder.open(resume)
            folder.require_checkpoint()
        else:
            assert out is not None
            settings = load_train_config(config) if config is not None else TrainConfig()
            settings = settings if seed is None else msgspec.structs.replace(settings, seed=seed)
            folder = RunFolder.create(out, settings)
        with training_progress(steps) as report:
            last = run_training(folder, steps, resume is not None, report, seconds)
    except KeyboardInterrupt:
        kept = out or resume
        if kept is None or not (kept / "checkpoint.zip").exists():
            raise fail(
                f"interrupted before the first checkpoint; remove {kept} and train anew", 130
            ) from None
        raise fail(f"interrupted; the checkpoint is whole, go on with --resume {kept}", 130) from None
    except (TrainerError, SimError) as error:
        raise fail(str(error)) from None
    if last is None:
        raise fail("stopped before the first batch was complete; give it more --seconds or --steps")
    if as_json:
        typer.echo(msgspec.json.encode(last).decode())
    else:
        typer.echo(
            f"{folder.path}: {last.steps:,} steps in {last.seconds:.0f} s, success {last.success:.1%},"
            f" contact {last.contact:.1%}, {last.trip_s:.1f} s a trip (twin, training floors)"
        )
