"""The replay store's layout: what the hub writes, and the hub's queries and the trainer read.

    STORE/catalogue.sqlite                                            which files count, and where their rows come from
    STORE/KIND/day=2026-11-23/policy=0123456789ab/ROBOT-LOG-FIRST-LAST.parquet       never changed once written

A file that the catalogue does not name is none: it was left by a crash, and goes with the next ingest.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import StoreFormatError

STORE_FOLDER = "store"
"""Where it is in a hub's data folder."""
CATALOGUE_FILE = "catalogue.sqlite"
CATALOGUE_VERSION = 1
KINDS = ("decisions", "episodes", "minutes")
WALL_MAX_NS = 2**63 - 1


class StoredFile(msgspec.Struct, frozen=True):
    """One file and its lineage: a robot's records ``first_seq`` to ``last_seq`` that one policy was asked in."""

    kind: str
    path: str
    """Below the store's folder."""
    robot: str
    """"" for minutes of several robots, as are ``log_id`` and ``policy_digest`` then: their rows name them."""
    log_id: str
    first_seq: int
    last_seq: int
    first_wall_ns: int
    last_wall_ns: int
    """The robot's own clock."""
    rows: int
    day: str
    """UTC, as in 2026-11-23."""
    policy_digest: str
    """Of the bundle; "" is none."""
    size_bytes: int
    sha256: str


class StoredPolicy(msgspec.Struct, frozen=True):
    """What the bundle behind a digest says about itself; empty where the hub has no such bundle."""

    policy_digest: str
    policy_name: str = ""
    policy_version: str = ""
    release_counter: int = 0
    training_run_digest: str = ""
    weights_hash: str = ""
    floors_hash: str = ""
    reward_hash: str = ""


def stored_files(
    store: Path, kind: str, robot: str = "", since_ns: int = 0, until_ns: int = WALL_MAX_NS
) -> list[StoredFile]:
    """Files of a kind that may hold rows of a robot ("" is all) in [since_ns, until_ns]; raises StoreFormatError."""
    rows = _rows(
        store,
        f"SELECT {', '.join(StoredFile.__struct_fields__)} FROM file WHERE kind = ? "
        "AND (robot = '' OR ? IN ('', robot)) AND last_wall_ns >= ? AND first_wall_ns <= ? "
        "ORDER BY robot, log_id, first_seq",
        (kind, robot, since_ns, until_ns),
    )
    return [StoredFile(*row) for row in rows]


def oldest_file(store: Path, kind: str) -> str:
    """The path of the file of a kind that was written first, "" for none: all later ones have its columns at least."""
    rows = _rows(store, "SELECT path FROM file WHERE kind = ? ORDER BY id LIMIT 1", (kind,))
    return str(rows[0][0]) if rows else ""


def stored_policies(store: Path) -> list[StoredPolicy]:
    """Every policy that records name; raises StoreFormatError."""
    rows = _rows(store, f"SELECT {', '.join(StoredPolicy.__struct_fields__)} FROM policy ORDER BY 1", ())
    return [StoredPolicy(*row) for row in rows]


def _rows(store: Path, query: str, values: tuple[str | int, ...]) -> list[tuple[Any, ...]]:
    path = store / CATALOGUE_FILE
    if not path.is_file():
        raise StoreFormatError(
            f"no replay store at {store}; make it from the hub's records: outrider episodes ingest --data DATA"
        )
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != CATALOGUE_VERSION:
                raise StoreFormatError(
                    f"{path}: expected version {CATALOGUE_VERSION}, came {version}; use the outrider that wrote it"
                )
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise StoreFormatError(
            f"{path} is no catalogue ({error}); restore it, or ingest into another"
        ) from None
