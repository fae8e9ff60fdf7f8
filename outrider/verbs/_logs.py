"""What the commands of ``outrider logs`` share: which log, errors as one line, and records as lines."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import fail, failing_plainly
from outrider.verbs._operator import clock_text

if TYPE_CHECKING:
    from edge_agent.recorder.reading import Log, LogIndex, Window
    from edge_agent.recorder.replay import Replay
    from edge_agent.recorder.rerun import Rerun
    from edge_agent.recorder.summary import Spread, Summary

Folder = Annotated[
    Path, typer.Argument(help="A robot's state or log folder, a copy of one, or the hub's telemetry.")
]
Since = Annotated[str | None, typer.Option(help="First tick (1200), or seconds after the start (90s).")]
Until = Annotated[str | None, typer.Option(help="Last tick, or seconds after the start.")]
Robot = Annotated[str | None, typer.Option(help="Only this robot.")]


def clear_errors() -> AbstractContextManager[None]:
    """Turn the rooms' errors into one line and exit code 2."""
    from contracts.errors import ContractError
    from edge_agent.errors import AgentError

    return failing_plainly(AgentError, ContractError, code=2)


def open_all(folder: Path, robot: str | None) -> "list[LogIndex]":
    """Every log below a folder, its index read."""
    from edge_agent.recorder.reading import find_folders, open_log

    with clear_errors():
        return [open_log(found) for found in find_folders(folder, robot)]


def open_one(folder: Path, robot: str | None) -> "LogIndex":
    """The one log below a folder; one clear line where there are more."""
    found = open_all(folder, robot)
    if len(found) > 1:
        names = ", ".join(sorted({index.robot for index in found}))
        raise fail(f"{len(found)} logs here ({names}); choose one with --robot, or give its folder", 2)
    return found[0]


def window_of(since: str | None, until: str | None) -> "Window":
    """The window that was asked for."""
    from edge_agent.recorder.reading import parse_window

    with clear_errors():
        return parse_window(since, until)


def load_one(folder: Path, robot: str | None, since: str | None, until: str | None) -> "Log":
    """All records of the one log below a folder."""
    window, index = window_of(since, until), open_one(folder, robot)
    with clear_errors():
        return index.load(window)


def text_of(item: Any) -> str:
    """A value for people."""
    if isinstance(item, float):
        return f"{item:.3f}"
    if isinstance(item, list):
        return " ".join(text_of(part) for part in item)
    return str(item)


def record_line(value: dict[str, Any]) -> str:
    """A decision or an event (``edge_agent.recorder.values``) as one line."""
    if "detail" in value:
        details = " ".join(f"{name}={part}" for name, part in value["detail"].items())
        return f"{clock_text(value['wall_ns'])}  event {value['name']}  {details}"
    return (
        f"{clock_text(value['wall_ns'])}  tick {value['tick']}  {value['source']}  {value['verdict']} "
        f"({value['reason']})  raw {text_of(value['raw_command'])}  final {text_of(value['final_command'])}  "
        f"{value['total_us']} us"
    )


def print_summary(found: "Summary") -> None:
    """A summary in a dozen lines."""
    span_s = (found.last_wall_ns - found.first_wall_ns) / 1e9
    first, last = clock_text(found.first_wall_ns), clock_text(found.last_wall_ns)
    events = sum(found.events.values())
    lines = [
        ("robot", f"{found.robot}  ({found.folder})"),
        (
            "records",
            f"{found.records}: {found.decisions} decisions, {events} events, {found.scans} raw scans",
        ),
        ("time", f"{first} .. {last} ({span_s:.1f} s), {found.boots} boots"),
    ]
    for use in found.policies:
        name = f"{use.version or 'version unknown'} {use.digest[:12]}" if use.digest else "none"
        lines.append(("policy", f"{name}: {use.decisions} decisions"))
    for title in ("source", "verdict", "reason", "event"):
        counts = getattr(found, f"{title}s")
        lines.append((title, ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"))
    lines += [
        ("incidents", f"{found.incidents}" + (" (see `outrider logs incidents`)" if found.incidents else "")),
        ("tick", _spread_text(found.tick)),
        ("late", f"{_spread_text(found.late)}; missed ticks {found.missed_ticks}"),
    ]
    sent = "not known"
    if found.acked_seq is not None:
        sent = f"{found.acked_seq} safe at the hub, {found.unsent} not yet"
    lines.append(("sent", f"{sent}; last record {found.last_seq}, gaps {found.gaps}"))
    lines += [("lost", f"{count} records ({kind})") for kind, count in found.lost.items()]
    lines += [("torn", damage) for damage in found.damage]
    for title, text in lines:
        typer.echo(f"{title:10} {text}")


def print_replay(found: "Replay | None", again: "Rerun | None") -> None:
    """What came of a replay, of the bundle and of the monitor."""
    if found:
        drove = (
            "drove in this log" if found.drove else "never drove in this log: differences are to be expected"
        )
        typer.echo(f"bundle     {found.digest[:12]} {drove}")
        typer.echo(
            f"asked      {found.asked} observations, {found.skipped} decisions of others or without one"
        )
        typer.echo(f"same bits  {found.equal}; worst difference {found.worst:.3g}")
        for change in found.changed:
            was, now = text_of(list(change.recorded)), text_of(list(change.replayed))
            typer.echo(f"  tick {change.tick}: was {was}, is {now}")
        typer.echo(
            f"rulings    {found.rulings} checked; "
            + ("; ".join(found.odd_rulings) or "none contradicts itself")
        )
    if again:
        typer.echo(f"monitor    {again.monitor}")
        reasons = f", {again.other_reason} of them for another reason" if again.other_reason else ""
        typer.echo(f"ruled      {again.same} of {again.compared} decisions the same{reasons}")
        for one in again.differs:
            typer.echo(f"  tick {one.tick}: was {one.recorded}; is {one.again}")
        for why, count in again.left_out.items():
            typer.echo(f"left out   {count} decisions {why}")
        typer.echo(f"cannot     {again.cannot}")


def _spread_text(spread: "Spread | None") -> str:
    if spread is None:
        return "none"
    return (
        f"p50 {spread.p50_us:.0f} us, p99 {spread.p99_us:.0f} us, "
        f"p99.9 {spread.p99_9_us:.0f} us, max {spread.max_us:.0f} us"
    )
