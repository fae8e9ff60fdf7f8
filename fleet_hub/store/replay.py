"""Ingest: closed segments of the intake's logs become immutable Parquet files, each named once in a catalogue.

A batch of one log is written to temporary files, synced, renamed, and then named in one transaction together with how
far the log has been taken. A crash anywhere before leaves files that nobody reads; the next ingest removes them and
takes the same records again. One process writes a store; it runs beside the hub and only reads the hub's files.
"""

import fcntl
import hashlib
import os
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.atomic import sync_folder
from contracts.bundle import MANIFEST_MEMBER
from contracts.decision import digest_runs
from contracts.errors import BundleError, LogFormatError
from contracts.framelog import Segment
from contracts.manifest import Manifest, decode_manifest
from contracts.replay import (
    CATALOGUE_FILE,
    CATALOGUE_VERSION,
    KINDS,
    STORE_FOLDER,
    StoredFile,
    StoredPolicy,
    stored_files,
)
from fleet_hub.errors import DataFolderError, StoreBusyError
from fleet_hub.observe.drift import Drift
from fleet_hub.rollout.trips import Records, Trip, TripWatch, end_ns
from fleet_hub.store.columns import MINUTE_NS, as_today, decision_table, episode_table, minute_table
from fleet_hub.store.segments import (
    BATCH_SEGMENTS_MAX,
    BATCH_SEGMENTS_MIN,
    Stretch,
    closed_segments,
    first_seq,
    read_stretch,
)
from fleet_hub.store.tombstones import Tombstone, may_stay, tombstones, touched

CONTEXT_RECORDS = 6_000
"""Read again before a batch, for a trip that was under way: two longest trips at 50 Hz."""
ROW_GROUP_ROWS = 8_192
CATALOGUE_BUSY_S = 30.0
MINUTE_FILES_MAX = 8
"""Of one day; more are merged into one."""
DRIFTS_MAX = 64
"""Policies whose references are kept in memory."""
DAYS_MAX = 64
"""Of one batch; a robot whose clock gives more has none: all of it goes to 1970-01-01."""
_DAY_NS = 86_400 * 10**9
_SCHEMA = f"""
CREATE TABLE file (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL UNIQUE, robot TEXT NOT NULL,
    log_id TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, first_wall_ns INTEGER NOT NULL,
    last_wall_ns INTEGER NOT NULL, rows INTEGER NOT NULL, day TEXT NOT NULL, policy_digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL) STRICT;
CREATE INDEX file_robot ON file (kind, robot, last_wall_ns);
CREATE TABLE log (
    robot TEXT NOT NULL, log_id TEXT NOT NULL, last_seq INTEGER NOT NULL, missing INTEGER NOT NULL,
    PRIMARY KEY (robot, log_id)) STRICT;
CREATE TABLE policy (
    policy_digest TEXT PRIMARY KEY, policy_name TEXT NOT NULL, policy_version TEXT NOT NULL,
    release_counter INTEGER NOT NULL, training_run_digest TEXT NOT NULL, weights_hash TEXT NOT NULL,
    floors_hash TEXT NOT NULL, reward_hash TEXT NOT NULL) STRICT;
PRAGMA user_version = {CATALOGUE_VERSION};
"""


class Ingested(msgspec.Struct):
    """What one pass took."""

    files: int = 0
    records: int = 0
    episodes: int = 0
    missing: int = 0
    """Numbers without a record: lost on a robot, or damaged in the hub's log."""
    unreadable: list[str] = []
    """Logs that were left alone, and why."""


class _Group(NamedTuple):
    """The records and trips of one day and policy."""

    day: str
    digest: str
    records: Records
    seqs: "np.ndarray[Any, np.dtype[np.int64]]"
    trips: list[Trip]
    ended: list[Trip]


class DriftReferences:
    """By which policies' observations are judged; read from the hub's bundles when first asked for."""

    def __init__(self, bundles: Path) -> None:
        """``bundles`` is the hub's folder."""
        self._bundles = bundles
        self._known: dict[str, Drift | None] = {}

    def of(self, digest: str) -> Drift | None:
        """A policy's; None where the hub has no such reference."""
        if digest not in self._known:
            if len(self._known) >= DRIFTS_MAX:
                self._known.clear()
            manifest = _manifest_of(self._bundles / f"{digest}.outrider")
            usual = manifest.drift_reference if manifest else None
            self._known[digest] = None if usual is None else Drift(usual)
        return self._known[digest]


