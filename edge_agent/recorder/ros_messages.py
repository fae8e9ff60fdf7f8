"""ROS 2 messages as bytes (CDR, little endian) without a ROS installation, from one table of their fields.

The table gives both the bytes and the definition that goes into an MCAP file as its schema ("ros2msg"). A test holds it
against the public definitions and against ``ros_ws/src/outrider_msgs``.
"""

import re
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

Field = tuple[str, str]
"""Type as in a .msg file, and name."""
_HEADER: Field = ("std_msgs/Header", "header")
_VECTOR: tuple[Field, ...] = (("float64", "x"), ("float64", "y"), ("float64", "z"))
_COVARIANCE: Field = ("float64[36]", "covariance")
DEFINITIONS: dict[str, tuple[Field, ...]] = {
    "builtin_interfaces/Time": (("int32", "sec"), ("uint32", "nanosec")),
    "std_msgs/Header": (("builtin_interfaces/Time", "stamp"), ("string", "frame_id")),
    "geometry_msgs/Vector3": _VECTOR,
    "geometry_msgs/Point": _VECTOR,
    "geometry_msgs/Quaternion": (*_VECTOR, ("float64", "w")),
    "geometry_msgs/Twist": (("geometry_msgs/Vector3", "linear"), ("geometry_msgs/Vector3", "angular")),
    "geometry_msgs/TwistStamped": (_HEADER, ("geometry_msgs/Twist", "twist")),
    "geometry_msgs/Pose": (("geometry_msgs/Point", "position"), ("geometry_msgs/Quaternion", "orientation")),
    "geometry_msgs/PoseStamped": (_HEADER, ("geometry_msgs/Pose", "pose")),
    "geometry_msgs/PoseWithCovariance": (("geometry_msgs/Pose", "pose"), _COVARIANCE),
    "geometry_msgs/TwistWithCovariance": (("geometry_msgs/Twist", "twist"), _COVARIANCE),
    "nav_msgs/Odometry": (
        _HEADER,
        ("string", "child_frame_id"),
        ("geometry_msgs/PoseWithCovariance", "pose"),
        ("geometry_msgs/TwistWithCovariance", "twist"),
    ),
    "sensor_msgs/LaserScan": (
        _HEADER,
        ("float32", "angle_min"),
        ("float32", "angle_max"),
        ("float32", "angle_increment"),
        ("float32", "time_increment"),
        ("float32", "scan_time"),
        ("float32", "range_min"),
        ("float32", "range_max"),
        ("float32[]", "ranges"),
        ("float32[]", "intensities"),
    ),
    "diagnostic_msgs/KeyValue": (("string", "key"), ("string", "value")),
    "diagnostic_msgs/DiagnosticStatus": (
        ("byte", "level"),
        ("string", "name"),
        ("string", "message"),
        ("string", "hardware_id"),
        ("diagnostic_msgs/KeyValue[]", "values"),
    ),
    "diagnostic_msgs/DiagnosticArray": (_HEADER, ("diagnostic_msgs/DiagnosticStatus[]", "status")),
    "outrider_msgs/DecisionStatus": (
        _HEADER,
        ("string<=64", "robot_id"),
        ("uint64", "tick"),
        ("string<=64", "policy_digest"),
        ("uint8", "source"),
        ("uint8", "mode"),
        ("float32", "approved_s"),
        ("float32", "speed_raw_mps"),
        ("float32", "turn_rate_raw_radps"),
        ("float32", "speed_final_mps"),
        ("float32", "turn_rate_final_radps"),
        ("float32", "speed_other_mps"),
        ("float32", "turn_rate_other_radps"),
        ("float32", "inference_us"),
        ("float32", "tick_total_us"),
        ("uint64", "ticks_late"),
        ("uint64", "ticks_missed"),
    ),
    "outrider_msgs/SafetyStatus": (
        _HEADER,
        ("string<=64", "robot_id"),
        ("uint64", "tick"),
        ("uint8", "verdict"),
        ("uint16", "reason_code"),
        ("string<=128", "reason_text"),
        ("float32", "speed_in_mps"),
        ("float32", "turn_rate_in_radps"),
        ("float32", "speed_out_mps"),
        ("float32", "turn_rate_out_radps"),
        ("bool", "armed"),
        ("bool", "estop_latched"),
    ),
}
_PRIMITIVES = {
    "bool": "?", "byte": "B", "uint8": "B", "uint16": "H", "uint32": "I", "int32": "i", "uint64": "Q",
    "float32": "f", "float64": "d",
}  # fmt: skip
_ARRAY = re.compile(r"^(.*?)\[(\d*)\]$")
ENCAPSULATION = b"\x00\x01\x00\x00"
Step = Callable[[bytearray, Any], None]


def schema_name(kind: str) -> str:
    """The type as ROS 2 tools write it: ``std_msgs/msg/Header``."""
    return kind.replace("/", "/msg/")


@cache
def definition(kind: str) -> str:
    """A message's definition followed by those of all messages it is made of, as MCAP wants it."""
    wanted, found = [kind], {}
    while wanted:
        name = wanted.pop(0)
        if name not in found:
            found[name] = "".join(f"{type_} {field}\n" for type_, field in DEFINITIONS[name])
            wanted += [
                base for type_, _ in DEFINITIONS[name] if (base := _ARRAY.sub(r"\1", type_)) in DEFINITIONS
            ]
    rest = [f"{'=' * 80}\nMSG: {name}\n{text}" for name, text in found.items() if name != kind]
    return found[kind] + "".join(rest)


def encode(kind: str, values: Sequence[Any]) -> bytes:
    """A message's bytes.

    Args:
        kind: of ``DEFINITIONS``.
        values: one per field, nested sequences for messages inside; text for strings, sequences for arrays.

    Raises:
        KeyError: an unknown message.
        struct.error: a value out of its type's range.
    """
    out = bytearray()
    _step(kind)(out, values)
    return ENCAPSULATION + bytes(out)


@cache
def _step(kind: str) -> Step:
    """What writes one value of a type."""
    if kind in DEFINITIONS:
        steps = [_step(type_) for type_, _ in DEFINITIONS[kind]]

        def message(out: bytearray, value: Any) -> None:
            for step, part in zip(steps, value, strict=True):
                step(out, part)

        return message
    if kind.startswith("string"):
        return _string
    if array := _ARRAY.match(kind):
        return _sequence(array[1], int(array[2]) if array[2] else None)
    packer = struct.Struct("<" + _PRIMITIVES[kind])
    size = packer.size

    def primitive(out: bytearray, value: Any) -> None:
        out += bytes(-len(out) % size)
        out += packer.pack(value)

    return primitive


def _string(out: bytearray, value: str) -> None:
    data = value.encode() + b"\0"
    out += bytes(-len(out) % 4)
    out += struct.pack("<I", len(data)) + data


def _sequence(kind: str, count: int | None) -> Step:
    element, code = _step(kind), _PRIMITIVES.get(kind)

    def sequence(out: bytearray, value: Any) -> None:
        if count is None:
            out += bytes(-len(out) % 4)
            out += struct.pack("<I", len(value))
        elif len(value) != count:
            raise ValueError(f"expected {count} values, came {len(value)}")
        if code is None:
            for part in value:
                element(out, part)
        elif len(value):
            data = np.asarray(value, dtype=f"<{np.dtype(code).str[1:]}")
            out += bytes(-len(out) % data.itemsize)
            out += data.tobytes()

    return sequence
