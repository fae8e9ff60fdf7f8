"""Sealed segments ``NNNNNNNN.oseal``: the records of ``NNNNNNNN.olog``, indexed, compressed, chained and signed.

    file:   8 bytes "OUTRSEL1", u32 length, u32 crc32, msgpack SegmentHeader; blocks; tail; footer
    block:  "BLCK", u32 length, u32 crc32, u8 n, n bytes (0 or the LostClass of each part), zstd(BlockEntry); parts
    tail:   "SEAL", u32 length, u32 crc32, zstd(Seal)
    footer: u32 bytes of the tail, 8 bytes "OUTREND1"

A reader needs the tail only: it holds every block's entry. A file whose tail is gone is read from the front, as
far as its blocks are whole. What is signed (``Statement``) names every part by its hash, so that the disk budget may
drop parts and the signature still holds for what is left.
"""

import enum
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from contracts.errors import LogFormatError
from contracts.framelog import Event, Kind, LostClass, SegmentHeader, decode_event, encode_frame
from contracts.record_schema import to_present
from edge_agent.recorder.columns import BLOCK_ROWS_MAX, Column, decode_columns
from edge_agent.recorder.incidents import Incident

SEALED_MAGIC = b"OUTRSEL1"
SEALED_SUFFIX = ".oseal"
END_MAGIC = b"OUTREND1"
BLOCK_MAGIC, TAIL_MAGIC = b"BLCK", b"SEAL"
FOOTER = struct.Struct("<I8s")
PREFIX = struct.Struct("<8sII")
MARK = struct.Struct("<4sII")
HEADER_MAX_BYTES = 8 * 1024
ENTRY_MAX_BYTES = 4 * 1024 * 1024
TAIL_MAX_BYTES = 32 * 1024 * 1024
PARTS_MAX = 4
PART_MAX_BYTES = 64 * 1024 * 1024
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
NO_DIGEST = bytes(32)