class Ingest:
    """The one writer of a hub's replay store; a context manager."""

    def __init__(self, data: Path) -> None:
        """Open or make DATA/store and remove what a crash left there.

        Raises:
            DataFolderError: ``data`` is no hub's folder, or holds a catalogue that is none.
            StoreBusyError: Another process ingests into it.
        """
        self.data, self._telemetry, self._bundles = data, data / "telemetry", data / "bundles"
        self._stones: list[Tombstone] = []
        self._drifts = DriftReferences(data / "bundles")
        if not self._telemetry.is_dir():
            raise DataFolderError(f"{data} has no telemetry folder; give the hub's --data folder")
        self.store = data / STORE_FOLDER
        self._temporary = self.store / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.store / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._catalogue = _open_catalogue(self.store / CATALOGUE_FILE)
        except BlockingIOError:
            os.close(self._lock)
            raise StoreBusyError(f"another process ingests into {self.store}; let it end") from None
        except DataFolderError:
            os.close(self._lock)
            raise
        self._remove_orphans()

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._catalogue.close()
        os.close(self._lock)

    def run(
        self,
        all_now: bool = False,
        wall_ns: int | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Ingested:
        """Take every log's closed segments; with ``all_now`` what is still being written too, small files or not.

        ``stopping`` is asked between two batches.

        Raises:
            OSError: The disk refused; what was taken before stays.
        """
        self._remove_orphans()
        self._stones = tombstones(self.data)
        found, now_ns = Ingested(), time.time_ns() if wall_ns is None else wall_ns
        for folder in sorted(self._telemetry.glob("*/*")):
            try:
                while not stopping() and self._take_batch(folder, now_ns, all_now, found):
                    pass
            except LogFormatError as error:
                found.unreadable.append(f"{folder.parent.name}/{folder.name}: {error}")
        self._merge_minutes()
        self._learn_policies()
        return found

    def _take_batch(self, folder: Path, now_ns: int, all_now: bool, found: Ingested) -> bool:
        """One batch of one log; whether there may be another."""
        robot, log_id = folder.parent.name, folder.name
        high = self.taken(robot, log_id)
        closed = closed_segments(folder, now_ns / 1e9, all_now)
        ends = [first_seq(segment) - 1 for segment in closed[1:]]
        done = sum(end <= high for end in ends)
        waiting = closed[done:]
        quiet = len(waiting) > 0 and closed_segments(folder, now_ns / 1e9, True) == closed
        if not waiting or (len(waiting) < BATCH_SEGMENTS_MIN and not quiet):
            return False
        batch, more = waiting[:BATCH_SEGMENTS_MAX], len(waiting) > BATCH_SEGMENTS_MAX
        stretch = read_stretch(_with_context(closed[:done], high) + batch, max(0, high - CONTEXT_RECORDS))
        last_seq = _cut(stretch, high, more, None if all_now else now_ns)
        if last_seq <= high:
            return False
        self._write(robot, log_id, stretch, high, last_seq, found)
        return more

    def _write(
        self, robot: str, log_id: str, stretch: Stretch, high: int, last_seq: int, found: Ingested
    ) -> None:
        """Files of the records behind ``high`` up to ``last_seq``, then their names in one transaction."""
        upto = stretch.seqs <= last_seq
        trips = TripWatch().add(stretch.records[upto], stretch.seqs[upto])
        trips = [
            trip
            for trip in trips
            if trip.last_seq > high and not touched(self._stones, robot, trip.began_wall_ns, end_ns(trip))
        ]
        own = upto & (stretch.seqs > high) & may_stay(self._stones, robot, stretch.records["wall_ns"])
        files: list[StoredFile] = []
        for group in _groups(stretch.records[own], stretch.seqs[own], trips):
            files += self._write_group(robot, log_id, group)
        missing = last_seq - high - int(((stretch.present > high) & (stretch.present <= last_seq)).sum())
        with self._transaction():
            self._name_files(files)
            self._catalogue.execute(
                "INSERT INTO log VALUES (?, ?, ?, ?) ON CONFLICT (robot, log_id) DO UPDATE SET "
                "last_seq = excluded.last_seq, missing = missing + excluded.missing",
                (robot, log_id, last_seq, missing),
            )
        found.files += len(files)
        found.records += int(own.sum())
        found.episodes += len(trips)
        found.missing += missing

    def _write_group(self, robot: str, log_id: str, group: _Group) -> Iterator[StoredFile]:
        records, seqs, digest = group.records, group.seqs, group.digest
        tables = {
            "decisions": decision_table(robot, log_id, digest, records, seqs),
            "episodes": episode_table(robot, log_id, group.trips),
            "minutes": minute_table(robot, log_id, digest, records, group.ended, self._drifts.of(digest)),
        }
        times = np.concatenate([records["wall_ns"], [end_ns(t) for t in group.ended]]).astype(np.int64)
        spans = {
            "decisions": (seqs, records["wall_ns"]),
            "episodes": (
                np.array([(trip.first_seq, trip.last_seq) for trip in group.trips]),
                np.array([(trip.began_wall_ns, end_ns(trip)) for trip in group.trips]),
            ),
            "minutes": (
                np.concatenate([seqs, [t.last_seq for t in group.ended]]).astype(np.int64),
                times // MINUTE_NS * MINUTE_NS,
            ),
        }
        for kind in KINDS:
            table, (numbers, walls) = tables[kind], spans[kind]
            if not table.num_rows:
                continue
            first, last = int(numbers.min()), int(numbers.max())
            below = f"{kind}/day={group.day}/policy={digest[:12] or 'none'}"
            path = f"{below}/{robot}-{log_id[:12]}-{first:012d}-{last:012d}.parquet"
            size, sha256 = self._write_file(table, self.store / path)
            wall = (int(walls.min()), int(walls.max()))
            yield StoredFile(
                kind, path, robot, log_id, first, last, *wall, table.num_rows, group.day, digest, size, sha256
            )

    def taken(self, robot: str, log_id: str) -> int:
        """Up to which number a log has been taken."""
        rows = self._catalogue.execute(
            "SELECT last_seq FROM log WHERE robot = ? AND log_id = ?", (robot, log_id)
        ).fetchall()
        return int(rows[0][0]) if rows else 0

    def replace(self, file: StoredFile, left: Any) -> StoredFile | None:
        """Name what is left of a file instead of it, and remove it; None where nothing is left."""
        fresh = None
        if left.num_rows:
            stem, _, turn = Path(file.path).stem.partition("~")
            path = str(Path(file.path).with_name(f"{stem}~{int(turn or 0) + 1}.parquet"))
            size, sha256 = self._write_file(as_today(file.kind, left), self.store / path)
            fresh = msgspec.structs.replace(
                file, path=path, rows=left.num_rows, size_bytes=size, sha256=sha256
            )
        with self._transaction():
            self._catalogue.execute("DELETE FROM file WHERE path = ?", (file.path,))
            self._name_files([fresh] if fresh else [])
        (self.store / file.path).unlink(missing_ok=True)
        return fresh

    def forget(self, name: str, path: Path) -> None:
        """Remove a file, and its name ("" for one that has none here)."""
        if name:
            self._catalogue.execute("DELETE FROM file WHERE path = ?", (name,))
        path.unlink(missing_ok=True)

    def _write_file(self, table: Any, path: Path) -> tuple[int, str]:
        """Write, sync, rename, sync the folders; returns size and SHA-256."""
        temporary = self._temporary / path.name
        pq.write_table(table, temporary, row_group_size=ROW_GROUP_ROWS, compression="zstd")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        fresh = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(path)
        for folder in (path.parent, *(folder.parent for folder in fresh)):
            sync_folder(folder)
        return path.stat().st_size, sha256

    def _merge_minutes(self) -> None:
        """One file of a day's minutes instead of many: a chart opens all of them.

        The files it replaces are removed with the next pass: who reads them now may end.
        """
        many = "SELECT day FROM file WHERE kind = 'minutes' GROUP BY day HAVING COUNT(*) > ?"
        for (day,) in self._catalogue.execute(many, (MINUTE_FILES_MAX,)).fetchall():
            files = [file for file in stored_files(self.store, "minutes") if file.day == day]
            tables = [as_today("minutes", pq.ParquetFile(self.store / file.path).read()) for file in files]
            table = pa.concat_tables(tables).sort_by("minute_wall_ns")
            name = hashlib.sha256("\n".join(file.path for file in files).encode()).hexdigest()[:32]
            path = f"minutes/day={day}/policy=all/{name}.parquet"
            size, sha256 = self._write_file(table, self.store / path)
            seqs = min(file.first_seq for file in files), max(file.last_seq for file in files)
            walls = min(file.first_wall_ns for file in files), max(file.last_wall_ns for file in files)
            merged = StoredFile("minutes", path, "", "", *seqs, *walls, table.num_rows, day, "", size, sha256)
            with self._transaction():
                self._catalogue.executemany(
                    "DELETE FROM file WHERE path = ?", [(file.path,) for file in files]
                )
                self._name_files([merged])

    def _name_files(self, files: list[StoredFile]) -> None:
        columns = StoredFile.__struct_fields__
        self._catalogue.executemany(
            f"INSERT INTO file ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            [msgspec.structs.astuple(file) for file in files],
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._catalogue.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._catalogue.execute("ROLLBACK")
            raise
        self._catalogue.execute("COMMIT")

    def _remove_orphans(self) -> None:
        """Remove files that the catalogue does not name: a crash came before, or they were merged."""
        named = {row[0] for row in self._catalogue.execute("SELECT path FROM file")}
        left = [path for kind in KINDS for path in (self.store / kind).glob("*/*/*.parquet")]
        for path in [*self._temporary.iterdir(), *left]:
            if str(path.relative_to(self.store)) not in named:
                path.unlink()

    def _learn_policies(self) -> None:
        """What the catalogue's digests stand for, from the bundles that the hub verified."""
        digests = self._catalogue.execute(
            "SELECT DISTINCT policy_digest FROM file WHERE kind = 'decisions' AND policy_digest NOT IN "
            "(SELECT policy_digest FROM policy WHERE policy_name != '')"
        ).fetchall()
        columns = StoredPolicy.__struct_fields__
        for (digest,) in digests:
            policy = _policy_of(digest, self._bundles / f"{digest}.outrider")
            self._catalogue.execute(
                f"INSERT OR REPLACE INTO policy ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                msgspec.structs.astuple(policy),
            )


def _open_catalogue(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=CATALOGUE_BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    except sqlite3.Error as error:
        connection.close()
        raise DataFolderError(f"{path} is no catalogue ({error}); move it away and ingest anew") from None
    if version not in (0, CATALOGUE_VERSION):
        connection.close()
        raise DataFolderError(
            f"{path}: expected version {CATALOGUE_VERSION}, came {version}; update outrider"
        )
    return connection


def _with_context(done: list[Segment], high: int) -> list[Segment]:
    """Of the segments taken before, those with the last CONTEXT_RECORDS."""
    begin = len(done)
    while begin > 0 and (begin == len(done) or first_seq(done[begin]) > high - CONTEXT_RECORDS):
        begin -= 1
    return done[begin:]


def _cut(stretch: Stretch, high: int, more: bool, now_ns: int | None) -> int:
    """Up to which number to take: whole minutes where records follow, and not the minute that is under way."""
    if not len(stretch.present):
        return high
    last_seq, minutes = int(stretch.present[-1]), stretch.records["wall_ns"] // MINUTE_NS
    new = stretch.seqs > high
    if not new.any() or not (more or (now_ns is not None and minutes[-1] == now_ns // MINUTE_NS)):
        return last_seq
    before = new & (minutes != minutes[-1])
    if before.any():
        return int(stretch.seqs[np.flatnonzero(before)[-1]])
    return last_seq if more else high


def _groups(records: Records, seqs: Any, trips: list[Trip]) -> Iterator[_Group]:
    """Records and trips by day and policy."""
    days = records["wall_ns"] // _DAY_NS
    if len(np.unique(days)) > DAYS_MAX:
        days = np.zeros_like(days)
    texts: list[str] = []
    which = np.zeros(len(records), dtype=np.int64)
    keys: set[tuple[int, str]] = set()
    for start, stop, digest in digest_runs(records["policy_digest"]):
        if digest not in texts:
            texts.append(digest)
        which[start:stop] = texts.index(digest)
        keys |= {(day, digest) for day in np.unique(days[start:stop]).tolist()}
    keys |= {(trip.began_wall_ns // _DAY_NS, trip.policy) for trip in trips}
    keys |= {(end_ns(trip) // _DAY_NS, trip.policy) for trip in trips}
    for day, digest in sorted(keys):
        here = (
            (days == day) & (which == texts.index(digest)) if digest in texts else np.zeros(len(days), bool)
        )
        began = [t for t in trips if (t.began_wall_ns // _DAY_NS, t.policy) == (day, digest)]
        ended = [t for t in trips if (end_ns(t) // _DAY_NS, t.policy) == (day, digest)]
        yield _Group(str(np.datetime64(day, "D")), digest, records[here], seqs[here], began, ended)


def _manifest_of(bundle: Path) -> Manifest | None:
    """A bundle's manifest; the hub has verified it when it took it in."""
    try:
        with zipfile.ZipFile(bundle) as file:
            return decode_manifest(file.read(MANIFEST_MEMBER))
    except (OSError, KeyError, zipfile.BadZipFile, BundleError):
        return None


def _policy_of(digest: str, bundle: Path) -> StoredPolicy:
    """What a bundle says about itself."""
    manifest = _manifest_of(bundle)
    if manifest is None:
        return StoredPolicy(digest)
    return StoredPolicy(
        digest,
        manifest.policy_name,
        manifest.version,
        manifest.release_counter,
        manifest.training_run_digest,
        manifest.training.weights_hash,
        manifest.training.floors_hash,
        manifest.training.reward_hash,
    )
