"""``outrider evaluate``: policies against rule-based controllers on unseen floors, with statistics; and fidelity."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import fail

if TYPE_CHECKING:
    from trainer.evaluation.drive import Contender, Drives
    from trainer.evaluation.evaluate import ControllerResult, Evaluation
    from trainer.evaluation.gates import Gate

app = typer.Typer(add_completion=False)
GATE_MISSED = 3
QUICK = {"floors": 4, "trips": 2}

EXAMPLES = """
Examples:

  outrider evaluate v1.outrider

  outrider evaluate runs/five --floors 40 --physics wheeled --out runs/compare

  outrider evaluate v1.outrider runs/second --baselines dwa,orca --reference dwa --quick

  outrider evaluate v1.outrider --layouts my_floors/ --episodes 10 --json

  outrider evaluate runs/five --floors 100 --require 'gain_low95>0.05,success>=0.99,contact_excess_high95<=0.005'

  outrider evaluate runs/first --fidelity --out runs/fidelity
"""


@app.command(epilog=EXAMPLES)
def evaluate(
    policies: Annotated[
        list[Path],
        typer.Argument(help="Bundles, run folders, .onnx files, or folders of them: training seeds."),
    ],
    keys: Annotated[Path, typer.Option(envvar="OUTRIDER_KEYS", help="The fleet's key folder.")] = Path(
        "keys"
    ),
    baselines: Annotated[
        str,
        typer.Option(help="all, none, or of pure_pursuit,dwa,mppi,orca (tuned), rule-based (as on robots)."),
    ] = "all",
    reference: Annotated[str, typer.Option(help="best (baseline), or a controller's name.")] = "best",
    margin: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Contacts in excess that do not matter, share of trips.")
    ] = 0.005,
    floors: Annotated[int | None, typer.Option(min=1, max=1000, help="Unseen floors, default 8.")] = None,
    layouts: Annotated[
        Path | None, typer.Option(help="Folder of warehouse YAML files to drive on instead.")
    ] = None,
    families: Annotated[str, typer.Option(help="Layout families with commas between, or all.")] = "all",
    difficulty: Annotated[tuple[float, float], typer.Option(help="Of the floors, lowest and highest.")] = (
        0.0,
        0.6,
    ),
    episodes: Annotated[int, typer.Option(min=1, max=1000, help="Worlds on each floor.")] = 1,
    robots: Annotated[int, typer.Option(min=1, max=1000, help="Robots in each world, all kinds.")] = 3,
    rule_based: Annotated[int, typer.Option(min=0, help="Of them, background driven by pure pursuit.")] = 0,
    broken: Annotated[int, typer.Option(min=0, help="Of them, broken down beside the shelves.")] = 0,
    people: Annotated[int, typer.Option(min=0, max=1000, help="People in each world.")] = 5,
    trips: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Trips of each robot, default 4.")
    ] = None,
    physics: Annotated[str, typer.Option(help="twin, planar or wheeled.")] = "planar",
    model: Annotated[str, typer.Option(help="Robot model.")] = "amr_small",
    randomise: Annotated[
        bool, typer.Option("--randomise", help="Draw robots and crowds from wide ranges.")
    ] = False,
    control_hz: Annotated[int, typer.Option(help="Decisions a second, a multiple of 10.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of people, starts, trips and disturbances.")] = 0,
    jobs: Annotated[int | None, typer.Option(min=1, max=256, help="Processes, default: all cores.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="4 floors, 2 trips, where not said otherwise.")
    ] = False,
    fidelity: Annotated[
        bool, typer.Option("--fidelity", help="One policy in twin, planar, wheeled; twin against PyBullet.")
    ] = False,
    require: Annotated[
        str, typer.Option(help="Demands, as 'gain>=0.1,success>=0.99'; exit code 3 if missed.")
    ] = "",
    heat: Annotated[int, typer.Option(min=0, max=1000, help="Floors to draw heat maps of, with --out.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON, trips and pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare controllers on the same episodes behind the same monitor; prove the difference, or say it is not."""
    import os

    import msgspec

    from outrider.progress import progress_bar
    from trainer.evaluation.config import EvaluationConfig, load_floors, parse_families, unseen_floors
    from trainer.evaluation.drive import drive_all
    from trainer.evaluation.evaluate import check_reference, summarise
    from trainer.evaluation.gates import missed, parse_gates
    from trainer.evaluation.policies import load_policies

    short = QUICK if quick else {}
    settings: dict[str, Any] = {
        "floors": floors or short.get("floors", 8),
        "episodes": episodes,
        "difficulty": difficulty,
        "robots": robots,
        "robots_rule_based": rule_based,
        "robots_broken": broken,
        "people": people,
        "trips": trips or short.get("trips", 4),
        "physics": physics,
        "model": model,
        "randomise": randomise,
        "control_hz": control_hz,
        "seed": seed,
    }
    with _failing_in_one_line(out):
        settings["families"] = parse_families(families)
        config = msgspec.convert(settings, EvaluationConfig).check()
        gates = parse_gates(require) if require else []
        if fidelity:
            _fidelity(policies, keys, config, quick, out, as_json)
            return
        loaded = load_policies(policies, keys, config.robot(), config.monitor)
        contenders = [*_baselines(baselines), *loaded.contenders]
        check_reference(contenders, reference)
        if layouts is not None:
            warehouses = load_floors(layouts)
            config = msgspec.structs.replace(config, floors=len(warehouses))
        else:
            warehouses = unseen_floors(config.floors, config.families, config.difficulty)
        _try_folder(out)
        with progress_bar("evaluating", 1.0) as tell:
            drives = drive_all(contenders, config, warehouses, tell, jobs or os.cpu_count() or 1)
        result = summarise(drives, config, reference, margin, layouts is not None, loaded.notes)
        if out is not None:
            _write(out, result, drives, heat)
    typer.echo(msgspec.json.encode(result).decode() if as_json else table(result))
    _hold(result, gates, missed(result, gates) if gates else [])


