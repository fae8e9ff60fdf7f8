"""A stored log with damage in it: what is whole goes on, and what is missing is said.

The hub acknowledged what lies behind that header, and its robot may not have it any more. The frames bear their own
numbers and checksums, so they are found without the header; they get a new one. What was not whole is kept aside under
its number with another ending. Where it was the log's end, the high-water mark goes back with it, and the robot sends
again what it still has.

A tail that a power cut tore had not been acknowledged, and is cut off without a word. Where whole records follow behind
what cannot be read, it was no power cut.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from contracts.atomic import sync_folder, write_atomically
from contracts.errors import LogFormatError
from contracts.framelog import (
    DAMAGED_SUFFIX,
    FRAME_HEADER,
    FRAME_OVERHEAD,
    HEADER_READ_BYTES,
    PAYLOAD_MAX_BYTES,
    Kind,
    Scan,
    Segment,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
    has_whole_header,
    list_segments,
    scan_frames,
)
from contracts.framelog_writer import present_header

FIRST_STEM = "00000000"
"""Of a log's first segment, which begins with record 1."""
FRAME_SEQ_AT = FRAME_HEADER.size - 8
LOOK_AHEAD = 256
"""Of so many records after the last whole one any may be the next that is whole: the damage of some pages."""


class Mended(msgspec.Struct, frozen=True):
    """What became of one damaged segment."""

    file: str
    why: str
    kept: int
    """Records that were whole."""
    missing_first: int
    missing_last: int
    """Between these some are missing; 0, 0 where none are. ``missing_last`` is 0 where it was the log's end: the robot
    knows how far it went, and is asked for them."""


def mend(folder: Path, robot: str, log_id: str) -> list[Mended]:
    """Give every segment whose header is damaged another one; returns what was done.

    Raises:
        LogFormatError: a header is whole, but of a newer outrider: nothing is touched.
        OSError: the disk refused; what was not done yet is done the next time.
    """
    unreadable: dict[Path, str] = {}
    good = {segment.path: segment for segment in list_segments(folder, unreadable) if segment.header}
    for path, why in unreadable.items():
        if has_whole_header(path.read_bytes()):
            raise LogFormatError(why)
    done = []
    for path in sorted(unreadable):
        before = max((other for other in good if other < path), default=None)
        after = min((other for other in good if other > path), default=None)
        first_seq = _last_seq(good[before]) + 1 if before else int(path.stem == FIRST_STEM)
        next_seq = _header(good[after]).first_seq if after else 0
        header, kept = _mend_one(path, _headers(robot, log_id, good), first_seq, next_seq)
        if header is not None:
            good[path] = Segment(path, header, len(encode_segment_header(header)))
        done.append(Mended(path.name, unreadable[path], kept.frames, *_missing(kept, first_seq, next_seq)))
    return done


def mend_tail(path: Path, data: bytes, end: int, last_seq: int) -> Mended | None:
    """Keep a copy of a last segment that is about to be cut off at ``end`` behind ``last_seq``, if it is damaged.

    Returns:
        What is said of it; None for a torn tail.

    Raises:
        OSError: the disk refused; then it is not to be cut.
    """
    head = decode_segment_header(data, path.name)
    if head is None:
        return None
    first_seq = head[0].first_seq
    next_seq = last_seq + 1 if last_seq else first_seq
    if not any(_holds(data, end, seq) for seq in range(next_seq + 1, next_seq + LOOK_AHEAD)):
        return None
    _copy_aside(path, data)
    why = f"record {next_seq} is damaged, and whole ones follow"
    return Mended(path.name, why, next_seq - first_seq, next_seq, 0)


def _holds(data: bytes, start: int, seq: int) -> bool:
    """Whether record ``seq`` lies whole somewhere behind ``start``."""
    wanted, at = seq.to_bytes(8, "little"), start
    while (at := data.find(wanted, at + 1)) >= 0:
        begin = at - FRAME_SEQ_AT
        if begin >= start and _is_whole(data, begin):
            return True
    return False


