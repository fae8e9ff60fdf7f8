"""``outrider agent enrol``: a new robot comes into the fleet, with keys that it makes itself."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_HUB, AsJson, clear_errors

ENROL_EXAMPLE = """Example:  outrider agent enrol outrider1-lKdyb2... --hub tcp://hub:5755 --state state

The token comes from `outrider fleet enrol`. Then:  outrider agent run --robot robot_7 --layout floor.yaml \\
--state state --keys state/keys --hub tcp://hub:5755"""


def enrol(
    token: Annotated[
        str,
        typer.Argument(
            envvar="OUTRIDER_TOKEN", help="The token; - reads it from standard input.", show_default=False
        ),
    ],
    state: Annotated[
        Path, typer.Option(help="The robot's own folder: keys, log, policies.", show_default=False)
    ],
    hub: Annotated[str, typer.Option(envvar="OUTRIDER_HUB", help="Address of the hub.")] = DEFAULT_HUB,
    keys: Annotated[
        Path | None, typer.Option(help="Where its keys go; STATE/keys without.", show_default=False)
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the hub.", min=1, max=600)] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Take this robot into the fleet: it makes its own keys, whose private halves never leave it.

    Safe to run again with the same token until it says so. Exit codes: 0 enrolled, 1 refused, 2 usage.
    """
    import msgspec

    from contracts.enrolment import EnrolmentError, decode_token
    from edge_agent.update.enrol import enrol as enrol_robot

    folder = keys or state / "keys"
    with clear_errors():
        try:
            read = decode_token(typer.get_text_stream("stdin").read(4096) if token == "-" else token)
            card = enrol_robot(read, hub, folder, wait)
        except EnrolmentError as error:
            raise fail(f"refused ({error.code}): {error}") from None
    if as_json:
        typer.echo(msgspec.json.encode(card).decode())
        return
    typer.echo(
        f"{card.robot} is in the fleet: site {card.site or '-'}, model {card.model}; its keys are in {folder}"
    )
