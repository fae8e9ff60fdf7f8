"""Erasure on the robot: what was recorded in some time goes from its own log, and the chain still holds for the rest.

Whole blocks go (``sealing.BLOCK_RECORDS``, 100 s at 20 Hz): decisions, raw scans, debug records, and events where that
is asked. Their index stays, and so does the robot's seal, which names what is gone by its hash. Each segment is
rewritten beside, synced and renamed: after a power cut it is the old one or the new one, and the same request goes on.
A receipt, signed with the robot's log key, lies in the log; ``verify`` takes no erased block without one.

``erase`` is for a robot whose agent does not run: nothing may be written beside its recorder. ``erasing`` is the same
in small steps, for the agent's own recorder while the robot drives (``edge_agent.uplink.erasures``). The segment that
was written last is sealed first, as at a start.
"""

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import msgspec

from contracts.atomic import write_atomically
from contracts.erasure import ErasedBlock, Receipt, SignedReceipt, Text, receipt_digest
from contracts.errors import LogFormatError
from contracts.framelog import DAMAGED_SUFFIX, Kind, LostClass
from contracts.scan import decode_scan
from edge_agent.errors import LogFolderError
from edge_agent.recorder.key import KEY_FILE, load_or_make_key
from edge_agent.recorder.receipts import RECEIPT_GLOB, covered
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.sealed import PartKind, SealedSegment, list_sealed, open_sealed
from edge_agent.recorder.sealing import thin

ERASED_BEGAN, ERASED_DONE = "erasure_began", "records_erased"
ALWAYS = (PartKind.SAMPLES, PartKind.DEBUG, PartKind.SCANS)


class Request(msgspec.Struct, frozen=True):
    """What is to go: records of [since_ns, until_ns] by the robot's clock, for whose reason."""

    since_ns: int
    until_ns: int
    who: Text
    why: Text
    events: bool = False
    order: str = ""
    """SHA-256 of the order that is carried out; "" where somebody stands beside the robot."""

    def kinds(self) -> tuple[PartKind, ...]:
        """Which parts of a block."""
        return (*ALWAYS, PartKind.EVENTS) if self.events else ALWAYS


def would_erase(folder: Path, request: Request) -> list[ErasedBlock]:
    """What ``erase`` would take of segments that are sealed already. Nothing is written."""
    return [block for segment in _sealed(folder) for block in _reaching(segment, request)]


def erase(state_dir: Path, robot: str, request: Request) -> tuple[Receipt, Path]:
    """Erase from STATE/log; the receipt and where it lies. The caller holds the robot's lock.

    Raises:
        LogFolderError: this is not the robot's own state folder, or its log cannot be sealed.
        LogFormatError: a segment is foreign.
        OSError: the disk refused; ask again, and it goes on.
    """
    if not (state_dir / KEY_FILE).is_file():
        raise LogFolderError(
            f"{state_dir} has no {KEY_FILE}: a copy of a log cannot be erased from; give the robot's own state folder"
        )
    recorder = Recorder(state_dir, robot)
    try:
        steps = erasing(recorder, state_dir, request)
        while True:
            next(steps)
    except StopIteration as done:
        found: tuple[Receipt, Path] = done.value
        return found
    finally:
        recorder.close()


def erasing(
    recorder: Recorder, state_dir: Path, request: Request
) -> Generator[None, None, tuple[Receipt, Path]]:
    """The same, a block or a segment at a step, with a recorder that may write between two steps.

    Raises:
        LogFolderError: The log cannot be sealed.
        LogFormatError: A segment is foreign.
        OSError: The disk refused; begin again, and it goes on.
    """
    span = {"since_ns": request.since_ns, "until_ns": request.until_ns}
    about = (
        span | {"who": request.who, "why": request.why} | ({"order": request.order} if request.order else {})
    )
    recorder.forget_scans()
    recorder.event(ERASED_BEGAN, **about, events=request.events)
    recorder.end_segment()
    while (more := recorder.seal_some()) is not False:
        if more is None:
            raise LogFolderError(f"{recorder.folder} cannot be sealed; see `outrider doctor {state_dir}`")
        yield
    named = {(one.seal, one.block, kind) for one in covered(recorder.folder) for kind in one.kinds}
    unreadable = [path.name for path in sorted(recorder.folder.glob(f"*{DAMAGED_SUFFIX}"))]
    blocks: list[ErasedBlock] = []
    for path in list_sealed(recorder.folder):
        segment = _whole(path)
        if segment is None:
            unreadable.append(path.name)
            continue
        blocks += _unnamed(_thinned(segment, request), named)
        yield
    receipt, path = _write_receipt(state_dir, recorder, request, tuple(blocks), tuple(unreadable))
    recorder.event(
        ERASED_DONE, **about, count=receipt.records, receipt=path.name, sha256=receipt_digest(receipt).hex()
    )
    recorder.sync()
    return receipt, path


