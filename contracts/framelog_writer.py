"""Appends frames to a log folder: the robot's recorder and the hub's intake both keep their logs with it.

One ``os.write`` a batch, into the page cache (survives ``kill -9``); ``sync`` makes it survive a power cut. A
failed write is undone, so that the file always ends with a whole frame as far as this process can help it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from contracts.atomic import sync_folder
from contracts.decision import DECISION_SCHEMA_HASH
from contracts.framelog import (
    SEGMENT_MAX_BYTES,
    SEGMENT_SUFFIX,
    Kind,
    Segment,
    SegmentHeader,
    encode_segment_header,
    list_segments,
    walk_runs,
)
from contracts.record_schema import DECISION_FIELDS


def present_header(
    robot: str, boot_id: str, log_id: str, first_seq: int, wall_ns: int, mono_ns: int = 0
) -> SegmentHeader:
    """A segment's header in today's record schema."""
    return SegmentHeader(
        DECISION_SCHEMA_HASH, robot, boot_id, log_id, first_seq, wall_ns, DECISION_FIELDS, mono_ns
    )


def _no_matter(_path: Path, _data: bytes, _end: int, _last_seq: int) -> None:
    """For who cuts off without a look."""


class LogTail:
    """Where an existing log ends: its id, its last sequence number, and its last decision's bytes."""

    def __init__(
        self, folder: Path, before_cut: Callable[[Path, bytes, int, int], object] = _no_matter
    ) -> None:
        """Cut off a torn tail, remove empty segments at the end; raises LogFormatError for foreign files.

        ``before_cut`` is shown each segment of which something goes: its path, its bytes, how many of them are whole,
        and the last record in those, 0 for none.
        """
        self._before_cut = before_cut
        self.log_id = ""
        self.last_seq = 0
        self.last_decision = b""
        self.cut_bytes = 0
        self.next_index = 0
        for segment in reversed(list_segments(folder)):
            self.next_index = max(self.next_index, int(segment.path.stem) + 1)
            if self._ends_in(segment):
                return

    def _ends_in(self, segment: Segment) -> bool:
        data = segment.path.read_bytes()
        last_seq = 0
        end = segment.data_start
        for run in walk_runs(data, end, segment.record_bytes) if segment.header else ():
            last_seq, end = run.first_seq + run.frames - 1, run.end
            if run.kind == Kind.DECISION:
                self.last_decision = data[end - segment.record_bytes : end]
        if end < len(data):
            self.cut_bytes += len(data) - end
            self._before_cut(segment.path, data, end, last_seq)
        if segment.header is None or not last_seq:
            segment.path.unlink()
            return False
        if end < len(data):
            os.truncate(segment.path, end)
        self.log_id, self.last_seq = segment.header.log_id, last_seq
        return True


class LogWriter:
    """An open log. Not thread safe; one process writes a folder."""

    def __init__(
        self,
        folder: Path,
        robot: str,
        boot_id: str,
        log_id: str,
        next_seq: int,
        next_index: int,
        overrun_bytes: int = 0,
    ) -> None:
        """Go on in ``folder``; the first segment is made with the first append.

        A segment is synced before the next one begins. ``overrun_bytes`` is how far it may outgrow SEGMENT_MAX_BYTES
        while it is not synced yet, for whoever syncs many logs at once and would wait here for one.
        """
        self.folder = folder
        self._identity = (robot, boot_id, log_id)
        self.log_id = log_id
        self.next_seq = next_seq
        self._index = next_index
        self._overrun_bytes = overrun_bytes
        self._file = -1
        self._size = 0
        self.path: Path | None = None
        """The segment being written; None before the first append and after ``close``."""
        self.dirty = self._fresh = False
        self._newest: Path | None = None
        self._durable: tuple[Path | None, int, int] = (None, 0, next_seq)
        """The segment that was synced last, how far, and the record that comes after."""

    def append(self, frames: bytes, count: int, wall_ns: int) -> None:
        """Append ``count`` whole frames that begin with ``next_seq``; all or none.

        Raises:
            OSError: The disk refused; nothing has been appended.
        """
        room_bytes = SEGMENT_MAX_BYTES + (self._overrun_bytes if self.dirty else 0)
        if self._file < 0 or self._size + len(frames) > room_bytes:
            self._begin_segment(wall_ns)
        try:
            written = os.write(self._file, frames)
            if written != len(frames):
                raise OSError(28, "disk full: only part of a batch was written")
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += written
        self.next_seq += count
        self.dirty = True

    def sync(self) -> None:
        """Make everything appended so far durable; raises OSError."""
        if self.dirty:
            os.fdatasync(self._file)
            if self._fresh:
                sync_folder(self.folder)
                sync_folder(self.folder.parent)
            self.synced()

    def synced(self) -> None:
        """Somebody else made everything appended so far durable, new files' names included."""
        self.dirty = self._fresh = False
        self._durable = (self.path, self._size, self.next_seq)

    def take_back(self) -> None:
        """Cut off what was appended since the last good sync, and go on in a new segment.

        After a failed sync nobody knows what of it is on disk, and the next sync tells of success.

        Raises:
            OSError: It cannot be cut off.
        """
        if self._file >= 0:
            os.close(self._file)
        self._file, self.path = -1, None
        path, size, self.next_seq = self._durable
        if self._newest is not None and self._newest != path:
            self._newest.unlink(missing_ok=True)
        elif path is not None:
            os.truncate(path, size)
        self.dirty = self._fresh = False

    @property
    def next_index(self) -> int:
        """Number of the segment that is made next."""
        return self._index

    def begin_new_log(self, log_id: str) -> None:
        """Start again at sequence 1 under another id, in a new segment."""
        self.close()
        self._identity = (self._identity[0], self._identity[1], log_id)
        self.log_id, self.next_seq = log_id, 1
        self._durable = (self._newest, self._size, 1)

    def close(self) -> None:
        """Sync and close; appending again begins a new segment."""
        if self._file >= 0:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file, self.path = -1, None

    def _begin_segment(self, wall_ns: int) -> None:
        self.close()
        header = encode_segment_header(
            present_header(*self._identity, self.next_seq, wall_ns, time.monotonic_ns())
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._index:08d}{SEGMENT_SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            if os.write(descriptor, header) != len(header):
                raise OSError(28, "disk full: no room for a segment header")
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        self._file, self._size, self.path = descriptor, len(header), path
        self._newest = path
        self._index += 1
        self._fresh = True
