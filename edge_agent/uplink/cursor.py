"""Reads frames back out of the log that is being written: the log is the send queue.

Live segments are read as they lie; sealed ones, and those of an older record schema, are turned back into the frames
they were, in today's schema. What the disk budget dropped, what cannot be read any more, and raw scans, which do not
leave the robot, come as LOST frames, so that the numbers have no gap.
"""

from pathlib import Path

import numpy as np

from contracts.decision import DECISION_DTYPE
from contracts.errors import LogFormatError
from contracts.framelog import (
    Kind,
    LostClass,
    Segment,
    encode_frame,
    frame_end,
    iterate_frames,
    list_segments,
    walk_frames,
    walk_runs,
)
from contracts.record_schema import to_present
from edge_agent.recorder.sealed import SealedSegment, list_sealed, open_sealed

READ_BYTES = 512 * 1024
LOST_AT_ONCE = 4096


class LogCursor:
    """A place in one log: the next record to be read."""

    def __init__(self, folder: Path, withhold: bool = True) -> None:
        """Nothing is opened before ``seek``. Only who reads on the robot itself may set ``withhold`` to False."""
        self._folder, self._withhold = folder, withhold
        self._log_id = ""
        self._path: Path | None = None
        self._frames: bytes | None = None
        self._offset = 0
        self._ends: dict[Path, tuple[str, int, int]] = {}
        self.next_seq = 1

    def seek(self, log_id: str, seq: int) -> None:
        """Go to record ``seq``."""
        self._log_id, self.next_seq = log_id, seq
        self._path = self._frames = None

    def read(self, last_seq: int, count_max: int, bytes_max: int) -> tuple[int, int, bytes]:
        """(first sequence, count, frames) of the next records up to ``last_seq``; count 0 for none."""
        for _ in range(2):
            if self.next_seq > last_seq or (self._path is None and not self._locate()):
                break
            first, count, frames = self._take(last_seq, count_max, bytes_max)
            if count:
                self.next_seq += count
                return first, count, frames
            self._path = self._frames = None
        return self.next_seq, 0, b""

    def _locate(self) -> bool:
        if (sealed := self._sealed()) is not None:
            self._path, self._frames, self._offset = sealed.path, _block_frames(sealed, self.next_seq), 0
            return bool(self._frames)
        mine = [s for s in list_segments(self._folder) if s.header and s.header.log_id == self._log_id]
        before = [s for s in mine if s.header and s.header.first_seq <= self.next_seq]
        if not before:
            firsts = [s.header.first_seq for s in mine if s.header]
            firsts += [first for log_id, first, _ in self._ends.values() if log_id == self._log_id]
            return self._lose(min((first for first in firsts if first > self.next_seq), default=0))
        segment = before[-1]
        data, start = segment.path.read_bytes(), segment.data_start
        if segment.header and segment.header.record_dtype() != DECISION_DTYPE:
            data, start = _transcoded(segment, data), 0
            self._frames = data
        self._path, self._offset = segment.path, start
        for _, seq, at in walk_frames(data, start):
            if seq >= self.next_seq:
                break
            self._offset = frame_end(data, at)
        return True

    def _lose(self, until_seq: int) -> bool:
        """The segment that held the next records is gone: say so, as far as the first that is there."""
        count = min(until_seq - self.next_seq, LOST_AT_ONCE)
        self._path, self._offset, self._frames = self._folder, 0, _lost(self.next_seq, count)
        return count > 0

    def _sealed(self) -> SealedSegment | None:
        """The sealed segment that holds the next record."""
        paths = list_sealed(self._folder)
        for path in paths:
            if path not in self._ends:
                try:
                    found = open_sealed(path)
                except LogFormatError:
                    self._ends[path] = ("", 0, 0)
                    continue
                self._ends[path] = (found.header.log_id, found.header.first_seq, found.last_seq)
        for path in paths:
            log_id, first, last = self._ends[path]
            if log_id == self._log_id and first <= self.next_seq <= last:
                return open_sealed(path)
        return None

    def _take(self, last_seq: int, count_max: int, bytes_max: int) -> tuple[int, int, bytes]:
        assert self._path is not None
        size = min(READ_BYTES, bytes_max)
        if self._frames is not None:
            data = self._frames[self._offset : self._offset + size]
        else:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    data = file.read(size)
            except FileNotFoundError:
                return self.next_seq, 0, b""
        count = end = 0
        for run in walk_runs(data):
            if run.first_seq != self.next_seq + count:
                break
            taken = min(run.frames, count_max - count, last_seq - run.first_seq + 1)
            count, end = count + max(taken, 0), run.start + max(taken, 0) * run.stride
            if taken < run.frames:
                break
        self._offset += end
        return self.next_seq, count, _without_scans(data[:end]) if self._withhold else data[:end]


def _block_frames(sealed: SealedSegment, seq: int) -> bytes:
    """Frames from ``seq`` to the end of its block; LOST ones for a block that is damaged."""
    place = next(n for n, block in enumerate(sealed.blocks) if block.last_seq >= seq)
    try:
        return b"".join(sealed.frames(place, seq))
    except LogFormatError:
        return _lost(seq, sealed.blocks[place].last_seq - seq + 1)


def _lost(first_seq: int, count: int, why: LostClass = LostClass.DAMAGED) -> bytes:
    return b"".join(encode_frame(Kind.LOST, first_seq + n, bytes([why])) for n in range(count))


def _without_scans(frames: bytes) -> bytes:
    """The same numbers; for each raw scan only that there is one."""
    parts, at = [], 0
    for run in walk_runs(frames, checked=True):
        if run.kind == Kind.SCAN:
            parts += [frames[at : run.start], _lost(run.first_seq, run.frames, LostClass.WITHHELD)]
            at = run.end
    return b"".join([*parts, frames[at:]]) if parts else frames


def _transcoded(segment: Segment, data: bytes) -> bytes:
    """The frames of a live segment of another record schema, in today's."""
    assert segment.header is not None
    dtype = segment.header.record_dtype()
    return b"".join(
        encode_frame(
            frame.kind,
            frame.seq,
            to_present(np.frombuffer(frame.payload, dtype)).tobytes()
            if frame.kind is Kind.DECISION
            else frame.payload,
        )
        for frame in iterate_frames(data, segment.data_start, segment.record_bytes)
    )
