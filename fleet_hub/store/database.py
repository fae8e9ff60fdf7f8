"""The hub's SQLite database: WAL, synchronous FULL: what was answered survives ``kill -9`` and power cuts."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleet_hub.errors import DataFolderError
from fleet_hub.limits import DATABASE_BUSY_MS

SCHEMA_VERSION = 4
_SCHEMA = """
CREATE TABLE release (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, policy_name TEXT NOT NULL, version TEXT NOT NULL,
    release_counter INTEGER NOT NULL, size_bytes INTEGER NOT NULL, released_wall_ns INTEGER NOT NULL,
    UNIQUE (policy_name, release_counter)) STRICT;
CREATE TABLE robot (
    robot TEXT PRIMARY KEY, active_digest TEXT NOT NULL, active_version TEXT NOT NULL, log_id TEXT NOT NULL,
    seen_wall_ns INTEGER NOT NULL) STRICT;
"""
_ROLLOUT_SCHEMA = """
CREATE TABLE plan (
    plan_digest TEXT PRIMARY KEY, plan BLOB NOT NULL, seen_wall_ns INTEGER NOT NULL) STRICT;
CREATE TABLE approval (
    plan_digest TEXT NOT NULL REFERENCES plan (plan_digest), person TEXT NOT NULL, paper BLOB NOT NULL,
    PRIMARY KEY (plan_digest, person)) STRICT;
CREATE TABLE rollout (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    plan_digest TEXT NOT NULL UNIQUE REFERENCES plan (plan_digest)) STRICT;
CREATE TABLE witness (
    plan_digest TEXT NOT NULL, stage INTEGER NOT NULL, robot TEXT NOT NULL, paper BLOB NOT NULL,
    PRIMARY KEY (plan_digest, stage, robot)) STRICT;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, wall_ns INTEGER NOT NULL, rollout INTEGER NOT NULL, who TEXT NOT NULL,
    body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
CREATE INDEX audit_rollout ON audit (rollout, seq);
CREATE TABLE trip (
    robot TEXT NOT NULL, log_id TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    began_wall_ns INTEGER NOT NULL, trip BLOB NOT NULL, PRIMARY KEY (robot, log_id, first_seq)) STRICT;
CREATE INDEX trip_time ON trip (robot, began_wall_ns);
"""
_MEMBER_SCHEMA = """
CREATE TABLE member (
    key TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, card BLOB NOT NULL,
    since_wall_ns INTEGER NOT NULL) STRICT;
CREATE TABLE token (
    token TEXT PRIMARY KEY, robot TEXT NOT NULL, voucher BLOB NOT NULL, issued_by TEXT NOT NULL,
    expires_wall_ns INTEGER NOT NULL, binding BLOB NOT NULL) STRICT;
"""
_ERASURE_SCHEMA = """
CREATE TABLE erasure (
    id TEXT PRIMARY KEY, robot TEXT NOT NULL, paper BLOB NOT NULL, ordered_wall_ns INTEGER NOT NULL,
    state TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, records INTEGER NOT NULL,
    receipt TEXT NOT NULL) STRICT;
CREATE INDEX erasure_robot ON erasure (robot, state);
CREATE TABLE erasure_work (
    began INTEGER PRIMARY KEY, id TEXT NOT NULL REFERENCES erasure (id), trips INTEGER NOT NULL,
    done INTEGER NOT NULL, records INTEGER NOT NULL) STRICT;
"""
_NEWEST = _MEMBER_SCHEMA + _ERASURE_SCHEMA
_FROM_VERSION_1 = "DROP TABLE rollout_robot; DROP TABLE rollout;" + _ROLLOUT_SCHEMA + _NEWEST
"""Rollouts of before had no approvals to go on with; releases and robots stay."""
_MIGRATIONS = {0: _SCHEMA + _ROLLOUT_SCHEMA + _NEWEST, 1: _FROM_VERSION_1, 2: _NEWEST, 3: _ERASURE_SCHEMA}
Value = str | int | bytes


class Database:
    """One connection, used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the database; raises DataFolderError for one of another version."""
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=DATABASE_BUSY_MS / 1000)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            script = _MIGRATIONS.get(version)
            if script:
                self._connection.executescript(
                    f"BEGIN; {script} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
            elif version != SCHEMA_VERSION:
                raise DataFolderError(
                    f"{path}: expected schema {SCHEMA_VERSION}, came {version}; update outrider"
                )
        except sqlite3.Error as error:
            raise DataFolderError(
                f"{path} is no hub database ({error}); give another --data folder"
            ) from None

    def rows(self, query: str, *values: Value) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._connection.execute(query, values).fetchall()

    def run(self, statement: str, *values: Value) -> int:
        """Execute one statement; returns the id of an inserted row."""
        return self._connection.execute(statement, values).lastrowid or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside, or none; inside another transaction, all of that one."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def hold(self) -> None:
        """Let what follows be one transaction, until ``commit``: a thousand reports cost one sync, not a thousand."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make durable what was held; nothing of it may have been told to anybody before."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
