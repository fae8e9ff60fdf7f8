"""Whatever is sensed and wanted: what goes out is never more than what was wanted, nor the other way."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.robot import AMR_SMALL
from safety.monitor import Inputs, SafetyMonitor

RAYS = AMR_SMALL.lidar.rays
anything = st.floats(width=32)
some_range = st.one_of(st.floats(0.0, 9.0, width=32), st.just(math.inf), anything)


@settings(max_examples=200, deadline=None)
@given(
    ranges=st.lists(some_range, min_size=1, max_size=RAYS),
    commands=st.lists(st.tuples(anything, anything), min_size=1, max_size=6),
    velocity=st.tuples(st.floats(-1.5, 1.5), st.floats(-2, 2)),
)
def test_the_monitor_never_increases_a_command(
    ranges: list[float], commands: list[tuple[float, float]], velocity: tuple[float, float]
) -> None:
    monitor = SafetyMonitor(AMR_SMALL)
    monitor.armed = True
    scan = np.resize(np.array(ranges, dtype=np.float32), RAYS)
    for tick, command in enumerate(commands):
        now_ns = (tick + 1) * 50_000_000
        # The arc of a turn rate near the smallest float overflows; where it is that straight it is not used.
        with np.errstate(over="ignore"):
            ruling = monitor.step(Inputs(now_ns, scan, now_ns, velocity, now_ns, command))
        for out, wanted in zip(ruling.command, command, strict=True):
            assert math.isfinite(out)
            if math.isfinite(wanted):
                assert abs(out) <= abs(wanted) + 1e-9
                assert out * wanted >= 0.0
