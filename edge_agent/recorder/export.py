"""Decisions and events as plain values, and as an MCAP file that any robot viewer opens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import Writer

from contracts.decision import DECISION_DTYPE, Mode, Reason, Source, Verdict
from contracts.framelog import Event
from contracts.observation import ROUTING_LAYOUT
from edge_agent.recorder.reading import Log

DECISION_TOPIC = "/outrider/decision"
EVENT_TOPIC = "/outrider/event"
_NAMES = {"mode": Mode, "source": Source, "verdict": Verdict, "reason": Reason}


def decision_value(seq: int, record: Any) -> dict[str, Any]:
    """One decision (a DECISION_DTYPE scalar) as JSON-ready values; NaN becomes null."""
    value: dict[str, Any] = {"seq": seq}
    for name in DECISION_DTYPE.names or ():
        item = record[name]
        if name == "policy_digest":
            value[name] = item.tobytes().hex() if item.any() else ""
        elif name in _NAMES:
            value[name] = _name(_NAMES[name], int(item))
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


def _name(kind: Any, number: int) -> str:
    return kind(number).name.lower() if number in set(kind) else f"unknown_{number}"


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


def decision_schema() -> dict[str, Any]:
    """JSON schema of a decision."""
    numbers = {"type": "array", "items": {"type": ["number", "null"]}}
    number = {"type": ["number", "null"]}
    properties: dict[str, Any] = {"seq": {"type": "integer"}}
    for name in DECISION_DTYPE.names or ():
        kind = DECISION_DTYPE[name]
        if name == "policy_digest" or name in _NAMES:
            properties[name] = {"type": "string"}
        elif name == "observation":
            fields = {f.name: number if f.size == 1 else numbers for f in ROUTING_LAYOUT.observation}
            properties[name] = {"type": "object", "properties": fields}
        else:
            properties[name] = numbers if kind.subdtype else number
    return {"title": "outrider.Decision", "type": "object", "properties": properties}


_EVENT_SCHEMA: dict[str, Any] = {
    "title": "outrider.Event",
    "type": "object",
    "properties": {
        "seq": {"type": "integer"},
        "name": {"type": "string"},
        "wall_ns": {"type": "integer"},
        "mono_ns": {"type": "integer"},
        "detail": {"type": "object"},
    },
}


def export_mcap(log: Log, output: Path) -> int:
    """Write a log as MCAP with JSON messages; returns how many. The file appears whole or not at all."""
    entries: list[tuple[int, int, int, Any]] = [
        (int(record["wall_ns"]), int(seq), 0, record)
        for seq, record in zip(log.decision_seqs, log.decisions, strict=True)
    ]
    entries += [(event.wall_ns, seq, 1, event) for seq, event in log.events]
    entries.sort(key=lambda entry: entry[1])
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        with temporary.open("wb") as file:
            writer = Writer(file)
            writer.start(profile="", library="outrider")
            channels = [
                _channel(writer, DECISION_TOPIC, decision_schema(), log.robot),
                _channel(writer, EVENT_TOPIC, _EVENT_SCHEMA, log.robot),
            ]
            for wall_ns, seq, kind, item in entries:
                value = event_value(seq, item) if kind else decision_value(seq, item)
                data = json.dumps(value, allow_nan=False).encode()
                time_ns = max(wall_ns, 0)
                writer.add_message(channels[kind], time_ns, data, time_ns, sequence=seq % 2**32)
            writer.finish()
        temporary.rename(output)
    finally:
        temporary.unlink(missing_ok=True)
    return len(entries)


def _channel(writer: Any, topic: str, schema: dict[str, Any], robot: str) -> int:
    schema_id = writer.register_schema(schema["title"], "jsonschema", json.dumps(schema).encode())
    return int(writer.register_channel(topic, "json", schema_id, {"robot": robot}))
