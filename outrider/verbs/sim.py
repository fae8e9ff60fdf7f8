"""``outrider sim generate|families|import-map|check|render|run``: warehouses as files, as pictures, at work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import USAGE_ERROR, fail
from outrider.verbs._operator import AsJson, print_json
from outrider.verbs._sim import (
    FloorFile,
    PhysicsKind,
    Robots,
    clear_errors,
    floor_facts,
    load_floor,
    make_run,
    one_line,
)
from outrider.verbs._sim_run import RUN_EXAMPLES, run_floor

if TYPE_CHECKING:
    from sim.world.generate import Family
    from sim.world.run import FloorRun

app = typer.Typer(no_args_is_help=True, help="Warehouses: generate, import, check, render, run (with ROS 2).")

FRAMES_PER_S = 10
FILM_STEPS = 2
FILM_MAX_S = 600.0


@app.command(
    epilog="Examples:  outrider sim generate --seed 7 --out floor.yaml\n\n"
    "outrider sim generate --seed 7 --family doors --difficulty 0.8\n\n"
    "outrider sim generate --seed 100 --count 24 --out floors"
)
def generate(
    seed: Annotated[int, typer.Option(help="Same seed, same floor.", min=0, show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="YAML file; standard output without it. A folder with --count.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Kind of floor ('outrider sim families' shows them); rows without it.")
    ] = None,
    difficulty: Annotated[
        float | None, typer.Option(help="0 to 1: narrower, fewer ways around, more people, pallets left.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            help="So many floors, seeds from --seed on; all families in turn and difficulties from 0 to 1,"
            " but for what --family and --difficulty say.",
            min=1,
        ),
    ] = None,
) -> None:
    """Make a new warehouse from a seed, or many."""
    from contracts.atomic import write_atomically
    from navigation.warehouse import dump_warehouse
    from sim.world.generate import DIFFICULTY_TODAY, Family, generate_warehouse

    kind = None if family is None else _family(family)
    if count is not None:
        _generate_many(seed, count, kind, difficulty, out)
        return
    with clear_errors():
        warehouse = generate_warehouse(
            seed,
            family=kind or Family.ROWS,
            difficulty=DIFFICULTY_TODAY if difficulty is None else difficulty,
        )
        text = dump_warehouse(warehouse)
        if out is None:
            typer.echo(text, nl=False)
            return
        write_atomically(out, text.encode())
    typer.echo(f"{out}: {one_line(warehouse)}")


def _family(name: str) -> "Family":
    from sim.world.generate import Family

    try:
        return Family(name)
    except ValueError:
        raise fail(f"--family is '{name}'; use one of {', '.join(Family)}", USAGE_ERROR) from None


def _generate_many(
    seed: int, count: int, family: "Family | None", difficulty: float | None, out: Path | None
) -> None:
    from contracts.atomic import write_atomically
    from navigation.warehouse import dump_warehouse
    from sim.world.generate import Family, generate_mixed

    if out is None:
        raise fail("--count writes several files; give a folder with --out", USAGE_ERROR)
    families = tuple(Family) if family is None else (family,)
    limits = (0.0, 1.0) if difficulty is None else (difficulty, difficulty)
    with clear_errors():
        warehouses = generate_mixed(count, seed, families, limits)
        out.mkdir(exist_ok=True)
        for warehouse in warehouses:
            write_atomically(out / f"{warehouse.name}.yaml", dump_warehouse(warehouse).encode())
    typer.echo(f"{out}: {len(warehouses)} floors, {warehouses[0].name} to {warehouses[-1].name}")


@app.command(epilog="Example:  outrider sim families --difficulty 1 --out families.png")
def families(
    out: Annotated[
        Path | None, typer.Option(help="A .png with a floor of each; names only without it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the floors.", min=0)] = 0,
    difficulty: Annotated[float, typer.Option(help="0 to 1.")] = 0.5,
    width: Annotated[int, typer.Option(help="Pixels.")] = 2000,
) -> None:
    """Name the families of floors that can be generated, and draw one of each."""
    from contracts.atomic import write_atomically
    from sim.world.generate import Family, generate_warehouse
    from sim.world.layout_config import FAMILY_ABOUT

    if out is None:
        for family in Family:
            typer.echo(f"{family:<14} {FAMILY_ABOUT[family]}")
        return
    if out.suffix.lower() != ".png":
        raise fail(f"{out.name}: the ending must be .png", USAGE_ERROR)
    with clear_errors():
        from sim.render.recorder import encode_png
        from sim.render.sheet import paint_sheet

        floors = [generate_warehouse(seed, family=family, difficulty=difficulty) for family in Family]
        write_atomically(out, encode_png(paint_sheet(floors, width_px=width)), durable=False)
    typer.echo(f"{out}: {out.stat().st_size} bytes")


@app.command(
    "import-map",
    epilog="Examples:  outrider sim import-map map.yaml --out floor.yaml\n\n"
    "outrider sim import-map map.yaml --stations stations.yaml --out floor.yaml",
)
def import_map(
    file: Annotated[Path, typer.Argument(help="A ROS map's YAML file (map_server).", show_default=False)],
    out: Annotated[Path, typer.Option(help="YAML file of the floor.", show_default=False)],
    stations: Annotated[
        str,
        typer.Option(
            help="A YAML file with stations in the ROS map's frame; auto picks free places far apart."
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the places that auto picks.", min=0)] = 0,
    people: Annotated[int, typer.Option(help="Walking on the floor.", min=0, max=100)] = 4,
) -> None:
    """Make a warehouse of a ROS map: what is not free stands as shelves, stations come from you or are picked."""
    from contracts.atomic import write_atomically
    from navigation.ros_map import import_map as make_floor
    from sim.world.map_image import read_image

    with clear_errors():
        stations_file = None if stations == "auto" else Path(stations)
        floor = make_floor(file, stations_file, seed, people, read_image)
        write_atomically(out, floor.dump(file.name).encode())
    x_m, y_m = floor.offset_m
    typer.echo(f"{out}: {one_line(floor.warehouse)}")
    typer.echo(f"grid {floor.grid_m:g} m; ROS map frame = this frame + ({x_m:.3f}, {y_m:.3f}) m")


@app.command(epilog="Example:  outrider sim check floor.yaml")
def check(file: FloorFile, as_json: AsJson = False) -> None:
    """Say whether robots can work on a floor, and if not, what to change."""
    warehouse = load_floor(file)
    if as_json:
        print_json(floor_facts(warehouse))
        return
    typer.echo(f"{file}: good; {one_line(warehouse)}")


@app.command(
    epilog="Examples:  outrider sim render floor.yaml --out floor.png\n\n"
    "outrider sim render floor.yaml --out floor.mp4"
)
def render(
    file: FloorFile,
    out: Annotated[
        Path, typer.Option(help="A .png for a still, a .gif or .mp4 for a film.", show_default=False)
    ],
    robots: Robots = 3,
    duration: Annotated[
        float, typer.Option(help="Simulated seconds to drive (the still is the last).", min=0)
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Of orders and people.", min=0)] = 0,
    width: Annotated[int, typer.Option(help="Pixels.")] = 960,
    physics: PhysicsKind = "planar",
    perspective: Annotated[bool, typer.Option("--3d", help="A still through PyBullet's camera.")] = False,
) -> None:
    """Draw a floor with robots that deliver by the rule-based controller: rays, routes, people, trails."""
    ending = out.suffix.lower()
    if ending not in (".png", ".gif", ".mp4"):
        raise fail(f"{out.name}: the ending must be .png, .gif or .mp4", USAGE_ERROR)
    if perspective and ending != ".png":
        raise fail("--3d makes stills only; use a .png", USAGE_ERROR)
    if duration > FILM_MAX_S:
        raise fail(f"--duration is {duration:g}; at most {FILM_MAX_S:g} s are drawn", USAGE_ERROR)
    if not out.parent.is_dir():
        raise fail(f"{out.parent}: no such folder; make it first")
    warehouse = load_floor(file)
    with clear_errors():
        run = make_run(warehouse, seed, robots, physics, False)
        try:
            if ending == ".png":
                _render_still(run, out, duration, width, perspective)
            else:
                _render_film(run, out, duration, width)
        finally:
            run.close()
    typer.echo(f"{out}: {out.stat().st_size} bytes")


def _render_still(run: "FloorRun", out: Path, duration: float, width: int, perspective: bool) -> None:
    from contracts.atomic import write_atomically
    from sim.render.recorder import check_width, encode_png
    from sim.render.snapshot import take_snapshot
    from sim.world.driver import RuleBasedDriver

    check_width(width)
    driver = RuleBasedDriver(run)
    trails: list[list[tuple[float, float]]] = [[] for _ in run.names]
    while run.now_s < duration - 1e-6:
        run.step(driver.command())
        for trail, (x, y, _) in zip(trails, run.state.pose[0].tolist(), strict=True):
            trail.append((x, y))
    if perspective:
        picture = run.physics.camera_image(width, width * 2 // 3)
        write_atomically(out, encode_png(picture), durable=False)
        return
    import numpy as np

    from sim.render.chart import floor_png

    goals = [(desk.goal.x_m, desk.goal.y_m) for desk in run.desks]
    snapshot = take_snapshot(run.state, 0, run.now_s, run.ranges, driver.polylines(), goals)
    lines = [np.array(trail) for trail in trails if trail]
    write_atomically(out, floor_png(run.warehouse, snapshot, lines, width), durable=False)


def _render_film(run: "FloorRun", out: Path, duration: float, width: int) -> None:
    from sim.render.recorder import FloorRecorder
    from sim.render.snapshot import take_snapshot
    from sim.world.driver import RuleBasedDriver

    driver = RuleBasedDriver(run)
    with FloorRecorder(out, run.warehouse, FRAMES_PER_S, width) as recorder:
        while run.now_s < duration - 1e-6:
            for _ in range(FILM_STEPS):
                run.step(driver.command())
            goals = [(desk.goal.x_m, desk.goal.y_m) for desk in run.desks]
            done = sum(desk.delivered for desk in run.desks)
            caption = f"{run.warehouse.name}   {done} delivered"
            recorder.take(
                take_snapshot(run.state, 0, run.now_s, run.ranges, driver.polylines(), goals, caption)
            )


app.command("run", epilog=RUN_EXAMPLES)(run_floor)
