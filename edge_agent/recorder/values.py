"""Decisions and events as plain values, for JSON and for people."""

from typing import Any

import numpy as np

from contracts.decision import DECISION_DTYPE, DIGESTS, Mode, Reason, Source, Verdict, digest_text
from contracts.framelog import Event
from contracts.observation import ROUTING_LAYOUT

NAMED: dict[str, Any] = {"mode": Mode, "source": Source, "verdict": Verdict, "reason": Reason}
"""Fields whose numbers have names."""


def decision_value(seq: int, record: Any) -> dict[str, Any]:
    """One decision (a DECISION_DTYPE scalar) as JSON-ready values; NaN becomes null."""
    value: dict[str, Any] = {"seq": seq}
    for name in DECISION_DTYPE.names or ():
        item = record[name]
        if name in DIGESTS:
            value[name] = digest_text(item)
        elif name in NAMED:
            value[name] = name_of(name, int(item))
        elif name == "observation":
            value[name] = _observation(item)
        else:
            value[name] = _plain(item)
    return value


def event_value(seq: int, event: Event) -> dict[str, Any]:
    """One event as JSON-ready values."""
    return {
        "seq": seq,
        "name": event.name,
        "wall_ns": event.wall_ns,
        "mono_ns": event.mono_ns,
        "detail": event.detail,
    }


def name_of(field: str, number: int) -> str:
    """The name of a number in a field of ``NAMED``; "unknown_7" for one a newer robot wrote."""
    kind = NAMED[field]
    return str(kind(number).name.lower()) if number in set(kind) else f"unknown_{number}"


def _plain(item: Any) -> Any:
    if isinstance(item, np.ndarray):
        return [_plain(part) for part in item]
    return (float(item) if np.isfinite(item) else None) if isinstance(item, np.floating) else int(item)


def _observation(values: Any) -> dict[str, Any]:
    named, start = {}, 0
    for field in ROUTING_LAYOUT.observation:
        part = _plain(values[start : start + field.size])
        named[field.name] = part[0] if field.size == 1 else part
        start += field.size
    return named
