"""Erasure: what a robot recorded in some time goes from the store, the intake's logs and the trips; a receipt says so.

First the audit log says what is to go: from then on no ingest takes it in again, also out of a restored backup. Then
files are rewritten, each whole or not at all. At last the audit log has the receipt's hash. Whoever asks again for what
was interrupted goes on with it. In the intake's logs a LOST record stays in the place of each, so that robots do not
send them anew. Not reached from here: the robot's own log, what somebody exported, backups.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.atomic import write_atomically
from contracts.canonical import digest_hex
from contracts.framelog import (
    DAMAGED_SUFFIX,
    FRAME_OVERHEAD,
    Kind,
    LostClass,
    decode_event,
    encode_frame,
    iterate_frames,
    list_segments,
)
from contracts.replay import stored_files
from fleet_hub.rollout.events import Erased, ErasureBegan
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.columns import MINUTE_NS
from fleet_hub.store.database import open_database
from fleet_hub.store.erasure_work import Receipt, Work, write_receipt
from fleet_hub.store.folder import DataFolder
from fleet_hub.store.replay import Ingest
from fleet_hub.store.tombstones import Tombstone

_TIMES = {
    "decisions": ("wall_ns", "wall_ns", 0),
    "episodes": ("start_wall_ns", "end_wall_ns", 0),
    "minutes": ("minute_wall_ns", "minute_wall_ns", MINUTE_NS - 1),
}
"""Columns with the first and last time of a row, and how much longer it lasts."""


def erase(data: Path, what: Tombstone, who: str, reason: str) -> tuple[Receipt, Path]:
    """Erase; the receipt and where it lies.

    Raises:
        DataFolderError: A hub runs on this folder (stop it: robots keep their records and send them later), or it is
            none.
        StoreBusyError: Somebody ingests.
        OSError: The disk refused; ask again, and it goes on.
    """
    folder = DataFolder(data)
    try:
        database = open_database(data)
    except BaseException:
        folder.close()
        raise
    try:
        database.pragma("secure_delete = ON")
        audit = AuditLog(database, time.time_ns)
        with database.transaction():
            audit.append(who, ErasureBegan(what.robot, what.since_ns, what.until_ns, reason))
        began_seq, began_hash = audit.head
        trips = TripStore(database, folder.telemetry).erase(what.robot, what.since_ns, what.until_ns)
        work = Work(
            robot=what.robot, since_ns=what.since_ns, until_ns=what.until_ns, who=who, reason=reason,
            audit_seq=began_seq, audit_hash=began_hash, trips=trips, closed={},
        )  # fmt: skip
        with Ingest(data) as ingest:
            receipt, path, text = carry_out(ingest, work)
        audit.append(
            who, Erased(began_seq, sum(receipt.rows.values()), receipt.records, trips, digest_hex(text))
        )
        database.pragma("wal_checkpoint(TRUNCATE)")
    finally:
        database.close()
        folder.close()
    return receipt, path


def carry_out(ingest: Ingest, work: Work) -> tuple[Receipt, Path, bytes]:
    """Erase from the store and the intake's closed segments; the receipt, where it lies, its bytes. Raises OSError."""
    what = Tombstone(work.robot, work.since_ns, work.until_ns)
    rows, removed, rewritten = _erase_files(ingest, what)
    records = sum(
        _erase_log(path, what, work.closed.get(path.name))
        for path in sorted((ingest.data / "telemetry" / what.robot).glob("*"))
    )
    receipt = Receipt(
        robot=work.robot, since_ns=work.since_ns, until_ns=work.until_ns, who=work.who, reason=work.reason,
        audit_seq=work.audit_seq, audit_hash=work.audit_hash, rows=rows, files_removed=tuple(removed),
        files_rewritten=tuple(rewritten), records=records, trips=work.trips, finished_wall_ns=time.time_ns(),
    )  # fmt: skip
    return receipt, *write_receipt(ingest.data, receipt)


def _erase_files(ingest: Ingest, what: Tombstone) -> tuple[dict[str, int], list[str], list[str]]:
    """Rows of the store: counts by table, files that are gone, files that took their place."""
    counts, removed, rewritten = dict.fromkeys(_TIMES, 0), [], []
    for kind in _TIMES:
        for file in stored_files(ingest.store, kind, what.robot, what.since_ns - MINUTE_NS, what.until_ns):
            table = pq.ParquetFile(ingest.store / file.path).read()
            left = table.filter(pc.invert(_within(table, kind, what)))
            gone = table.num_rows - left.num_rows
            if not gone:
                continue
            counts[kind] += gone
            removed.append(file.path)
            if (fresh := ingest.replace(file, left)) is not None:
                rewritten.append(fresh.path)
    return counts, removed, rewritten


def _within(table: pa.Table, kind: str, what: Tombstone) -> Any:
    first, last, longer_ns = _TIMES[kind]
    low = pc.greater_equal(table[last], pa.scalar(what.since_ns - longer_ns, pa.int64()))
    high = pc.less_equal(table[first], pa.scalar(what.until_ns, pa.int64()))
    return pc.and_(pc.equal(table["robot"], what.robot), pc.and_(low, high))


def _erase_log(folder: Path, what: Tombstone, end_index: int | None) -> int:
    """Put LOST records into the place of those that go, in all segments before ``end_index``; how many went."""
    why, total = bytes([LostClass.ERASED]), 0
    for aside in folder.glob(f"*{DAMAGED_SUFFIX}"):
        aside.unlink()  # nobody can say what is in it
    for segment in list_segments(folder):
        if segment.header is None or (end_index is not None and int(segment.path.stem) >= end_index):
            continue
        data, parts, gone, last_wall_ns = segment.path.read_bytes(), [], 0, 0
        dtype, at = segment.header.record_dtype(segment.path.name), segment.data_start
        for frame in iterate_frames(data, segment.data_start, segment.record_bytes):
            end = at + FRAME_OVERHEAD + len(frame.payload)
            if frame.kind is Kind.DECISION:
                last_wall_ns = int(np.frombuffer(frame.payload, dtype)["wall_ns"][0])
            elif frame.kind in (Kind.EVENT, Kind.DEBUG):
                last_wall_ns = decode_event(frame.payload).wall_ns
            if frame.kind is not Kind.LOST and what.since_ns <= last_wall_ns <= what.until_ns:
                parts.append(encode_frame(Kind.LOST, frame.seq, why))
                gone += 1
            else:
                parts.append(data[at:end])
            at = end
        if gone:
            write_atomically(segment.path, data[: segment.data_start] + b"".join(parts))
            total += gone
    return total
