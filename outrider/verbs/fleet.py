"""``outrider fleet``: what the robots run and have reported; who may connect, and how a new robot comes in."""

import typer

from outrider.verbs._fleet_erase import ERASE_EXAMPLE, erase, erasures
from outrider.verbs._members import (
    ALLOW_EXAMPLE,
    ENROL_EXAMPLE,
    REVOKE_EXAMPLE,
    allow,
    enrol,
    members,
    revoke,
)
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

app = typer.Typer(no_args_is_help=True, help="What the robots run and have reported; who may connect.")
app.command(epilog=ENROL_EXAMPLE)(enrol)
app.command(epilog=ALLOW_EXAMPLE)(allow)
app.command(epilog=REVOKE_EXAMPLE)(revoke)
app.command(epilog="Example:  outrider fleet members robot_3")(members)
app.command(epilog=ERASE_EXAMPLE)(erase)
app.command(epilog="Example:  outrider fleet erasures robot_3")(erasures)


@app.callback()
def _group() -> None:
    """What the robots run and have reported; who may connect."""


@app.command(epilog="Example:  outrider fleet status --hub tcp://hub:5755")
def status(keys: Keys = DEFAULT_KEYS, hub: HubAddress = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """One line a robot: is it there, which policy, how many of its records are safe here, how far behind."""
    with hub_client(hub, keys) as client:
        view = client.fleet()
    if as_json:
        print_json(view)
        return
    typer.echo(f"{'robot':20} {'link':8} {'policy':28} {'records safe':>12} {'lag':>8}  last change")
    for robot in view.robots:
        policy = f"{robot.active_version} {robot.active_digest[:12]}" if robot.active_digest else "none"
        typer.echo(
            f"{robot.robot:20} {'online' if robot.online else 'offline':8} {policy:28} "
            f"{robot.records_stored:>12} {robot.last_seq - robot.durable_seq:>8}  "
            f"{clock_text(robot.last_seen_wall_ns)}"
        )
