"""Writes what happened into STATE/log: live segments, sealed as they fill. A disk that refuses is counted, never fatal.

Per decision into the page cache (survives ``kill -9``), ``fdatasync`` every ``SYNC_INTERVAL_MS`` and on every
incident (survives a power cut). Sealing and the disk budget run in ``maintain``, a block at a time, in comms.
"""

import errno
import math
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from contracts.decision import DECISION_DTYPE
from contracts.errors import ContractError, LogFormatError
from contracts.framelog import (
    DAMAGED_SUFFIX,
    SEGMENT_SUFFIX,
    Kind,
    LostClass,
    encode_event,
    encode_frame,
    event_now,
    list_segments,
)
from contracts.framelog_writer import LogTail, LogWriter
from edge_agent.recorder.budget import Spans, make_room
from edge_agent.recorder.configs import CONFIG_EVENT, ConfigTeller
from edge_agent.recorder.incidents import INCIDENT_EVENTS, WINDOW_NS, Before, find_onsets
from edge_agent.recorder.key import load_or_make_key
from edge_agent.recorder.metrics import COUNTED_EVENTS, Samples, TickFigures, write_metrics
from edge_agent.recorder.scans import ScanMemory
from edge_agent.recorder.sealed import SEALED_SUFFIX, SealedSegment, list_sealed, open_sealed
from edge_agent.recorder.sealing import Sealer

