"""``outrider fleet erase|erasures``: an erasure at the hub and on the robots, by one signed order each."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import (
    DEFAULT_HUB,
    DEFAULT_KEYS,
    AsJson,
    HubAddress,
    Keys,
    Person,
    Why,
    clear_errors,
    clock_text,
    hub_client,
    print_json,
)

if TYPE_CHECKING:
    from contracts.messages import ErasuresView

ROBOTS_MAX = 100
ERASE_EXAMPLE = """Example:  outrider fleet erase robot_3,robot_4 --since 2026-11-23T10:00 --until 2026-11-23T10:05 \\
--as boris --why "request 17"

What became of it:  outrider fleet erasures"""


def erase(
    robots: Annotated[str, typer.Argument(help="Whose records: names, with commas between.")],
    since: Annotated[str, typer.Option(help="From here on, UTC by the robot's clock: 2026-11-23T10:00")],
    until: Annotated[str, typer.Option(help="Up to here; not later than now.")],
    person: Person,
    why: Why,
    events: Annotated[
        bool, typer.Option("--events", help="Events too, faults and swaps among them: a safety officer may.")
    ] = False,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Erase what robots recorded in some time, at the hub and on the robots, while both run.

    Takes a releaser, approver or safety officer. A robot that is not here is told when it comes, also after days;
    it checks the order itself, erases whole blocks (100 s at 20 Hz) and sends a signed receipt.
    """
    import msgspec

    from contracts.erasure import EraseAct
    from contracts.messages import ErasuresView
    from outrider.verbs.episodes import wall_ns
    from trainer.release.papers import person_signer, sign_erase_act

    names = [name for name in robots.split(",") if name]
    if not 1 <= len(names) <= ROBOTS_MAX:
        raise fail(f"expected 1 to {ROBOTS_MAX} robots, came {len(names)}", 2)
    with clear_errors():
        signer = person_signer(keys, person)
        try:
            span = wall_ns(since, 0), wall_ns(until, 0)
            acts = [EraseAct(name, *span, person, why, time.time_ns(), events) for name in names]
            papers = [sign_erase_act(act, signer) for act in acts]
        except msgspec.ValidationError as error:
            raise fail(str(error), 2) from None
        with hub_client(hub, keys) as client:
            taken = [client.order_erasure(paper).erasures[0] for paper in papers]
    _show(ErasuresView(tuple(taken)), as_json)


def erasures(
    robot: Annotated[str, typer.Argument(help="Only of this robot.")] = "",
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Orders for erasure, newest first: how far robot and hub are, and where both receipts lie."""
    with hub_client(hub, keys) as client:
        _show(client.erasures(robot), as_json)


def _show(view: "ErasuresView", as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    for one in view.erasures:
        span = f"{clock_text(one.since_ns)} .. {clock_text(one.until_ns)}"
        what = " with events" if one.events else ""
        typer.echo(f"{one.order[:12]}  {one.robot}  {span}{what}  {one.person}: {one.why}")
        why = f" ({one.robot_code}: {one.robot_reason})" if one.robot_code else ""
        typer.echo(
            f"    robot  {one.robot_state:8} {one.robot_records:>8} records  {one.robot_receipt or '-'}{why}"
        )
        receipts = ", ".join(one.hub_receipts) or "-"
        typer.echo(f"    hub    {one.hub_state:8} {one.hub_records:>8} records  {receipts}")
