"""Cleaning of scans: nothing hides behind an invalid ray, and a scan is cleaned once."""

import math

import numpy as np
import pytest

from contracts.robot import AMR_SMALL
from safety.scan import ScanCleaner

LIDAR = AMR_SMALL.lidar


def scan(**at):
    """2 m all around, but for rays named ``r5=...``; float32[rays]."""
    ranges = np.full(LIDAR.rays, 2.0, dtype=np.float32)
    for name, value in at.items():
        ranges[int(name.removeprefix("r"))] = value
    return ranges


def test_before_the_first_scan_no_ray_was_invalid():
    assert ScanCleaner(LIDAR).invalid == 0


@pytest.mark.parametrize(
    "bad",
    [math.nan, 0.0, -0.0, -1.0, -math.inf, 1e-45, np.nextafter(np.float32(LIDAR.range_min_m), np.float32(0))],
)
def test_an_invalid_ray_takes_its_nearer_neighbour(bad):
    cleaner = ScanCleaner(LIDAR)
    clean = cleaner.clean(scan(r4=1.0, r5=bad, r6=3.0))
    assert (cleaner.invalid, clean[5]) == (1, 1.0)
    clean = cleaner.clean(scan(r4=1.0, r5=bad, r6=bad, r7=3.0))
    assert (cleaner.invalid, clean[5], clean[6]) == (2, *[np.float32(LIDAR.range_min_m)] * 2)


@pytest.mark.parametrize("far", [math.inf, 3.4e38, LIDAR.range_max_m])
def test_nothing_in_range_is_the_maximum_and_valid(far):
    cleaner = ScanCleaner(LIDAR)
    assert cleaner.clean(scan(r0=far))[0] == np.float32(LIDAR.range_max_m)
    assert cleaner.invalid == 0


def test_the_seam_has_neighbours_too():
    last = LIDAR.rays - 1
    clean = ScanCleaner(LIDAR).clean(scan(r0=math.nan, **{f"r{last}": 0.7}))
    assert clean[0] == np.float32(0.7)


def test_the_least_range_is_valid():
    cleaner = ScanCleaner(LIDAR)
    assert cleaner.clean(scan(r3=np.float32(LIDAR.range_min_m)))[3] == np.float32(LIDAR.range_min_m)
    assert cleaner.invalid == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, LIDAR.range_min_m, 1.0, 1e30])
def test_scans_of_one_value_throughout_are_finite_and_within_limits(value):
    cleaner = ScanCleaner(LIDAR)
    clean = cleaner.clean(np.full(LIDAR.rays, value, dtype=np.float32))
    assert np.isfinite(clean).all()
    assert clean.min() >= np.float32(LIDAR.range_min_m)
    assert clean.max() <= np.float32(LIDAR.range_max_m)
    assert cleaner.blind(2).all() == (cleaner.invalid == LIDAR.rays)
