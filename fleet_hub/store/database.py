"""The hub's SQLite database: WAL, synchronous FULL: what was answered survives ``kill -9`` and power cuts."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_hub.errors import DataFolderError
from fleet_hub.limits import DATABASE_BUSY_MS

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE release (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, policy_name TEXT NOT NULL, version TEXT NOT NULL,
    release_counter INTEGER NOT NULL, size_bytes INTEGER NOT NULL, released_wall_ns INTEGER NOT NULL,
    UNIQUE (policy_name, release_counter)) STRICT;
CREATE TABLE rollout (
    id INTEGER PRIMARY KEY AUTOINCREMENT, release INTEGER NOT NULL REFERENCES release (id),
    started_wall_ns INTEGER NOT NULL) STRICT;
CREATE TABLE rollout_robot (
    rollout INTEGER NOT NULL REFERENCES rollout (id), robot TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, updated_wall_ns INTEGER NOT NULL, PRIMARY KEY (rollout, robot)) STRICT;
CREATE TABLE robot (
    robot TEXT PRIMARY KEY, active_digest TEXT NOT NULL, active_version TEXT NOT NULL, log_id TEXT NOT NULL,
    seen_wall_ns INTEGER NOT NULL) STRICT;
"""


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
            if version == 0:
                self._connection.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
            elif version != SCHEMA_VERSION:
                raise DataFolderError(
                    f"{path}: expected schema {SCHEMA_VERSION}, came {version}; update outrider"
                )
        except sqlite3.Error as error:
            raise DataFolderError(
                f"{path} is no hub database ({error}); give another --data folder"
            ) from None

    def rows(self, query: str, *values: str | int) -> list[tuple[str | int, ...]]:
        """All rows of a query."""
        return self._connection.execute(query, values).fetchall()

    def run(self, statement: str, *values: str | int) -> int:
        """Execute one statement; returns the id of an inserted row."""
        return self._connection.execute(statement, values).lastrowid or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside, or none."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
