"""``outrider sim run``: robots at work on a floor, alone or through ROS 2, with motor controllers or without."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import INTERRUPTED, USAGE_ERROR, fail, failing_plainly
from outrider.verbs._operator import AsJson, print_json
from outrider.verbs._sim import (
    PhysicsKind,
    Robots,
    Seed,
    clear_errors,
    load_floor,
    make_run,
    one_line,
)

if TYPE_CHECKING:
    from sim.physics.boards import BoardDrive
    from sim.world.run import FloorRun

RUN_EXAMPLES = (
    "Examples:  outrider sim run --seed 7 --robots 3 --ros --out run\n\n"
    "outrider sim run --layout standard --ros --rate 4 --duration 120\n\noutrider sim run --seed 7 --gui\n\n"
    "outrider sim run --layout standard --ros --physics wheeled --serial ports\n\n"
    "outrider sim run --seed 7 --randomise --fault robot_1:dead_lidar@10-20 --fault robot_2:slipping_wheel@30"
)
BOARDS_PRIORITY = -5
"""The simulator is the boards' hardware: it goes before what drives no wheels, where permitted."""


def run_floor(
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
    from sim.world.generate import generate_warehouse

    with clear_errors():
        warehouse = load_floor(layout) if layout is not None else generate_warehouse(seed or 0)
        floor = make_run(warehouse, seed or 0, robots, physics, gui, model, randomise, tuple(fault or ()))
        summary = _run(floor, ros, rate, duration, out, serial, keys)
    if as_json:
        print_json(summary)
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
                return _with_ros(floor, rate, duration, out, stopped, serial, keys)
            from sim.world.solo import run_alone

            return run_alone(floor, rate, duration, out, stopped)
    finally:
        floor.close()


def _with_ros(
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
                f"outrider sim: {one_line(floor.warehouse)}; {len(floor.names)} robots, rate {rate:g}",
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
            os._exit(INTERRUPTED)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
