"""Settings of the monitor. A policy is trained behind exactly these; their hash binds the two."""

import math

import msgspec

from contracts.canonical import hash_of
from safety.errors import MonitorConfigError


class MonitorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every number the monitor acts on. No value of zero disables a protection."""

    margin_m: float = 0.06
    standoff_m: float = 0.03
    reaction_s: float = 0.15
    """Tick, link and actuator; the scan's age is added to it."""
    obstacle_mps: float = 0.8
    """Closing speed assumed of whatever is ahead."""
    approach_per_s: float = 1.6
    """Speed allowed per metre of gap to the nearest thing in the approach sector, whatever way it moves."""
    approach_sector_rad: float = 1.2
    """Half width of that sector around the direction of travel: what crosses the robot's way comes from there."""
    approach_mps: float = 0.2
    """Speed that the approach rule always leaves, so that a robot gets out of a narrow place."""
    turn_on_the_spot_below: float = 0.1
    """Share of the commanded speed below which the robot turns on the spot instead of creeping."""
    reach_m: float = 6.0
    scan_stale_max_s: float = 0.3
    odometry_stale_max_s: float = 0.3
    future_max_s: float = 0.05
    invalid_fraction_max: float = 0.05
    disarm_after_s: float = 2.0
    """A data fault that lasts this long disarms the robot: it must be armed again by someone."""

    def check(self) -> "MonitorConfig":
        """Return self when every value is finite and above zero.

        Raises:
            MonitorConfigError: naming the value.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0.0:
                raise MonitorConfigError(f"{name} is {value}; it must be a finite number above zero")
        return self

    def hash(self) -> str:
        """The settings' version: SHA-256 over their canonical JSON."""
        return hash_of(self)
