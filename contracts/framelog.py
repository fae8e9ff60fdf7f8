"""The append log's format: what a robot records, what travels, what the hub keeps. The same bytes everywhere.

A log is a folder of segments ``00000000.olog``, ``00000001.olog`` ... A segment is a header and frames:

    header: 8 bytes "OUTRLOG1", u32 length, u32 crc32, msgpack SegmentHeader
    frame:  u32 length, u32 crc32, u8 kind, u64 seq, payload      (little endian; length and crc cover kind
    on)

Sequence numbers start at 1, grow by one and belong to a log id, which is drawn when a robot's log is begun.
A crash can only tear the end of the last segment: the torn tail is cut off when the log is opened for
writing.
"""

import enum
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from contracts.decision import DECISION_DTYPE, DECISION_SCHEMA_HASH
from contracts.errors import LogFormatError
from contracts.keyring import ROBOT_ID_PATTERN

SEGMENT_MAGIC = b"OUTRLOG1"
SEGMENT_SUFFIX = ".olog"
SEGMENT_MAX_BYTES = 8 * 1024 * 1024
SEGMENT_HEADER_MAX_BYTES = 1024
PAYLOAD_MAX_BYTES = 16 * 1024
FRAME_HEADER = struct.Struct("<IIBQ")
FRAME_OVERHEAD = FRAME_HEADER.size
_PREFIX = struct.Struct("<8sII")
_BODY = struct.Struct("<BQ")
HexId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Kind(enum.IntEnum):
    """What a frame's payload is. Values are part of the format and are never reused."""

    DECISION = 1
    EVENT = 2


class SegmentHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose records these are, and how to read them."""

    schema_hash: str
    robot: Annotated[str, msgspec.Meta(pattern=ROBOT_ID_PATTERN)]
    boot_id: HexId
    log_id: HexId
    first_seq: Annotated[int, msgspec.Meta(ge=1)]
    created_wall_ns: int


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
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


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
    return _PREFIX.pack(SEGMENT_MAGIC, len(body), zlib.crc32(body)) + body


def decode_segment_header(data: bytes, name: str = "segment") -> tuple[SegmentHeader, int] | None:
    """The header and where the frames begin; None when ``data`` ends inside the header.

    Raises:
        LogFormatError: Not one of our segments, damaged, or of another version.
    """
    if not SEGMENT_MAGIC.startswith(data[:8]):
        raise LogFormatError(f"{name} is no outrider log segment; is this the right folder?")
    if len(data) < _PREFIX.size:
        return None
    _, length, checksum = _PREFIX.unpack_from(data)
    if length > SEGMENT_HEADER_MAX_BYTES:
        raise LogFormatError(
            f"{name}: header of {length} bytes, at most {SEGMENT_HEADER_MAX_BYTES}; it is damaged"
        )
    body = data[_PREFIX.size : _PREFIX.size + length]
    if len(body) < length:
        return None
    if zlib.crc32(body) != checksum:
        raise LogFormatError(f"{name}: the header's checksum does not fit; the segment is damaged")
    try:
        header = msgspec.msgpack.decode(body, type=SegmentHeader)
    except msgspec.MsgspecError as error:
        raise LogFormatError(f"{name}: {error}; was it written by a newer outrider?") from None
    if header.schema_hash != DECISION_SCHEMA_HASH:
        raise LogFormatError(
            f"{name}: expected decision schema {DECISION_SCHEMA_HASH[:12]}, came {header.schema_hash[:12]}; "
            "read it with the outrider version that wrote it"
        )
    return header, _PREFIX.size + length


def walk_frames(data: bytes, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, seq, frame's start) of whole, gapless frames; stops before the first bad one."""
    at, size, before = start, len(data), None
    crc32, unpack = zlib.crc32, FRAME_HEADER.unpack_from
    view = memoryview(data)
    while at + FRAME_OVERHEAD <= size:
        length, checksum, kind, seq = unpack(data, at)
        end = at + 8 + length
        if not 9 <= length <= PAYLOAD_MAX_BYTES + 9 or end > size or crc32(view[at + 8 : end]) != checksum:
            return
        if kind not in (1, 2) or seq < 1 or (before is not None and seq != before + 1):
            return
        if kind == Kind.DECISION and length - 9 != DECISION_DTYPE.itemsize:
            return
        yield kind, seq, at
        at, before = end, seq


def frame_end(data: bytes, start: int) -> int:
    """Where the frame that begins at ``start`` ends."""
    return start + 8 + int.from_bytes(data[start : start + 4], "little")


def iterate_frames(data: bytes, start: int = 0) -> Iterator[Frame]:
    """Yield the whole frames of ``data`` from ``start``, stopping before the first damaged one."""
    for kind, seq, at in walk_frames(data, start):
        yield Frame(Kind(kind), seq, data[at + FRAME_OVERHEAD : frame_end(data, at)])


def scan_frames(data: bytes, start: int = 0) -> Scan:
    """What is in ``data`` from ``start``; ``damage`` is empty when every byte belongs to a good frame."""
    first = last = count = 0
    end = start
    for _, seq, at in walk_frames(data, start):
        first = first or seq
        last, count, end = seq, count + 1, frame_end(data, at)
    damage = "" if end == len(data) else f"{len(data) - end} bytes after byte {end} are torn or damaged"
    return Scan(first, last, count, end, damage)


class Segment(NamedTuple):
    """One segment file as found on disk."""

    path: Path
    header: SegmentHeader | None
    data_start: int


def list_segments(folder: Path) -> list[Segment]:
    """The folder's segments in order, headers read; a header torn off by a crash is None.

    Raises:
        LogFormatError: A file that ends in .olog is not one of ours.
    """
    segments = []
    for path in sorted(folder.glob(f"*{SEGMENT_SUFFIX}")):
        with path.open("rb") as file:
            decoded = decode_segment_header(file.read(_PREFIX.size + SEGMENT_HEADER_MAX_BYTES), path.name)
        segments.append(Segment(path, None, 0) if decoded is None else Segment(path, *decoded))
    return segments


def event_now(name: str, wall_ns: int, mono_ns: int, **detail: Any) -> Event:
    """An event with its details as keyword arguments."""
    return Event(name, wall_ns, mono_ns, detail)
