"""Makes sealed segments out of finished live ones, a block at a time, and thins them for the disk budget.

Runs in comms, never in the tick. A kill at any point leaves the live segment, or both (the sealed one counts), or
the sealed one: the new file is written beside, synced, renamed, and only then the old one is removed.
"""

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.atomic import sync_folder
from contracts.decision import count_policies
from contracts.errors import LogFormatError
from contracts.framelog import (
    DAMAGED_SUFFIX,
    SEGMENT_SUFFIX,
    Event,
    Frame,
    Kind,
    LostClass,
    Segment,
    decode_event,
    iterate_frames,
    list_segments,
    scan_frames,
)
from contracts.scan import decode_scan
from edge_agent.recorder.columns import encode_columns
from edge_agent.recorder.incidents import Before, Incident, find_onsets, of_decision, of_event
from edge_agent.recorder.key import LogKey
from edge_agent.recorder.sealed import (
    NO_DIGEST,
    SEALED_SUFFIX,
    BlockEntry,
    Part,
    PartKind,
    Seal,
    SealedSegment,
    Statement,
    encode_block_head,
    encode_sealed_header,
    encode_tail,
    open_sealed,
    pack_payloads,
)

BLOCK_RECORDS = 2048
"""100 s at 20 Hz: what an incident keeps is a whole number of blocks."""
_KEPT_AS_THEY_ARE = (
    (PartKind.EVENTS, Kind.EVENT),
    (PartKind.DEBUG, Kind.DEBUG),
    (PartKind.SCANS, Kind.SCAN),
)


def encode_block(
    frames: list[Frame], dtype: "np.dtype[Any]", before: Before
) -> tuple[BlockEntry, list[bytes], Before]:
    """Frames that follow each other as one block: its entry, its parts, and the state for the next one's onsets."""
    records = np.frombuffer(b"".join(f.payload for f in frames if f.kind is Kind.DECISION), dtype)
    seqs = [frame.seq for frame in frames if frame.kind is Kind.DECISION]
    others = tuple(
        (frame.seq - frames[0].seq, frame.kind) for frame in frames if frame.kind is not Kind.DECISION
    )
    columns, stored = encode_columns(records) if len(records) else ((), b"")
    parts, payloads = [], []
    if len(records):
        payloads.append(stored)
        parts.append(Part(PartKind.SAMPLES, len(stored), sha256(stored).digest(), len(records)))
    for part, kind in _KEPT_AS_THEY_ARE:
        found = [frame.payload for frame in frames if frame.kind is kind]
        if found:
            payloads.append(pack_payloads(found))
            parts.append(Part(part, len(payloads[-1]), sha256(payloads[-1]).digest(), len(found)))
    incidents, before = _incidents(frames, records, seqs, before)
    events = list(_events(frames))
    rows = records[["wall_ns", "mono_ns"]][[0, -1]] if len(records) else ()
    walls, monos = [int(row["wall_ns"]) for row in rows], [int(row["mono_ns"]) for row in rows]
    scans = [decode_scan(frame.payload) for frame in frames if frame.kind is Kind.SCAN]
    all_walls = walls + [event.wall_ns for event in events] + [scan.wall_ns for scan in scans]
    walls = walls or all_walls
    monos = monos or [event.mono_ns for event in events] + [scan.arrived_ns for scan in scans]
    entry = BlockEntry(
        frames[0].seq, len(frames), others, (min(all_walls), max(all_walls)), (walls[0], walls[-1]),
        (monos[0], monos[-1]), *_extremes(records), incidents, columns, tuple(parts),
    )  # fmt: skip
    return entry, payloads, before


def _extremes(records: npt.NDArray[np.void]) -> tuple[tuple[int, int], tuple[bytes, ...], int, int, int, int]:
    """Ticks, policies, flags joined, worst verdict, worst tick, worst lateness."""
    if not len(records):
        return (0, 0), (), 0, 0, 0, 0
    return (
        (int(records["tick"][0]), int(records["tick"][-1])),
        tuple(bytes.fromhex(text) or NO_DIGEST for text in count_policies(records["policy_digest"])),
        int(np.bitwise_or.reduce(records["flags"])),
        int(records["verdict"].max()),
        int(records["total_us"].max()),
        int(records["late_us"].max()),
    )


def _events(frames: list[Frame]) -> Iterator[Event]:
    return (decode_event(frame.payload) for frame in frames if frame.kind in (Kind.EVENT, Kind.DEBUG))


def _incidents(
    frames: list[Frame], records: npt.NDArray[np.void], seqs: list[int], before: Before
) -> tuple[tuple[Incident, ...], Before]:
    onsets, after = find_onsets(records, before)
    found = [of_decision(seqs[row], records[row]) for row in onsets.tolist()]
    events = [of_event(f.seq, decode_event(f.payload)) for f in frames if f.kind is Kind.EVENT]
    found += [incident for incident in events if incident]
    return tuple(sorted(found, key=lambda incident: incident.seq)), after