class PartKind(enum.IntEnum):
    """What a part of a block holds. Values are part of the format."""

    SAMPLES = 1
    """Decisions, as columns."""
    EVENTS = 2
    DEBUG = 3
    SCANS = 4


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One part of a block: how long, which hash, how many records."""

    kind: PartKind
    size: Annotated[int, msgspec.Meta(ge=0, le=PART_MAX_BYTES)]
    digest: Digest
    count: Annotated[int, msgspec.Meta(ge=1, le=BLOCK_ROWS_MAX)]


class BlockEntry(msgspec.Struct, frozen=True, array_like=True):
    """The index of one block: enough to know without opening it whether it is worth opening."""

    first_seq: Annotated[int, msgspec.Meta(ge=1)]
    count: Annotated[int, msgspec.Meta(ge=1, le=BLOCK_ROWS_MAX)]
    others: tuple[tuple[int, Kind], ...]
    """Offset and kind of every record that is no decision."""
    span_ns: tuple[int, int]
    """Earliest and latest wall time of all records."""
    wall_ns: tuple[int, int]
    """Of the first and last decision; of the events where there is none."""
    mono_ns: tuple[int, int]
    """The same."""
    tick: tuple[int, int]
    """0, 0 without decisions."""
    policies: tuple[bytes, ...]
    flags: int
    """Of all decisions, joined."""
    verdict_max: int
    total_us_max: int
    late_us_max: int
    incidents: tuple[Incident, ...]
    columns: tuple[Column, ...]
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=PARTS_MAX)]

    @property
    def last_seq(self) -> int:
        """The newest record."""
        return self.first_seq + self.count - 1

    @property
    def decisions(self) -> int:
        """How many of the records are decisions."""
        return self.count - len(self.others)


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the robot signs about a segment."""

    header: SegmentHeader
    number: int
    previous: Digest
    """Hash of the statement before; zeros for a log's first."""
    blocks: tuple[BlockEntry, ...]


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tail of a file: the signed statement, and where its parts lie (and which are dropped)."""

    statement: bytes
    signature: bytes
    public: bytes
    offsets: tuple[int, ...]
    dropped: tuple[bytes, ...]


@dataclass(frozen=True)
class SealedSegment:
    """A sealed file, opened: index in memory, blocks on disk.

    ``damage`` says what is wrong with a file read from the front, "" for a whole one; then there is no seal.
    """

    path: Path
    header: SegmentHeader
    blocks: tuple[BlockEntry, ...]
    offsets: tuple[int, ...]
    dropped: tuple[bytes, ...]
    seal: Seal | None
    statement: Statement | None
    damage: str = ""

    @property
    def number(self) -> int:
        """Its place in the folder."""
        return int(self.path.stem)

    @cached_property
    def digest(self) -> bytes:
        """What the next segment's statement names as ``previous``."""
        return sha256(self.seal.statement).digest() if self.seal else NO_DIGEST

    @property
    def last_seq(self) -> int:
        """The newest record; 0 without any."""
        return self.blocks[-1].last_seq if self.blocks else 0

    def lost_class(self, block: int, kind: PartKind) -> LostClass | None:
        """Why the records of that kind are not in a block any more; None when they are."""
        for place, part in enumerate(self.blocks[block].parts):
            if part.kind is kind and self.dropped[block][place]:
                return LostClass(self.dropped[block][place])
        return None

    def part(self, block: int, kind: PartKind) -> bytes | None:
        """A part's stored bytes; None when the block has none or it was dropped. Raises LogFormatError, OSError."""
        offset = self.offsets[block]
        for place, part in enumerate(self.blocks[block].parts):
            if self.dropped[block][place]:
                continue
            if part.kind is kind:
                with self.path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(part.size)
                if sha256(data).digest() != part.digest:
                    raise LogFormatError(
                        f"{self.path.name}: block {block} ({part.kind.name.lower()}) was changed or is damaged"
                    )
                return data
            offset += part.size
        return None

    def decisions(self, block: int, fields: tuple[str, ...] | None = None) -> npt.NDArray[np.void]:
        """The decisions of a block in today's schema, or some fields of them; none when they were dropped."""
        entry, dtype = self.blocks[block], self.header.record_dtype(self.path.name)
        stored = self.part(block, PartKind.SAMPLES)
        if stored is None:
            return to_present(np.zeros(0, dtype), fields)
        return to_present(decode_columns(entry.columns, stored, entry.decisions, dtype, fields), fields)

    def decision_seqs(self, block: int) -> npt.NDArray[np.uint64]:
        """Sequence numbers of the decisions in a block, dropped or not."""
        entry = self.blocks[block]
        seqs = np.arange(entry.first_seq, entry.last_seq + 1, dtype=np.uint64)
        keep = np.ones(len(seqs), dtype=np.bool_)
        keep[[offset for offset, _ in entry.others]] = False
        return seqs[keep]

    def payloads(self, block: int, kind: PartKind) -> list[bytes] | None:
        """Payloads of the events or debug records of a block; None when there are none here."""
        stored = self.part(block, kind)
        return None if stored is None else unpack_payloads(stored, self.path.name)

    def events(self, block: int, kind: Kind = Kind.EVENT) -> list[tuple[int, Event]]:
        """Sequence numbers and events (or debug records) of a block that are still here."""
        payloads = self.payloads(block, PartKind.EVENTS if kind is Kind.EVENT else PartKind.DEBUG)
        entry = self.blocks[block]
        seqs = [entry.first_seq + offset for offset, other in entry.others if other is kind]
        return [] if payloads is None else [(s, decode_event(p)) for s, p in zip(seqs, payloads, strict=True)]

    def scans(self, block: int) -> list[tuple[int, bytes]]:
        """Sequence numbers and payloads (``contracts.scan``) of a block's raw scans that are still here."""
        payloads, entry = self.payloads(block, PartKind.SCANS), self.blocks[block]
        seqs = [entry.first_seq + offset for offset, other in entry.others if other is Kind.SCAN]
        return [] if payloads is None else list(zip(seqs, payloads, strict=True))

    def lost(self, block: int, erased: bool = False) -> int:
        """How many records of a block have been dropped for whatever reason, or on somebody's request alone."""
        marks = zip(self.blocks[block].parts, self.dropped[block], strict=True)
        return sum(part.count for part, mark in marks if (mark == LostClass.ERASED if erased else mark))

    def frames(self, block: int, from_seq: int) -> list[bytes]:
        """The frames of a block from a record on, as they were sent to the log; LOST ones for what was dropped."""
        entry = self.blocks[block]
        kinds = dict(entry.others)
        rest = {
            Kind.DECISION: iter([row.tobytes() for row in self.decisions(block)]),
            Kind.EVENT: iter(self.payloads(block, PartKind.EVENTS) or ()),
            Kind.DEBUG: iter(self.payloads(block, PartKind.DEBUG) or ()),
            Kind.SCAN: iter(self.payloads(block, PartKind.SCANS) or ()),
        }
        lost = {kind: self.lost_class(block, part) for kind, part in _PART_OF.items()}
        frames = []
        for offset in range(entry.count):
            kind, seq = kinds.get(offset, Kind.DECISION), entry.first_seq + offset
            if (why := lost[kind]) is not None:
                frames.append(encode_frame(Kind.LOST, seq, bytes([why])))
            else:
                frames.append(encode_frame(kind, seq, next(rest[kind])))
        return frames[max(from_seq - entry.first_seq, 0) :]


