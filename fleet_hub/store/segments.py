"""The intake's logs as arrays of records: which segments are closed, and what is in them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE
from contracts.framelog import Kind, Segment, iterate_frames, list_segments
from contracts.record_schema import to_present
from fleet_hub.rollout.trips import Records

CLOSED_AFTER_S = 600.0
"""A log that nothing was added to for so long is taken as it is."""
BATCH_SEGMENTS_MIN, BATCH_SEGMENTS_MAX = 4, 8
"""Up to 64 MiB of records become one batch of files; fewer than four segments wait for more, or for quiet."""


@dataclass(frozen=True)
class Stretch:
    """Records of a log in order."""

    records: Records
    """DECISION_DTYPE[n]."""
    seqs: npt.NDArray[np.int64]
    """int64[n], their numbers."""
    present: npt.NDArray[np.int64]
    """Numbers of everything that is there, events included; those between were lost on the robot, or are damaged."""


def closed_segments(folder: Path, wall_s: float, all_now: bool) -> list[Segment]:
    """The log's segments that may be taken now, in order; all of them with ``all_now``."""
    segments = [segment for segment in list_segments(folder) if segment.header is not None]
    if not segments or all_now or wall_s - segments[-1].path.stat().st_mtime >= CLOSED_AFTER_S:
        return segments
    return segments[:-1]


def first_seq(segment: Segment) -> int:
    """Number of a segment's first record."""
    assert segment.header is not None
    return segment.header.first_seq


def read_stretch(segments: list[Segment], after_seq: int) -> Stretch:
    """All records behind ``after_seq`` of some of a log's segments, as today's schema.

    Raises:
        LogFormatError: A segment is of no schema known here.
        OSError: One cannot be read.
    """
    parts, seqs, present, last = [np.zeros(0, DECISION_DTYPE)], [], [], after_seq
    for segment in segments:
        assert segment.header is not None
        payloads = []
        for frame in iterate_frames(segment.path.read_bytes(), segment.data_start, segment.record_bytes):
            if frame.seq <= last:
                continue
            last = frame.seq
            if frame.kind is not Kind.LOST:
                present.append(frame.seq)
            if frame.kind is Kind.DECISION:
                payloads.append(frame.payload)
                seqs.append(frame.seq)
        dtype = segment.header.record_dtype(segment.path.name)
        parts.append(to_present(np.frombuffer(b"".join(payloads), dtype)))
    return Stretch(np.concatenate(parts), np.array(seqs, dtype=np.int64), np.array(present, dtype=np.int64))