class Sealer:
    """Seals the finished segments of one folder, oldest first.

    Args:
        folder: with the live and sealed segments.
        key: the robot's.
        done: told of every seal (segment's number, statement's digest, number of records).
    """

    def __init__(self, folder: Path, key: LogKey, done: Callable[[SealedSegment], None]) -> None:
        self._folder, self._key, self._done = folder, key, done
        self._work: Iterator[None] | None = None
        self._previous: bytes | None = None
        self._before = Before()
        self._idle_at: Path | None = None
        remove_leftovers(folder)

    def step(self, current: Path | None) -> bool:
        """Do a little: one block. ``current`` is the segment being written, which stays. True while there is work.

        Raises:
            OSError: the disk refused; the live segment is still there, and the next step begins it anew.
            LogFormatError: a foreign or unreadable segment.
        """
        if self._work is None:
            if current is not None and current == self._idle_at:
                return False
            segment = next((s for s in list_segments(self._folder) if s.path != current), None)
            if segment is None:
                self._idle_at = current
                return False
            self._work = self._seal(segment)
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        except BaseException:
            self._work = None
            raise
        return True

    def _seal(self, segment: Segment) -> Iterator[None]:
        header, path = segment.header, segment.path
        data = path.read_bytes()
        yield
        if header is None:
            path.unlink()
            return
        frames = iterate_frames(data, segment.data_start, segment.record_bytes)
        target = path.with_suffix(SEALED_SUFFIX)
        temporary = path.with_name(f".{target.name}.tmp")
        try:
            with temporary.open("wb") as file:
                blocks, offsets, dropped = [], [], []
                dtype, before = header.record_dtype(path.name), self._before
                file.write(encode_sealed_header(header))
                while whole := list(islice(frames, BLOCK_RECORDS)):
                    entry, parts, before = encode_block(whole, dtype, before)
                    dropped.append(bytes(len(parts)))
                    file.write(encode_block_head(entry, dropped[-1]))
                    offsets.append(file.tell())
                    file.writelines(parts)
                    blocks.append(entry)
                    yield
                statement = Statement(header, int(path.stem), self._last_digest(path), tuple(blocks))
                self._finish(file, statement, tuple(offsets), tuple(dropped))
            if blocks:
                temporary.rename(target)
                sync_folder(self._folder)
        finally:
            temporary.unlink(missing_ok=True)
        if scan_frames(data, segment.data_start, segment.record_bytes).damage:
            path.rename(
                path.with_suffix(DAMAGED_SUFFIX)
            )  # what follows the damage may still be of use to somebody
        else:
            path.unlink()
        if blocks:
            self._before, sealed = before, open_sealed(target)
            self._previous = sealed.digest
            self._done(sealed)

    def _finish(
        self, file: BinaryIO, statement: Statement, offsets: tuple[int, ...], dropped: tuple[bytes, ...]
    ) -> None:
        signed = msgspec.msgpack.encode(statement)
        signature = self._key.sign(sha256(signed).digest())
        file.write(encode_tail(Seal(signed, signature, self._key.public, offsets, dropped)))
        file.flush()
        os.fsync(file.fileno())

    def _last_digest(self, path: Path) -> bytes:
        """Digest of the newest seal before ``path``; zeros for none."""
        if self._previous is None:
            before = [p for p in sorted(self._folder.glob(f"*{SEALED_SUFFIX}")) if p.stem < path.stem]
            self._previous = _digest_of(before[-1]) if before else NO_DIGEST
        return self._previous


def remove_leftovers(folder: Path) -> None:
    """After a kill: half-written files, and live segments whose sealed form is already there."""
    for path in folder.glob(f".*{SEALED_SUFFIX}.tmp"):
        path.unlink()
    for path in folder.glob(f"*{SEALED_SUFFIX}"):
        live = path.with_suffix(SEGMENT_SUFFIX)
        if live.exists() and _digest_of(path) != NO_DIGEST:
            live.unlink()


def _digest_of(path: Path) -> bytes:
    """Digest of a seal; zeros for a file that has none any more: `verify` will name it."""
    try:
        return open_sealed(path).digest
    except LogFormatError:
        return NO_DIGEST


def thin(segment: SealedSegment, drop: dict[int, dict[PartKind, LostClass]]) -> SealedSegment:
    """Rewrite a sealed segment without some parts; the seal stays and still fits what is left.

    Args:
        segment: a whole one.
        drop: by block, what to drop and as what it is lost.

    Raises:
        OSError: the disk refused; the file is as it was.
    """
    assert segment.seal is not None
    offsets, marks = [], []
    temporary = segment.path.with_name(f".{segment.path.name}.tmp")
    try:
        with segment.path.open("rb") as source, temporary.open("wb") as file:
            file.write(encode_sealed_header(segment.header))
            for index, entry in enumerate(segment.blocks):
                mark, kept, at = bytearray(segment.dropped[index]), [], segment.offsets[index]
                for place, part in enumerate(entry.parts):
                    if mark[place]:
                        continue
                    source.seek(at)
                    at += part.size
                    why = drop.get(index, {}).get(part.kind)
                    if why is None:
                        kept.append(source.read(part.size))
                    else:
                        mark[place] = why
                file.write(encode_block_head(entry, bytes(mark)))
                offsets.append(file.tell())
                marks.append(bytes(mark))
                file.writelines(kept)
            seal = msgspec.structs.replace(segment.seal, offsets=tuple(offsets), dropped=tuple(marks))
            file.write(encode_tail(seal))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(segment.path)
        sync_folder(segment.path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return open_sealed(segment.path)
