"""``outrider release BUNDLE``: registers a bundle in the hub's catalogue."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import (
    DEFAULT_HUB,
    DEFAULT_KEYS,
    AsJson,
    HubAddress,
    Keys,
    clock_text,
    hub_client,
    print_json,
)

app = typer.Typer(help="Register a bundle in the hub's catalogue.")
EXAMPLE = "Example:  outrider release v1.outrider      Or:  outrider release --stick /media/stick/fleet"


@app.command(epilog=EXAMPLE)
def release(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle file.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the catalogue instead.")] = False,
    stick: Annotated[
        Path | None,
        typer.Option(help="Write a folder for `outrider update --from`, with every robot's order."),
    ] = None,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Send a bundle to the hub, which verifies and registers it; or show what is registered; or write a stick.

    To release takes the keys of trainer and release manager: both sign the image repository's next targets.
    """

    if (bundle is not None) + listed + (stick is not None) != 1:
        raise fail("give a bundle file, --list or --stick DIR", 2)
    if stick is not None:
        _write_stick(stick, keys, hub, as_json)
        return
    with hub_client(hub, keys) as client:
        releases = [client.release(bundle)] if bundle else list(client.releases())
    if as_json:
        print_json(releases if listed else releases[0])
        return
    for info in releases:
        typer.echo(
            f"{info.policy_name}@{info.version}  counter {info.release_counter}  {info.size_bytes} bytes  "
            f"{info.digest}  released {clock_text(info.released_wall_ns)}"
        )
    if listed and not releases:
        typer.echo("no release yet; register one: outrider release BUNDLE")


def _write_stick(folder: Path, keys: Path, hub: str, as_json: bool) -> None:
    from fleet_hub.trust.stick import write_stick

    with hub_client(hub, keys) as client:
        given = write_stick(folder, client.file, [status.robot for status in client.fleet().robots])
    if as_json:
        print_json(given)
        return
    for robot, digest in given.items():
        typer.echo(f"{robot}: {digest[:12] or 'nothing ordered'}")
    typer.echo(
        f"{folder} is good for six days; at the robot: outrider update --from {folder} --state ... --robot ..."
    )
