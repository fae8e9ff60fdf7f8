"""From a scan as the lidar sent it to ranges that admission and encoder can work with."""

import numpy as np
import numpy.typing as npt

from contracts.robot import LidarModel

Ranges = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class ScanCleaner:
    """Cleans one robot's scans into a reused buffer; a scan that comes with its time is cleaned once.

    Args:
        lidar: its rays and limits.

    Attributes:
        invalid: rays of the last scan that gave nothing usable.
    """

    def __init__(self, lidar: LidarModel) -> None:
        self.invalid = 0
        self.range_max_m = np.float32(lidar.range_max_m)
        self._range_min_m = np.float32(lidar.range_min_m)
        self._clean = np.empty(lidar.rays, dtype=np.float32)
        self._valid = np.empty(lidar.rays, dtype=bool)
        self._last: tuple[Ranges | None, int] = (None, 0)

    def clean(self, ranges_m: Ranges, scan_ns: int | None = None) -> Ranges:
        """Ranges float32[rays] m, finite and within the lidar's limits. Reused buffer.

        Nothing in range is the maximum. A lone invalid ray takes its nearer neighbour: it can hide no more than
        the gap between two good ones. Several side by side can hide anything: they become the minimum, and
        block motion towards them.

        Args:
            ranges_m: float32[rays]; inf = nothing in range, NaN or below the minimum = invalid.
            scan_ns: when it arrived; the same array with the same time is not cleaned again. None always cleans.
        """
        clean, valid = self._clean, self._valid
        if scan_ns is not None and ranges_m is self._last[0] and scan_ns == self._last[1]:
            return clean
        np.greater_equal(ranges_m, self._range_min_m, out=valid)
        self.invalid = valid.size - int(np.count_nonzero(valid))
        np.minimum(ranges_m, self.range_max_m, out=clean)
        if self.invalid:
            invalid = (~valid).nonzero()[0]
            clean[invalid] = 0.0
            nearer = np.minimum(clean.take(invalid - 1, mode="wrap"), clean.take(invalid + 1, mode="wrap"))
            clean[invalid] = np.maximum(nearer, self._range_min_m)
        self._last = (None, 0) if scan_ns is None else (ranges_m, scan_ns)
        return clean

    def blind(self, rays_min: int) -> Mask:
        """Which rays bool[rays] of the last scan lie in a run of at least ``rays_min`` invalid ones."""
        invalid = ~self._valid
        starts = invalid.copy()
        for shift in range(1, rays_min):
            starts &= np.roll(invalid, -shift)
        runs = starts.copy()
        for shift in range(1, rays_min):
            runs |= np.roll(starts, shift)
        return runs