def _is_whole(data: bytes, at: int) -> bool:
    """Whether a frame that may be one begins there, with the checksum that it names."""
    length, checksum, kind, _ = FRAME_HEADER.unpack_from(data, at)
    plausible = 9 <= length <= PAYLOAD_MAX_BYTES + 9 and 1 <= kind <= len(Kind)
    return plausible and crc32(data[at + 8 : at + 8 + length]) == int(checksum)


def _missing(kept: Scan, first_seq: int, next_seq: int) -> tuple[int, int]:
    """From the first number to the last that were to be there and are not; as of ``Mended``."""
    begin = kept.last_seq + 1 if kept.frames and kept.first_seq <= max(first_seq, 1) else max(first_seq, 1)
    if next_seq:
        return (begin, next_seq - 1) if begin < next_seq else (0, 0)
    return (begin, 0) if kept.damage else (0, 0)


def _mend_one(
    path: Path, headers: list[SegmentHeader], first_seq: int, next_seq: int
) -> tuple[SegmentHeader | None, Scan]:
    """The new header, if there is something to keep, and what is kept."""
    data = path.read_bytes()
    header, start, kept = None, 0, Scan(0, 0, 0, 0, "nothing in it is whole")
    for known in headers:
        at = _first_frame(data, first_seq, next_seq)
        found = scan_frames(data, at, known.record_dtype(path.name).itemsize) if at else kept
        if found.frames > kept.frames:
            header, start, kept = msgspec.structs.replace(known, first_seq=found.first_seq), at, found
    if header is None or kept.damage:
        _keep_aside(path)
    if header is None:
        path.unlink()
        sync_folder(path.parent)
        return None, kept
    write_atomically(path, encode_segment_header(header) + data[start : kept.good_bytes])
    return header, kept


def _first_frame(data: bytes, first_seq: int, next_seq: int) -> int:
    """Where the first whole frame begins that may be there; 0 for none.

    At a log's end only the one with the number that comes next: its robot is asked for all behind what is kept.
    """
    for at in range(1, min(len(data) - FRAME_OVERHEAD, HEADER_READ_BYTES) + 1):
        seq = FRAME_HEADER.unpack_from(data, at)[3]
        fits = seq < next_seq if next_seq else not first_seq or seq == first_seq
        if seq >= max(first_seq, 1) and fits and _is_whole(data, at):
            return at
    return 0


def _headers(robot: str, log_id: str, good: dict[Path, Segment]) -> list[SegmentHeader]:
    """How its records may be laid out: as today's, or as in the other segments of the log."""
    others = [_header(segment) for _, segment in sorted(good.items())]
    return [present_header(robot, log_id, log_id, 1, 0), *others]


def _keep_aside(path: Path) -> None:
    """Another name for what is there, before anything takes its place."""
    for name in _names_aside(path):
        try:
            os.link(path, name)
            return
        except FileExistsError:
            if path.samefile(name):
                return  # a power cut came between


def _copy_aside(path: Path, data: bytes) -> None:
    """A copy of what is there, before a part of it goes."""
    for name in _names_aside(path):
        if not name.exists():
            write_atomically(name, data)
            return
        if name.read_bytes() == data:
            return  # a power cut came between


def _names_aside(path: Path) -> Iterator[Path]:
    yield path.with_suffix(DAMAGED_SUFFIX)
    for number in itertools.count(1):
        yield path.with_suffix(f".{number}{DAMAGED_SUFFIX}")


def _last_seq(segment: Segment) -> int:
    found = scan_frames(segment.path.read_bytes(), segment.data_start, segment.record_bytes)
    return found.last_seq or _header(segment).first_seq - 1


def _header(segment: Segment) -> SegmentHeader:
    assert segment.header is not None
    return segment.header
