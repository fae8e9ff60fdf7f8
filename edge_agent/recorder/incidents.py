"""What an incident is: the first tick of a stop that is no routine, and events that somebody will ask about.

A robot that stands because nobody has armed it, or that waits for a goal, has no incident. One that brakes in front
of an obstacle has none either: that is a limit, not a stop.
"""

from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import FLAG_ARMED, FLAG_RETURNED, Reason, Verdict, in_words
from contracts.framelog import Event

WINDOW_NS = 30_000_000_000
"""Kept before and after an incident whatever the disk says."""
ROUTINE_REASONS = (Reason.CLEAR, Reason.NOT_ARMED, Reason.NO_GOAL)
INCIDENT_EVENTS = frozenset(
    (
        "records_lost",
        "ring_dropped",
        "log_restarted",
        "recorder_fault",
        "segment_damaged",
        "disk_error",
        "update_refused",
        "hub_forgot",
        "hub_acked_unwritten",
        "hub_audit_failed",
    )
)
FIELDS = ("tick", "mono_ns", "wall_ns", "verdict", "reason", "flags")
"""What ``find_onsets`` reads of a decision."""


class Incident(msgspec.Struct, frozen=True):
    """One incident; ``tick`` 0 for an event. ``what`` is for people: "stop: scan stale"."""

    seq: int
    wall_ns: int
    mono_ns: int
    tick: int
    what: Annotated[str, msgspec.Meta(max_length=128)]


class Before(msgspec.Struct, frozen=True):
    """What the last decision before a batch was like."""

    severity: int = 0
    armed: bool = False


def _severity(records: npt.NDArray[np.void]) -> "npt.NDArray[np.int64]":
    """0 for routine, else the verdict."""
    verdict = records["verdict"].astype(np.int64)
    routine = (verdict < Verdict.STOP) | np.isin(
        records["reason"], [int(reason) for reason in ROUTINE_REASONS]
    )
    return np.where(routine, 0, verdict)


def find_onsets(records: npt.NDArray[np.void], before: Before) -> tuple["npt.NDArray[np.intp]", Before]:
    """Rows at which an incident begins, and what to hand in with the next batch.

    An incident begins where a stop that is no routine begins or gets more severe while the robot is, or just was,
    armed (an emergency stop always), and where a policy on probation was taken off.
    """
    if not len(records):
        return np.zeros(0, dtype=np.intp), before
    severity = _severity(records)
    armed = (records["flags"] & FLAG_ARMED) != 0
    severity_before = np.concatenate([[before.severity], severity[:-1]])
    armed_before = np.concatenate([[before.armed], armed[:-1]])
    counts = armed | armed_before | (severity == Verdict.EMERGENCY_STOP)
    onset = (severity > severity_before) & counts
    onset |= (records["flags"] & FLAG_RETURNED) != 0
    return np.flatnonzero(onset), Before(int(severity[-1]), bool(armed[-1]))


def of_decision(seq: int, record: Any) -> Incident:
    """The incident that begins with a decision (a record with ``FIELDS``)."""
    if int(record["flags"]) & FLAG_RETURNED:
        what = "policy taken off, the one before drives again"
    else:
        verdict, reason = int(record["verdict"]), int(record["reason"])
        what = f"{_word(Verdict, verdict)}: {_word(Reason, reason)}"
    return Incident(seq, int(record["wall_ns"]), int(record["mono_ns"]), int(record["tick"]), what)


def of_event(seq: int, event: Event) -> Incident | None:
    """The incident that an event is; None for all others."""
    if event.name not in INCIDENT_EVENTS:
        return None
    why = " ".join(str(value) for value in event.detail.values())
    return Incident(
        seq, event.wall_ns, event.mono_ns, 0, f"{event.name.replace('_', ' ')} {why}"[:128].strip()
    )


def _word(kind: Any, number: int) -> str:
    return in_words(kind(number)) if number in set(kind) else f"unknown {number}"
