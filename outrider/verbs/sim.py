"""``outrider sim generate|families|import-map|check|render|run``: warehouses as files, as pictures, at work."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import USAGE_ERROR, fail, failing_plainly

if TYPE_CHECKING:
    from navigation.warehouse import Warehouse
    from sim.physics.boards import BoardDrive
    from sim.world.generate import Family
    from sim.world.run import FloorRun

app = typer.Typer(no_args_is_help=True, help="Warehouses: generate, import, check, render, run (with ROS 2).")

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
BOARDS_PRIORITY = -5
"""The simulator is the boards' hardware: it goes before what drives no wheels, where permitted."""


def clear_errors() -> AbstractContextManager[None]:
    """Turn the rooms' errors into one line and exit code 1."""
    from navigation.errors import NavigationError
    from sim.errors import SimError

    return failing_plainly(NavigationError, SimError)


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
    typer.echo(f"{out}: {_one_line(warehouse)}")


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
    typer.echo(f"{out}: {_one_line(floor.warehouse)}")
    typer.echo(f"grid {floor.grid_m:g} m; ROS map frame = this frame + ({x_m:.3f}, {y_m:.3f}) m")


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
    "outrider sim run --layout standard --ros --rate 4 --duration 120\n\noutrider sim run --seed 7 --gui\n\n"
    "outrider sim run --layout standard --ros --physics wheeled --serial ports\n\n"
    "outrider sim run --seed 7 --randomise --fault robot_1:dead_lidar@10-20 --fault robot_2:slipping_wheel@30"
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
    serial: Annotated[
        Path | None,
        typer.Option(
            help="With --ros: a motor controller for each robot turns its wheels; their ports in this folder.",
            show_default=False,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="With --serial: key folder; the motor controllers take firmware signed with its release key.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Simulated seconds per second.")] = 1.0,
    physics: PhysicsKind = "planar",
    gui: Annotated[bool, typer.Option("--gui", help="Open PyBullet's window.")] = False,
    model: Annotated[str, typer.Option(help="Robot model: amr_small or tugger.")] = "amr_small",
    randomise: Annotated[
        bool, typer.Option("--randomise", help="Draw lags, noise, drift and manners for each robot.")
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="ROBOT:FAULT@FROM-UNTIL in simulated s; may be given several times."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Simulated seconds; without it until Ctrl-C.", min=0.05)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for deliveries, trajectories and summary.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let robots deliver on a floor, in real time or faster, until the time is over or Ctrl-C."""
    if layout is None and seed is None:
        raise fail("which floor? give --layout FILE or --seed N", USAGE_ERROR)
    if keys is not None and serial is None:
        raise fail("--keys is for motor controllers: it needs --serial FOLDER", USAGE_ERROR)
    if serial is not None and (not ros or randomise or fault):
        raise fail(
            "--serial needs --ros, and neither --randomise nor --fault: they act on cmd_vel", USAGE_ERROR
        )
    with clear_errors():
        warehouse = _load(layout) if layout is not None else _generate(seed or 0)
        floor = _make_run(warehouse, seed or 0, robots, physics, gui, model, randomise, tuple(fault or ()))
        summary = _run(floor, ros, rate, duration, out, serial, keys)
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
    floor: "FloorRun",
    ros: bool,
    rate: float,
    duration: float | None,
    out: Path | None,
    serial: Path | None,
    keys: Path | None,
) -> dict[str, Any]:
    try:
        with _stop_signals() as stopped:
            if ros:
                return _run_with_ros(floor, rate, duration, out, stopped, serial, keys)
            from sim.world.solo import run_alone

            return run_alone(floor, rate, duration, out, stopped)
    finally:
        floor.close()


def _run_with_ros(
    floor: "FloorRun",
    rate: float,
    duration: float | None,
    out: Path | None,
    stopped: Callable[[], bool],
    serial: Path | None,
    keys: Path | None,
) -> dict[str, Any]:
    try:
        from sim.ros.bridge import FloorBridge
    except ImportError as error:
        raise fail(f"no ROS 2 here ({error}); run tools/setup.py, or source a ROS distribution") from None

    with _boards(floor, serial, rate, keys) as boards:
        bridge = FloorBridge(floor, rate, out, boards)
        try:
            typer.echo(
                f"outrider sim: {_one_line(floor.warehouse)}; {len(floor.names)} robots, rate {rate:g}",
                err=True,
            )
            bridge.run(stopped, duration)
        finally:
            summary = bridge.close()
    return summary


@contextmanager
def _boards(
    floor: "FloorRun", folder: Path | None, rate: float, keys: Path | None
) -> "Iterator[BoardDrive | None]":
    """A motor controller for each robot, with its port in ``folder``; nothing without one."""
    if folder is None:
        yield None
        return
    import os

    from contracts.errors import ContractError
    from firmware_interface.emulator.fleet import BoardFleet
    from firmware_interface.errors import FirmwareError
    from outrider.verbs.firmware import board_key
    from sim.physics.boards import BoardDrive, check_run

    check_run(floor)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, BOARDS_PRIORITY)
    with failing_plainly(FirmwareError, ContractError):
        key = board_key(keys) if keys else b""
    with failing_plainly(FirmwareError), BoardFleet(floor.names, folder, rate, key=key) as fleet:
        for name, port in fleet.ports.items():
            typer.echo(f"{name}: motor controller on {port}", err=True)
        yield BoardDrive(floor, fleet)


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


def _make_run(
    warehouse: "Warehouse", seed: int, robots: int, physics: str, gui: bool, model: str = "amr_small",
    randomise: bool = False, faults: tuple[str, ...] = (),
) -> "FloorRun":  # fmt: skip
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
        "pallets": len(warehouse.pallets),
        "lanes": len(warehouse.lanes),
        "people": warehouse.people,
        **{kind.value: len(warehouse.stations_of(kind)) for kind in StationKind},
    }


def _one_line(warehouse: "Warehouse") -> str:
    facts = _facts(warehouse)
    more = "".join(f", {facts[name]} {name}" for name in ("pallets", "lanes") if facts[name])
    return (
        f"{facts['name']}, {facts['width_m']:g} x {facts['height_m']:g} m, {facts['shelves']} shelves,"
        f" {facts['pick']} pick, {facts['drop']} drop, {facts['charge']} charge, {facts['people']} people{more}"
    )


def _print_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())