@contextmanager
def _failing_in_one_line(out: Path | None) -> Iterator[None]:
    """What may go wrong, Ctrl-C too, as one line and an exit code."""
    import msgspec

    from contracts.errors import ContractError
    from navigation.errors import NavigationError
    from sim.errors import SimError
    from trainer.errors import TrainerError

    try:
        yield
    except msgspec.ValidationError as error:
        raise fail(f"{error}; see 'outrider evaluate --help'", 2) from None
    except KeyboardInterrupt:
        raise fail("interrupted; nothing was written, and nothing runs on", 130) from None
    except (TrainerError, ContractError, NavigationError, SimError) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or out}: {error.strerror or error}") from None


def _baselines(text: str) -> list["Contender"]:
    from trainer.errors import TrainConfigError
    from trainer.evaluation.controllers import BASELINES
    from trainer.evaluation.drive import RULE_BASED, baseline

    names = {"all": list(BASELINES), "none": []}.get(text, [name.strip() for name in text.split(",")])
    unknown = next((name for name in names if name not in (*BASELINES, RULE_BASED)), None)
    if unknown is not None:
        known = ", ".join((*BASELINES, RULE_BASED))
        raise TrainConfigError(f"there is no baseline '{unknown}'; choose all, none, or of {known}")
    return [baseline(name) for name in names]


def _try_folder(out: Path | None) -> None:
    """Refused before hours of driving, not after; what ends in the middle leaves no folder behind."""
    if out is None:
        return
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.rmdir()


def _hold(result: "Evaluation", gates: list["Gate"], failed: list[str]) -> None:
    for line in failed:
        typer.secho(f"outrider: MISSED {line}", err=True, fg=typer.colors.RED)
    if failed:
        raise typer.Exit(GATE_MISSED)
    if gates:
        typer.echo(f"all {len(gates)} demands hold against {result.reference}", err=True)


