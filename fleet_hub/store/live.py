"""Figures of what the ingest has not taken yet: logs are read on from where they were read last, minute by minute.

The store takes a log four closed segments at a time, up to an hour late at 20 Hz. Until then its minutes and trips are
reckoned here, in the ingest's process, from the intake's own files and kept in memory; whatever the store has taken is
forgotten here, so that nothing counts twice. Robots over ``LOGS_MAX``, or what ``READ_MAX_BYTES`` does not reach in one
pass, are late as before, and the figures' age says so.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE, digest_runs
from contracts.errors import LogFormatError
from contracts.framelog import FRAME_OVERHEAD, Kind, Segment, list_segments, walk_runs
from contracts.replay import CATALOGUE_FILE, STORE_FOLDER
from fleet_hub.rollout.trips import Records, TripWatch, end_ns
from fleet_hub.store.columns import episode_table, minute_table
from fleet_hub.store.replay import DriftReferences
from fleet_hub.store.tombstones import Tombstone, may_stay, tombstones, touched

LOGS_MAX = 8192
READ_MAX_BYTES = 256 * 1024**2
"""Of all logs in one pass, some seconds of work; the next pass goes on."""
ROWS_MAX = 512
"""Minutes and trips kept of one log; the oldest go first, which the window has left behind."""


@dataclass
class _Log:
    """How far a log has been read, and what came of it."""

    taken_seq: int
    next_seq: int
    segment: Path | None = None
    offset: int = 0
    watch: TripWatch = field(default_factory=TripWatch)
    minutes: list[dict[str, Any]] = field(default_factory=list)
    trips: list[dict[str, Any]] = field(default_factory=list)
    newest_ns: int = 0


class LiveFigures:
    """Of one hub's data folder."""

    def __init__(self, data: Path) -> None:
        """Nothing is read yet."""
        self._data, self._drifts = data, DriftReferences(data / "bundles")
        self._logs: dict[tuple[str, str], _Log] = {}
        self._stones: list[Tombstone] = []
        self.newest_wall_ns = 0
        """Time of the newest record read, by its robot's clock."""

    def update(self, latest_ns: int) -> None:
        """Read what has come since, up to ``latest_ns``; logs that are unreadable are left out."""
        taken, stones = _taken(self._data / STORE_FOLDER), tombstones(self._data)
        if stones != self._stones:
            self._stones = stones
            self._logs.clear()
        left = READ_MAX_BYTES
        seen = set()
        for folder in sorted((self._data / "telemetry").glob("*/*"))[:LOGS_MAX]:
            key = folder.parent.name, folder.name
            seen.add(key)
            high = taken.get(key, 0)
            log = self._logs.get(key)
            if log is None or log.taken_seq != high:
                log = self._logs[key] = _Log(high, high + 1)
            try:
                left -= self._read(folder, key, log, left, latest_ns)
            except (LogFormatError, OSError):
                self._logs[key] = _Log(high, high + 1)  # erased under us, or damaged: anew with the next pass
        for key in set(self._logs) - seen:
            del self._logs[key]
        self.newest_wall_ns = max((log.newest_ns for log in self._logs.values()), default=0)

    def minutes(self, since_ns: int, until_ns: int) -> Iterator[dict[str, Any]]:
        """Rows as the store's ``minutes``."""
        for log in self._logs.values():
            yield from (row for row in log.minutes if since_ns <= row["minute_wall_ns"] <= until_ns)

    def trips(self, since_ns: int, until_ns: int) -> Iterator[dict[str, Any]]:
        """Rows as the store's ``episodes``."""
        for log in self._logs.values():
            yield from (row for row in log.trips if since_ns <= row["end_wall_ns"] <= until_ns)

    def _read(self, folder: Path, key: tuple[str, str], log: _Log, bytes_max: int, latest_ns: int) -> int:
        """Read a log on; how many bytes that were."""
        read = 0
        segments = [segment for segment in list_segments(folder) if segment.header is not None]
        later = [s.header.first_seq for s in segments[1:] if s.header] + [2**63]
        for segment, end_seq in zip(segments, later, strict=False):
            if end_seq <= log.next_seq or read >= bytes_max:
                continue
            if segment.header is None or segment.header.record_dtype(segment.path.name) != DECISION_DTYPE:
                continue  # an older robot's: the store has it when its segment closes
            if log.segment != segment.path:
                log.segment, log.offset = segment.path, segment.data_start
            read += self._add(segment, key, log, latest_ns)
        return read

    def _add(self, segment: Segment, key: tuple[str, str], log: _Log, latest_ns: int) -> int:
        with segment.path.open("rb") as file:
            file.seek(log.offset)
            data = file.read()
        parts, seqs, end = [np.zeros(0, DECISION_DTYPE)], [np.zeros(0, np.int64)], 0
        for run in walk_runs(data, checked=True):  # the intake has checked them
            end = run.end
            if run.kind == Kind.DECISION:
                rows = np.ndarray(
                    (run.frames,), DECISION_DTYPE, data, run.start + FRAME_OVERHEAD, (run.stride,)
                )
                parts.append(rows)
                seqs.append(np.arange(run.first_seq, run.first_seq + run.frames))
            log.next_seq = max(log.next_seq, run.first_seq + run.frames)
        log.offset += end
        records, numbers = np.concatenate(parts), np.concatenate(seqs)
        new = (numbers > log.taken_seq) & (records["wall_ns"] <= latest_ns)
        self._count(key, log, records[new], numbers[new])
        return len(data)

    def _count(self, key: tuple[str, str], log: _Log, records: Records, seqs: npt.NDArray[np.int64]) -> None:
        if not len(records):
            return
        robot, log_id = key
        trips = [
            trip
            for trip in log.watch.add(records, seqs)
            if not touched(self._stones, robot, trip.began_wall_ns, end_ns(trip))
        ]
        records = records[may_stay(self._stones, robot, records["wall_ns"])]
        for digest, rows in _by_policy(records):
            table = minute_table(robot, log_id, digest, rows, [], self._drifts.of(digest))
            log.minutes += table.to_pylist()
        log.trips += episode_table(robot, log_id, trips).to_pylist()
        log.minutes, log.trips = log.minutes[-ROWS_MAX:], log.trips[-ROWS_MAX:]
        if len(records):
            log.newest_ns = max(log.newest_ns, int(records["wall_ns"].max()))


def _by_policy(records: Records) -> Iterator[tuple[str, Records]]:
    """Records of each policy, in order."""
    found: dict[str, list[Records]] = {}
    for start, stop, digest in digest_runs(records["policy_digest"]):
        found.setdefault(digest, []).append(records[start:stop])
    for digest, parts in found.items():
        yield digest, np.concatenate(parts)


def _taken(store: Path) -> dict[tuple[str, str], int]:
    """How far the store has each log; nothing where there is no store yet."""
    path = store / CATALOGUE_FILE
    if not path.is_file():
        return {}
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT robot, log_id, last_seq FROM log").fetchall()
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
    return {(robot, log_id): last_seq for robot, log_id, last_seq in rows}
