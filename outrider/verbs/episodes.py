"""``outrider episodes ingest|query|sample|export``: the fleet's records as a data set, read-only."""

import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import USAGE_ERROR, fail
from outrider.verbs._operator import AsJson, clear_errors

if TYPE_CHECKING:
    from fleet_hub.store.query import Answer, ReplayStore

EXAMPLES = """
Examples:

  outrider episodes ingest --data hub

  outrider episodes query "SELECT policy_version, outcome, count(*), avg(time_s) FROM episodes GROUP BY ALL"

  outrider episodes query "SELECT * FROM minutes WHERE interventions > 0" --robot robot_7 --since 2026-11-23 --json

  outrider episodes sample --count 20 --seed 4 --where "outcome = 'aborted'"

  outrider episodes export odd.parquet --where "near_miss AND interventions > 0.1"

Tables: decisions, episodes, minutes, policies; columns: DESCRIBE episodes.
"""
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The fleet's trips as a data set: query, sample, export.",
    epilog=EXAMPLES,
)
Data = Annotated[Path, typer.Option("--data", envvar="OUTRIDER_DATA", help="The hub's data folder.")]
DEFAULT_DATA = Path("hub")
Where = Annotated[str, typer.Option(help="SQL condition on the columns of episodes.")]
Robot = Annotated[str, typer.Option(help="Open only files of this robot.")]
Since = Annotated[str, typer.Option(help="Open only files that reach this time, 2026-11-23T10:00 (UTC).")]
Until = Annotated[str, typer.Option(help="Open only files that begin before this time (UTC).")]


@app.command(epilog=EXAMPLES)
def ingest(
    data: Data = DEFAULT_DATA,
    all_now: Annotated[
        bool, typer.Option("--all", help="Also what is still being written: small files.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.0, help="Again after so many seconds, until stopped.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Turn the hub's closed logs into Parquet files. Runs beside the hub; killed, it goes on where it was."""
    import threading

    import msgspec

    from fleet_hub.store.replay import Ingest

    stop = threading.Event()
    if every:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    with clear_errors(), Ingest(data) as store:
        while True:
            found = store.run(all_now)
            if as_json:
                typer.echo(msgspec.json.encode(found).decode())
            elif found.files or not every:
                typer.echo(
                    f"{found.records} records, {found.episodes} episodes in {found.files} new files below "
                    f"{store.store}; {found.missing} numbers without a record"
                )
            for line in found.unreadable:
                typer.secho(f"left alone: {line}", err=True, fg=typer.colors.YELLOW)
            if not every or stop.wait(every):
                return


@app.command(epilog=EXAMPLES)
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT.")],
    data: Data = DEFAULT_DATA,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")] = 1000,
    robot: Robot = "",
    since: Since = "",
    until: Until = "",
    as_json: AsJson = False,
) -> None:
    """Rows of one SELECT over decisions, episodes, minutes and policies. Nothing can be changed."""
    with clear_errors(), _open(data, robot, since, until) as store:
        answer = store.query(sql, limit)
    show(answer, as_json)


@app.command(epilog=EXAMPLES)
def sample(
    data: Data = DEFAULT_DATA,
    count: Annotated[int, typer.Option(min=1, max=100_000)] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same episodes.")] = 0,
    where: Where = "true",
    robot: Robot = "",
    since: Since = "",
    until: Until = "",
    as_json: AsJson = False,
) -> None:
    """Episodes drawn at random."""
    with clear_errors(), _open(data, robot, since, until) as store:
        answer = store.sample(count, seed, where)
    show(answer, as_json)


@app.command(epilog=EXAMPLES)
def export(
    out: Annotated[Path, typer.Argument(help="File to write, .parquet or .csv.")],
    data: Data = DEFAULT_DATA,
    where: Where = "true",
    robot: Robot = "",
    since: Since = "",
    until: Until = "",
) -> None:
    """Write every decision of the chosen episodes into one file."""
    with clear_errors(), _open(data, robot, since, until) as store:
        rows = store.export(out, where)
    typer.echo(f"{rows} decisions in {out}")


def show(answer: "Answer", as_json: bool) -> None:
    """Rows as JSON (columns, rows, more) or as a table."""
    if as_json:
        import msgspec

        found = {"columns": answer.columns, "rows": answer.rows, "more": answer.more}
        typer.echo(msgspec.json.encode(found, enc_hook=str).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*answer.columns, box=None)
    for row in answer.rows:
        table.add_row(*(_text(value) for value in row))
    console = Console()
    console.print(table)
    console.print(f"{len(answer.rows)} rows" + (", and more: --limit" if answer.more else ""))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return "-" if value is None else str(value)


def _open(data: Path, robot: str, since: str, until: str) -> "ReplayStore":
    from contracts.replay import STORE_FOLDER, WALL_MAX_NS
    from fleet_hub.store.query import ReplayStore

    span = (_wall_ns(since, 0), _wall_ns(until, WALL_MAX_NS))
    return ReplayStore(data / STORE_FOLDER, robot, *span)


def _wall_ns(text: str, otherwise: int) -> int:
    if not text:
        return otherwise
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"expected a time as 2026-11-23T10:00, came {text[:40]!r}", USAGE_ERROR) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e9)
