"""``outrider rollout start|status``: sends a release to robots, shows how far each has come."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

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
    from contracts.messages import RolloutView

app = typer.Typer(no_args_is_help=True, help="Send a release to robots, watch it arrive.")
WATCH_INTERVAL_S = 0.5
FINAL = ("active", "refused", "superseded")


@app.command()
def start(
    release: Annotated[str, typer.Option(help="Name, name@version, version, digest or its beginning.")],
    to: Annotated[list[str], typer.Option(help="A robot, or all; may be repeated.")],
    more: Annotated[list[str] | None, typer.Argument(help="More robots.")] = None,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Send a release to robots: now to those that are connected, to the others when they come back."""
    from fleet_hub.client import HubClient

    targets = tuple(name for given in [*to, *(more or [])] for name in given.split(",") if name)
    with clear_errors(), HubClient(hub, keys) as client:
        view = client.start_rollout(release, () if "all" in targets else targets)
    _show(view, as_json)


@app.command()
def status(
    rollout: Annotated[int, typer.Argument(help="Number of the rollout; the newest when left out.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until every robot has ended.")] = False,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """How far each robot is. With --watch, ends with code 1 when a robot refused."""
    from fleet_hub.client import HubClient

    with clear_errors(), HubClient(hub, keys) as client:
        view = client.rollout(rollout)
        _show(view, as_json)
        while watch and not all(robot.state in FINAL for robot in view.robots):
            time.sleep(WATCH_INTERVAL_S)
            before, view = view, client.rollout(view.rollout)
            if view != before:
                _show(view, as_json)
    if watch and any(robot.state == "refused" for robot in view.robots):
        raise typer.Exit(1)


def _show(view: "RolloutView", as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    release = view.release
    typer.echo(
        f"rollout {view.rollout}: {release.policy_name}@{release.version} ({release.digest[:12]}), "
        f"started {clock_text(view.started_wall_ns)}"
    )
    for robot in view.robots:
        reason = f"  {robot.reason}" if robot.reason else ""
        typer.echo(f"  {robot.robot:20} {robot.state:12} {clock_text(robot.updated_wall_ns)}{reason}")