SYNC_INTERVAL_MS = 200
SEAL_DELAY_S = 10
"""After a start: the ring and the hub come first, and a comms that keeps dying shall not seal each time."""
LOG_BUDGET_BYTES = 2 * 1024**3
"""Most that a log may take on disk: about four days at 20 Hz, all of it kept."""
KEPT_SHARE = 0.9
"""Of the budget, after something had to be dropped."""
BUDGET_INTERVAL_S = 30
METRICS_INTERVAL_S = 10
ROOM_INTERVAL_S = 1.0
"""Between two attempts to make room on a full disk."""
RESERVE_FILE = "reserve"
RESERVE_BYTES = 4 * 1024**2
"""Given back on a full disk, so that there is room to drop something: thinning writes before it deletes."""
SEAL_AT_ONCE_MAX = 256
RECENT_MAX = 64
LOOK_BACK_MAX = 8
"""Sealed segments in which the last decision is looked for at a start."""
SCANS_AT_ONCE = 128
"""Raw scans in one write: 1 MB at most."""
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
        """Open the log, cutting off a torn tail, setting aside what is no segment any more; raises KeyFileError."""
        self.folder = state_dir / "log"
        self.folder.mkdir(parents=True, exist_ok=True)
        key = load_or_make_key(state_dir)
        self._sealer = Sealer(self.folder, key, self._sealed)
        aside = _set_aside(self.folder)
        tail = LogTail(self.folder)
        self.boot_id = read_boot_id()
        self.last_decision, log_id, last_seq, index = _where_it_ends(self.folder, tail)
        if aside:  # nobody knows how far its numbers went: another log begins
            log_id, last_seq = "", 0
            index = max(index, *(int(path.stem) + 1 for path in aside if path.stem.isdecimal()), 0)
        self._writer = LogWriter(
            self.folder, robot, self.boot_id, log_id or secrets.token_hex(16), last_seq + 1, index
        )
        self._budget_bytes = budget_bytes
        self._synced_ns = self._budget_ns = self._figures_ns = 0
        self._seal_ns: int | None = None
        self._room_s = self._told_s = -math.inf
        self._before = Before()
        self._scans = ScanMemory()
        self._figures = TickFigures()
        self._configs = ConfigTeller(state_dir)
        self._state_dir, self._robot = state_dir, robot
        self._incident_times: list[int] = []
        self.durable_seq = last_seq
        self.acked_seq = 0
        self.over_budget = False
        self.disk_errors = 0
        self.lost_records = self.forgotten_records = 0
        self.sealed_segments = 0
        self.incidents = 0
        self._counted = dict.fromkeys(COUNTED_EVENTS.values(), 0)
        self.sync_worst_us = 0
        self.scans_left_out = 0
        self._unreported_lost = 0
        self._fault = ""
        self._reserve()
        public = key.public.hex()
        self.event("recorder_opened", cut_bytes=tail.cut_bytes, last_seq=last_seq, log_key=public)
        for path, why in aside.items():
            self.event("segment_damaged", file=path.with_suffix(DAMAGED_SUFFIX).name, why=why[:200])

    @property
    def robot(self) -> str:
        """Whose log it is."""
        return self._robot

    @property
    def log_id(self) -> str:
        """Which log the sequence numbers belong to."""
        return self._writer.log_id

    @property
    def last_seq(self) -> int:
        """The newest record."""
        return self._writer.next_seq - 1

    def decisions(self, records: Sequence[bytes]) -> None:
        """Append decisions (DECISION_DTYPE bytes) in one write; durable at once when an incident begins."""
        if not records:
            return
        rows = np.frombuffer(b"".join(records), DECISION_DTYPE)
        onsets, self._before = find_onsets(rows, self._before)
        self._figures.take(rows)
        if self._append(Kind.DECISION, records, keep=len(onsets) > 0 or self._near(int(rows["mono_ns"][0]))):
            self.last_decision = records[-1]
        for detail in self._configs.news(rows["config_digest"]):
            self.event(CONFIG_EVENT, **detail)
        if len(onsets):
            self.incidents += len(onsets)
            began_ns = int(rows["mono_ns"][onsets[-1]])
            self._incident_times = [*self._incident_times, began_ns][-RECENT_MAX:]
            self._sync_file()
            for row in onsets.tolist():
                self._write_scans(self._scans.incident(int(rows["mono_ns"][row])))

    def scans(self, slots: Sequence[bytes]) -> None:
        """Remember raw scans (SCAN_DTYPE bytes); around an incident they are appended, too."""
        self._write_scans(self._scans.take(slots))

    def _write_scans(self, payloads: list[bytes]) -> None:
        """What has no room any more is counted, not told as a loss: it is all about an incident that is kept."""
        if self.over_budget:
            self.scans_left_out += len(payloads)
            return
        for start in range(0, len(payloads), SCANS_AT_ONCE):
            self._append(Kind.SCAN, payloads[start : start + SCANS_AT_ONCE], keep=False)

    def event(self, name: str, **detail: str | int | float | bool) -> None:
        """Append an event; durable at once when it is an incident."""
        event = event_now(name, time.time_ns(), time.monotonic_ns(), **detail)
        self._append(Kind.EVENT, [encode_event(event)], keep=True)
        if name in COUNTED_EVENTS:
            self._counted[COUNTED_EVENTS[name]] += 1
        if name in INCIDENT_EVENTS:
            self.incidents += 1
            self._sync_file()

    def debug(self, name: str, **detail: str | int | float | bool) -> None:
        """Append what is only of use while somebody looks for a fault; the first to go."""
        event = event_now(name, time.time_ns(), time.monotonic_ns(), **detail)
        self._append(Kind.DEBUG, [encode_event(event)], keep=False)

    def _near(self, mono_ns: int) -> bool:
        """Whether an incident was less than WINDOW_NS ago."""
        return bool(self._incident_times) and mono_ns - self._incident_times[-1] <= WINDOW_NS

    def _append(self, kind: Kind, payloads: Sequence[bytes], keep: bool) -> bool:
        """``keep``: also when the budget is used up, for incidents have no budget."""
        if keep or not self.over_budget:
            for attempt in range(2):
                first = self._writer.next_seq  # making room records an event: number anew
                frames = b"".join(
                    encode_frame(kind, first + n, payload) for n, payload in enumerate(payloads)
                )
                try:
                    self._writer.append(frames, len(payloads), time.time_ns())
                    return True
                except OSError as error:
                    if attempt or error.errno != errno.ENOSPC or not self._room_on_full_disk():
                        break
        self.disk_errors += 1
        self.lost_records += len(payloads)
        self._unreported_lost += len(payloads)
        return False

    def maintain(self, now_ns: int) -> None:
        """Sync every SYNC_INTERVAL_MS, seal a block, keep to the disk budget, tell of a gap once the disk works."""
        if now_ns - self._synced_ns >= SYNC_INTERVAL_MS * 1_000_000:
            self._synced_ns = now_ns
            self.sync()
        if self._seal_ns is None:
            self._seal_ns = now_ns + SEAL_DELAY_S * 1_000_000_000
        if now_ns >= self._seal_ns and self.seal_some() is None:
            self._seal_ns = now_ns + SEAL_DELAY_S * 1_000_000_000
        if now_ns - self._figures_ns >= METRICS_INTERVAL_S * 1_000_000_000:
            self._figures_ns = now_ns
            self._tell_figures()
        if now_ns - self._budget_ns >= BUDGET_INTERVAL_S * 1_000_000_000:
            self._budget_ns = now_ns
            self._keep_budget()

    def _tell_figures(self) -> None:
        """Write STATE/metrics.prom, and the same as a debug record."""
        own: Samples = {
            "outrider_incidents_total": self.incidents,
            "outrider_sync_worst_seconds": self.sync_worst_us / 1e6,
            "outrider_log_bytes": self.used_bytes(),
            "outrider_log_lost_records_total": self.lost_records,
            "outrider_log_scans_left_out_total": self.scans_left_out,
            "outrider_log_disk_errors_total": self.disk_errors,
            "outrider_log_sealed_segments_total": self.sealed_segments,
            "outrider_uplink_unsent_records": self.last_seq - self.acked_seq,
            "outrider_uplink_forgotten_records_total": self.forgotten_records,
            **self._counted,
        }
        self.sync_worst_us = 0
        self.debug(
            "recorder_figures", **{name.removeprefix("outrider_"): value for name, value in own.items()}
        )
        try:
            write_metrics(self._state_dir, self._robot, self._figures.samples() | own)
        except OSError:
            self.disk_errors += 1

    def seal_some(self) -> bool | None:
        """Seal one block of a finished segment; True while there is more to seal, None when it cannot be done."""
        try:
            return self._sealer.step(self._writer.path)
        except (OSError, ContractError) as error:
            self.disk_errors += 1
            self._tell_fault(f"sealing: {error}")
            return None

    def _sealed(self, segment: SealedSegment) -> None:
        self.sealed_segments += 1
        self.event(
            "segment_sealed",
            segment=segment.number,
            digest=segment.digest.hex(),
            last_seq=segment.last_seq,
            bytes=segment.path.stat().st_size,
        )

    def _tell_fault(self, fault: str) -> None:
        """Record a fault of the log itself, once until it changes."""
        if fault != self._fault:
            self._fault = fault
            self.event("recorder_fault", what=fault[:200])

    def sync(self) -> None:
        """Make all records durable; only then may they be sent."""
        now_s = time.monotonic()
        if self._unreported_lost and (not self.over_budget or now_s - self._told_s > BUDGET_INTERVAL_S):
            lost, errors = self._unreported_lost, self.disk_errors
            self._unreported_lost, self._told_s = 0, now_s
            self.event("records_lost", count=lost)
            if self.disk_errors > errors:
                self._unreported_lost = lost
        self._sync_file()

    def _sync_file(self) -> None:
        began_ns = time.monotonic_ns()
        try:
            self._writer.sync()
            self.durable_seq = self.last_seq
        except OSError:
            self.disk_errors += 1
        self.sync_worst_us = max(self.sync_worst_us, (time.monotonic_ns() - began_ns) // 1000)

    def hub_forgot(self, first_seq: int, last_seq: int) -> None:
        """The hub acknowledged these and does not have them: an incident. They count as not acknowledged again."""
        self.forgotten_records += last_seq - first_seq + 1
        self.event("hub_forgot", first_seq=first_seq, last_seq=last_seq, count=last_seq - first_seq + 1)

    def end_segment(self) -> None:
        """Sync and close the live segment, so that it can be sealed; raises OSError. The next record begins another."""
        self._writer.close()
        self.durable_seq = self.last_seq

    def forget_scans(self) -> None:
        """Forget the raw scans that no incident has asked for yet."""
        self._scans.forget()

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
        """Drop by class when the log has outgrown its budget; where that is not enough, record incidents only."""
        used = self.used_bytes()
        for _ in range(SEAL_AT_ONCE_MAX):  # sealing alone frees most
            if used <= self._budget_bytes or not self.seal_some():
                break
            used = self.used_bytes()
        if used > self._budget_bytes:
            self._drop(used - int(self._budget_bytes * KEPT_SHARE))
            used = self.used_bytes()
        self.over_budget = used > self._budget_bytes
        self._reserve()

    def used_bytes(self) -> int:
        """What the log takes on disk."""
        paths = [*self.folder.glob(f"*{SEGMENT_SUFFIX}"), *self.folder.glob(f"*{SEALED_SUFFIX}")]
        return sum(path.stat().st_size for path in paths)

    def _drop(self, need_bytes: int) -> bool:
        spans: Spans = {self.boot_id: [(ns - WINDOW_NS, ns + WINDOW_NS) for ns in self._incident_times]}
        try:
            gone = make_room(self.folder, need_bytes, self.log_id, self.acked_seq, spans)
        except OSError as error:
            self.disk_errors += 1
            self._fault = self._fault or f"making room: {error.strerror}"
            return False
        for one in gone:
            self.event(
                "records_dropped",
                kind=one.kind.name.lower(),
                count=one.count,
                first_seq=one.first_seq,
                last_seq=one.last_seq,
                bytes=one.bytes,
                at_hub=one.kind is LostClass.ACKNOWLEDGED,
            )
        return bool(gone)

    def _room_on_full_disk(self) -> bool:
        """The disk is full: give back the reserve, then drop as for the budget. Whether it was worth it."""
        if time.monotonic() - self._room_s < ROOM_INTERVAL_S:
            return False
        self._room_s = time.monotonic()
        reserve = self.folder / RESERVE_FILE
        had_reserve = reserve.exists()
        reserve.unlink(missing_ok=True)
        return self._drop(max(self.used_bytes() // 20, 2 * RESERVE_BYTES)) or had_reserve

    def _reserve(self) -> None:
        """Set RESERVE_BYTES of the disk aside, when it has them."""
        path = self.folder / RESERVE_FILE
        if path.exists():
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            path.unlink(missing_ok=True)


def _set_aside(folder: Path) -> dict[Path, str]:
    """Rename live segments whose header cannot be read any more: one bad byte must not end all recording."""
    unreadable: dict[Path, str] = {}
    list_segments(folder, unreadable)
    for path in unreadable:
        path.rename(path.with_suffix(DAMAGED_SUFFIX))
    return unreadable


def _where_it_ends(folder: Path, tail: LogTail) -> tuple[bytes, str, int, int]:
    """Last decision, log id, last sequence number, next segment: of live and sealed segments together."""
    paths = list_sealed(folder)
    index = max(tail.next_index, int(paths[-1].stem) + 1 if paths else 0)
    last = tail.last_decision
    if not paths or last:
        return last, tail.log_id, tail.last_seq, index
    try:
        sealed = open_sealed(paths[-1])
        last = _last_decision([sealed])
    except LogFormatError:
        # Without a live segment nobody knows any more where the numbers were: another log begins.
        return last, tail.log_id, tail.last_seq, index
    if not last:  # a segment that was ended early for an erasure may hold events alone
        with suppress(LogFormatError):
            last = _last_decision(open_sealed(path) for path in reversed(paths[-LOOK_BACK_MAX:-1]))
    if tail.last_seq:  # live segments without a decision
        return last, tail.log_id, tail.last_seq, index
    return last, sealed.header.log_id, sealed.last_seq, index


def _last_decision(segments: Iterable[SealedSegment]) -> bytes:
    """Of segments, newest first; nothing where they have none."""
    for sealed in segments:
        for block in reversed(range(len(sealed.blocks))):
            if len(rows := sealed.decisions(block)):
                return bytes(rows[-1].tobytes())
    return b""
