"""What the operator's verbs share: where the hub is, which keys to use, and errors as one clear line."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import failing_plainly

if TYPE_CHECKING:
    from fleet_hub.client import HubClient

DEFAULT_HUB = "tcp://127.0.0.1:5755"
Keys = Annotated[Path, typer.Option("--keys", envvar="OUTRIDER_KEYS", help="Folder with the fleet's keys.")]
HubAddress = Annotated[str, typer.Option("--hub", envvar="OUTRIDER_HUB", help="Address of the hub.")]
SimTime = Annotated[bool, typer.Option("--sim-time", help="The sensors' stamps are a simulator's.")]
NoAutostart = Annotated[bool, typer.Option("--no-autostart", help="Wait for the lifecycle transitions.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Person = Annotated[
    str, typer.Option("--as", envvar="OUTRIDER_PERSON", help="Who you are (KEYS/people).", show_default=False)
]
Why = Annotated[str, typer.Option(help="Why; kept in the audit log.", show_default=False)]
DEFAULT_KEYS = Path("keys")


def clear_errors() -> AbstractContextManager[None]:
    """Turn the rooms' errors into one line and exit code 1."""
    from contracts.errors import ContractError
    from fleet_hub.errors import HubError

    return failing_plainly(ContractError, HubError)


@contextmanager
def hub_client(hub: str, keys: Path) -> "Iterator[HubClient]":
    """A connection to the hub with the operator's keys; errors as one line, also of what is done with it."""
    from fleet_hub.client import HubClient

    with clear_errors(), HubClient(hub, keys) as client:
        yield client


def clock_text(wall_ns: int) -> str:
    """A wall time for people; a dash for never."""
    return datetime.fromtimestamp(wall_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S") if wall_ns else "-"


def print_json(value: object) -> None:
    """Print a message as JSON."""
    import msgspec

    typer.echo(msgspec.json.encode(_plain(value)).decode())


def _plain(value: object) -> object:
    import msgspec

    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
