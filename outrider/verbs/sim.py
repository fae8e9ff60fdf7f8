"""``outrider sim generate|check|render|run``: warehouses as files, as pictures, and at work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import USAGE_ERROR, fail

if TYPE_CHECKING:
    from navigation.warehouse import Warehouse
    from sim.world.run import FloorRun

app = typer.Typer(no_args_is_help=True, help="Warehouses: generate, check, render, run (with ROS 2).")

FloorFile = Annotated[
    Path, typer.Argument(help="A warehouse's YAML file, or small, standard or dense.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of orders and people; of the floor too without --layout.", min=0)
]
Robots = Annotated[int, typer.Option("--robots", help="How many robots.", min=1, max=32)]
PhysicsKind = Annotated[str, typer.Option("--physics", help="planar or wheeled.")]
FRAMES_PER_S = 10
FILM_STEPS = 2
FILM_MAX_S = 600.0
FORCED_EXIT = 130


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn the rooms' errors into one line and exit code 1."""
    from navigation.errors import NavigationError
    from sim.errors import SimError

    try:
        yield
    except (NavigationError, SimError) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'disk'}: {error.strerror}") from None


@app.command(epilog="Example:  outrider sim generate --seed 7 --out floor.yaml")
def generate(
    seed: Annotated[int, typer.Option(help="Same seed, same floor.", min=0, show_default=False)],
    out: Annotated[Path | None, typer.Option(help="YAML file; standard output without it.")] = None,
) -> None:
    """Make a new warehouse from a seed."""
    from contracts.atomic import write_atomically
    from navigation.warehouse import dump_warehouse
    from sim.world.generate import generate_warehouse

    with clear_errors():
        warehouse = generate_warehouse(seed)
        text = dump_warehouse(warehouse)
        if out is None:
            typer.echo(text, nl=False)
            return
        write_atomically(out, text.encode())
    typer.echo(f"{out}: {_one_line(warehouse)}")


@app.command(epilog="Example:  outrider sim check floor.yaml")
def check(file: FloorFile, as_json: AsJson = False) -> None:
    """Say whether robots can work on a floor, and if not, what to change."""
    warehouse = _load(file)
    if as_json:
        _print_json(_facts(warehouse))
        return
    typer.echo(f"{file}: good; {_one_line(warehouse)}")


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
    warehouse = _load(file)
    with clear_errors():
        run = _make_run(warehouse, seed, robots, physics, False)
        try:
            if ending == ".png":
                _render_still(run, out, duration, width, perspective)
            else:
                _render_film(run, out, duration, width)
        finally:
            run.close()
    typer.echo(f"{out}: {out.stat().st_size} bytes")


@app.command(
    epilog="Examples:  outrider sim run --seed 7 --robots 3 --ros --out run\n\n"
    "outrider sim run --layout standard --ros --rate 4 --duration 120\n\noutrider sim run --seed 7 --gui"
)
def run(
    layout: Annotated[
        Path | None,
        typer.Option(help="A warehouse's YAML file, or small, standard or dense.", show_default=False),
    ] = None,
    seed: Seed = None,
    robots: Robots = 3,
    ros: Annotated[
        bool, typer.Option("--ros", help="Drive through ROS 2; without it the rule-based controller drives.")
    ] = False,
    rate: Annotated[float, typer.Option(help="Simulated seconds per second.")] = 1.0,
    physics: PhysicsKind = "planar",
    gui: Annotated[bool, typer.Option("--gui", help="Open PyBullet's window.")] = False,
    duration: Annotated[
        float | None, typer.Option(help="Simulated seconds; without it until Ctrl-C.", min=0.05)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for deliveries, trajectories and summary.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let robots deliver on a floor, in real time or faster, until the time is over or Ctrl-C."""
    if layout is None and seed is None:
        raise fail("which floor? give --layout FILE or --seed N", USAGE_ERROR)
    with clear_errors():
        warehouse = _load(layout) if layout is not None else _generate(seed or 0)
        summary = _run(warehouse, seed or 0, robots, ros, rate, physics, gui, duration, out)
    if as_json:
        _print_json(summary)
        return
    contacts = sum(sum(robot["contacts"].values()) for robot in summary["robots"].values())
    typer.echo(
        f"{summary['simulated_s']:.1f} s simulated in {summary['wall_s']:.1f} s:"
        f" {summary['deliveries']} deliveries,"
        f" {contacts} contacts, {summary['late_steps']} late steps"
    )


def _run(
    warehouse: "Warehouse", seed: int, robots: int, ros: bool, rate: float, physics: str, gui: bool,
    duration: float | None, out: Path | None,
) -> dict[str, Any]:  # fmt: skip
    floor = _make_run(warehouse, seed, robots, physics, gui)
    try:
        with _stop_signals() as stopped:
            if ros:
                return _run_with_ros(floor, rate, duration, out, stopped)
            from sim.world.solo import run_alone

            return run_alone(floor, rate, duration, out, stopped)
    finally:
        floor.close()


def _run_with_ros(
    floor: "FloorRun", rate: float, duration: float | None, out: Path | None, stopped: Callable[[], bool]
) -> dict[str, Any]:
    try:
        from sim.ros.bridge import FloorBridge
    except ImportError as error:
        raise fail(f"no ROS 2 here ({error}); run tools/setup.py, or source a ROS distribution") from None

    bridge = FloorBridge(floor, rate, out)
    try:
        typer.echo(
            f"outrider sim: {_one_line(floor.warehouse)}; {len(floor.names)} robots, rate {rate:g}", err=True
        )
        bridge.run(stopped, duration)
    finally:
        summary = bridge.close()
    return summary


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Ask for an end at SIGINT or SIGTERM; a third one ends at once."""
    import os
    import signal

    count = 0

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal count
        count += 1
        if count > 2:
            os._exit(FORCED_EXIT)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_run(warehouse: "Warehouse", seed: int, robots: int, physics: str, gui: bool) -> "FloorRun":
    from sim.world.run import FloorRun

    if physics not in ("planar", "wheeled"):
        raise fail(f"--physics is '{physics}'; use planar or wheeled", USAGE_ERROR)
    return FloorRun(warehouse, seed, robots, "planar" if physics == "planar" else "wheeled", gui)


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


def _load(file: Path) -> "Warehouse":
    from navigation.route import check_reachable
    from navigation.warehouse import load_warehouse
    from sim.world.library import find_layout

    with clear_errors():
        warehouse = load_warehouse(find_layout(file))
        check_reachable(warehouse, str(file))
        return warehouse


def _generate(seed: int) -> "Warehouse":
    from sim.world.generate import generate_warehouse

    return generate_warehouse(seed)


def _facts(warehouse: "Warehouse") -> dict[str, Any]:
    from navigation.warehouse import StationKind

    return {
        "name": warehouse.name,
        "hash": warehouse.hash(),
        "width_m": warehouse.width_m,
        "height_m": warehouse.height_m,
        "shelves": len(warehouse.shelves),
        "people": warehouse.people,
        **{kind.value: len(warehouse.stations_of(kind)) for kind in StationKind},
    }


def _one_line(warehouse: "Warehouse") -> str:
    facts = _facts(warehouse)
    return (
        f"{facts['name']}, {facts['width_m']:g} x {facts['height_m']:g} m, {facts['shelves']} shelves,"
        f" {facts['pick']} pick, {facts['drop']} drop, {facts['charge']} charge, {facts['people']} people"
    )


def _print_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())
