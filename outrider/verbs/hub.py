"""``outrider hub``: the hub and its mirrors, in the foreground; what Grafana and Prometheus need to watch them."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_HUB, DEFAULT_KEYS, Keys, check_name, clear_errors

RUN_EXAMPLE = """Example:  outrider hub run --data data --listen tcp://*:5555 --metrics 9100

A thin line to the site:  outrider hub run --data data --transfers 8 --fleet-mb-s 2

Two hubs, one serves and one stands by (docs/operations/hubs.md), the same on both machines:
outrider hub run --data /srv/fleet --database postgresql+psycopg://outrider@db/fleet --name hub_a"""
MIRROR_EXAMPLE = """Example:  outrider hub mirror north --upstream tcp://hub:5755 --listen tcp://*:5756 --data mirror

Its keys:  outrider hub mirror-keys north

Robots use it with `outrider agent run --mirror tcp://north:5756` and their other options."""
MIRROR_KEYS_EXAMPLE = """Example:  outrider hub mirror-keys north --robots robot_1,robot_2

A second one behind it:  outrider hub mirror-keys hall_3 --behind north"""
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
    traces: Annotated[
        str, typer.Option(help="Spans of updates: a file, or a URL for OTLP (outrider\\[otel]).")
    ] = "",
    transfers: Annotated[int, typer.Option(min=1, help="Robots that fetch bundles at the same time.")] = 256,
    robot_mb_s: Annotated[float, typer.Option(min=0.01, help="Most that one robot fetches, MB/s.")] = 32.0,
    fleet_mb_s: Annotated[float, typer.Option(min=0.01, help="Most that all fetch together, MB/s.")] = 1000.0,
    database: Annotated[
        str,
        typer.Option(
            envvar="OUTRIDER_DATABASE",
            help="PostgreSQL that several hubs share, without a password; else SQLite in --data.",
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="What other hubs call this one; else the machine's name.")] = "",
) -> None:
    """Serve robots and operators until Ctrl-C or SIGTERM; with --database, or stand by while another hub serves."""
    from fleet_hub.memory import keep_message_buffers
    from fleet_hub.server import Hub
    from fleet_hub.standby import Service
    from fleet_hub.store.database import known_url
    from fleet_hub.transfers import TransferLimits

    given = TransferLimits(transfers, robot_mb_s * 1e6, fleet_mb_s * 1e6)
    keep_message_buffers()
    with clear_errors():
        service = Service(
            lambda: Hub(
                data, keys, listen, metrics=metrics, ingest=ingest, traces=traces, transfers=given,
                database=database, name=name,
            ),
            bool(database or known_url(data)),
            typer.echo,
        )  # fmt: skip
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        service.run(lambda endpoint: typer.echo(f"hub listens at {endpoint}, data in {data}"))
    typer.echo("hub stopped")


@app.command(epilog=MIRROR_EXAMPLE)
def mirror(
    name: Annotated[str, typer.Argument(help="The mirror's name, as `outrider hub mirror-keys` made it.")],
    upstream: Annotated[str, typer.Option(help="Address of the hub, or of the mirror before this one.")],
    listen: Annotated[str, typer.Option(help="Address to listen at.")],
    data: Annotated[Path, typer.Option(help="Folder for what it has verified.")],
    keys: Keys = DEFAULT_KEYS,
    transfers: Annotated[int, typer.Option(min=1, help="Robots that fetch bundles at the same time.")] = 256,
    robot_mb_s: Annotated[float, typer.Option(min=0.01, help="Most that one robot fetches, MB/s.")] = 32.0,
    fleet_mb_s: Annotated[float, typer.Option(min=0.01, help="Most that all fetch together, MB/s.")] = 1000.0,
) -> None:
    """Serve image metadata and bundles near the robots, read-only, until Ctrl-C or SIGTERM.

    Robots verify what comes from it exactly as what comes from the hub; their orders, reports and logs go to the hub.
    """
    from contracts.keyring import CURVE_FILE, MIRRORS_FOLDER, party_folder
    from fleet_hub.mirror.server import Mirror
    from fleet_hub.transfers import TransferLimits

    check_name(name)
    given = TransferLimits(transfers, robot_mb_s * 1e6, fleet_mb_s * 1e6)
    own = party_folder(keys, MIRRORS_FOLDER, name)
    if not (own / CURVE_FILE).is_file():
        raise fail(f"no keys of mirror {name} in {keys}; make them with `outrider hub mirror-keys {name}`")
    with clear_errors():
        served = Mirror(data, own, name, upstream, listen, given)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: served.stop())
        typer.echo(f"mirror {name} listens at {served.endpoint}, data in {data}, upstream {upstream}")
        served.run()
    for asked, count in sorted(served.served_bytes.items()):
        typer.echo(f"served to {asked}: {count} bytes of bundles")
    typer.echo("mirror stopped")


@app.command(epilog=MIRROR_KEYS_EXAMPLE)
def mirror_keys(
    name: Annotated[str, typer.Argument(help="The mirror's name, like north.")],
    keys: Keys = DEFAULT_KEYS,
    behind: Annotated[str, typer.Option(help="The mirror it fetches from; without one, the hub.")] = "",
    robots: Annotated[str, typer.Option(help="Robots that use it, comma-separated; without any, all.")] = "",
) -> None:
    """Make a mirror's keys, let it in at the hub and at other mirrors, and tell robots its public key.

    Copy KEYS/mirrors/NAME to the mirror, mirror_public.json to its robots, the allow-list to hub and mirrors.
    """
    from contracts.trust import IMAGE
    from fleet_hub.mirror.keys import create_mirror_keys
    from fleet_hub.trust.ceremony import Ceremony

    check_name(name)
    with clear_errors():
        root = Ceremony(keys).root(IMAGE).to_bytes()
        listed = tuple(one.strip() for one in robots.split(",") if one.strip())
        own = create_mirror_keys(keys, name, behind, root, listed)
    typer.echo(
        f"keys of mirror {name} in {own}; start a hub that runs anew, mirrors follow their lists by themselves"
    )


READY = {"dashboard.json": "outrider-dashboard.json", "alerts.yaml": "outrider-alerts.yaml"}


@app.command(epilog="Example:  outrider hub monitoring /etc/prometheus/outrider")
def monitoring(
    folder: Annotated[Path, typer.Argument(help="Where to put the two files; made when it is not there.")],
) -> None:
    """Write a Grafana dashboard to import and alert rules for Prometheus, of what this version exports."""
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