_PART_OF = {
    Kind.DECISION: PartKind.SAMPLES,
    Kind.EVENT: PartKind.EVENTS,
    Kind.DEBUG: PartKind.DEBUG,
    Kind.SCAN: PartKind.SCANS,
}


def pack_payloads(payloads: Iterable[bytes]) -> bytes:
    """Payloads, each with its length in front, compressed."""
    plain = b"".join(len(payload).to_bytes(4, "little") + payload for payload in payloads)
    return zstandard.ZstdCompressor(level=9).compress(plain)


def unpack_payloads(stored: bytes, where: str) -> list[bytes]:
    """What ``pack_payloads`` was given; raises LogFormatError."""
    plain, payloads, at = decompress(stored, PART_MAX_BYTES, where), [], 0
    while at + 4 <= len(plain):
        size = int.from_bytes(plain[at : at + 4], "little")
        payloads.append(plain[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(plain):
        raise LogFormatError(f"{where}: lengths of records do not fit their part; it is damaged")
    return payloads


def decompress(stored: bytes, size_max: int, where: str) -> bytes:
    """Bounded zstd; raises LogFormatError."""
    try:
        if zstandard.frame_content_size(stored) > size_max:
            raise LogFormatError(f"{where}: says it holds more than {size_max} bytes; it is damaged")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size_max)
    except zstandard.ZstdError as error:
        raise LogFormatError(f"{where}: does not decompress ({error}); it is damaged") from None


def open_sealed(path: Path) -> SealedSegment:
    """Open a sealed segment; one that is cut is read from the front.

    Raises:
        LogFormatError: not one of ours, of a newer version, or damaged in its header.
        OSError: unreadable.
    """
    with path.open("rb") as file:
        head = file.read(PREFIX.size + HEADER_MAX_BYTES)
        header, data_start = _read_header(head, path.name)
        size = file.seek(0, 2)
        file.seek(max(size - FOOTER.size, 0))
        footer = file.read(FOOTER.size)
        tail_bytes, end = FOOTER.unpack(footer) if len(footer) == FOOTER.size else (0, b"")
        tail = b""
        if end == END_MAGIC and tail_bytes <= min(TAIL_MAX_BYTES, size - FOOTER.size - data_start):
            file.seek(size - FOOTER.size - tail_bytes)
            tail = file.read(tail_bytes)
    try:
        seal = _read_seal(tail, path.name)
        statement = msgspec.msgpack.decode(seal.statement, type=Statement)
        _check_fit(seal, statement, path.name)
    except (LogFormatError, msgspec.MsgspecError) as error:
        return _read_from_front(path, header, data_start, str(error))
    return SealedSegment(
        path, statement.header, statement.blocks, seal.offsets, seal.dropped, seal, statement
    )


def _check_fit(seal: Seal, statement: Statement, name: str) -> None:
    blocks = statement.blocks
    shapes = len(seal.offsets) == len(seal.dropped) == len(blocks)
    if not shapes or any(len(d) != len(b.parts) for d, b in zip(seal.dropped, blocks, strict=True)):
        raise LogFormatError(f"{name}: its seal does not fit its index; it was changed or is damaged")
    if any(mark and mark not in set(LostClass) for dropped in seal.dropped for mark in dropped):
        raise LogFormatError(
            f"{name}: records dropped for an unknown reason; was it written by a newer outrider?"
        )


def _read_header(head: bytes, name: str) -> tuple[SegmentHeader, int]:
    magic = head[: len(SEALED_MAGIC)]
    if magic[:7] != SEALED_MAGIC[: len(magic)][:7]:
        raise LogFormatError(f"{name} is no sealed outrider segment; is this the right folder?")
    if len(magic) == len(SEALED_MAGIC) and magic != SEALED_MAGIC:
        raise LogFormatError(
            f"{name}: expected format {SEALED_MAGIC.decode()}, came {magic.decode('ascii', 'replace')}; "
            "it was written by a newer outrider: read it with that version"
        )
    if len(head) < PREFIX.size:
        raise LogFormatError(f"{name}: cut inside its header; nothing can be read of it")
    _, length, checksum = PREFIX.unpack_from(head)
    body = head[PREFIX.size : PREFIX.size + length]
    if len(body) != length or zlib.crc32(body) != checksum:
        raise LogFormatError(f"{name}: its header is cut or damaged; nothing can be read of it")
    try:
        header = msgspec.msgpack.decode(body, type=SegmentHeader)
    except msgspec.MsgspecError as error:
        raise LogFormatError(f"{name}: {error}; was it written by a newer outrider?") from None
    header.record_dtype(name)
    return header, PREFIX.size + length


def _read_seal(tail: bytes, name: str) -> Seal:
    if len(tail) < MARK.size:
        raise LogFormatError(f"{name}: its end is missing")
    mark, length, checksum = MARK.unpack_from(tail)
    body = tail[MARK.size :]
    if mark != TAIL_MAGIC or len(body) != length or zlib.crc32(body) != checksum:
        raise LogFormatError(f"{name}: its end is damaged")
    return msgspec.msgpack.decode(decompress(body, 8 * TAIL_MAX_BYTES, name), type=Seal)


def _read_from_front(path: Path, header: SegmentHeader, start: int, why: str) -> SealedSegment:
    """All whole blocks of a file without a good tail."""
    data = path.read_bytes()
    blocks: list[BlockEntry] = []
    offsets: list[int] = []
    marks: list[bytes] = []
    at = start
    while (found := _block_at(data, at)) is not None:
        entry, dropped, parts_at = found
        end = parts_at + sum(p.size for p, mark in zip(entry.parts, dropped, strict=True) if not mark)
        if end > len(data):
            break
        blocks.append(entry)
        offsets.append(parts_at)
        marks.append(dropped)
        at = end
    why = f"{why}: its first {len(blocks)} blocks are whole, and its signature is gone"
    return SealedSegment(path, header, tuple(blocks), tuple(offsets), tuple(marks), None, None, why)


def _block_at(data: bytes, at: int) -> tuple[BlockEntry, bytes, int] | None:
    if at + MARK.size > len(data):
        return None
    mark, length, checksum = MARK.unpack_from(data, at)
    body = data[at + MARK.size : at + MARK.size + length]
    if mark != BLOCK_MAGIC or not 1 <= len(body) == length or zlib.crc32(body) != checksum:
        return None
    parts = body[0]
    try:
        plain = decompress(body[1 + parts :], ENTRY_MAX_BYTES, "block")
        entry = msgspec.msgpack.decode(plain, type=BlockEntry)
    except (LogFormatError, msgspec.MsgspecError):
        return None
    dropped = body[1 : 1 + parts]
    return (entry, dropped, at + MARK.size + length) if len(dropped) == len(entry.parts) else None


def encode_sealed_header(header: SegmentHeader) -> bytes:
    """The bytes a sealed segment begins with."""
    body = msgspec.msgpack.encode(header)
    return PREFIX.pack(SEALED_MAGIC, len(body), zlib.crc32(body)) + body


def encode_block_head(entry: BlockEntry, dropped: bytes) -> bytes:
    """What stands in front of a block's parts."""
    packed = zstandard.ZstdCompressor(level=9).compress(msgspec.msgpack.encode(entry))
    body = bytes([len(dropped)]) + dropped + packed
    return MARK.pack(BLOCK_MAGIC, len(body), zlib.crc32(body)) + body


def encode_tail(seal: Seal) -> bytes:
    """Tail and footer."""
    body = zstandard.ZstdCompressor(level=9).compress(msgspec.msgpack.encode(seal))
    tail = MARK.pack(TAIL_MAGIC, len(body), zlib.crc32(body)) + body
    return tail + FOOTER.pack(len(tail), END_MAGIC)


def list_sealed(folder: Path) -> list[Path]:
    """The folder's sealed segments, in order."""
    return sorted(folder.glob(f"*{SEALED_SUFFIX}"))
