"""A log as MCAP with ROS 2 encoded channels, for any robot viewer; and a Foxglove layout that shows them.

Topics begin with the robot's name, as on the robot. What the decisions hold is written per tick; ``diagnostics`` once a
second, and for every event; ``scan`` where the log has raw scans, which it has around incidents.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.writer import Writer

from contracts.decision import FLAG_ARMED, Reason, Source, Verdict, digest_text, in_words
from contracts.framelog import Event
from contracts.observation import BEAMS, ROUTING_LAYOUT
from contracts.scan import RawScan
from edge_agent.recorder.reading import Log
from edge_agent.recorder.ros_messages import definition, encode, schema_name
from edge_agent.recorder.values import name_of

NS = 1_000_000_000
_STAMP_MAX_NS = (2**31 - 1) * NS
BASE_FRAME, MAP_FRAME = "base_link", "map"
SOURCES = {Source.NONE: 0, Source.RULE_BASED: 1, Source.POLICY: 2, Source.RECOVERY: 3}
"""As ``outrider_msgs/DecisionStatus`` numbers them."""
TOPICS = {
    "scan": "sensor_msgs/LaserScan",
    "scan_sectors": "sensor_msgs/LaserScan",
    "odom": "nav_msgs/Odometry",
    "goal": "geometry_msgs/PoseStamped",
    "cmd_vel": "geometry_msgs/TwistStamped",
    "cmd_vel_raw": "geometry_msgs/TwistStamped",
    "outrider/safety": "outrider_msgs/SafetyStatus",
    "outrider/decision": "outrider_msgs/DecisionStatus",
    "diagnostics": "diagnostic_msgs/DiagnosticArray",
}
LAYOUT_SUFFIX = ".foxglove.json"
_SECTOR_RAD = 2.0 * math.pi / BEAMS
_RANGE_MAX_M = ROUTING_LAYOUT.observation[0].high
_NO_COVARIANCE = (0.0,) * 36
Message = tuple[str, Any]
"""Topic and values."""


def export_mcap(log: Log, output: Path, scans: Iterable[tuple[int, RawScan]] = ()) -> int:
    """Write a log's decisions, events and raw scans, and a layout beside it; returns how many messages.

    Files appear whole or not at all; OSError when the disk refuses.
    """
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        with temporary.open("wb") as file:
            count, raw = _write(log, file, scans)
        temporary.rename(output)
    finally:
        temporary.unlink(missing_ok=True)
    layout = output.with_name(output.name.removesuffix(".mcap") + LAYOUT_SUFFIX)
    layout.write_text(json.dumps(foxglove_layout(log.robot, raw > 0), indent=2) + "\n")
    return count


def _write(log: Log, file: BinaryIO, scans: Iterable[tuple[int, RawScan]]) -> tuple[int, int]:
    """How many messages, and how many of them are raw scans."""
    writer, channels, count, raw = Writer(file), {}, 0, 0
    writer.start(profile="ros2", library="outrider")
    for topic, kind in TOPICS.items():
        schema = writer.register_schema(schema_name(kind), "ros2msg", definition(kind).encode())
        channels[topic] = writer.register_channel(
            f"/{log.robot}/{topic}", "cdr", schema, {"robot": log.robot}
        )
    for time_ns, seq, messages in _entries(log):
        for topic, values in messages:
            data = encode(TOPICS[topic], values)
            writer.add_message(channels[topic], time_ns, data, time_ns, sequence=seq % 2**32)
            count += 1
    for seq, scan in scans:
        data, time_ns = encode(TOPICS["scan"], _scan(scan)), _stamp_ns(scan.wall_ns)
        writer.add_message(channels["scan"], time_ns, data, time_ns, sequence=seq % 2**32)
        raw += 1
    writer.finish()
    return count + raw, raw


def _entries(log: Log) -> Iterator[tuple[int, int, list[Message]]]:
    """Time, sequence number and messages of every record, in the log's order."""
    events, told_ns = [(seq, event) for seq, event in log.events], -NS
    for seq, record in zip(log.decision_seqs.tolist(), log.decisions, strict=True):
        while events and events[0][0] < seq:
            number, event = events.pop(0)
            yield _stamp_ns(event.wall_ns), number, [("diagnostics", _event(event, log.robot))]
        time_ns = _stamp_ns(int(record["wall_ns"]))
        messages = decision_messages(log.robot, time_ns, record)
        if not 0 <= time_ns - told_ns < NS:
            told_ns = time_ns
            messages.append(("diagnostics", _timings(log.robot, time_ns, record)))
        yield time_ns, seq, messages
    for number, event in events:
        yield _stamp_ns(event.wall_ns), number, [("diagnostics", _event(event, log.robot))]


