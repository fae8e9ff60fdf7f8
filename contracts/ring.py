"""The way of decisions, and of scans, out of the control process: bounded shared-memory rings, one writer, one reader.

A file in /dev/shm, mapped by both. Either side may be killed and started again at any moment: the writer goes
on where the header says, the reader too. ``push`` never blocks and never waits for the reader; when the ring
is full the new decision is dropped and counted. (A plain mapping, not ``multiprocessing.shared_memory``: its
resource tracker unlinks the memory when the process that attached dies.)

Header, one 64-bit word on its own cache line each: magic, produced, consumed, dropped, heartbeat_ns,
producer_pid, schema. Each word has one writer. On x86-64 and AArch64 an aligned 64-bit store is whole; the
record is stored before ``produced`` (CPython cannot reorder the two statements, and both are behind function
calls).
"""

import mmap
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.canonical import hash_of
from contracts.decision import DECISION_DTYPE, DECISION_SCHEMA_HASH
from contracts.errors import RingError
from contracts.scan import SCAN_DTYPE

RING_SLOTS = 1024
SCAN_SLOTS = 64
RING_FOLDER = Path("/dev/shm")
RING_MAGIC = int.from_bytes(b"OUTRING1", "little")
_LINE = 8
_PRODUCED, _CONSUMED, _DROPPED, _HEARTBEAT, _PID, _SCHEMA = (_LINE * n for n in range(1, 7))
_HEADER_BYTES = 4096


class RingKind(NamedTuple):
    """What a ring carries."""

    suffix: str
    """Of its file's name."""
    slots: int
    slot_bytes: int
    schema: int
    """Its header's word: two versions do not take each other's rings."""

    @property
    def file_bytes(self) -> int:
        """Size of its file."""
        return _HEADER_BYTES + self.slots * self.slot_bytes


DECISIONS = RingKind("", RING_SLOTS, DECISION_DTYPE.itemsize, int(DECISION_SCHEMA_HASH[:16], 16))
SCANS = RingKind("-scans", SCAN_SLOTS, SCAN_DTYPE.itemsize, int(hash_of(repr(SCAN_DTYPE.descr))[:16], 16))


def ring_path(name: str, kind: RingKind = DECISIONS) -> Path:
    """Where the ring called ``name`` lies."""
    return RING_FOLDER / f"outrider-{name}{kind.suffix}"


class _Mapping:
    """The mapped file and its header words."""

    def __init__(self, path: Path, kind: RingKind) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != kind.file_bytes:
                raise RingError(f"{path} is no ring of this version; restart control, which makes it anew")
            self.inode = os.fstat(descriptor).st_ino
            self.memory = mmap.mmap(descriptor, kind.file_bytes)
        finally:
            os.close(descriptor)
        self.words = memoryview(self.memory)[:_HEADER_BYTES].cast("Q")  # a third of numpy's price a word
        if self.words[0] != RING_MAGIC or self.words[_SCHEMA] != kind.schema:
            self.close()
            raise RingError(f"{path} holds records of another version; restart control, which makes it anew")

    def word(self, at: int) -> int:
        return self.words[at]

    def close(self) -> None:
        """Unmap; the file stays."""
        self.words.release()
        self.memory.close()


