"""Keeps the log within its share of the disk: drops by class, never an incident, and tells what it dropped.

The order: debug records; what the hub has acknowledged; decisions the hub does not have; raw scans. Oldest first within
each. Events stay, and so do all decisions within ``WINDOW_NS`` of an incident, to whole blocks. Raw scans come from
incidents alone and are nowhere else: they outlive every other sample. But they are large, and a robot that stops all
day would fill its disk with them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.errors import LogFormatError
from contracts.framelog import LostClass
from edge_agent.recorder.incidents import WINDOW_NS
from edge_agent.recorder.sealed import PartKind, SealedSegment, list_sealed, open_sealed
from edge_agent.recorder.sealing import thin

ORDER = (LostClass.DEBUG, LostClass.ACKNOWLEDGED, LostClass.SAMPLE, LostClass.SCAN)
Spans = dict[str, list[tuple[int, int]]]
"""By boot id: times (monotonic ns) that are kept."""


@dataclass
class Dropped:
    """What one class lost."""

    kind: LostClass
    count: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


@dataclass
class _Plan:
    freed: int = 0
    drops: dict[Path, dict[int, dict[PartKind, LostClass]]] = field(default_factory=dict)


def make_room(
    folder: Path, need_bytes: int, log_id: str, acked_seq: int, extra: Spans | None = None
) -> list[Dropped]:
    """Drop until ``need_bytes`` are free or nothing more may go; what went, by class.

    Args:
        folder: of the log.
        need_bytes: how much must go.
        log_id: to which ``acked_seq`` belongs; an older log of the robot counts as not acknowledged.
        acked_seq: how far the hub has it.
        extra: further times to keep (of records not sealed yet).

    Raises:
        OSError: the disk refused in between; what was not dropped is still there.
    """
    segments = _readable(folder)
    kept = kept_spans(segments, extra)
    plan = _Plan()
    for kind in ORDER:
        for segment in segments:
            _plan(plan, segment, kind, kept, acked_seq if segment.header.log_id == log_id else 0, need_bytes)
    gone: dict[LostClass, Dropped] = {}
    for segment in segments:
        if drops := plan.drops.get(segment.path):
            thin(segment, drops)
            for block, parts in drops.items():
                _count(gone, segment, block, parts)
    return [gone[kind] for kind in ORDER if kind in gone]


def kept_spans(segments: list[SealedSegment], extra: Spans | None = None) -> Spans:
    """Times around incidents, by boot."""
    spans: Spans = {boot: list(times) for boot, times in (extra or {}).items()}
    for segment in segments:
        for block in segment.blocks:
            for incident in block.incidents:
                if not incident.tick:
                    continue  # an event, which stays in any case
                span = (incident.mono_ns - WINDOW_NS, incident.mono_ns + WINDOW_NS)
                spans.setdefault(segment.header.boot_id, []).append(span)
    return spans


def _readable(folder: Path) -> list[SealedSegment]:
    """The whole sealed segments, oldest first; damaged ones are left as they are."""
    found: Iterator[SealedSegment | None] = (_opened(path) for path in list_sealed(folder))
    return [segment for segment in found if segment is not None and segment.seal is not None]


def _opened(path: Path) -> SealedSegment | None:
    try:
        return open_sealed(path)
    except LogFormatError:
        return None


def _plan(
    plan: _Plan, segment: SealedSegment, kind: LostClass, kept: Spans, acked_seq: int, need_bytes: int
) -> None:
    spans = kept.get(segment.header.boot_id, [])
    for index, block in enumerate(segment.blocks):
        if plan.freed >= need_bytes:
            return
        near = any(low <= block.mono_ns[1] and block.mono_ns[0] <= high for low, high in spans)
        for part, mark in zip(block.parts, segment.dropped[index], strict=True):
            goes = {
                LostClass.DEBUG: part.kind is PartKind.DEBUG,
                LostClass.ACKNOWLEDGED: part.kind is PartKind.SAMPLES
                and not near
                and block.last_seq <= acked_seq,
                LostClass.SAMPLE: part.kind is PartKind.SAMPLES and not near,
                LostClass.SCAN: part.kind is PartKind.SCANS,
            }[kind]
            already = part.kind in plan.drops.get(segment.path, {}).get(index, {})
            if goes and not mark and not already:
                plan.drops.setdefault(segment.path, {}).setdefault(index, {})[part.kind] = kind
                plan.freed += part.size


def _count(
    gone: dict[LostClass, Dropped], segment: SealedSegment, index: int, parts: dict[PartKind, LostClass]
) -> None:
    block = segment.blocks[index]
    for part in block.parts:
        if part.kind in parts:
            one = gone.setdefault(parts[part.kind], Dropped(parts[part.kind], first_seq=block.first_seq))
            one.count += part.count
            one.bytes += part.size
            one.first_seq, one.last_seq = (
                min(one.first_seq, block.first_seq),
                max(one.last_seq, block.last_seq),
            )
