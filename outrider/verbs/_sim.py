"""What the commands of ``outrider sim`` share: options, floors from files, errors as one line."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import USAGE_ERROR, fail, failing_plainly

if TYPE_CHECKING:
    from navigation.warehouse import Warehouse
    from sim.world.run import FloorRun

FloorFile = Annotated[
    Path, typer.Argument(help="A warehouse's YAML file, or small, standard or dense.", show_default=False)
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of orders and people; of the floor too without --layout.", min=0)
]
Robots = Annotated[int, typer.Option("--robots", help="How many robots.", min=1, max=32)]
PhysicsKind = Annotated[str, typer.Option("--physics", help="planar or wheeled.")]


def clear_errors() -> AbstractContextManager[None]:
    """Turn the rooms' errors into one line and exit code 1."""
    from navigation.errors import NavigationError
    from sim.errors import SimError

    return failing_plainly(NavigationError, SimError)


def load_floor(file: Path) -> "Warehouse":
    """A floor by its file or name, on which robots can get everywhere."""
    from navigation.route import check_reachable
    from navigation.warehouse import load_warehouse
    from sim.world.library import find_layout

    with clear_errors():
        warehouse = load_warehouse(find_layout(file))
        check_reachable(warehouse, str(file))
        return warehouse


def make_run(
    warehouse: "Warehouse", seed: int, robots: int, physics: str, gui: bool, model: str = "amr_small",
    randomise: bool = False, faults: tuple[str, ...] = (),
) -> "FloorRun":  # fmt: skip
    """A floor with robots and people, about to begin."""
    from contracts.robot import ROBOT_MODELS
    from sim.tasks.randomise import Randomisation
    from sim.world.run import FloorRun, parse_fault

    if physics not in ("planar", "wheeled"):
        raise fail(f"--physics is '{physics}'; use planar or wheeled", USAGE_ERROR)
    if model not in ROBOT_MODELS:
        raise fail(f"--model is '{model}'; there are: {', '.join(ROBOT_MODELS)}", USAGE_ERROR)
    return FloorRun(
        warehouse,
        seed,
        robots,
        "planar" if physics == "planar" else "wheeled",
        gui,
        ROBOT_MODELS[model],
        randomise=Randomisation() if randomise else None,
        faults=tuple(parse_fault(text) for text in faults),
    )


def floor_facts(warehouse: "Warehouse") -> dict[str, Any]:
    """What a floor has, for programs."""
    from navigation.warehouse import StationKind

    return {
        "name": warehouse.name,
        "hash": warehouse.hash(),
        "width_m": warehouse.width_m,
        "height_m": warehouse.height_m,
        "shelves": len(warehouse.shelves),
        "pallets": len(warehouse.pallets),
        "lanes": len(warehouse.lanes),
        "people": warehouse.people,
        **{kind.value: len(warehouse.stations_of(kind)) for kind in StationKind},
    }


def one_line(warehouse: "Warehouse") -> str:
    """What a floor has, for people."""
    facts = floor_facts(warehouse)
    more = "".join(f", {facts[name]} {name}" for name in ("pallets", "lanes") if facts[name])
    return (
        f"{facts['name']}, {facts['width_m']:g} x {facts['height_m']:g} m, {facts['shelves']} shelves,"
        f" {facts['pick']} pick, {facts['drop']} drop, {facts['charge']} charge, {facts['people']} people{more}"
    )
