"""``outrider audit show|verify``: who did what to the fleet, when and why; and whether anybody changed the record."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import USAGE_ERROR, fail
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

if TYPE_CHECKING:
    from contracts.messages import AuditEntry

app = typer.Typer(no_args_is_help=True, help="Who did what to the fleet, when and why.")
Data = Annotated[
    Path | None, typer.Option(help="The hub's data folder, read here, instead of asking the hub.")
]


@app.command(epilog="Example:  outrider audit show --rollout 3")
def show(
    rollout: Annotated[int, typer.Option(help="Only this rollout; 0 is all.")] = 0,
    since: Annotated[int, typer.Option(help="From this entry on.")] = 1,
    data: Data = None,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """The entries, oldest first."""
    import msgspec

    with clear_errors():
        for entry in _entries(data, keys, hub, since):
            if rollout and entry.rollout != rollout:
                continue
            if as_json:
                print_json(entry)
                continue
            body = msgspec.json.decode(entry.body)
            what = body.pop("type", "?")
            body.pop("act", None)
            facts = ", ".join(
                f"{name} {value}" for name, value in body.items() if value not in ("", 0, [], False)
            )
            about = f"rollout {entry.rollout}" if entry.rollout else ""
            typer.echo(
                f"{entry.seq:>7} {clock_text(entry.wall_ns)} {entry.who:16} {about:12} {what:12} {facts[:240]}"
            )


@app.command(epilog='Example:  outrider audit verify --data hub --head "$(cat noted_hash)"')
def verify(
    head: Annotated[str, typer.Option(help="A hash noted earlier: it must still be in the chain.")] = "",
    data: Data = None,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Check every link of the chain; says at which entry it is broken, with code 1."""
    import re

    from fleet_hub.store.audit import verify_chain

    if head and not re.fullmatch("[0-9a-f]{64}", head):
        raise fail(f"--head: expected the 64 hexadecimal digits of a hash, came {head!r}", USAGE_ERROR)
    with clear_errors():
        count, newest = verify_chain(_entries(data, keys, hub, 1), head)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode({"entries": count, "head": newest}).decode())
        return
    typer.echo(f"{count} entries, unbroken; newest hash {newest}")


def _entries(data: Path | None, keys: Path, hub: str, since: int) -> "list[AuditEntry]":
    from fleet_hub.client import HubClient
    from fleet_hub.store.audit import read_entries

    if data is not None:
        return read_entries(data, since)
    with HubClient(hub, keys) as client:
        return list(client.audit(since))
