"""``outrider demo``: the whole loop on one machine."""

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail, failing_plainly

app = typer.Typer(add_completion=False)
LOG_WIDTH = 110
"""Columns where there is no terminal to ask."""


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


@app.command(epilog="Example:  outrider demo --out demo    then open demo/report.html")
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything it makes; an earlier demo there is replaced.")
    ] = Path("demo"),
    short: Annotated[
        bool, typer.Option("--short", help="A minute's form: barely trained, for a look at the loop.")
    ] = False,
    serial: Annotated[
        bool, typer.Option(help="Wheels by motor controllers over the serial protocol, or by ROS cmd_vel.")
    ] = True,
) -> None:
    """Train, evaluate, release, drive three robots through ROS 2, push an update while they drive, report."""
    import msgspec
    from rich.console import Console

    from outrider.demo.children import DemoError
    from outrider.demo.settings import SHORT, DemoSettings

    try:
        import rclpy  # noqa: F401
        from outrider_msgs.msg import SafetyStatus  # noqa: F401
    except ImportError as error:
        raise fail(
            f"ROS 2 is not set up here ({error}); run `make setup`, or python3 tools/setup.py"
        ) from None
    from contracts.errors import ContractError
    from edge_agent.errors import AgentError
    from fleet_hub.errors import HubError
    from outrider.demo.run import Demo

    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = msgspec.structs.replace(SHORT if short else DemoSettings(), serial=serial)
        with failing_plainly(DemoError, HubError, ContractError, AgentError):
            run = Demo(out, settings, console)
            run.drive()
            from outrider.demo.summary import finish

            outcome = finish(run, time.monotonic() - started)
    except KeyboardInterrupt:
        raise fail("interrupted; every process it started has ended", 130) from None
    if not outcome.records_agree:
        raise fail("records on the robots and at the hub differ; see summary.json")
