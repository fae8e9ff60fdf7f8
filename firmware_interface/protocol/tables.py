"""The schema's tables: named values, bits, and the board's parameters."""

from typing import Annotated, Literal

import msgspec


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that the board keeps; u32 or f32. ``low`` and ``high`` are allowed."""

    id: Annotated[int, msgspec.Meta(ge=1, le=255)]
    name: str
    kind: Literal["u32", "f32"]
    unit: str
    low: float
    high: float
    default: float
    about: str = ""


ENUMS: dict[str, dict[str, str]] = {
    "State": {
        "DISARMED": "stands, motors off, takes parameters and updates",
        "ARMED": "executes commands",
        "STOPPING": "wheels are asked for zero until they stand, then disarmed",
        "FAULTED": "stands until the cause is gone and the fault is cleared",
    },
    "StopReason": {
        "NONE": "has not been armed yet",
        "STOP_FRAME": "a stop frame came",
        "DISARM": "a disarm frame came",
        "WATCHDOG": "no command was accepted in time, or the last one expired",
        "SESSION_NEW": "another session was opened",
        "FAULT": "see the fault bitmap",
    },
    "Result": {
        "OK": "done",
        "NOT_ALLOWED": "not in this state: parameters and updates need a disarmed board",
        "FAULTED": "a fault is not cleared, or its cause persists",
        "STALE": "it took too long to arrive",
        "UNKNOWN": "no such parameter",
        "OUT_OF_RANGE": "a value out of its range, or of another type",
        "STORAGE": "the flash memory did not take it",
        "OUT_OF_PLACE": "another offset is expected, or no update has begun",
        "TOO_OLD": "the image's version is not above the running one's, or below one installed before",
        "BAD_DIGEST": "what was written is not what was announced",
        "BAD_SIGNATURE": "not signed for this board with the key it trusts, or it has none",
    },
    "Kind": {"U32": "unsigned integer", "F32": "IEEE 754 single"},
    "Level": {"INFO": "", "WARNING": "", "ERROR": ""},
    "Verdict": {
        "GOOD": "a frame",
        "BAD_COBS": "no COBS encoding",
        "TOO_SHORT": "shorter than a code and a CRC",
        "TOO_LONG": "longer than any frame",
        "BAD_CRC": "the checksum does not fit",
        "UNKNOWN_CODE": "no frame has this code",
        "WRONG_LENGTH": "not the length of this frame",
        "OUT_OF_RANGE": "a field is out of its range, or not finite",
    },
}
"""Named values, counted from 0."""

CAPABILITIES: dict[str, str] = {
    "WHEELS": "drives and encoders",
    "IMU": "acceleration and turn rate",
    "BATTERY": "voltage and current",
    "BUMPER": "contact strips",
    "EMERGENCY_STOP": "a stop input of its own",
    "UPDATE": "two firmware slots",
    "SIGNATURE": "checks image signatures itself; without it, it takes no update",
}
"""Bits, from the lowest."""

FAULTS: dict[str, str] = {
    "EMERGENCY_STOP": "the emergency stop was pressed",
    "BUMPER": "a contact strip was pressed",
    "BROWNOUT": "voltage below battery_min_v for 20 ms",
    "OVERCURRENT": "a motor above current_max_a for 50 ms",
    "SENSOR": "a sensor gave no finite value, or stopped answering",
    "STORAGE": "the stored parameters were damaged; the built-in ones are used",
}
"""Bits, from the lowest."""

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(1, "speed_max_mps", "f32", "m/s", 0.05, 2.0, 1.2),
    Parameter(2, "reverse_max_mps", "f32", "m/s", 0.05, 2.0, 0.3),
    Parameter(3, "turn_rate_max_radps", "f32", "rad/s", 0.1, 4.0, 1.8),
    Parameter(4, "acceleration_max_mps2", "f32", "m/s^2", 0.1, 4.0, 1.2),
    Parameter(5, "deceleration_max_mps2", "f32", "m/s^2", 0.2, 6.0, 1.6),
    Parameter(6, "turn_acceleration_max_radps2", "f32", "rad/s^2", 0.5, 20.0, 5.0),
    Parameter(7, "jerk_max_mps3", "f32", "m/s^3", 1.0, 200.0, 40.0),
    Parameter(8, "turn_jerk_max_radps3", "f32", "rad/s^3", 5.0, 1000.0, 200.0),
    Parameter(9, "wheel_radius_m", "f32", "m", 0.02, 0.3, 0.08),
    Parameter(10, "wheel_track_m", "f32", "m", 0.1, 1.5, 0.40, "between the wheels' contact points"),
    Parameter(11, "wheel_feed_forward", "f32", "1/(rad/s)", 0.0, 1.0, 0.03333, "effort per wheel speed"),
    Parameter(12, "wheel_p", "f32", "1/(rad/s)", 0.0, 2.0, 0.05),
    Parameter(13, "wheel_i", "f32", "1/rad", 0.0, 20.0, 0.4),
    Parameter(14, "wheel_d", "f32", "s/(rad/s)", 0.0, 0.1, 0.0002),
    Parameter(15, "effort_max", "f32", "share", 0.05, 1.0, 1.0, "of the supply voltage"),
    Parameter(16, "watchdog_us", "u32", "us", 20_000, 80_000, 80_000, "longest time between two commands"),
    Parameter(17, "battery_min_v", "f32", "V", 6.0, 60.0, 20.0),
    Parameter(18, "current_max_a", "f32", "A", 1.0, 100.0, 20.0, "of one motor"),
    Parameter(19, "wheels_hz", "u32", "Hz", 1, 200, 50),
    Parameter(20, "imu_hz", "u32", "Hz", 1, 200, 50),
)
"""Made for ``contracts.robot.AMR_SMALL``."""
