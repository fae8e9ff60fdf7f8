"""What the hub's database costs: robots' reports, a thousand to a transaction, and audited acts, one to a transaction.

    python -m benchmarks.hub_database --quick

The same statements through bare ``sqlite3``, through the hub's SQLite, and, where OUTRIDER_DATABASE names an EMPTY
PostgreSQL database, through that. Medians of rounds taken in turns, so that other work on the machine meets all alike.
"""

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks._report import quick_asked, report
from fleet_hub.rollout.events import Left
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database

REPORTS = 1000
ACTS = 20
NOTE = (
    "INSERT INTO robot VALUES (?, ?, ?, ?, ?) ON CONFLICT (robot) DO UPDATE SET active_digest = "
    "excluded.active_digest, active_version = excluded.active_version, log_id = excluded.log_id, "
    "seen_wall_ns = excluded.seen_wall_ns"
)
Round = Callable[[], tuple[float, float]]
"""Seconds of a report, seconds of an act."""


def through(database: Database) -> Round:
    """Rounds through the hub's own classes."""
    audit = AuditLog(database, time.time_ns)

    def one() -> tuple[float, float]:
        began = time.perf_counter()
        database.hold()
        for number in range(REPORTS):
            database.run(NOTE, f"robot_{number}", "d" * 64, "v1", "log", time.time_ns())
        database.commit()
        middle = time.perf_counter()
        for number in range(ACTS):
            with database.transaction():
                audit.append("anna", Left(f"robot_{number}"))
        return (middle - began) / REPORTS, (time.perf_counter() - middle) / ACTS

    return one


def bare(connection: sqlite3.Connection) -> Round:
    """The same rows, without classes, hashes or SQLAlchemy."""

    def one() -> tuple[float, float]:
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for number in range(REPORTS):
            connection.execute(NOTE, (f"robot_{number}", "d" * 64, "v1", "log", time.time_ns()))
        connection.execute("COMMIT")
        middle = time.perf_counter()
        for _ in range(ACTS):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO audit SELECT MAX(seq) + 1, 0, 0, '', '', '', '' FROM audit")
            connection.execute("COMMIT")
        return (middle - began) / REPORTS, (time.perf_counter() - middle) / ACTS

    return one


def main() -> None:
    """Print two lines a database."""
    rounds = 7 if quick_asked(__doc__ or "") else 41
    shared = os.environ.get("OUTRIDER_DATABASE", "")
    with tempfile.TemporaryDirectory() as folder, closing(Database(Path(folder) / "hub.sqlite")) as own:
        AuditLog(own, time.time_ns).append("anna", Left("robot_1"))
        Database(Path(folder) / "bare.sqlite").close()
        plain = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
        plain.execute("PRAGMA synchronous = FULL")
        plain.execute("INSERT INTO audit VALUES (1, 0, 0, '', '', '', '')")
        ways = {"bare": bare(plain), "sqlite": through(own)}
        served = Database(Path(folder) / "none", shared, "benchmark") if shared else None
        if served:
            ways["postgresql"] = through(served)
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                took[name].append(way())
        plain.close()
        if served:
            served.close()
    middle = {
        name: [statistics.median(column) for column in zip(*all_, strict=True)] for name, all_ in took.items()
    }
    for name, (report_s, act_s) in middle.items():
        if name != "bare":
            about = f"{name}; the reference is bare sqlite3 in the same run"
            report(
                f"database.{name}_report_us", report_s * 1e6, "us", "lower", middle["bare"][0] * 1e6, about
            )
            report(f"database.{name}_act_ms", act_s * 1e3, "ms", "lower", middle["bare"][1] * 1e3, about)


if __name__ == "__main__":
    main()
