"""``outrider hub run``: the fleet's hub, in the foreground."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from outrider.verbs._operator import DEFAULT_HUB, DEFAULT_KEYS, Keys, clear_errors

RUN_EXAMPLE = """Example:  outrider hub run --data data --listen tcp://*:5555 --metrics 9100

A thin line to the site:  outrider hub run --data data --transfers 8 --fleet-mb-s 2"""
app = typer.Typer(no_args_is_help=True, help="Run the fleet's hub.")


@app.callback()
def _group() -> None:
    """Run the fleet's hub."""


@app.command(epilog=RUN_EXAMPLE)
def run(
    data: Annotated[Path, typer.Option(help="Folder for catalogue, rollouts and telemetry.")],
    keys: Keys = DEFAULT_KEYS,
    listen: Annotated[str, typer.Option(help="Address to listen at.")] = DEFAULT_HUB,
    metrics: Annotated[
        str, typer.Option(help="Serve /metrics for Prometheus at this [HOST:]PORT; off without it.")
    ] = "",
    ingest: Annotated[
        bool, typer.Option(help="Keep the replay store up to date, in a process of its own.")
    ] = True,
    transfers: Annotated[int, typer.Option(min=1, help="Robots that fetch bundles at the same time.")] = 256,
    robot_mb_s: Annotated[float, typer.Option(min=0.01, help="Most that one robot fetches, MB/s.")] = 32.0,
    fleet_mb_s: Annotated[float, typer.Option(min=0.01, help="Most that all fetch together, MB/s.")] = 1000.0,
) -> None:
    """Serve robots and operators until Ctrl-C or SIGTERM."""
    from fleet_hub.server import Hub
    from fleet_hub.transfers import TransferLimits

    given = TransferLimits(transfers, robot_mb_s * 1e6, fleet_mb_s * 1e6)
    with clear_errors():
        hub = Hub(data, keys, listen, metrics=metrics, ingest=ingest, transfers=given)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: hub.stop())
        typer.echo(f"hub listens at {hub.endpoint}, data in {data}")
        hub.run()
    typer.echo("hub stopped")
