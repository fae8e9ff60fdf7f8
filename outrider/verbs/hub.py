"""``outrider hub``: the fleet's hub in the foreground, and what Grafana and Prometheus need to watch it."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from outrider.verbs._operator import DEFAULT_HUB, DEFAULT_KEYS, Keys, clear_errors

app = typer.Typer(no_args_is_help=True, help="Run the fleet's hub.")


@app.callback()
def _group() -> None:
    """Run the fleet's hub."""


@app.command()
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
    traces: Annotated[
        str, typer.Option(help="Spans of updates: a file, or a URL for OTLP (outrider\\[otel]).")
    ] = "",
) -> None:
    """Serve robots and operators until Ctrl-C or SIGTERM."""
    from fleet_hub.server import Hub

    with clear_errors():
        hub = Hub(data, keys, listen, metrics=metrics, ingest=ingest, traces=traces)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: hub.stop())
        typer.echo(f"hub listens at {hub.endpoint}, data in {data}")
        hub.run()
    typer.echo("hub stopped")


READY = {"dashboard.json": "outrider-dashboard.json", "alerts.yaml": "outrider-alerts.yaml"}


@app.command()
def monitoring(
    folder: Annotated[Path, typer.Argument(help="Where to put the two files; made when it is not there.")],
) -> None:
    """Write a Grafana dashboard to import and alert rules for Prometheus, of what this version exports.

    outrider hub monitoring /etc/prometheus/outrider
    """
    from importlib.resources import files

    from contracts.atomic import write_atomically
    from outrider.cli import fail

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, output in READY.items():
            data = (files("fleet_hub.observe") / "ready" / name).read_bytes()
            write_atomically(folder / output, data)
            typer.echo(f"{folder / output}  ({len(data)} bytes)")
    except OSError as error:
        raise fail(f"cannot write to {folder}: {error.strerror}; give another folder", 2) from None
