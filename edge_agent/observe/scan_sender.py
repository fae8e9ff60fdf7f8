"""Raw scans from the callback that took them to comms, which keeps half a minute of them: a copy into shared memory."""

import time

import numpy as np

from contracts.ring import SCANS, RingWriter
from contracts.scan import RANGES_MAX, SCAN_DTYPE
from edge_agent.observe.slots import Scan


class ScanSender:
    """The writing end of the robot's ring of scans. Runs on the executor's thread, not in the tick."""

    def __init__(self, ring_name: str) -> None:
        self._ring = RingWriter(ring_name, SCANS)
        self._slot = np.zeros(1, SCAN_DTYPE)
        self._fields = {name: self._slot[name] for name in SCAN_DTYPE.names or ()}

    def send(
        self, scan: Scan | None, angle_min_rad: float, angle_step_rad: float, range_max_m: float
    ) -> bool:
        """Pass a scan on; False where it is not of the lidar's geometry, or too large, or nobody takes them out."""
        count = 0 if scan is None else scan.ranges_m.size
        if scan is None or not 0 < count <= RANGES_MAX:
            return False
        fields = self._fields
        fields["arrived_ns"][0], fields["wall_ns"][0] = scan.arrived_ns, time.time_ns()
        fields["stamp_s"][0], fields["stamp_ns"][0] = scan.stamp
        fields["angle_min_rad"][0], fields["angle_step_rad"][0] = angle_min_rad, angle_step_rad
        fields["range_max_m"][0], fields["count"][0] = range_max_m, count
        fields["ranges_m"][0, :count] = scan.ranges_m
        return self._ring.push(self._slot)

    def close(self) -> None:
        """Unmap the ring; it stays for the reader."""
        self._ring.close()
