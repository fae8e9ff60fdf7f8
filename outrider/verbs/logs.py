"""``outrider logs``: what happened on a robot, from its own record, offline."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.cli import fail
from outrider.verbs._logs import (
    Folder,
    Robot,
    Since,
    Until,
    clear_errors,
    load_one,
    open_all,
    open_one,
    print_replay,
    print_summary,
    record_line,
    text_of,
    window_of,
)
from outrider.verbs._logs_erase import erase
from outrider.verbs._operator import AsJson, clock_text

app = typer.Typer(no_args_is_help=True, help="What happened on a robot: its own record, offline.")
app.command()(erase)
FOLLOW_INTERVAL_S = 0.2
EXIT_DIFFERENT = 1


@app.command()
def summary(
    folder: Folder, robot: Robot = None, since: Since = None, until: Until = None, as_json: AsJson = False
) -> None:
    """Counts, times, policies, verdicts, tick latency, what is not sent yet, lost or torn.

    outrider logs summary /var/lib/outrider/robot_1
    """
    import msgspec

    from edge_agent.recorder.summary import SUMMARY_FIELDS, summarize

    window, found = window_of(since, until), open_all(folder, robot)
    with clear_errors():
        summaries = [summarize(index.load(window, SUMMARY_FIELDS)) for index in found]
    if as_json:
        typer.echo(msgspec.json.encode(summaries).decode())
        return
    for one in summaries:
        print_summary(one)


@app.command()
def incidents(folder: Folder, robot: Robot = None, as_json: AsJson = False) -> None:
    """Every incident: when, which tick, what. Out of the index, nothing else is read.

    outrider logs incidents STATE;  outrider logs show STATE --tick 51234
    """
    import msgspec

    with clear_errors():
        found = [(index.robot, incident) for index in open_all(folder, robot) for incident in index.incidents]
    if as_json:
        values = [{"robot": name, **msgspec.to_builtins(incident)} for name, incident in found]
        typer.echo(msgspec.json.encode(values).decode())
        return
    for name, incident in found:
        tick = f"tick {incident.tick}" if incident.tick else "event"
        typer.echo(f"{clock_text(incident.wall_ns)}  {name}  {tick:>14}  {incident.what}")
    typer.echo(f"{len(found)} incidents")


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
    """One decision, whole: what the robot saw, what the policy wanted, what the monitor allowed and why.

    outrider logs show STATE --tick 51234
    """
    import json

    from edge_agent.recorder.pages import Pages
    from edge_agent.recorder.reading import Window
    from edge_agent.recorder.values import decision_value

    index = open_one(folder, robot)
    with clear_errors():
        if tick is not None:
            log = index.load(Window(tick, tick))
            if not len(log.decisions):
                raise fail(f"no decision of tick {tick} in this log", 2)
            value = decision_value(int(log.decision_seqs[-1]), log.decisions[-1])
        else:
            pages = Pages(index)
            row = number if number >= 0 else len(pages) + number
            if not 0 <= row < len(pages):
                raise fail(f"no decision {number}; this log has {len(pages)}", 2)
            value = decision_value(pages.seq(row), pages.rows(row, row + 1)[0])
    if as_json:
        typer.echo(json.dumps(value))
        return
    for name, item in value.items():
        if isinstance(item, dict):
            for inner, part in item.items():
                typer.echo(f"  {inner:18} {text_of(part)}")
        else:
            typer.echo(f"{name:20} {text_of(item)}")


@app.command()
def follow(
    folder: Folder,
    robot: Robot = None,
    count: Annotated[int, typer.Option(help="End after this many records; 0 goes on until Ctrl-C.")] = 0,
    as_json: AsJson = False,
) -> None:
    """New records as they come.

    outrider logs follow STATE --json
    """
    import json

    from edge_agent.recorder.reading import follow as follow_folder

    seen, found = 0, open_one(folder, robot).folder
    with clear_errors():
        for record in follow_folder(found):
            if record is None:
                time.sleep(FOLLOW_INTERVAL_S)
                continue
            value = _record_value(*record)
            if value is None:
                continue
            typer.echo(json.dumps(value) if as_json else record_line(value))
            seen += 1
            if seen == count:
                return


def _record_value(seq: int, kind: Any, payload: bytes) -> dict[str, Any] | None:
    import numpy as np

    from contracts.decision import DECISION_DTYPE
    from contracts.framelog import Kind, decode_event
    from edge_agent.recorder.values import decision_value, event_value

    if kind is Kind.DECISION:
        return decision_value(seq, np.frombuffer(payload, DECISION_DTYPE)[0])
    return None if kind in (Kind.LOST, Kind.SCAN) else event_value(seq, decode_event(payload))


@app.command()
def grep(
    folder: Folder,
    where: Annotated[str, typer.Option(help="For example: verdict>=stop and clearance_m<0.3")] = "",
    columns: Annotated[bool, typer.Option("--columns", help="Show the names of all columns.")] = False,
    count_only: Annotated[bool, typer.Option("--count", help="Only how many.")] = False,
    first: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    robot: Robot = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Decisions that fulfil a condition; exit code 1 when there is none.

    outrider logs grep STATE --where "verdict>=stop and not armed"

    outrider logs grep STATE --where "reason=scan_stale or (final_speed_mps>1.0 and obs_beams_17<0.5)"
    """
    import json

    import numpy as np

    from edge_agent.recorder.flat import COLUMNS, FLAGS
    from edge_agent.recorder.query import parse_query
    from edge_agent.recorder.values import decision_value

    if columns:
        typer.echo("\n".join([*COLUMNS, *FLAGS]))
        return
    if not where:
        raise fail('give a condition: --where "verdict>=stop"; --columns shows what there is', 2)
    with clear_errors():
        query = parse_query(where)
        index, window = open_one(folder, robot), window_of(since, until)
        rows = index.load(window, tuple(query.fields))
        found = rows.decision_seqs[np.flatnonzero(query.test(rows.decisions))]
        if count_only:
            typer.echo(str(len(found)))
        else:
            for seq, record in index.decisions_of(found[:first]):
                if not query.test(np.array([record])).all():
                    continue  # the same number in another log of this robot
                value = decision_value(seq, record)
                typer.echo(json.dumps(value) if as_json else record_line(value))
            if len(found) > first and not as_json:
                typer.echo(f"... and {len(found) - first} more (--first)")
    if not len(found):
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def config(
    folder: Folder,
    digest: Annotated[str, typer.Argument(help="First digits of a decision's config_digest.")] = "",
    robot: Robot = None,
) -> None:
    """Which settings control ran with: the digests in a log, or the settings behind one, as JSON.

    outrider logs config STATE;  outrider logs config STATE 3fa9 | jq .safety.monitor
    """
    with clear_errors():
        from edge_agent.recorder.configs import configs_in

        found = configs_in(open_one(folder, robot).load(window_of(None, None), ("wall_ns",)).events)
    named = {name: text for name, text in found.items() if name.startswith(digest.lower())}
    if not digest:
        for name, text in found.items():
            typer.echo(f"{name}  {f'{len(text)} bytes' if text else 'its settings are not in this log'}")
        return
    if len(named) != 1:
        raise fail(f"{len(named)} settings in this log begin with {digest}; see `outrider logs config`", 2)
    (name, text), *_ = named.items()
    if text is None:
        raise fail(f"the settings behind {name} are not in this log; see STATE/config on the robot", 2)
    typer.echo(text.decode())


