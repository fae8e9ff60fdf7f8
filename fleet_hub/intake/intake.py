"""Keeps what robots record: appended per robot and log id, synced, then acknowledged. Duplicates are dropped
by seq.

The high-water mark is read from the files themselves at the start, so it can never promise what is not there.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from contracts.errors import LogFormatError
from contracts.framelog import (
    HEADER_READ_BYTES,
    SEGMENT_SUFFIX,
    decode_segment_header,
    list_segments,
    scan_frames,
    walk_frames,
    walk_runs,
)
from contracts.framelog_writer import LogTail, LogWriter
from contracts.messages import Records
from fleet_hub.errors import IntakeError
from fleet_hub.intake.group_sync import FolderSync
from fleet_hub.intake.mending import Mended, mend, mend_tail
from fleet_hub.rollout.events import LogMended

GROUP_MIN = 4
"""From so many logs on, one sync of the file system costs less than one of each: 64 logs 25 ms against 250."""
OVERRUN_BYTES = 1024 * 1024
"""Beyond its size a segment may grow while its group's sync is under way: eight batches."""
PROOF_SEGMENTS_MAX = 2
"""A batch lies in one segment, or in two where part of it had come before."""


def _begins_with(path: Path) -> int:
    """The first record of a segment."""
    with path.open("rb") as file:
        head = decode_segment_header(file.read(HEADER_READ_BYTES), path.name)
    return head[0].first_seq if head else 2**63


def _nobody(_event: LogMended) -> None:
    """For who keeps no audit log."""


@dataclass
class _Log:
    writer: LogWriter
    durable_seq: int