def _thinned(segment: SealedSegment, request: Request) -> SealedSegment:
    """The segment without what is asked for, rewritten where it has something of that."""
    drop = {
        block.block: {PartKind[kind.upper()]: LostClass.ERASED for kind in block.kinds}
        for block in _reaching(segment, request)
    }
    return thin(segment, drop) if drop else segment


def _write_receipt(
    state_dir: Path,
    recorder: Recorder,
    request: Request,
    blocks: tuple[ErasedBlock, ...],
    unreadable: tuple[str, ...],
) -> tuple[Receipt, Path]:
    """Of all that is erased and in no receipt yet: also what went before a power cut."""
    receipt = Receipt(
        robot=recorder.robot, since_ns=request.since_ns, until_ns=request.until_ns, who=request.who,
        why=request.why, blocks=blocks, records=sum(block.records for block in blocks),
        unreadable=unreadable, finished_wall_ns=time.time_ns(), order=request.order or msgspec.UNSET,
    )  # fmt: skip
    key = load_or_make_key(state_dir)
    signature = key.sign_receipt(receipt_digest(receipt)).hex()
    numbers = [int(path.stem.rpartition("-")[2]) for path in recorder.folder.glob(RECEIPT_GLOB)]
    path = recorder.folder / f"erasure-{max(numbers, default=0) + 1:06d}.json"
    write_atomically(
        path, msgspec.json.format(msgspec.json.encode(SignedReceipt(receipt, signature))) + b"\n"
    )
    return receipt, path


def _sealed(folder: Path) -> list[SealedSegment]:
    """Whole sealed segments, oldest first."""
    return [segment for path in list_sealed(folder) if (segment := _whole(path)) is not None]


def _whole(path: Path) -> SealedSegment | None:
    """A sealed segment; None for one that is damaged."""
    try:
        segment = open_sealed(path)
    except LogFormatError:
        return None
    return segment if segment.seal is not None else None


def _reaching(segment: SealedSegment, request: Request) -> Iterator[ErasedBlock]:
    """Blocks with parts that are still here and have a record of the request's time; raises LogFormatError."""
    for number, entry in enumerate(segment.blocks):
        if entry.span_ns[1] < request.since_ns or entry.span_ns[0] > request.until_ns:
            continue
        kinds = [kind for kind in request.kinds() if _has(segment, number, kind, request)]
        if kinds:
            yield _block(segment, number, tuple(kind.name.lower() for kind in kinds))


def _has(segment: SealedSegment, block: int, kind: PartKind, request: Request) -> bool:
    """Whether a part has such a record. Each is looked at: a clock that was set makes any span a wide one."""
    if kind is PartKind.SAMPLES:
        walls = segment.decisions(block, ("wall_ns",))["wall_ns"].tolist()
    elif kind is PartKind.SCANS:
        walls = [decode_scan(payload).wall_ns for _, payload in segment.scans(block)]
    else:
        events = segment.events(block, Kind.EVENT if kind is PartKind.EVENTS else Kind.DEBUG)
        walls = [event.wall_ns for _, event in events]
    return any(request.since_ns <= wall_ns <= request.until_ns for wall_ns in walls)


def _unnamed(segment: SealedSegment, named: set[tuple[str, int, str]]) -> Iterator[ErasedBlock]:
    """Blocks that bear the mark of an erasure and are in no receipt yet."""
    for number, entry in enumerate(segment.blocks):
        erased = [
            part.kind.name.lower()
            for part, mark in zip(entry.parts, segment.dropped[number], strict=True)
            if mark == LostClass.ERASED
        ]
        kinds = tuple(kind for kind in erased if (segment.digest.hex(), number, kind) not in named)
        if kinds:
            yield _block(segment, number, kinds)


def _block(segment: SealedSegment, number: int, kinds: tuple[str, ...]) -> ErasedBlock:
    entry = segment.blocks[number]
    records = sum(part.count for part in entry.parts if part.kind.name.lower() in kinds)
    return ErasedBlock(
        segment.number, segment.digest.hex(), number, entry.first_seq, entry.last_seq, entry.span_ns, kinds, records
    )  # fmt: skip
