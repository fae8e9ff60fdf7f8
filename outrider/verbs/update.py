"""``outrider update --from DIR``: updates a robot from a USB stick, without a network."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, clear_errors, print_json

app = typer.Typer(help="Update a robot from a USB stick.")
EXAMPLE = """Example:  outrider update --from /media/stick/fleet --state state --robot robot_1 --keys keys

Or, with fsspec:  outrider update --from https://mirror/fleet --state state --robot robot_1 --keys keys

The stick is written with `outrider release --stick DIR`; any file server may hold a copy.
Exit codes: 0 taken or nothing to do, 1 refused, 2 usage."""


@app.command(epilog=EXAMPLE)
def update(
    source: Annotated[
        str,
        typer.Option("--from", help="Folder that `outrider release --stick` wrote, or the URL of a copy."),
    ],
    state: Annotated[Path, typer.Option(help="The robot's state folder; its agent must not run.")],
    robot: Annotated[str, typer.Option(help="The robot's name.")],
    keys: Keys = DEFAULT_KEYS,
    model: Annotated[str, typer.Option(help="The robot's model.")] = "amr_small",
    as_json: AsJson = False,
) -> None:
    """Take what the stick has for this robot: the same checks and the same log as over the network.

    What was taken drives when the agent starts next.
    """
    from contracts.keyring import party_folder
    from contracts.robot import ROBOT_MODELS
    from edge_agent.errors import AgentError
    from edge_agent.recorder.recorder import Recorder
    from edge_agent.supervisor import take_lock
    from edge_agent.update.stick import update_from
    from outrider.cli import failing_plainly

    if model not in ROBOT_MODELS:
        raise fail(f"--model: no robot model {model!r}; known: {', '.join(ROBOT_MODELS)}", 2)
    from edge_agent.update.fetchers import is_url

    if not is_url(source) and not Path(source).is_dir():
        raise fail(f"--from: no folder {source}; write one with `outrider release --stick {source}`", 2)
    own = party_folder(keys, "robots", robot)
    with clear_errors(), failing_plainly(AgentError):
        state.mkdir(parents=True, exist_ok=True)
        take_lock(state, robot)
        recorder = Recorder(state, robot)
        try:
            outcome = update_from(source, state, own, robot, ROBOT_MODELS[model], recorder.event)
        finally:
            recorder.close()
    if as_json:
        print_json(outcome)
    elif outcome.state == "refused":
        raise fail(f"refused ({outcome.code}): {outcome.reason}")
    elif outcome.state == "staged":
        typer.echo(f"{outcome.digest[:12]} is in {robot}'s spare slot; it drives when the agent starts")
    else:
        typer.echo(outcome.reason or f"{robot}: {outcome.state} {outcome.digest[:12]}")
    if outcome.state == "refused":
        raise typer.Exit(1)
