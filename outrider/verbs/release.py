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
    clear_errors,
    clock_text,
    print_json,
)

app = typer.Typer(help="Register a bundle in the hub's catalogue.")


@app.command()
def release(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle file.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the catalogue instead.")] = False,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Send a bundle to the hub, which verifies and registers it; or show what is registered."""
    from fleet_hub.client import HubClient

    if (bundle is None) != listed:
        raise fail("give a bundle file, or --list", 2)
    with clear_errors(), HubClient(hub, keys) as client:
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
