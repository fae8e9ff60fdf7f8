"""Watches over what arrives: stamps that do not fit the arrivals, scans that do not change."""

import enum

import numpy as np
import numpy.typing as npt

from contracts.robot import LidarModel
from safety.config import WatchConfig

NS = 1_000_000_000


class StampFault(enum.IntEnum):
    """What is wrong with a stamp."""

    NONE = 0
    STUCK = 1
    BACKWARDS = 2
    AHEAD = 3
    LATE = 4


class StampWatch:
    """Compares a sender's stamps with their arrivals. Only differences count: the two clocks need not agree.

    The quickest arrival so far says how far the clocks are apart; that drifts by ``stamp_drift``. Clocks that were
    set are accepted from a disarmed robot only, once ``stamp_relearn_arrivals`` of them agree.
    """

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._agree_ns = 0.5 * min(config.stamp_ahead_max_s, config.stamp_late_max_s) * NS
        self._ahead_ns, self._late_ns = config.stamp_ahead_max_s * NS, config.stamp_late_max_s * NS
        self._arrived_ns: int | None = None
        self._stamp_ns = 0
        self._apart_ns = 0
        """Stamp less arrival, of the quickest arrival so far."""
        self._last_apart_ns = 0
        self._stuck = self._steady = 0
        self.fault = StampFault.NONE

    def step(self, stamp_ns: int, arrived_ns: int, armed: bool) -> StampFault:
        """The fault after this tick; ``stamp_ns`` 0 is unstamped, and a fault after a stamped one."""
        if arrived_ns != self._arrived_ns:
            self.fault = self._arrival(stamp_ns, arrived_ns, armed)
        return self.fault

    def _arrival(self, stamp_ns: int, arrived_ns: int, armed: bool) -> StampFault:
        config, before_ns, last_ns = self._config, self._stamp_ns, self._arrived_ns
        self._stamp_ns, self._arrived_ns = stamp_ns, arrived_ns
        apart_ns = stamp_ns - arrived_ns
        if before_ns == 0 or last_ns is None:
            self._apart_ns = self._last_apart_ns = apart_ns
            return StampFault.NONE
        self._steady = self._steady + 1 if abs(apart_ns - self._last_apart_ns) < self._agree_ns else 0
        self._last_apart_ns = apart_ns
        self._stuck = self._stuck + 1 if stamp_ns == before_ns else 0
        if stamp_ns < before_ns:
            return StampFault.BACKWARDS
        if self._stuck:
            return StampFault.STUCK if self._stuck >= config.stamp_stuck_ticks else self.fault
        if not armed and self._steady >= config.stamp_relearn_arrivals:
            self._apart_ns = apart_ns
        self._apart_ns -= int(config.stamp_drift * (arrived_ns - last_ns))
        if apart_ns > self._apart_ns + self._ahead_ns:
            return StampFault.AHEAD
        if apart_ns < self._apart_ns - self._late_ns:
            return StampFault.LATE
        self._apart_ns = max(self._apart_ns, apart_ns)
        return StampFault.NONE


class FrozenScanWatch:
    """A real lidar's noise never repeats: bit-identical scans while the robot moves are no scans.

    A standing robot's may be identical where there is no noise (simulator), and any where nothing is in reach: those do
    not count. Once frozen, it is over when the ranges change.
    """

    def __init__(self, config: WatchConfig, lidar: LidarModel) -> None:
        self._config = config
        self._rays_min = config.frozen_rays_share * lidar.rays
        self._range_max_m = lidar.range_max_m
        self._scan_ns: int | None = None
        self._bytes = b""
        self._same = 0
        self.changed = False
        """Whether the last scan differed from the one before."""

    def step(self, ranges_m: npt.NDArray[np.float32], scan_ns: int, velocity: tuple[float, float]) -> bool:
        """Whether the scan, float32[rays] as it came, is frozen."""
        config = self._config
        if scan_ns != self._scan_ns:
            came = ranges_m.tobytes()
            self.changed = came != self._bytes
            if self.changed:
                self._same = 0
            elif abs(velocity[0]) > config.frozen_speed_mps or abs(velocity[1]) > config.frozen_turn_radps:
                self._same += int(np.count_nonzero(ranges_m < self._range_max_m) >= self._rays_min)
            self._scan_ns, self._bytes = scan_ns, came
        return self._same >= config.frozen_scans
