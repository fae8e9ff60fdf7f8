"""What goes into the monitor in one tick, and what comes out."""

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import Reason, Verdict

NS = 1_000_000_000


class Inputs(msgspec.Struct):
    """What the robot knows in one tick. ``None`` means it never arrived. Times are monotonic ns."""

    now_ns: int
    ranges_m: npt.NDArray[np.float32] | None = None
    """float32[rays] as the lidar sent them: inf = nothing in range, NaN or negative = invalid.

    The same array with the same ``scan_ns`` is the same scan: whoever writes into it gives it a new time.
    """
    scan_ns: int = 0
    velocity: tuple[float, float] | None = None
    """Measured speed in m/s and turn rate in rad/s."""
    odometry_ns: int = 0
    command: tuple[float, float] | None = None
    """What the policy or controller wants: speed in m/s, turn rate in rad/s."""
    pose: tuple[float, float, float] | None = None
    """Estimated x, y in m and heading in rad, map frame; arrives with the odometry."""
    scan_stamp_ns: int = 0
    """The sender's own time of the scan, any clock; 0 = unstamped."""
    odometry_stamp_ns: int = 0
    tilt_rad: float | None = None
    """Angle between the robot's axis and the vertical; None = no IMU."""
    command_from_policy: bool = False
    novelty: float | None = None
    """How far the observation is from a reference drive's (``navigation.novelty``): 0 usual, 2 rare; None = unknown."""


class Ruling(msgspec.Struct):
    """What the robot may do in this tick."""

    command: tuple[float, float]
    verdict: Verdict
    reason: Reason
    clearance_m: float
