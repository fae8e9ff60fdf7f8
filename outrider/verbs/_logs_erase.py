"""``outrider logs erase``: a request for erasure, on the robot itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._logs import clear_errors
from outrider.verbs._operator import AsJson, clock_text


def erase(
    state: Annotated[Path, typer.Argument(help="The robot's own state folder; its agent must not run.")],
    since: Annotated[str, typer.Option(help="From here on, UTC by the robot's clock: 2026-11-23T10:00")],
    until: Annotated[str, typer.Option(help="Up to here.")],
    why: Annotated[str, typer.Option(help="The request: it stands in the receipt and in the log.")],
    who: Annotated[str, typer.Option(help="Who does it.")],
    events: Annotated[
        bool, typer.Option("--events", help="Events too, faults and swaps among them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase what was recorded in some time, by whole blocks (100 s at 20 Hz); a signed receipt stays in the log.

    outrider logs erase STATE --since 2026-11-23T10:00 --until 2026-11-23T10:05 --who anna --why "request 17"

    The hub has its own: outrider episodes erase. The same command again goes on after a power cut.
    """
    import msgspec

    from edge_agent.recorder.erasure import Request, would_erase
    from edge_agent.recorder.erasure import erase as erase_log
    from edge_agent.recorder.reading import open_log
    from edge_agent.supervisor import take_lock
    from outrider.verbs.episodes import wall_ns

    span = wall_ns(since, 0), wall_ns(until, 0)
    if span[0] > span[1]:
        raise fail(f"--since {since} is after --until {until}", 2)
    if not (0 < len(why) <= 500 and 0 < len(who) <= 500):
        raise fail("--why and --who: a few words each, at most 500 characters", 2)
    request = Request(*span, who, why, events)
    with clear_errors():
        robot = open_log(state / "log").robot
        if dry_run:
            blocks = would_erase(state / "log", request)
        else:
            lock = take_lock(state, robot)
            try:
                receipt, path = erase_log(state, robot, request)
            finally:
                os.close(lock)
            blocks = list(receipt.blocks)
    if as_json:
        typer.echo(msgspec.json.encode(blocks if dry_run else receipt).decode())
        return
    for block in blocks:
        times = f"{clock_text(block.wall_ns[0])} .. {clock_text(block.wall_ns[1])}"
        typer.echo(
            f"segment {block.segment} block {block.block}  {times}  {block.records} {', '.join(block.kinds)}"
        )
    gone = sum(block.records for block in blocks)
    if dry_run:
        typer.echo(f"{gone} records would go, and what is not sealed yet of that time")
        return
    typer.echo(f"{gone} records erased; receipt {path}; not reached: {receipt.not_reached}")
    for name in receipt.unreadable:
        typer.echo(f"LEFT AS IT IS, for it is damaged: {name}; look at it, and delete it by hand")