def _write(out: Path, result: "Evaluation", drives: "Drives", heat: int) -> None:
    import io

    import msgspec
    import numpy as np

    from contracts.atomic import write_atomically
    from trainer.evaluation.evaluate import trip_columns
    from trainer.evaluation.plot import plot_evaluation, plot_heat

    stream = io.BytesIO()
    np.savez_compressed(stream, **trip_columns(drives))  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "trips.npz", stream.getvalue())
    write_atomically(out / "evaluation.json", msgspec.json.format(msgspec.json.encode(result)))
    plot_evaluation(result, drives, out / "evaluation.png")
    plot_heat(drives, out, heat)


def _fidelity(
    policies: list[Path], keys: Path, config: Any, quick: bool, out: Path | None, as_json: bool
) -> None:
    import msgspec

    from contracts.atomic import write_atomically
    from outrider.progress import progress_bar
    from trainer.errors import TrainConfigError
    from trainer.evaluation.fidelity import markdown, measure_fidelity

    if len(policies) != 1:
        raise TrainConfigError(f"--fidelity takes one policy, {len(policies)} were given")
    _try_folder(out)
    with progress_bar("fidelity", 1.0) as tell:
        report = measure_fidelity(policies[0], keys, config, quick, tell)
    text = markdown(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "fidelity.json", msgspec.json.format(msgspec.json.encode(report)))
        write_atomically(out / "fidelity.md", text.encode())
    typer.echo(msgspec.json.encode(report).decode() if as_json else text)


def table(result: "Evaluation") -> str:
    """The comparison as text."""
    config = result.config
    width = max(14, *(len(row.name) + 1 for row in result.results))
    head = (
        "trips",
        "success (95 %)",
        "contacts p/r/s",
        "timeouts",
        "s/trip (95 %)",
        "common",
        "near",
        "held",
        "path",
    )
    widths = (7, 23, 16, 10, 19, 8, 7, 7, 7)
    lines = [
        f"{len(result.floors)} floors, {config.episodes} episodes on each, {config.learners} robots under test and"
        f" {config.people} people in each, {config.model} in {config.physics} physics; same episodes and monitor",
        f"{'controller':<{width}}"
        + "".join(f"{name:>{size}}" for name, size in zip(head, widths, strict=True)),
    ]
    for row in result.results:
        lines.append(
            f"{row.name:<{width}}"
            + "".join(f"{cell:>{size}}" for cell, size in zip(_cells(row), widths, strict=True))
        )
    lines.append("")
    for each in result.comparisons:
        seeds = f", {each.seeds} training seeds" if each.seeds > 1 else ""
        lines.append(
            f"{each.name}: {each.gain.value:+.1%} time saved against {result.reference}"
            f" (95 %: {each.gain.low:+.1%} to {each.gain.high:+.1%}{seeds}); {each.verdict}"
        )
        if each.seeds > 1:
            singles = ", ".join(f"{gain.value:+.1%}" for gain in each.gain_of_seed.values())
            lines.append(f"  by seed: {singles}; success of the worst {each.success_lowest:.1%}")
    lines += [f"NOTE: {note}" for note in result.notes]
    return "\n".join(
        [
            *lines,
            "A failed trip counts as its cap of 60 s. contacts: with persons/robots/static things; common: s over the"
            " trips all made; near: near misses a trip; held: ticks the monitor slowed; path: planned over driven way.",
        ]
    )


def _cells(row: "ControllerResult") -> tuple[str, ...]:
    success, trip = row.success_interval, row.trip_s_interval
    return (
        str(row.trips),
        f"{row.success:.1%} ({success.low:.1%}-{success.high:.1%})",
        f"{row.contacts} {row.contacts_person}/{row.contacts_robot}/{row.contacts_static}",
        str(row.timeouts),
        f"{row.trip_s:.1f} ({trip.low:.1f}-{trip.high:.1f})",
        "-" if row.common_s is None else f"{row.common_s:.1f}",
        f"{row.near_person_per_trip + row.near_robot_per_trip:.2f}",
        f"{row.reduced_share:.1%}",
        "-" if row.path_efficiency is None else f"{row.path_efficiency:.2f}",
    )
