"""The append log's format: what a robot records, what travels, what the hub keeps. The same bytes everywhere.

A log is a folder of segments ``00000000.olog``, ``00000001.olog`` ... A segment is a header and frames:

    header: 8 bytes "OUTRLOG2", u32 length, u32 crc32, msgpack SegmentHeader
    frame:  u32 length, u32 crc32, u8 kind, u64 seq, payload      (little endian; length and crc cover kind
    on)

The header lists the fields of the decision records that follow (``contracts.record_schema``). The first format,
"OUTRLOG1", bears their hash alone; it is still read.

Sequence numbers start at 1, grow by one and belong to a log id, which is drawn when a robot's log is begun.
A crash can only tear the end of the last segment: the torn tail is cut off when the log is opened for
writing.
"""

import enum
import struct
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE, DECISION_SCHEMA_HASH
from contracts.errors import LogFormatError
from contracts.keyring import ROBOT_ID_PATTERN
from contracts.record_schema import (
    DECISION_FIELDS,
    RECORD_MAX_BYTES,
    Fields,
    dtype_by_hash,
    dtype_of,
    schema_hash,
)

SEGMENT_MAGIC = b"OUTRLOG2"
SEGMENT_MAGIC_FIRST = b"OUTRLOG1"
_MAGIC_FAMILY = b"OUTRLOG"
SEGMENT_SUFFIX = ".olog"
SEGMENT_MAX_BYTES = 8 * 1024 * 1024
SEGMENT_HEADER_MAX_BYTES = 8 * 1024
HEADER_READ_BYTES = SEGMENT_HEADER_MAX_BYTES + 64
"""So much of a file holds its header whole, and what stands before that."""
DAMAGED_SUFFIX = ".damaged"
"""Of what lies aside, at a robot and at the hub."""
PAYLOAD_MAX_BYTES = RECORD_MAX_BYTES
FRAME_HEADER = struct.Struct("<IIBQ")
FRAME_OVERHEAD = FRAME_HEADER.size
RUN_MAX = 1024
SEQ_MAX = 2**62
"""No robot gets there; a number beyond it is a lie, and would not fit where numbers are reckoned with."""
_PREFIX = struct.Struct("<8sII")
_BODY = struct.Struct("<BQ")
_HEADS = np.dtype([("length", "<u4"), ("checksum", "<u4"), ("kind", "u1"), ("seq", "<u8")])
"""FRAME_HEADER, of many frames at once."""
HexId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Kind(enum.IntEnum):
    """What a frame's payload is. Values are part of the format and are never reused."""

    DECISION = 1
    EVENT = 2
    LOST = 3
    """The record of this number was dropped on the robot; the payload is one byte, a ``LostClass``."""
    DEBUG = 4
    """Shaped like an event; the first to go when the disk is full."""
    SCAN = 5
    """A raw scan (``contracts.scan``) from around an incident. Stays on the robot."""


class LostClass(enum.IntEnum):
    """Why a record is not here. The disk budget drops in this order, raw scans last; incidents and events never."""

    DEBUG = 1
    ACKNOWLEDGED = 2
    SAMPLE = 3
    DAMAGED = 4
    """Not dropped: what is on disk cannot be read any more."""
    SCAN = 5
    """A raw scan that had to make room."""
    WITHHELD = 6
    """Not lost: a raw scan, which stays on the robot."""
    ERASED = 7
    """On somebody's request, which left a receipt."""


class SegmentHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose records these are, and how to read them."""

    schema_hash: str
    robot: Annotated[str, msgspec.Meta(pattern=ROBOT_ID_PATTERN)]
    boot_id: HexId
    log_id: HexId
    first_seq: Annotated[int, msgspec.Meta(ge=1)]
    created_wall_ns: int
    fields: Fields = ()
    created_mono_ns: int = 0

    def record_dtype(self, where: str = "segment") -> "np.dtype[Any]":
        """How its decisions are laid out; raises LogFormatError when that is not known, or a lie."""
        if self.schema_hash == DECISION_SCHEMA_HASH and self.fields == DECISION_FIELDS:
            return DECISION_DTYPE  # nearly all: a hub that starts again asks this of every robot's log
        if not self.fields:
            return dtype_by_hash(self.schema_hash, where)
        dtype = dtype_of(self.fields, where)
        if schema_hash(dtype) != self.schema_hash:
            raise LogFormatError(f"{where}: the header's fields do not fit its schema hash; it is damaged")
        return dtype


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happened beside the ticks: a swap, a refusal, a gap, a restart."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    wall_ns: int
    mono_ns: int
    detail: dict[str, str | int | float | bool]


class Frame(NamedTuple):
    """One record, checked."""

    kind: Kind
    seq: int
    payload: bytes


class Scan(NamedTuple):
    """What one pass over a run of frames found."""

    first_seq: int
    last_seq: int
    frames: int
    good_bytes: int
    damage: str


def encode_frame(kind: Kind, seq: int, payload: bytes) -> bytes:
    """One frame; ValueError for a payload above PAYLOAD_MAX_BYTES."""
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes, at most {PAYLOAD_MAX_BYTES}")
    body = _BODY.pack(kind, seq) + payload
    return struct.pack("<II", len(body), crc32(body)) + body


def encode_event(event: Event) -> bytes:
    """An event as payload bytes (msgpack)."""
    return msgspec.msgpack.encode(event)


def decode_event(payload: bytes) -> Event:
    """Read an event's payload; raises LogFormatError."""
    try:
        return msgspec.msgpack.decode(payload, type=Event)
    except msgspec.MsgspecError as error:
        raise LogFormatError(
            f"an event record is unreadable: {error}; was it written by a newer outrider?"
        ) from None


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The bytes a segment begins with."""
    body = msgspec.msgpack.encode(header)
    return _PREFIX.pack(SEGMENT_MAGIC, len(body), crc32(body)) + body


def decode_segment_header(data: bytes, name: str = "segment") -> tuple[SegmentHeader, int] | None:
    """The header and where the frames begin; None when ``data`` ends inside the header.

    Raises:
        LogFormatError: Not one of our segments, damaged, or of another version.
    """
    magic = data[:8]
    if not magic.startswith(_MAGIC_FAMILY[: len(magic)]):
        raise LogFormatError(f"{name} is no outrider log segment; is this the right folder?")
    if len(data) < _PREFIX.size:
        return None
    if magic not in (SEGMENT_MAGIC, SEGMENT_MAGIC_FIRST):
        raise LogFormatError(
            f"{name}: expected log format {SEGMENT_MAGIC.decode()}, came {magic.decode('ascii', 'replace')}; "
            "it was written by a newer outrider: read it with that version"
        )
    _, length, checksum = _PREFIX.unpack_from(data)
    if length > SEGMENT_HEADER_MAX_BYTES:
        raise LogFormatError(
            f"{name}: header of {length} bytes, at most {SEGMENT_HEADER_MAX_BYTES}; it is damaged"
        )
    body = data[_PREFIX.size : _PREFIX.size + length]
    if len(body) < length:
        return None
    if crc32(body) != checksum:
        raise LogFormatError(f"{name}: the header's checksum does not fit; the segment is damaged")
    try:
        header = msgspec.msgpack.decode(body, type=SegmentHeader)
    except msgspec.MsgspecError as error:
        raise LogFormatError(f"{name}: {error}; was it written by a newer outrider?") from None
    header.record_dtype(name)
    return header, _PREFIX.size + length


def has_whole_header(data: bytes) -> bool:
    """Whether it bears a format's number and the checksum that it names, though it may not be understood here."""
    if len(data) < _PREFIX.size or not data.startswith(_MAGIC_FAMILY) or not data[7:8].isdigit():
        return False
    _, length, checksum = _PREFIX.unpack_from(data)
    body = data[_PREFIX.size : _PREFIX.size + length]
    return bool(0 < length == len(body) <= SEGMENT_HEADER_MAX_BYTES and crc32(body) == checksum)


class Run(NamedTuple):
    """Whole frames of one kind and size that follow each other without a gap."""

    kind: int
    first_seq: int
    start: int
    """Where the first begins."""
    frames: int
    stride: int
    """Bytes from one to the next."""

    @property
    def end(self) -> int:
        """Where the last ends."""
        return self.start + self.frames * self.stride


