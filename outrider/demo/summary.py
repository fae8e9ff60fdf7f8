"""The end of the demonstration: a summary on the terminal, ``summary.json``, ``facts.json`` and ``report.html``."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from outrider.demo import watch
from outrider.demo.outcome import Outcome, read_drive, read_outcome
from outrider.demo.page import report_page
from outrider.demo.run import Demo
from outrider.demo.settings import ROBOTS
from outrider.demo.words import DRIVEN_HEAD, EVALUATED_HEAD, driven_cells, evaluated_cells, plain_lines


def finish(demo: Demo, total_s: float) -> Outcome:
    """Read everything back from disk, write it as JSON and as a page, print the summary."""
    drive = read_drive(demo)
    outcome = read_outcome(demo, drive, total_s)
    for name, value in (("summary.json", outcome), ("facts.json", demo.facts)):
        (demo.folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(value)))
    (demo.folder / "report.html").write_text(report_page(demo, outcome, drive), encoding="utf-8")
    print_summary(demo.console, demo.folder, outcome)
    return outcome


def print_summary(console: Console, folder: Path, outcome: Outcome) -> None:
    """The figures, as tables for the terminal."""
    console.print(
        _table(
            "Evaluation: PyBullet, unseen floors, same orders, people and monitor",
            EVALUATED_HEAD,
            [evaluated_cells(row) for row in outcome.evaluation],
        )
    )
    driven = [driven_cells(row) for row in outcome.driven]
    console.print(_table("Driven through ROS 2 (simulation time)", DRIVEN_HEAD, driven))
    told = [watch.metric_cells(row) for row in outcome.metrics]
    console.print(_table("The hub's /metrics, scraped once at the end", watch.METRIC_HEAD, told))
    for line in plain_lines(outcome):
        console.print(line, highlight=False, soft_wrap=True)
    report, own_log = folder / "report.html", f"outrider logs summary {folder / ROBOTS[0]}"
    console.print(f"\nReport: [bold]{report}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"A robot's own log: {own_log}", highlight=False, soft_wrap=True)


def _table(title: str, head: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is its label."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
