"""``outrider logs summary|show|follow|export``: what happened on a robot, from its own record, offline."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import fail
from outrider.verbs._operator import AsJson, clock_text

if TYPE_CHECKING:
    from edge_agent.recorder.reading import Log
    from edge_agent.recorder.summary import Spread, Summary

app = typer.Typer(no_args_is_help=True, help="What happened on a robot: its own record, offline.")
FOLLOW_INTERVAL_S = 0.2
Folder = Annotated[Path, typer.Argument(help="A robot's state folder, or the hub's telemetry folder.")]
Since = Annotated[str | None, typer.Option(help="First tick (1200), or seconds after the start (90s).")]
Until = Annotated[str | None, typer.Option(help="Last tick, or seconds after the start.")]
Robot = Annotated[str | None, typer.Option(help="Only this robot.")]


@contextmanager
def _clear_errors() -> Iterator[None]:
    from contracts.errors import ContractError
    from edge_agent.errors import AgentError

    try:
        yield
    except (AgentError, ContractError) as error:
        raise fail(str(error), 2) from None
    except OSError as error:
        raise fail(f"{error.filename or 'disk'}: {error.strerror}", 2) from None


def _load(folder: Path, robot: str | None, since: str | None, until: str | None) -> "list[Log]":
    from edge_agent.recorder.reading import find_folders, load_log, parse_window

    with _clear_errors():
        window = parse_window(since, until)
        return [load_log(found, window) for found in find_folders(folder, robot)]


def _one(logs: "list[Log]") -> "Log":
    if len(logs) > 1:
        names = ", ".join(sorted({log.robot for log in logs}))
        raise fail(f"{len(logs)} logs here ({names}); choose one with --robot, or give its folder", 2)
    return logs[0]


@app.command()
def summary(
    folder: Folder, robot: Robot = None, since: Since = None, until: Until = None, as_json: AsJson = False
) -> None:
    """Counts, times, policies, verdicts, tick latency, what is not sent yet and what is torn."""
    import msgspec

    from edge_agent.recorder.summary import summarize

    summaries = [summarize(log) for log in _load(folder, robot, since, until)]
    if as_json:
        typer.echo(msgspec.json.encode(summaries).decode())
        return
    for found in summaries:
        _print_summary(found)


def _print_summary(found: "Summary") -> None:
    span_s = (found.last_wall_ns - found.first_wall_ns) / 1e9
    typer.echo(f"robot      {found.robot}  ({found.folder})")
    typer.echo(
        f"records    {found.records}: {found.decisions} decisions, {sum(found.events.values())} events"
    )
    typer.echo(
        f"time       {clock_text(found.first_wall_ns)} .. {clock_text(found.last_wall_ns)} ({span_s:.1f} s)"
    )
    for use in found.policies:
        name = f"{use.version or 'version unknown'} {use.digest[:12]}" if use.digest else "none"
        typer.echo(f"policy     {name}: {use.decisions} decisions")
    for title, counts in (
        ("source", found.sources),
        ("verdict", found.verdicts),
        ("reason", found.reasons),
        ("event", found.events),
    ):
        typer.echo(
            f"{title:10} " + (", ".join(f"{name} {count}" for name, count in counts.items()) or "none")
        )
    typer.echo(f"tick       {_spread_text(found.tick)}")
    typer.echo(f"late       {_spread_text(found.late)}; missed ticks {found.missed_ticks}")
    sent = (
        "not known"
        if found.acked_seq is None
        else f"{found.acked_seq} safe at the hub, {found.unsent} not yet"
    )
    typer.echo(f"sent       {sent}; last record {found.last_seq}, gaps {found.gaps}")
    for damage in found.damage:
        typer.echo(f"torn       {damage}")


def _spread_text(spread: "Spread | None") -> str:
    if spread is None:
        return "none"
    return (
        f"p50 {spread.p50_us:.0f} us, p99 {spread.p99_us:.0f} us, "
        f"p99.9 {spread.p99_9_us:.0f} us, max {spread.max_us:.0f} us"
    )


@app.command()
def show(
    folder: Folder,
    number: Annotated[int, typer.Argument(help="Which decision: 0 is the first, -1 the last.")] = -1,
    tick: Annotated[
        int | None, typer.Option(help="The decision of this tick (its last, over restarts).")
    ] = None,
    robot: Robot = None,
    as_json: AsJson = False,
) -> None:
    """One decision, whole: what the robot saw, what the policy wanted, what the monitor allowed and why."""
    import json

    import numpy as np

    from edge_agent.recorder.export import decision_value

    log = _one(_load(folder, robot, None, None))
    count = len(log.decisions)
    if tick is not None:
        found = np.flatnonzero(log.decisions["tick"] == np.uint64(max(tick, 0)))
        if not len(found):
            raise fail(f"no decision of tick {tick} in this log", 2)
        number = int(found[-1])
    if not -count <= number < count:
        raise fail(f"no decision {number}; this log has {count}", 2)
    value = decision_value(int(log.decision_seqs[number]), log.decisions[number])
    if as_json:
        typer.echo(json.dumps(value))
        return
    for name, item in value.items():
        if isinstance(item, dict):
            for inner, part in item.items():
                typer.echo(f"  {inner:18} {_text(part)}")
        else:
            typer.echo(f"{name:20} {_text(item)}")


def _text(item: Any) -> str:
    if isinstance(item, float):
        return f"{item:.3f}"
    if isinstance(item, list):
        return " ".join(_text(part) for part in item)
    return str(item)


@app.command()
def follow(
    folder: Folder,
    robot: Robot = None,
    count: Annotated[int, typer.Option(help="End after this many records; 0 goes on until Ctrl-C.")] = 0,
    as_json: AsJson = False,
) -> None:
    """New records as they come."""
    import json

    from contracts.framelog import Kind
    from edge_agent.recorder.reading import find_folders
    from edge_agent.recorder.reading import follow as follow_folder

    seen = 0
    with _clear_errors():
        folders = find_folders(folder, robot)
        if len(folders) > 1:
            raise fail(f"{len(folders)} logs here; choose one with --robot, or give its folder", 2)
        for record in follow_folder(folders[0]):
            if record is None:
                time.sleep(FOLLOW_INTERVAL_S)
                continue
            value = _record_value(*record)
            is_event = record[1] is Kind.EVENT
            typer.echo(
                json.dumps(value) if as_json else _event_line(value) if is_event else _decision_line(value)
            )
            seen += 1
            if seen == count:
                return


def _record_value(seq: int, kind: Any, payload: bytes) -> dict[str, Any]:
    import numpy as np

    from contracts.decision import DECISION_DTYPE
    from contracts.framelog import Kind, decode_event
    from edge_agent.recorder.export import decision_value, event_value

    if kind is Kind.EVENT:
        return event_value(seq, decode_event(payload))
    return decision_value(seq, np.frombuffer(payload, DECISION_DTYPE)[0])


def _event_line(value: dict[str, Any]) -> str:
    details = " ".join(f"{name}={part}" for name, part in value["detail"].items())
    return f"{clock_text(value['wall_ns'])}  event {value['name']}  {details}"


def _decision_line(value: dict[str, Any]) -> str:
    return (
        f"{clock_text(value['wall_ns'])}  tick {value['tick']}  {value['source']}  {value['verdict']} "
        f"({value['reason']})  raw {_text(value['raw_command'])}  final {_text(value['final_command'])}  "
        f"{value['total_us']} us"
    )


@app.command()
def export(
    output: Annotated[Path, typer.Option("--mcap", help="The MCAP file to write.")],
    folder: Folder,
    robot: Robot = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write a log as MCAP with JSON messages, for any robot viewer."""
    from edge_agent.recorder.export import export_mcap

    log = _one(_load(folder, robot, since, until))
    with _clear_errors():
        count = export_mcap(log, output)
    typer.echo(f"{count} messages of {log.robot} in {output} ({output.stat().st_size} bytes)")
