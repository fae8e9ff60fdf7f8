"""``outrider tune``: search for the best settings of a rule-based baseline."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail, failing_plainly

app = typer.Typer(add_completion=False)

EXAMPLES = """
Examples:

  outrider tune dwa --trials 100 --out runs/tune

  outrider tune orca --trials 40 --floors 8 --trips 2 --out runs/quick --json

  cp runs/tune/dwa.* trainer/baselines/tuned/
"""


@app.command(epilog=EXAMPLES)
def tune(
    name: Annotated[str, typer.Argument(help="pure_pursuit, dwa, mppi or orca.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.jsonl and NAME.yaml; a log there goes on.")],
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials in all, those done included.")] = 50,
    floors: Annotated[int, typer.Option(min=1, max=256, help="Floors each trial drives on.")] = 24,
    robots: Annotated[int, typer.Option(min=1, max=32, help="Robots on each floor.")] = 3,
    people: Annotated[int, typer.Option(min=0, max=100, help="People on each floor.")] = 5,
    trips: Annotated[int, typer.Option(min=1, max=100, help="Trips of each robot.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the search, people, starts and orders.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the best trial as JSON.")] = False,
) -> None:
    """Search on training floors in the compiled twin; resumable, Ctrl-C keeps every finished trial."""
    import msgspec

    from outrider.progress import progress_bar
    from sim.errors import SimError
    from trainer.baselines.trips import TripsConfig
    from trainer.baselines.tune import tune as run_search
    from trainer.errors import TrainerError

    course = TripsConfig(floors=floors, robots=robots, people=people, trips=trips, seed=seed)
    try:
        with failing_plainly(TrainerError, SimError), progress_bar(f"tuning {name}", trials) as tell:
            log = run_search(name, out, trials, course, seed, tell)
    except KeyboardInterrupt:
        raise fail(f"interrupted; finished trials are kept, the same command goes on in {out}", 130) from None
    best, first = log.best, log.trials[0]
    assert best is not None
    if as_json:
        typer.echo(msgspec.json.encode(best).decode())
        return
    result = best.result
    typer.echo(
        f"{name}: best of {len(log.trials)} trials is number {best.trial}, {result.trip_s:.2f} s a trip"
        f" (defaults {first.result.trip_s:.2f} s), success {result.success:.1%}, {result.contacts} contacts;"
        f" settings in {log.best_path}"
    )