class RingWriter:
    """The control process's end."""

    def __init__(self, name: str, kind: RingKind = DECISIONS) -> None:
        """Open the ring called ``name``, go on in it when it fits, make it anew when it does not."""
        self.path, self._slots, self._slot_bytes = ring_path(name, kind), kind.slots, kind.slot_bytes
        try:
            self._map = _Mapping(self.path, kind)
        except (OSError, RingError):
            _create(self.path, kind)
            self._map = _Mapping(self.path, kind)
        self._memory = self._map.memory
        self._words = self._map.words
        self._words[_HEARTBEAT] = 0  # the one before's: under our pid it would make us look silent
        self._words[_PID] = os.getpid()
        self._produced = self._map.word(_PRODUCED)
        self._dropped = self._map.word(_DROPPED)
        self._record: npt.NDArray[np.void] | None = None
        self._bytes = memoryview(b"")
        """Of the record pushed last: its owner fills the same one again."""

    def push(self, record: npt.NDArray[np.void]) -> bool:
        """Copy one decision in; False (and counted) when the ring is full.

        Args:
            record: DECISION_DTYPE[1] (or SCAN_DTYPE[1]), contiguous; the caller keeps and reuses it.
        """
        if self._produced - self._words[_CONSUMED] >= self._slots:
            self._dropped += 1
            self._words[_DROPPED] = self._dropped
            return False
        if record is not self._record:
            self._record, self._bytes = record, record.data.cast("B")
        start = _HEADER_BYTES + self._produced % self._slots * self._slot_bytes
        self._memory[start : start + self._slot_bytes] = self._bytes
        self._produced += 1
        self._words[_PRODUCED] = self._produced
        return True

    def touch(self, record: npt.NDArray[np.void]) -> None:
        """Write where the next decision will be written, and pass nothing on: brings the slot near before it counts."""
        if self._produced - self._words[_CONSUMED] < self._slots:
            start = _HEADER_BYTES + self._produced % self._slots * self._slot_bytes
            self._memory[start : start + self._slot_bytes] = record.data.cast("B")

    def beat(self, now_ns: int) -> None:
        """Say that control is alive at monotonic ``now_ns``."""
        self._words[_HEARTBEAT] = now_ns

    @property
    def dropped(self) -> int:
        """Decisions that found the ring full, since the ring was made."""
        return self._dropped

    def close(self) -> None:
        """Unmap; the ring stays for the reader."""
        self._map.close()

    def unlink(self) -> None:
        """Remove the ring: for tests and for the supervisor's clean end."""
        self.path.unlink(missing_ok=True)


class RingReader:
    """The comms process's end; also good for a supervisor that only looks at the heartbeat."""

    def __init__(self, name: str, kind: RingKind = DECISIONS) -> None:
        """Attach to the ring called ``name``; raises RingError when control has not made it yet."""
        self.path, self._slots, self._slot_bytes = ring_path(name, kind), kind.slots, kind.slot_bytes
        try:
            self._map = _Mapping(self.path, kind)
        except OSError as error:
            raise RingError(f"no ring at {self.path} ({error.strerror}); start control first") from None

    def peek(self, count_max: int) -> list[bytes]:
        """Copies of the oldest decisions not yet released, at most ``count_max``; releases nothing."""
        consumed = self._map.word(_CONSUMED)
        count = min(self._map.word(_PRODUCED) - consumed, count_max)
        records = []
        for index in range(consumed, consumed + count):
            start = _HEADER_BYTES + index % self._slots * self._slot_bytes
            records.append(self._map.memory[start : start + self._slot_bytes])
        return records

    def release(self, count: int) -> None:
        """Give the oldest ``count`` slots back, after what was in them has been written elsewhere."""
        self._map.words[_CONSUMED] = self._map.word(_CONSUMED) + count

    @property
    def waiting(self) -> int:
        """Decisions that nobody has released yet."""
        return self._map.word(_PRODUCED) - self._map.word(_CONSUMED)

    @property
    def produced(self) -> int:
        """Decisions pushed since the ring was made."""
        return self._map.word(_PRODUCED)

    @property
    def dropped(self) -> int:
        """Decisions that found the ring full, since the ring was made."""
        return self._map.word(_DROPPED)

    @property
    def heartbeat_ns(self) -> int:
        """Monotonic time of control's last sign of life; 0 before the first."""
        return self._map.word(_HEARTBEAT)

    @property
    def producer_pid(self) -> int:
        """Process id of the control process that opened the ring last."""
        return self._map.word(_PID)

    def replaced(self) -> bool:
        """Whether the file is gone or another one by now, so that one must attach anew."""
        try:
            return self.path.stat().st_ino != self._map.inode
        except OSError:
            return True

    def close(self) -> None:
        """Unmap; the ring stays."""
        self._map.close()


def _create(path: Path, kind: RingKind) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    words = np.zeros(_HEADER_BYTES // 8, dtype=np.uint64)
    words[0], words[_SCHEMA] = RING_MAGIC, kind.schema
    with temporary.open("wb") as file:
        temporary.chmod(0o600)
        file.write(words.tobytes())
        file.truncate(kind.file_bytes)
    temporary.rename(path)