def walk_runs(
    data: bytes, start: int = 0, record_bytes: int = DECISION_DTYPE.itemsize, checked: bool = False
) -> Iterator[Run]:
    """Yield the whole, gapless frames of ``data`` in runs; stops before the first bad one.

    ``record_bytes`` is the size of a decision: another than today's in a segment of another schema. ``checked`` spares
    the checksums of what has been through here before.
    """
    lengths = {Kind.DECISION.value: record_bytes + 9, Kind.LOST.value: 10}
    at, size, next_seq = start, len(data), 0
    view = memoryview(data)
    while at + FRAME_OVERHEAD <= size:
        length, _, kind, seq = FRAME_HEADER.unpack_from(data, at)
        stride = 8 + length
        if not 9 <= length <= PAYLOAD_MAX_BYTES + 9 or at + stride > size or not 1 <= kind <= len(Kind):
            return
        if not 1 <= seq <= SEQ_MAX or (next_seq and seq != next_seq) or lengths.get(kind, length) != length:
            return
        count = min((size - at) // stride, RUN_MAX) if kind in lengths else 1
        if count > 1 and data[at + stride : at + stride + 4] != data[at : at + 4]:
            count = 1
        if count > 1:
            heads = np.ndarray((count,), _HEADS, view, at, (stride,))
            alike = (heads["length"] == length) & (heads["kind"] == kind)
            alike &= heads["seq"] == np.arange(seq, seq + count, dtype=np.uint64)
            count = count if alike.all() else int(alike.argmin())
        good = count if checked else _good_checksums(view, at, stride, count)
        if good:
            yield Run(kind, seq, at, good, stride)
        if good < count:
            return
        at, next_seq = at + count * stride, seq + count


def _good_checksums(view: memoryview, start: int, stride: int, count: int) -> int:
    """How many of the frames, from the first on, have the checksum that they name."""
    if count == 1:
        return int(
            crc32(view[start + 8 : start + stride]) == int.from_bytes(view[start + 4 : start + 8], "little")
        )
    named = np.ndarray((count,), _HEADS, view, start, (stride,))["checksum"]
    bodies = struct.Struct(f"<8x{stride - 8}s").iter_unpack(view[start : start + count * stride])
    # No line of Python a frame: the hub does this with all that a fleet says.
    found = list(starmap(crc32, bodies))
    fits = named == np.array(found, np.uint32)
    return count if fits.all() else int(fits.argmin())


def walk_frames(
    data: bytes, start: int = 0, record_bytes: int = DECISION_DTYPE.itemsize
) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, seq, frame's start) of whole, gapless frames; stops before the first bad one."""
    for run in walk_runs(data, start, record_bytes):
        for place in range(run.frames):
            yield run.kind, run.first_seq + place, run.start + place * run.stride


def decisions_in(
    data: bytes, checked: bool = False
) -> Iterator[tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]]:
    """Decisions (of today's schema) in whole frames: DECISION_DTYPE[n] as they lie in ``data``, int64[n] numbers."""
    for run in walk_runs(data, checked=checked):
        if run.kind == Kind.DECISION:
            place = run.start + FRAME_OVERHEAD
            rows = np.ndarray((run.frames,), DECISION_DTYPE, data, place, (run.stride,))
            yield rows, np.arange(run.first_seq, run.first_seq + run.frames)


def frame_end(data: bytes, start: int) -> int:
    """Where the frame that begins at ``start`` ends."""
    return start + 8 + int.from_bytes(data[start : start + 4], "little")


def iterate_frames(
    data: bytes, start: int = 0, record_bytes: int = DECISION_DTYPE.itemsize
) -> Iterator[Frame]:
    """Yield the whole frames of ``data`` from ``start``, stopping before the first damaged one."""
    for kind, seq, at in walk_frames(data, start, record_bytes):
        yield Frame(Kind(kind), seq, data[at + FRAME_OVERHEAD : frame_end(data, at)])


def scan_frames(data: bytes, start: int = 0, record_bytes: int = DECISION_DTYPE.itemsize) -> Scan:
    """What is in ``data`` from ``start``; ``damage`` is empty when every byte belongs to a good frame."""
    first = last = count = 0
    end = start
    for run in walk_runs(data, start, record_bytes):
        first = first or run.first_seq
        last, count, end = run.first_seq + run.frames - 1, count + run.frames, run.end
    damage = "" if end == len(data) else f"{len(data) - end} bytes after byte {end} are torn or damaged"
    return Scan(first, last, count, end, damage)


class Segment(NamedTuple):
    """One segment file as found on disk."""

    path: Path
    header: SegmentHeader | None
    data_start: int

    @property
    def record_bytes(self) -> int:
        """Size of its decisions."""
        return self.header.record_dtype().itemsize if self.header else DECISION_DTYPE.itemsize


def list_segments(folder: Path, unreadable: dict[Path, str] | None = None) -> list[Segment]:
    """The folder's segments in order, headers read; a header torn off by a crash is None.

    With ``unreadable`` a file whose header cannot be read is left out, and put in there with the reason.

    Raises:
        LogFormatError: A file that ends in .olog is not one of ours, without ``unreadable``.
    """
    segments = []
    for path in sorted(folder.glob(f"*{SEGMENT_SUFFIX}")):
        try:
            with path.open("rb") as file:
                data = file.read(_PREFIX.size + SEGMENT_HEADER_MAX_BYTES)
        except FileNotFoundError:
            continue  # sealed meanwhile: its records are in a file of another kind now
        try:
            decoded = decode_segment_header(data, path.name)
        except LogFormatError as error:
            if unreadable is None:
                raise
            unreadable[path] = str(error)
            continue
        segments.append(Segment(path, None, 0) if decoded is None else Segment(path, *decoded))
    return segments


def event_now(name: str, wall_ns: int, mono_ns: int, **detail: Any) -> Event:
    """An event with its details as keyword arguments."""
    return Event(name, wall_ns, mono_ns, detail)
