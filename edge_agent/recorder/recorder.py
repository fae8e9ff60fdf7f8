"""Writes what happened into STATE/log/*.olog. A disk that refuses is counted, never fatal."""

import secrets
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from contracts.framelog import (
    SEGMENT_SUFFIX,
    Kind,
    encode_event,
    encode_frame,
    event_now,
    list_segments,
)
from contracts.framelog_writer import LogTail, LogWriter

SYNC_INTERVAL_MS = 200
LOG_BUDGET_BYTES = 2 * 1024**3
"""Most that a log may take on disk: about two days at 20 Hz."""
BUDGET_INTERVAL_S = 30
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """The machine's boot id: monotonic times of two records compare only within one."""
    try:
        return BOOT_ID_FILE.read_text().strip().replace("-", "")
    except OSError:
        return secrets.token_hex(16)


class Recorder:
    """The log of one robot, written by its comms process."""

    def __init__(self, state_dir: Path, robot: str, budget_bytes: int = LOG_BUDGET_BYTES) -> None:
        """Open the log, cutting off a torn tail; raises LogFormatError for foreign files."""
        self.folder = state_dir / "log"
        self.folder.mkdir(parents=True, exist_ok=True)
        tail = LogTail(self.folder)
        self.boot_id = read_boot_id()
        self.last_decision = tail.last_decision
        log_id = tail.log_id or secrets.token_hex(16)
        self._writer = LogWriter(self.folder, robot, self.boot_id, log_id, tail.last_seq + 1, tail.next_index)
        self._budget_bytes = budget_bytes
        self._synced_ns = self._budget_ns = 0
        self.durable_seq = tail.last_seq
        self.acked_seq = 0
        self.over_budget = False
        self.disk_errors = 0
        self.lost_records = 0
        self._unreported_lost = 0
        self.event("recorder_opened", cut_bytes=tail.cut_bytes, last_seq=tail.last_seq)

    @property
    def log_id(self) -> str:
        """Which log the sequence numbers belong to."""
        return self._writer.log_id

    @property
    def last_seq(self) -> int:
        """The newest record."""
        return self._writer.next_seq - 1

    def decisions(self, records: Sequence[bytes]) -> None:
        """Append decisions (DECISION_DTYPE bytes) in one write."""
        if records:
            self._append(Kind.DECISION, records)
            self.last_decision = records[-1]

    def event(self, name: str, **detail: str | int | float | bool) -> None:
        """Append an event."""
        event = event_now(name, time.time_ns(), time.monotonic_ns(), **detail)
        self._append(Kind.EVENT, [encode_event(event)])

    def _append(self, kind: Kind, payloads: Sequence[bytes]) -> None:
        first = self._writer.next_seq
        frames = b"".join(encode_frame(kind, first + n, payload) for n, payload in enumerate(payloads))
        try:
            if self.over_budget:
                raise OSError(28, "log budget used up")
            self._writer.append(frames, len(payloads), time.time_ns())
        except OSError:
            self.disk_errors += 1
            self.lost_records += len(payloads)
            self._unreported_lost += len(payloads)

    def maintain(self, now_ns: int) -> None:
        """Sync every SYNC_INTERVAL_MS, keep to the disk budget, tell of a gap once the disk works again."""
        if now_ns - self._synced_ns >= SYNC_INTERVAL_MS * 1_000_000:
            self._synced_ns = now_ns
            self.sync()
        if now_ns - self._budget_ns >= BUDGET_INTERVAL_S * 1_000_000_000:
            self._budget_ns = now_ns
            self._keep_budget()

    def sync(self) -> None:
        """Make all records durable; only then may they be sent."""
        if self._unreported_lost:
            lost, errors = self._unreported_lost, self.disk_errors
            self._unreported_lost = 0
            self.event("records_lost", count=lost)
            if self.disk_errors > errors:
                self._unreported_lost = lost
        try:
            self._writer.sync()
            self.durable_seq = self.last_seq
        except OSError:
            self.disk_errors += 1

    def begin_new_log(self) -> None:
        """Start at sequence 1 under a new log id: what the hub has of this log is ahead of what is here."""
        self._writer.begin_new_log(secrets.token_hex(16))
        self.durable_seq = self.acked_seq = 0
        self.event("log_restarted")

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        try:
            self._writer.close()
        except OSError:
            self.disk_errors += 1

    def _keep_budget(self) -> None:
        """Remove the oldest segments that the hub has acknowledged; without any, stop recording."""
        sizes = {path: path.stat().st_size for path in sorted(self.folder.glob(f"*{SEGMENT_SUFFIX}"))}
        used = sum(sizes.values())
        self.over_budget = used > self._budget_bytes
        if not self.over_budget:
            return
        segments = list_segments(self.folder)
        for segment, following in pairwise(segments):
            if used <= self._budget_bytes * 9 // 10:
                break
            if segment.header is None or following.header is None:
                break
            same_log = segment.header.log_id == following.header.log_id == self.log_id
            if same_log and following.header.first_seq > self.acked_seq + 1:
                break
            used -= sizes[segment.path]
            segment.path.unlink()
        self.over_budget = used > self._budget_bytes
