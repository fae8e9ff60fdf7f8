"""A raw lidar scan on its way from control to the log: a slot of a shared-memory ring, then the payload of a log frame.

The payload is the slot without the ranges that it has no use for: exactly what the sensor said, float32 for float32.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.errors import LogFormatError

RANGES_MAX = 2048
"""Of one scan; what a larger lidar sees is not kept raw."""
_HEAD: list[tuple[str, str]] = [
    ("arrived_ns", "<i8"), ("wall_ns", "<i8"), ("stamp_s", "<i4"), ("stamp_ns", "<u4"), ("angle_min_rad", "<f4"),
    ("angle_step_rad", "<f4"), ("range_max_m", "<f4"), ("count", "<u4"),
]  # fmt: skip
SCAN_DTYPE = np.dtype([*_HEAD, ("ranges_m", "<f4", (RANGES_MAX,))])
_HEAD_DTYPE = np.dtype(_HEAD)
SCAN_HEAD_BYTES = _HEAD_DTYPE.itemsize


class RawScan(NamedTuple):
    """One scan; ``ranges_m`` float32[n] from ``angle_min_rad`` on, counter-clockwise, in the lidar's frame."""

    arrived_ns: int
    """Monotonic, when it came in: a decision's ``mono_ns`` less its ``scan_age_us``."""
    wall_ns: int
    stamp: tuple[int, int]
    """Seconds and nanoseconds of the sensor's own clock."""
    angle_min_rad: float
    angle_step_rad: float
    range_max_m: float
    ranges_m: npt.NDArray[np.float32]


def trimmed(slot: bytes) -> bytes:
    """A slot's bytes as a frame's payload."""
    count = min(int(np.frombuffer(slot, _HEAD_DTYPE, 1)["count"][0]), RANGES_MAX)
    return slot[: SCAN_HEAD_BYTES + 4 * count]


def arrival_ns(payload: bytes) -> int:
    """When a scan came in (monotonic), without reading the rest."""
    return int.from_bytes(payload[:8], "little", signed=True)


def decode_scan(payload: bytes) -> RawScan:
    """Read a frame's payload; raises LogFormatError."""
    if len(payload) < SCAN_HEAD_BYTES:
        raise LogFormatError(f"a scan record has {len(payload)} bytes, expected {SCAN_HEAD_BYTES} and more")
    head: Any = np.frombuffer(payload, _HEAD_DTYPE, 1)[0]
    count = int(head["count"])
    if count > RANGES_MAX or len(payload) != SCAN_HEAD_BYTES + 4 * count:
        raise LogFormatError(f"a scan record says {count} ranges in {len(payload)} bytes; it is damaged")
    return RawScan(
        int(head["arrived_ns"]), int(head["wall_ns"]), (int(head["stamp_s"]), int(head["stamp_ns"])),
        float(head["angle_min_rad"]), float(head["angle_step_rad"]), float(head["range_max_m"]),
        np.frombuffer(payload, "<f4", count, SCAN_HEAD_BYTES),
    )  # fmt: skip
