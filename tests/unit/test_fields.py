"""Speed-indexed protective fields: what they forbid, at which speed, in which direction, and for how long."""

import math

import msgspec
import numpy as np
import pytest

from contracts.decision import Reason
from contracts.robot import AMR_SMALL, TUGGER
from safety.errors import ZoneError
from safety.fields import CLEAR_SCANS, FieldGuard, ProtectiveField

STOP, SLOW = ProtectiveField(0.0, 0.4), ProtectiveField(0.5, 1.5, 0.2)
EDGE_M = 0.01


def ranges_with(model, *points):
    """An empty hall but for points (x, y) in m, base frame; the angles those rays really have are returned too."""
    lidar = model.lidar
    ranges = np.full(lidar.rays, lidar.range_max_m, dtype=np.float32)
    for x, y in points:
        ray = round((math.atan2(y, x) - lidar.angle_min_rad) / lidar.angle_step_rad) % lidar.rays
        ranges[ray] = math.hypot(x, y)
    return ranges


def guard_that_sees(fields, *points, model=AMR_SMALL):
    guard = FieldGuard(fields, model)
    guard.see(ranges_with(model, *points), np.ones(model.lidar.rays, dtype=bool))
    return guard


@pytest.mark.parametrize(("model", "front_m"), [(AMR_SMALL, 0.3), (TUGGER, 0.6)], ids=["amr", "tugger"])
def test_a_field_begins_at_the_footprint_and_ends_where_it_says(model, front_m):
    for beyond_m, allowed in ((0.4 - EDGE_M, 0.0), (0.4 + EDGE_M, 0.9)):
        guard = guard_that_sees((STOP,), (front_m + beyond_m, 0.0), model=model)
        assert guard.limit((0.9, 0.3))[0] == (allowed, 0.3)


def test_a_lidar_may_begin_anywhere():
    """Counted the other way round, a scan that begins behind the robot is its own mirror image; another is not."""
    lidar = msgspec.structs.replace(AMR_SMALL.lidar, angle_min_rad=-1.0)
    turned = msgspec.structs.replace(AMR_SMALL, lidar=lidar)
    guard = guard_that_sees((STOP,), (0.3 + 0.2, 0.0), model=turned)
    assert guard.limit((0.9, 0.0))[0] == (0.0, 0.0)
    assert guard.limit((-0.3, 0.0))[0] == (-0.3, 0.0)


def test_a_field_is_as_wide_as_it_says():
    for beside_m, speed in ((0.5 - 0.02, 0.5), (0.5 + 0.02, 1.0)):
        guard = guard_that_sees((SLOW,), (1.7, beside_m), (1.7, -beside_m))
        assert guard.limit((1.0, 0.0))[0][0] == speed


def test_the_speed_of_the_strictest_occupied_field_holds_and_the_arc_is_kept():
    guard = guard_that_sees((SLOW, STOP), (1.5, 0.0))
    assert guard.limit((0.8, 0.4)) == ((0.5, 0.25), Reason.PROTECTIVE_FIELD)
    assert guard.limit((0.5, 0.4)) == ((0.5, 0.4), Reason.CLEAR)
    near = guard_that_sees((SLOW, STOP), (0.6, 0.0))
    assert near.limit((0.1, 0.4)) == ((0.0, 0.4), Reason.PROTECTIVE_FIELD)


def test_it_looks_where_the_robot_goes():
    behind = guard_that_sees((STOP,), (-0.5, 0.0))
    assert behind.limit((0.5, 0.0)) == ((0.5, 0.0), Reason.CLEAR)
    assert behind.limit((-0.2, 0.0)) == ((0.0, 0.0), Reason.PROTECTIVE_FIELD)
    assert behind.limit((0.0, 0.5)) == ((0.0, 0.5), Reason.CLEAR)


def test_a_field_trips_with_one_scan_and_clears_after_some():
    guard, every = FieldGuard((STOP,), AMR_SMALL), np.ones(AMR_SMALL.lidar.rays, dtype=bool)
    free, taken = ranges_with(AMR_SMALL), ranges_with(AMR_SMALL, (0.5, 0.0))
    guard.see(taken, every)
    for scan in range(1, CLEAR_SCANS + 1):
        guard.see(free, every)
        assert guard.limit((0.5, 0.0))[0][0] == (0.5 if scan == CLEAR_SCANS else 0.0)


def test_rays_that_do_not_count_trip_nothing():
    guard = FieldGuard((STOP,), AMR_SMALL)
    guard.see(ranges_with(AMR_SMALL, (0.5, 0.0)), np.zeros(AMR_SMALL.lidar.rays, dtype=bool))
    assert guard.limit((0.5, 0.0)) == ((0.5, 0.0), Reason.CLEAR)


@pytest.mark.parametrize(
    "field",
    [
        ProtectiveField(-0.1, 1.0), ProtectiveField(math.nan, 1.0), ProtectiveField(0.5, 0.0),
        ProtectiveField(0.5, math.inf), ProtectiveField(0.5, 1.0, -0.1),
    ],
)  # fmt: skip
def test_what_is_no_field_is_refused_by_name(field):
    with pytest.raises(ZoneError, match="of a protective field is"):
        FieldGuard((field,), AMR_SMALL)
