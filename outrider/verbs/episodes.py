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
REASON_MAX_CHARS = 500
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
    with clear_errors():
        while True:
            with Ingest(data) as store:  # locked for a pass only: others get their turn
                found = store.run(all_now, stopping=stop.is_set)
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


@app.command(epilog="Example:  outrider episodes retain --data hub --rules retention.yaml --dry-run")
def retain(
    rules: Annotated[Path, typer.Option(help="YAML: what is kept how long, and holds.")],
    data: Data = DEFAULT_DATA,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what the rules do not keep: by class, age and size, never what is held. Runs beside the hub."""
    import msgspec

    from fleet_hub.store.retention import load_retention
    from fleet_hub.store.retention import retain as retain_now

    with clear_errors():
        found = retain_now(data, load_retention(rules), dry_run=dry_run)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    goes = "would go" if dry_run else "removed"
    for one in found:
        typer.echo(
            f"{one.data:10} {one.files} files, {one.size_bytes / 1e6:,.1f} MB; {goes}: {one.removed_files} files, "
            f"{one.removed_bytes / 1e6:,.1f} MB; held: {one.held_files}"
        )


@app.command(epilog='Example:  outrider episodes erase --data hub --robot robot_3 --reason "request 17"')
def erase(
    robot: Annotated[str, typer.Option(help="Whose records.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the audit log.")],
    data: Data = DEFAULT_DATA,
    since: Annotated[
        str, typer.Option(help="From this time on, 2026-11-23T10:00 (UTC, the robot's clock).")
    ] = "",
    until: Annotated[str, typer.Option(help="Up to this time.")] = "",
    who: Annotated[str, typer.Option(help="Who asks for it.", envvar="USER")] = "operator",
    as_json: AsJson = False,
) -> None:
    """Erase what a robot recorded, at the hub, for good; writes a receipt. The hub must not run meanwhile.

    The robot keeps its own log, and its records wait there until the hub runs again.
    """
    import re

    import msgspec

    from contracts.keyring import ROBOT_ID_PATTERN
    from contracts.replay import WALL_MAX_NS
    from fleet_hub.store.erasure import erase as erase_now
    from fleet_hub.store.tombstones import Tombstone

    if not re.match(ROBOT_ID_PATTERN, robot) or not reason.strip() or len(reason) > REASON_MAX_CHARS:
        raise fail(
            f"--robot: expected a robot's name; --reason: 1 to {REASON_MAX_CHARS} characters", USAGE_ERROR
        )
    what = Tombstone(robot, wall_ns(since, 0), wall_ns(until, WALL_MAX_NS))
    if what.since_ns > what.until_ns:
        raise fail("--since is after --until; nothing was erased", USAGE_ERROR)
    if not (data / "telemetry" / robot).is_dir():
        raise fail(f"{data} has no records of {robot}; nothing was erased")
    with clear_errors():
        receipt, path = erase_now(data, what, who[:128], reason)
    if as_json:
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(receipt), "receipt": str(path)}).decode())
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in receipt.rows.items())
    typer.echo(f"erased: {counts}, {receipt.records} records of the intake, {receipt.trips} trips")
    typer.echo(f"not reached: {receipt.not_reached}")
    typer.echo(f"receipt {path}; audit entries {receipt.audit_seq} and the one after it bear its hash")


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

    span = (wall_ns(since, 0), wall_ns(until, WALL_MAX_NS))
    return ReplayStore(data / STORE_FOLDER, robot, *span)


def wall_ns(text: str, otherwise: int) -> int:
    """A time as a person wrote it, ns since 1970; UTC where no zone is named."""
    if not text:
        return otherwise
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"expected a time as 2026-11-23T10:00, came {text[:40]!r}", USAGE_ERROR) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e9)
