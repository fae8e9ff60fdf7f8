"""``outrider evaluate``: policies against the rule-based controller, in PyBullet, on unseen floors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import fail

if TYPE_CHECKING:
    from trainer.evaluation.evaluate import Evaluation

app = typer.Typer(add_completion=False)

EXAMPLES = """
Examples:

  outrider evaluate v1.outrider

  outrider evaluate v1.outrider v2.outrider --floors 16 --trips 8 --physics wheeled --out runs/compare

  outrider evaluate v1.outrider --layouts my_floors/ --json
"""


@app.command(epilog=EXAMPLES)
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles to compare with the rule-based controller.")],
    keys: Annotated[Path, typer.Option(envvar="OUTRIDER_KEYS", help="The fleet's key folder.")] = Path(
        "keys"
    ),
    floors: Annotated[int, typer.Option(min=1, max=64, help="Unseen floors to generate.")] = 8,
    layouts: Annotated[
        Path | None, typer.Option(help="Folder of warehouse YAML files to drive on instead.")
    ] = None,
    robots: Annotated[int, typer.Option(min=1, max=32, help="Robots on each floor.")] = 3,
    people: Annotated[int, typer.Option(min=0, max=100, help="People on each floor.")] = 5,
    trips: Annotated[int, typer.Option(min=1, max=1000, help="Trips of each robot.")] = 4,
    physics: Annotated[str, typer.Option(help="planar or wheeled.")] = "planar",
    seed: Annotated[int, typer.Option(min=0, help="Of people, starts and orders.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and evaluation.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare controllers on the same floors with the same orders and people, behind the same monitor."""
    import msgspec

    from contracts.bundle import verify_signed
    from contracts.errors import ContractError
    from contracts.keyring import TRUSTED_FILE
    from contracts.provenance import TrustedKeys
    from contracts.robot import AMR_SMALL
    from navigation.errors import NavigationError
    from navigation.warehouse import load_warehouse
    from outrider.progress import progress_bar
    from sim.errors import SimError
    from trainer.evaluation.controllers import Controller, OnnxPolicy, RuleBased
    from trainer.evaluation.evaluate import EvaluationConfig, unseen_floors
    from trainer.evaluation.evaluate import evaluate as run_evaluation
    from trainer.evaluation.plot import plot_evaluation

    if physics not in ("planar", "wheeled"):
        raise fail(f"--physics {physics}: choose planar or wheeled", 2)
    try:
        config = EvaluationConfig(
            floors=floors,
            robots=robots,
            people=people,
            trips=trips,
            physics="wheeled" if physics == "wheeled" else "planar",
            seed=seed,
        )
        trusted = TrustedKeys.load(keys / TRUSTED_FILE)
        controllers: list[Controller] = [RuleBased(AMR_SMALL, 1.0 / config.control_hz)]
        for path in bundles:
            checked = verify_signed(path, trusted)
            controllers.append(OnnxPolicy(checked.policy_onnx, checked.manifest.version))
        if layouts is not None:
            files = sorted(layouts.glob("*.yaml"))
            if not files:
                raise fail(f"{layouts} holds no .yaml file; give a folder of warehouse files")
            warehouses = [load_warehouse(path) for path in files]
        else:
            warehouses = unseen_floors(floors)
        with progress_bar("evaluating", 1.0) as tell:
            result = run_evaluation(controllers, config, warehouses, tell)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "evaluation.json").write_bytes(msgspec.json.encode(result))
            plot_evaluation(result, out / "evaluation.png")
    except (ContractError, NavigationError, SimError, OSError) as error:
        raise fail(str(error)) from None
    typer.echo(msgspec.json.encode(result).decode() if as_json else table(result))


def table(result: "Evaluation") -> str:
    """The comparison as text."""
    lines = [
        f"{len(result.floors)} floors, {result.config.robots} robots and {result.config.people} people on each,"
        f" PyBullet ({result.config.physics}), same orders, people and monitor",
        f"{'controller':<14}{'trips':>7}{'success':>9}{'contacts':>10}{'timeouts':>10}{'s/trip (95 %)':>21}"
        f"{'s/delivery':>12}{'gain (95 %)':>26}",
    ]
    for row, gain, (low, high) in zip(result.results, result.gains, result.gain_intervals, strict=True):
        trip = f"{row.trip_s:.1f} ({row.trip_s_interval[0]:.1f}-{row.trip_s_interval[1]:.1f})"
        delivery = "-" if row.delivery_s is None else f"{row.delivery_s:.1f}"
        share = "" if row is result.results[0] else f"{gain:+.1%} ({low:+.1%} to {high:+.1%})"
        lines.append(
            f"{row.name:<14}{row.trips:>7}{row.success:>9.1%}{row.contacts:>10}{row.timeouts:>10}{trip:>21}"
            f"{delivery:>12}{share:>26}"
        )
    return "\n".join([*lines, "A failed trip counts as its cap of 60 s."])