class Intake:
    """The telemetry store of one hub: TELEMETRY/ROBOT/LOG_ID/*.olog."""

    def __init__(self, folder: Path, tell: Callable[[LogMended], object] = _nobody) -> None:
        """Use ``folder``; logs are opened when their robot is heard of. ``tell`` hears of damage in them."""
        self._folder, self._tell = folder, tell
        self._logs: dict[tuple[str, str], _Log] = {}
        self._touched: set[tuple[str, str]] = set()
        self._group: dict[tuple[str, str], tuple[int, Path | None]] = {}
        """What is being synced: of each log, as far as which record in which segment."""
        self._sealed_counts: dict[str, int] = {}
        self._sync = FolderSync(folder)
        self.duplicates = 0
        self.stored = 0

    def durable_seq(self, robot: str, log_id: str) -> int:
        """The newest record of that log which is safe on disk; 0 for a log never seen."""
        return self._log(robot, log_id).durable_seq

    def append(self, robot: str, records: Records, wall_ns: int) -> None:
        """Append what is new in a batch; it counts as durable only after ``commit``.

        Raises:
            IntakeError: Damaged frames, a count that lies, a gap before the batch, or a full disk.
        """
        log = self._log(robot, records.log_id)
        self._touched.add((robot, records.log_id))
        scan = scan_frames(records.frames)
        if scan.damage or (scan.frames, scan.first_seq) != (records.count, records.first_seq):
            raise IntakeError(
                f"expected {records.count} frames from {records.first_seq}, came {scan.frames} "
                f"from {scan.first_seq} {scan.damage}; send them again"
            )
        old = log.writer.next_seq - records.first_seq
        if old < 0:
            raise IntakeError(
                f"expected record {log.writer.next_seq} next, came {records.first_seq}; go back"
            )
        self.duplicates += min(old, records.count)
        if old >= records.count:
            return
        frames = records.frames
        if old > 0:
            frames = frames[next(at for _, seq, at in walk_frames(frames) if seq == log.writer.next_seq) :]
        try:
            log.writer.append(frames, records.count - old, wall_ns)
        except OSError as error:
            if log.writer.dirty and log.writer.path is None:
                self._take_back(robot, records.log_id)  # a full segment could not be synced
            raise IntakeError(
                f"the hub's disk refused: {error.strerror}; records stay on the robot"
            ) from None
        self.stored += records.count - old

    @property
    def sync_descriptor(self) -> int:
        """Can be read from when ``commit_beside`` has something to tell."""
        return self._sync.fileno()

    def commit_beside(self) -> list[tuple[str, str, int]]:
        """What has become durable since it was asked last, as of ``commit``; many logs are synced beside the caller.

        What is appended meanwhile is the next group. Few logs are synced at once.
        """
        durable = self._end_group()
        if not self._touched or self._sync.busy:
            return durable
        if len(self._touched) >= GROUP_MIN and self._begin_group():
            return durable
        return durable + self.commit()

    def _begin_group(self) -> bool:
        writers = {key: self._logs[key].writer for key in self._touched}
        group = {key: (writer.next_seq - 1, writer.path) for key, writer in writers.items()}
        if not self._sync.begin():
            return False
        self._group = group
        self._touched.clear()
        return True

    def _end_group(self, wait: bool = False) -> list[tuple[str, str, int]]:
        synced = self._sync.ended(wait)
        if synced is None:
            return []
        group, self._group = self._group, {}
        if not synced:  # an error is told once: asking for all again would hear of success
            self._touched -= group.keys()
            return self._sync_each(sorted(group))
        for key, (seq, path) in group.items():
            log = self._logs[key]
            log.durable_seq = max(log.durable_seq, seq)
            if (log.writer.next_seq - 1, log.writer.path) == (seq, path):
                log.writer.synced()
        return [(*key, self._logs[key].durable_seq) for key in sorted(group)]

    def commit(self) -> list[tuple[str, str, int]]:
        """Sync every log touched since the last commit; (robot, log id, durable seq) of each."""
        acknowledged = self._end_group(wait=True)
        touched = sorted(self._touched)
        self._touched.clear()
        if len(touched) >= GROUP_MIN and self._sync.all():
            for key in touched:
                self._logs[key].writer.synced()
        return acknowledged + self._sync_each(touched)

    def _sync_each(self, touched: list[tuple[str, str]]) -> list[tuple[str, str, int]]:
        acknowledged = []
        for robot, log_id in touched:
            log = self._logs[robot, log_id]
            try:
                log.writer.sync()
            except OSError:
                self._take_back(robot, log_id)
                continue
            log.durable_seq = log.writer.next_seq - 1
            acknowledged.append((robot, log_id, log.durable_seq))
        return acknowledged

    def _take_back(self, robot: str, log_id: str) -> None:
        """What a failed sync leaves in doubt is not kept: its robot has it, and is told to go back."""
        key = (robot, log_id)
        self._group.pop(key, None)
        try:
            self._logs[key].writer.take_back()
        except OSError:
            del self._logs[key]  # read again, as far as it can be, when that robot is heard of
            self._touched.discard(key)

    def stored_frames(self, robot: str, log_id: str, first_seq: int, count: int) -> bytes:
        """Frames from ``first_seq`` on as they lie on disk, at most ``count``, up to the first that is not whole.

        Raises:
            IntakeError: the hub cannot read its own log.
        """
        folder, found, next_seq = self._folder / robot / log_id, b"", first_seq
        try:
            paths = sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))
            begin = bisect_right(paths, first_seq, key=_begins_with) - 1
            for path in paths[max(begin, 0) : begin + 1 + PROOF_SEGMENTS_MAX]:
                data = path.read_bytes()
                head = decode_segment_header(data, path.name)
                for run in walk_runs(data, head[1] if head else len(data), checked=True):
                    skip = max(next_seq - run.first_seq, 0)
                    take = min(run.frames - skip, first_seq + count - next_seq)
                    if take <= 0 or run.first_seq > next_seq:
                        continue
                    found += data[run.start + skip * run.stride : run.start + (skip + take) * run.stride]
                    next_seq += take
                if next_seq >= first_seq + count:
                    break
        except (LogFormatError, OSError) as error:
            raise IntakeError(f"the hub cannot read its own log {folder}: {error}") from None
        return found

    def close_segments(self, robot: str) -> dict[str, int]:
        """End the segments of a robot's logs; of each log the first segment that may be written to from now on.

        Raises:
            IntakeError: the hub cannot read one of its own logs, or its disk refused.
        """
        folder, ends = self._folder / robot, {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            writer = self._log(robot, path.name).writer
            try:
                writer.close()
            except OSError as error:
                raise IntakeError(f"the hub's disk refused: {error.strerror}") from None
            ends[path.name] = writer.next_index
        return ends

    def records_stored(self, robot: str) -> int:
        """All records of a robot on disk, over all of its logs."""
        known = {log_id: log.durable_seq for (name, log_id), log in self._logs.items() if name == robot}
        folder = self._folder / robot
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name not in known:
                    known[path.name] = self._sealed_count(path)
        return sum(known.values())

    def _sealed_count(self, path: Path) -> int:
        key = str(path)
        if key not in self._sealed_counts:
            last = 0
            try:
                for segment in list_segments(path):
                    scan = scan_frames(segment.path.read_bytes(), segment.data_start)
                    last = max(last, scan.last_seq)
            except (LogFormatError, OSError):
                last = 0
            self._sealed_counts[key] = last
        return self._sealed_counts[key]

    def close(self) -> None:
        """Sync and close every log."""
        self._sync.ended(wait=True)
        for log in self._logs.values():
            log.writer.close()
        self._logs.clear()
        self._sync.close()

    def _log(self, robot: str, log_id: str) -> _Log:
        key = (robot, log_id)
        if key not in self._logs:
            folder = self._folder / robot / log_id
            try:
                for found in mend(folder, robot, log_id):
                    self._say(robot, log_id, found)
                tail = LogTail(folder, lambda *cut: self._say(robot, log_id, mend_tail(*cut)))
            except (LogFormatError, OSError) as error:
                raise IntakeError(
                    f"the hub cannot read its own log {folder}: {error}; look at that folder"
                ) from None
            writer = LogWriter(
                folder, robot, log_id, log_id, tail.last_seq + 1, tail.next_index, OVERRUN_BYTES
            )
            self._logs[key] = _Log(writer, tail.last_seq)
        return self._logs[key]

    def _say(self, robot: str, log_id: str, found: Mended | None) -> None:
        if found is not None:
            self._tell(LogMended(robot, log_id, *msgspec.structs.astuple(found)))