def _header(time_ns: int, frame: str) -> tuple[Any, ...]:
    return ((time_ns // NS, time_ns % NS), frame)


def _scan(scan: RawScan) -> tuple[Any, ...]:
    last_rad = scan.angle_min_rad + max(len(scan.ranges_m) - 1, 0) * scan.angle_step_rad
    angles = (scan.angle_min_rad, last_rad, scan.angle_step_rad)
    header = _header(_stamp_ns(scan.wall_ns), BASE_FRAME)
    return (header, *angles, 0.0, 0.0, 0.0, scan.range_max_m, scan.ranges_m, ())


def _twist(command: Any) -> tuple[Any, ...]:
    return ((float(command[0]), 0.0, 0.0), (0.0, 0.0, float(command[1])))


def decision_messages(robot: str, time_ns: int, record: Any) -> list[Message]:
    """What one decision says, as messages; a message whose values the robot did not know is left out."""
    base = _header(time_ns, BASE_FRAME)
    messages: list[Message] = [("cmd_vel", (base, _twist(record["final_command"])))]
    if np.isfinite(record["raw_command"]).all():
        messages.append(("cmd_vel_raw", (base, _twist(record["raw_command"]))))
    if record["observation"].any():
        first = -math.pi + _SECTOR_RAD / 2.0
        angles = (first, first + (BEAMS - 1) * _SECTOR_RAD, _SECTOR_RAD)
        beams = record["observation"][:BEAMS]
        messages.append(("scan_sectors", (base, *angles, 0.0, 0.0, 0.0, _RANGE_MAX_M, beams, ())))
    if np.isfinite(record["pose"]).all():
        x, y, heading = (float(value) for value in record["pose"])
        pose = ((x, y, 0.0), (0.0, 0.0, math.sin(heading / 2.0), math.cos(heading / 2.0)))
        twist = (_twist(record["velocity"]), _NO_COVARIANCE)
        messages.append(("odom", (_header(time_ns, MAP_FRAME), BASE_FRAME, (pose, _NO_COVARIANCE), twist)))
    if np.isfinite(record["goal"]).all():
        place = (float(record["goal"][0]), float(record["goal"][1]), 0.0)
        messages.append(("goal", (_header(time_ns, MAP_FRAME), (place, (0.0, 0.0, 0.0, 1.0)))))
    return [*messages, ("outrider/safety", _safety(robot, base, record)), _decision(robot, base, record)]


def _safety(robot: str, header: Any, record: Any) -> tuple[Any, ...]:
    verdict, reason = int(record["verdict"]), int(record["reason"])
    text = in_words(Reason(reason)) if reason in set(Reason) else f"unknown {reason}"
    commands = (*record["raw_command"].tolist(), *record["final_command"].tolist())
    armed = bool(record["flags"] & FLAG_ARMED)
    latched = verdict == Verdict.EMERGENCY_STOP
    return (header, robot, int(record["tick"]), verdict, reason, text, *commands, armed, latched)


def _decision(robot: str, header: Any, record: Any) -> Message:
    digest = digest_text(record["policy_digest"])
    commands = [value for name in ("raw", "final", "other") for value in record[f"{name}_command"].tolist()]
    source = SOURCES.get(int(record["source"]), 0)  # type: ignore[call-overload]
    times = (float(record["infer_us"]), float(record["total_us"]), 0, int(record["missed_ticks"]))
    values = (header, robot, int(record["tick"]), digest, source, int(record["mode"]), 0.0, *commands, *times)
    return ("outrider/decision", values)


def _timings(robot: str, time_ns: int, record: Any) -> tuple[Any, ...]:
    names = [name for name in record.dtype.names if name.endswith("_us")] + ["missed_ticks", "trip"]
    pairs = [(name, str(int(record[name]))) for name in names]
    pairs += [("config_digest", digest_text(record["config_digest"]))]
    pairs += [("entropy_nats", f"{float(record['entropy_nats']):.4f}")]
    level = {0: 0, 1: 0}.get(int(record["verdict"]), 1)
    verdict, reason = (name_of(name, int(record[name])) for name in ("verdict", "reason"))
    return (_header(time_ns, ""), [(level, f"{robot}/tick", f"{verdict}: {reason}", robot, pairs)])


def _stamp_ns(wall_ns: int) -> int:
    """A wall time as ROS 2 can say it (int32 seconds): what a broken clock said beyond that stands at the end of it."""
    return min(max(wall_ns, 0), _STAMP_MAX_NS)


def _event(event: Event, robot: str) -> tuple[Any, ...]:
    pairs = [(name, str(value)) for name, value in event.detail.items()]
    return (_header(_stamp_ns(event.wall_ns), ""), [(0, f"{robot}/event", event.name, robot, pairs)])


def foxglove_layout(robot: str, raw_scans: bool = False) -> dict[str, Any]:
    """A Foxglove layout: the robot with its scan, wanted and admitted speed, tick time, verdicts, events."""

    def plot(title: str, *paths: str) -> dict[str, Any]:
        lines = [
            {"value": f"/{robot}/{path}", "enabled": True, "timestampMethod": "receiveTime"} for path in paths
        ]
        return {"title": title, "paths": lines, "showLegend": True, "isSynced": True, "xAxisVal": "timestamp"}

    shown = (*(("scan",) if raw_scans else ()), "scan_sectors", "odom", "goal")
    topics = {f"/{robot}/{topic}": {"visible": True} for topic in shown}
    panels = {
        "3D!floor": {"followTf": MAP_FRAME, "topics": topics},
        "Plot!speed": plot("speed, m/s", "cmd_vel_raw.twist.linear.x", "cmd_vel.twist.linear.x"),
        "Plot!turn": plot("turn rate, rad/s", "cmd_vel_raw.twist.angular.z", "cmd_vel.twist.angular.z"),
        "Plot!tick": plot("tick, us", "outrider/decision.tick_total_us", "outrider/decision.inference_us"),
        "Plot!verdict": plot("verdict (2 and above stops)", "outrider/safety.verdict"),
        "DiagnosticSummary!events": {"topicToRender": f"/{robot}/diagnostics", "minLevel": 0},
    }

    def split(direction: str, first: Any, second: Any, percent: int = 50) -> dict[str, Any]:
        return {"direction": direction, "first": first, "second": second, "splitPercentage": percent}

    plots = split(
        "column", split("column", "Plot!speed", "Plot!turn"), split("column", "Plot!tick", "Plot!verdict")
    )
    left = split("column", "3D!floor", "DiagnosticSummary!events", 70)
    return {
        "configById": panels,
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1.0},
        "layout": split("row", left, plots),
    }
