"""Holds a log against its own seals: which records are as the robot sealed them, and where the chain is broken.

What it cannot see: a robot's key in wrong hands, or newest segments that were taken away. Both show at the hub, which
has every ``segment_sealed`` event and the key from the first ``recorder_opened``.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from contracts.errors import LogFormatError
from contracts.framelog import DAMAGED_SUFFIX, LostClass, list_segments, scan_frames
from edge_agent.recorder.key import signature_fits
from edge_agent.recorder.receipts import read_receipts, signed_by
from edge_agent.recorder.sealed import NO_DIGEST, SealedSegment, list_sealed, open_sealed

State = Literal["good", "note", "broken"]


class Finding(msgspec.Struct, frozen=True):
    """What was found about one segment, or one block of it."""

    segment: str
    state: State
    what: str


class Verification(msgspec.Struct, frozen=True):
    """A folder's chain. ``whole`` is False when any finding is "broken"."""

    folder: str
    robot: str
    key: str
    """The public key that sealed it, in hexadecimal; "" without a seal."""
    key_known: bool
    """Whether that key was the one asked for."""
    sealed: int
    live: int
    records: int
    dropped: int
    whole: bool
    findings: tuple[Finding, ...]


def verify_folder(folder: Path, key_hex: str = "") -> Verification:
    """Check every hash, link and signature.

    Args:
        folder: with ``*.oseal`` and ``*.olog``.
        key_hex: the robot's public log key where it is known; else the first seal's is taken, and said so.

    Raises:
        OSError: unreadable.
    """
    findings: list[Finding] = []
    opened: list[SealedSegment] = []
    for path in list_sealed(folder):
        try:
            opened.append(open_sealed(path))
        except LogFormatError as error:
            findings.append(_broken(path, str(error)))
    sealed = [segment for segment in opened if segment.seal is not None]
    first_key = sealed[0].seal.public.hex() if sealed and sealed[0].seal else ""
    key, previous = key_hex.lower() or first_key, None
    erased, told = _receipts(folder, bytes.fromhex(key))
    findings += told
    for segment in opened:
        findings += _segment(segment, bytes.fromhex(key))
        findings += _unreceipted(segment, erased)
        findings += _link(segment, previous)
        previous = segment
    findings += [
        Finding(p.name, "broken", "records of it were damaged before it was sealed; kept as it was")
        for p in sorted(folder.glob(f"*{DAMAGED_SUFFIX}"))
    ]
    live, records = 0, sum(block.count for segment in opened for block in segment.blocks)
    unreadable: dict[Path, str] = {}
    segments = list_segments(folder, unreadable)
    findings += [_broken(path, why) for path, why in unreadable.items()]
    for found in segments:
        live += 1
        scan = scan_frames(found.path.read_bytes(), found.data_start, found.record_bytes)
        records += scan.frames
        what = f"{scan.frames} records, not sealed yet: checksums good, nobody vouches for them"
        findings.append(Finding(found.path.name, "note", scan.damage or what))
    robots = [segment.header.robot for segment in opened]
    robots += [found.header.robot for found in segments if found.header]
    dropped = sum(segment.lost(block) for segment in opened for block in range(len(segment.blocks)))
    return Verification(
        str(folder), robots[0] if robots else "", key, bool(key_hex), len(sealed), live, records, dropped,
        not any(finding.state == "broken" for finding in findings), tuple(findings),
    )  # fmt: skip


def _broken(path: Path, why: str) -> Finding:
    """What was said of a file, its name once."""
    return Finding(path.name, "broken", why.removeprefix(f"{path.name}: "))


def _segment(segment: SealedSegment, key: bytes) -> Iterator[Finding]:
    name = segment.path.name
    if segment.seal is None or segment.statement is None:
        yield _broken(segment.path, segment.damage)
        return
    if segment.seal.public != key:
        yield Finding(name, "broken", f"sealed with another key ({segment.seal.public.hex()[:16]})")
    if not signature_fits(segment.seal.public, segment.digest, segment.seal.signature):
        yield Finding(name, "broken", "its index or its signature was changed: the signature does not fit")
    if segment.statement.number != segment.number:
        yield Finding(name, "broken", f"sealed as number {segment.statement.number}: it was renamed")
    broken = list(_blocks(segment))
    yield from broken
    if not broken:
        blocks = range(len(segment.blocks))
        erased = sum(segment.lost(block, erased=True) for block in blocks)
        lost = sum(segment.lost(block) for block in blocks) - erased
        about = f", {lost} dropped for room" if lost else ""
        about += f", {erased} erased" if erased else ""
        total = sum(block.count for block in segment.blocks)
        yield Finding(name, "good", f"{total} records{about}")


def _blocks(segment: SealedSegment) -> Iterator[Finding]:
    """Blocks of which a part is not what was sealed."""
    with segment.path.open("rb") as file:
        for index, block in enumerate(segment.blocks):
            file.seek(segment.offsets[index])
            for part, mark in zip(block.parts, segment.dropped[index], strict=True):
                if not mark and sha256(file.read(part.size)).digest() != part.digest:
                    yield Finding(
                        segment.path.name, "broken",
                        f"block {index} ({part.kind.name.lower()}, records {block.first_seq} to "
                        f"{block.last_seq}, ticks {block.tick[0]} to {block.tick[1]}) was changed or is damaged",
                    )  # fmt: skip


def _receipts(folder: Path, key: bytes) -> tuple[set[tuple[str, int, str]], list[Finding]]:
    """What the receipts for erasures that ``key`` signed name (seal, block, kind), and who erased what and why."""
    named: set[tuple[str, int, str]] = set()
    findings = []
    for name, one in read_receipts(folder):
        if one is None or not signed_by(one, key):
            findings.append(Finding(name, "broken", "no receipt of this robot, or it was changed"))
            continue
        what = one.receipt
        named |= {(block.seal, block.block, kind) for block in what.blocks for kind in block.kinds}
        said = f"{what.records} records erased in {len(what.blocks)} blocks by {what.who}: {what.why}"
        findings.append(Finding(name, "note", said))
    return named, findings


def _unreceipted(segment: SealedSegment, named: set[tuple[str, int, str]]) -> Iterator[Finding]:
    """Blocks that bear the mark of an erasure which no receipt names."""
    for index, block in enumerate(segment.blocks):
        for part, mark in zip(block.parts, segment.dropped[index], strict=True):
            kind = part.kind.name.lower()
            if mark == LostClass.ERASED and (segment.digest.hex(), index, kind) not in named:
                yield Finding(
                    segment.path.name, "broken",
                    f"block {index} ({kind}, records {block.first_seq} to {block.last_seq}) was erased and no receipt "
                    "says by whom; was the erasure interrupted? ask for it again",
                )  # fmt: skip


def _link(segment: SealedSegment, previous: SealedSegment | None) -> Iterator[Finding]:
    if segment.statement is None:
        return
    name, link = segment.path.name, segment.statement.previous
    if previous is None:
        if link != NO_DIGEST:
            yield Finding(name, "note", "the chain begins here: older segments are not in this folder")
        return
    if link != previous.digest:
        yield Finding(
            name, "broken",
            f"does not follow {previous.path.name}: one between them is missing, or that one was exchanged",
        )  # fmt: skip
