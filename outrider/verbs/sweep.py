"""``outrider sweep``: search for better settings of a training config."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail

app = typer.Typer(add_completion=False)

EXAMPLES = """
Example of a SWEEP.yaml:

  steps: 1000000

  objective: success

  parameters: {ppo.learning_rate: {low: 0.0003, high: 0.003, log: true}, ppo.epochs: {choices: [2, 3, 5]}}

Then:  outrider sweep --config SWEEP.yaml --trials 20 --out sweeps/first

       outrider train --config sweeps/first/best.yaml --out runs/best
"""


@app.command(epilog=EXAMPLES)
def sweep(
    config: Annotated[Path, typer.Option(help="YAML file: parameters, steps, objective, base.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep; one that was cut off goes on.")],
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials in all.")] = 20,
) -> None:
    """Train one run for each trial, each with other settings; writes the best config as YAML."""
    from sim.errors import SimError
    from trainer.errors import TrainerError
    from trainer.learning.config import Scalar
    from trainer.learning.run import CurvePoint
    from trainer.learning.sweep import load_sweep, run_sweep

    def told(number: int, point: CurvePoint, values: dict[str, Scalar]) -> None:
        shown = " ".join(f"{name}={value}" for name, value in values.items())
        typer.echo(f"trial {number}: success {point.success:.1%}, {point.trip_s:.1f} s a trip  {shown}")

    try:
        best = run_sweep(load_sweep(config), out, trials, told)
    except KeyboardInterrupt:
        raise fail(f"interrupted; go on with the same command, --out {out}", 130) from None
    except (TrainerError, SimError) as error:
        raise fail(str(error)) from None
    typer.echo(f"{best}: train with it by 'outrider train --config {best}'")
