"""Trips of every robot, taken out of its records as they become durable; each trip is kept exactly once."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from contracts.errors import LogFormatError
from contracts.framelog import decisions_in, list_segments
from contracts.messages import Records
from fleet_hub.rollout.trips import Trip, TripWatch, end_ns
from fleet_hub.store.database import Database

SEGMENTS_READ_MAX = 3
KEPT_MAX = 20_000
"""Trips read for one robot at once."""
WAITING_MAX_BYTES = 16 * 1024 * 1024
"""Of all logs together; then they are looked through, a thousand records at once: hardly dearer than a hundred."""


class TripStore:
    """Watches of all robots and their trips in the database.

    A hub that starts again reads each robot's own stored log from its last trip on: nothing is lost, and the primary
    key (robot, log, first record) keeps a trip from counting twice. So what waits here may be lost, and no robot has
    to wait for its acknowledgement until it was looked through.
    """

    def __init__(self, database: Database, telemetry: Path) -> None:
        """``telemetry`` is where the intake keeps the records."""
        self._database, self._telemetry = database, telemetry
        self._watches: dict[tuple[str, str], tuple[TripWatch, int]] = {}
        self._waiting: dict[tuple[str, str], list[Records]] = {}
        self._waiting_bytes = 0

    def add(self, robot: str, records: Records) -> None:
        """Take what the intake has checked and stored; looked through when there is much of it, or on ``catch_up``."""
        self._waiting.setdefault((robot, records.log_id), []).append(records)
        self._waiting_bytes += len(records.frames)
        if self._waiting_bytes >= WAITING_MAX_BYTES:
            self.catch_up()

    def catch_up(self, robot: str = "") -> None:
        """Look through what waits, of one robot or of all."""
        keys = [key for key in self._waiting if robot in ("", key[0])]
        if not keys:
            return
        with self._database.transaction():
            for name, log_id in keys:
                self._look(name, log_id)

    def _look(self, robot: str, log_id: str) -> None:
        parts = self._waiting.pop((robot, log_id))
        self._waiting_bytes -= sum(len(batch.frames) for batch in parts)
        watch, next_seq = self._watches.get((robot, log_id)) or self._begin(robot, log_id)
        trips: list[Trip] = []
        for frames in _joined(parts):
            ended, next_seq = _feed(watch, frames, next_seq, checked=True)
            trips += ended
        self._watches[robot, log_id] = watch, next_seq
        self.keep(robot, log_id, trips)

    def _begin(self, robot: str, log_id: str) -> tuple[TripWatch, int]:
        """A watch that has seen what is on disk since the last trip."""
        for key in [key for key in self._watches if key[0] == robot]:
            del self._watches[key]
        rows = self._database.rows(
            "SELECT MAX(last_seq) FROM trip WHERE robot = ? AND log_id = ?", robot, log_id
        )
        # What came before the last trip's end is read too: without it a robot that still stands at its goal has arrived
        # there once more.
        watch, next_seq, done_seq = TripWatch(), 0, int(rows[0][0] or 0)
        try:
            for segment in list_segments(self._telemetry / robot / log_id)[-SEGMENTS_READ_MAX:]:
                if segment.header is not None:
                    data = segment.path.read_bytes()[segment.data_start :]
                    trips, next_seq = _feed(watch, data, next_seq)
                    self.keep(robot, log_id, [trip for trip in trips if trip.last_seq > done_seq])
        except (LogFormatError, OSError):
            return TripWatch(), max(next_seq, done_seq + 1)
        return watch, next_seq

    def keep(self, robot: str, log_id: str, trips: list[Trip]) -> None:
        """Put trips of one log into the database; those known already stay as they are."""
        if not trips:
            return  # most batches: no transaction, no sync
        with self._database.transaction():
            for trip in trips:
                self._database.run(
                    "INSERT INTO trip VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    robot, log_id, trip.first_seq, trip.last_seq, trip.began_wall_ns, msgspec.msgpack.encode(trip),
                )  # fmt: skip

    def erase(self, robot: str, since_ns: int, until_ns: int) -> int:
        """Take out a robot's trips that reach into that time (its clock); how many went."""
        gone = 0
        self.catch_up(robot)
        with self._database.transaction():
            rows = self._database.rows("SELECT log_id, first_seq, trip FROM trip WHERE robot = ?", robot)
            for log_id, first_seq, data in rows:
                trip = msgspec.msgpack.decode(data, type=Trip)
                if trip.began_wall_ns <= until_ns and end_ns(trip) >= since_ns:
                    self._database.run(
                        "DELETE FROM trip WHERE robot = ? AND log_id = ? AND first_seq = ?", robot, log_id, first_seq
                    )  # fmt: skip
                    gone += 1
        return gone

    def since(self, robot: str, wall_ns: int) -> list[Trip]:
        """Trips that began at ``wall_ns`` (the robot's clock) or later, in order."""
        return self._read("began_wall_ns >= ? ORDER BY began_wall_ns", robot, wall_ns)

    def before(self, robot: str, wall_ns: int, count: int) -> list[Trip]:
        """The last ``count`` trips that began before ``wall_ns``, in order."""
        return self._read(
            "began_wall_ns < ? ORDER BY began_wall_ns DESC", robot, wall_ns, min(count, KEPT_MAX)
        )[::-1]

    def _read(self, where: str, robot: str, wall_ns: int, count: int = KEPT_MAX) -> list[Trip]:
        self.catch_up(robot)
        rows = self._database.rows(
            f"SELECT trip FROM trip WHERE robot = ? AND {where} LIMIT ?", robot, wall_ns, count
        )
        return [msgspec.msgpack.decode(row[0], type=Trip) for row in rows]


def _joined(batches: list[Records]) -> Iterator[bytes]:
    """Their frames, as one where a batch goes on where the one before ended; what was sent twice stays apart."""
    parts: list[bytes] = []
    next_seq = 0
    for batch in batches:
        if parts and batch.first_seq != next_seq:
            yield b"".join(parts)
            parts = []
        parts.append(batch.frames)
        next_seq = batch.first_seq + batch.count
    yield b"".join(parts)


def _feed(watch: TripWatch, frames: bytes, next_seq: int, checked: bool = False) -> tuple[list[Trip], int]:
    trips: list[Trip] = []
    for records, seqs in decisions_in(frames, checked):
        old = int(np.searchsorted(seqs, next_seq))
        trips += watch.add(records[old:], seqs[old:])
        next_seq = max(next_seq, int(seqs[-1]) + 1)
    return trips, next_seq