@app.command()
def export(
    folder: Folder,
    mcap: Annotated[Path | None, typer.Option(help="MCAP: ROS 2 messages, and a Foxglove layout.")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV, and the events in a second file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Parquet (needs pyarrow), and the events.")] = None,
    robot: Robot = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write a log for other programs.

    outrider logs export STATE --mcap run.mcap --since 90s --until 150s
    """
    asked = [("mcap", mcap), ("csv", csv), ("parquet", parquet)]
    if not any(output for _, output in asked):
        raise fail("give --mcap, --csv or --parquet FILE", 2)
    window, index = window_of(since, until), open_one(folder, robot)
    with clear_errors():
        from edge_agent.recorder.mcap_file import export_mcap
        from edge_agent.recorder.tables import export_csv, export_parquet

        log = index.load(window)
        scans = index.scans(*log.span_ns) if window.bounded else index.scans()
        for kind, output in asked:
            if output is not None:
                if kind == "mcap":
                    count = export_mcap(log, output, scans)
                else:
                    count = (export_csv if kind == "csv" else export_parquet)(log, output)
                what = "messages" if kind == "mcap" else "records"
                typer.echo(f"{count} {what} of {log.robot} in {output} ({output.stat().st_size} bytes)")


@app.command()
def verify(
    folder: Folder,
    key: Annotated[
        str, typer.Option(help="The robot's public log key, hexadecimal, as the hub knows it.")
    ] = "",
    robot: Robot = None,
    as_json: AsJson = False,
) -> None:
    """Hold a log against its seals: is it as the robot wrote it? Exit code 1 when not, and where.

    outrider logs verify STATE --key "$(outrider logs verify HUB_COPY --json | jq -r '.[0].key')"
    """
    import msgspec

    from edge_agent.recorder.chain import verify_folder
    from edge_agent.recorder.reading import find_folders

    if key and not (len(key) == 64 and set(key.lower()) <= set("0123456789abcdef")):
        raise fail(f"--key: expected 64 hexadecimal digits, came {key[:70]!r}", 2)
    with clear_errors():
        found = [verify_folder(path, key) for path in find_folders(folder, robot)]
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        for one in found:
            typer.echo(f"{one.robot}  ({one.folder}): {one.sealed} sealed segments, {one.live} live")
            for finding in one.findings:
                typer.echo(f"  {finding.state:7} {finding.segment}: {finding.what}")
            whose = (
                "the key you gave" if one.key_known else "as the log says: compare it with the hub's (--key)"
            )
            typer.echo(f"  key     {one.key or 'none'} ({whose})")
            typer.echo("  whole: nothing sealed was changed" if one.whole else "  BROKEN: see above")
    if not all(one.whole for one in found):
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A log.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    robot: Robot = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Two runs side by side, and the first tick at which they part; exit code 1 when they do.

    outrider logs diff monday/robot_1 tuesday/robot_1
    """
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from edge_agent.recorder.compare import compare

    logs = [load_one(folder, robot, since, until) for folder in (first, second)]
    found = compare(logs[0], logs[1])
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        table = Table("figure", f"{logs[0].robot} ({first})", f"{logs[1].robot} ({second})", box=None)
        for row in found.figures:
            table.add_row(row.figure, *("-" if v is None else f"{v:,.4g}" for v in (row.first, row.second)))
        Console().print(table)
        parted = (
            "they agree"
            if found.parted_tick is None
            else f"part at {found.parted_tick} ({found.parted_field})"
        )
        typer.echo(
            f"{found.common_ticks} ticks in common: {parted if found.common_ticks else 'none to compare'}"
        )
    if found.parted_tick is not None:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def replay(
    folder: Folder,
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle (.outrider) that drove, or another.")
    ] = None,
    monitor: Annotated[bool, typer.Option(help="Run the monitor again where raw scans are.")] = True,
    layout: Annotated[
        Path | None, typer.Option(help="The floor with its zones; else the one control.json names.")
    ] = None,
    robot: Robot = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Feed what was recorded through a bundle and through the monitor again; exit code 1 for any difference.

    outrider logs replay STATE --bundle STATE/slots/a/policy.outrider

    outrider logs replay STATE --since 51000 --until 52000 --layout hall.yaml
    """
    import msgspec

    from edge_agent.recorder.replay import replay as replay_log
    from edge_agent.recorder.rerun import rerun

    if bundle is None and not monitor:
        raise fail("nothing to run again: give --bundle, or leave out --no-monitor", 2)
    window, index = window_of(since, until), open_one(folder, robot)
    with clear_errors():
        log = index.load(window)
        found = replay_log(log, bundle) if bundle else None
        again = rerun(log, index, layout) if monitor else None
    same = (found is None or found.same) and (again is None or again.same == again.compared)
    if as_json:
        value = {**msgspec.to_builtins(found)} if found else {}
        typer.echo(msgspec.json.encode({**value, "monitor": again, "same": same}).decode())
    else:
        print_replay(found, again)
    if not same:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def ui(folder: Folder, robot: Robot = None) -> None:
    """A screen to look through a log: timeline, next incident, what it saw, wanted and was allowed.

    outrider logs ui STATE;  keys: arrows, n/p next and previous incident, space replay, q end
    """
    from importlib.util import find_spec

    if find_spec("textual") is None:
        raise fail("the screen needs textual: pip install 'outrider[tech]'", 2)
    from edge_agent.recorder.screen import LogScreen

    index = open_one(folder, robot)
    with clear_errors():
        LogScreen(index).run()
