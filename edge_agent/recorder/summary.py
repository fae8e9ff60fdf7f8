"""What a log says in a dozen lines: how many, when, which policy and verdicts, how fast, what is missing."""

from collections import Counter
from typing import Any

import msgspec
import numpy as np

from contracts.decision import Reason, Source, Verdict, count_policies
from edge_agent.recorder.incidents import FIELDS, INCIDENT_EVENTS, Before, find_onsets
from edge_agent.recorder.reading import Log
from edge_agent.uplink.uplink import read_acked

SUMMARY_FIELDS = (*FIELDS, "source", "total_us", "late_us", "missed_ticks", "policy_digest")
"""All that ``summarize`` reads of a decision."""


class Spread(msgspec.Struct, frozen=True):
    """Percentiles in microseconds."""

    p50_us: float
    p99_us: float
    p99_9_us: float
    max_us: float


class PolicyUse(msgspec.Struct, frozen=True):
    """How many decisions a policy made; an empty digest is none."""

    digest: str
    version: str
    decisions: int


class Summary(msgspec.Struct, frozen=True):
    """The facts of one log."""

    robot: str
    folder: str
    records: int
    decisions: int
    scans: int
    events: dict[str, int]
    first_wall_ns: int
    last_wall_ns: int
    boots: int
    policies: tuple[PolicyUse, ...]
    sources: dict[str, int]
    verdicts: dict[str, int]
    reasons: dict[str, int]
    tick: Spread | None
    late: Spread | None
    missed_ticks: int
    last_seq: int
    gaps: int
    acked_seq: int | None
    unsent: int | None
    damage: tuple[str, ...]
    incidents: int
    lost: dict[str, int]


def summarize(log: Log) -> Summary:
    """Count everything in a log."""
    decisions = log.decisions
    walls = [event.wall_ns for _, event in log.events]
    if len(decisions):
        walls += [int(decisions["wall_ns"].min()), int(decisions["wall_ns"].max())]
    seqs = np.sort(
        np.concatenate(
            [
                log.decision_seqs,
                np.array([*(s for s, _ in log.events + log.debug), *log.scan_seqs], np.uint64),
            ]
        )
    )
    last_seq = int(seqs[-1]) if len(seqs) else 0
    onsets, _ = find_onsets(decisions, Before())
    position = read_acked(log.folder)
    acked = (
        position.acked_seq if position and log.headers and position.log_id == log.headers[-1].log_id else None
    )
    return Summary(
        robot=log.robot,
        folder=str(log.folder),
        records=log.records,
        decisions=len(decisions),
        scans=len(log.scan_seqs),
        events=dict(Counter(event.name for _, event in log.events)),
        first_wall_ns=min(walls, default=0),
        last_wall_ns=max(walls, default=0),
        boots=len({header.boot_id for header in log.headers}),
        policies=_policies(log),
        sources=_names(decisions["source"], Source),
        verdicts=_names(decisions["verdict"], Verdict),
        reasons=_names(decisions["reason"], Reason),
        tick=_spread(decisions["total_us"]),
        late=_spread(decisions["late_us"]),
        missed_ticks=_missed(decisions["missed_ticks"]),
        last_seq=last_seq,
        gaps=_gaps(seqs.astype(np.int64), log.lost_ranges),
        acked_seq=acked,
        unsent=None if acked is None else max(last_seq - acked, 0),
        damage=tuple(log.damage),
        incidents=len(onsets) + sum(event.name in INCIDENT_EVENTS for _, event in log.events),
        lost={kind.name.lower(): count for kind, count in sorted(log.lost.items())},
    )


def _names(values: "np.ndarray[Any, Any]", kind: Any) -> dict[str, int]:
    known = {int(member): member.name.lower() for member in kind}
    numbers, counts = np.unique(values, return_counts=True)
    pairs = sorted(zip(numbers.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
    return {known.get(number, f"unknown_{number}"): count for number, count in pairs}


def _spread(values: "np.ndarray[Any, Any]") -> Spread | None:
    if not len(values):
        return None
    return Spread(*(float(value) for value in np.percentile(values, [50, 99, 99.9, 100])))


def _missed(values: "np.ndarray[Any, Any]") -> int:
    """The counter starts at 0 with each control process: sum the growth, and what a new one starts with."""
    if not len(values):
        return 0
    counter = values.astype(np.int64)
    steps = np.diff(counter)
    return int(counter[0] + np.where(steps >= 0, steps, counter[1:]).sum())


def _gaps(seqs: "np.ndarray[Any, Any]", lost: list[tuple[int, int]]) -> int:
    """Jumps in the numbers (sorted) that no known loss explains."""
    jumps = np.flatnonzero(np.diff(seqs) > 1)
    if not len(lost) or not len(jumps):
        return len(jumps)
    ranges = np.array(sorted(lost))
    ends = np.maximum.accumulate(ranges[:, 1])
    place = np.searchsorted(ranges[:, 0], seqs[jumps + 1] - 1, side="right") - 1
    explained = (place >= 0) & (ends[place] >= seqs[jumps] + 1)
    return int((~explained).sum())


def _policies(log: Log) -> tuple[PolicyUse, ...]:
    versions = {
        str(event.detail["digest"]): str(event.detail["version"])
        for _, event in log.events
        if {"digest", "version"} <= event.detail.keys()
    }
    uses = []
    for text, count in count_policies(log.decisions["policy_digest"]).items():
        uses.append(PolicyUse(text, versions.get(text, ""), count))
    return tuple(sorted(uses, key=lambda use: -use.decisions))
