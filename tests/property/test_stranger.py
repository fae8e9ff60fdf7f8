"""The monitor as a stranger would attack it: numbers that are none, scans that are none, clocks that jump.

Whatever comes in, a ruling comes out: finite, nowhere larger than the command, and of no other sign.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.robot import AMR_SMALL, TUGGER
from safety.admission import Admission
from safety.config import MonitorConfig
from safety.fields import ProtectiveField
from safety.geometry import speed_cap
from safety.monitor import NS, Inputs, SafetyMonitor
from safety.movers import Movers
from safety.scan import ScanCleaner
from safety.zones import Zone

LIDAR = AMR_SMALL.lidar
HOUR_NS = 3600 * NS
ODD = (
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    1e-310,
    1e-45,
    1e-30,
    1e-9,
    1e9,
    1e30,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
)
odd = st.one_of(st.sampled_from(ODD), st.floats(-2.0, 2.0), st.floats())
finite_odd = st.one_of(
    st.sampled_from([each for each in ODD if math.isfinite(each)]),
    st.floats(allow_nan=False, allow_infinity=False),
)
models = st.sampled_from([AMR_SMALL, TUGGER])


@st.composite
def scans(draw, rays=LIDAR.rays):
    """All rays equal, every other, one alone, a run, or noise of odd numbers: float32[rays]."""
    with np.errstate(over="ignore", under="ignore"):
        first, second = (np.float32(draw(odd)) for _ in range(2))
        kind = draw(st.sampled_from(["equal", "alternating", "one", "run", "noise"]))
        ranges = np.full(rays, first, dtype=np.float32)
        if kind == "alternating":
            ranges[::2] = second
        elif kind == "one":
            ranges[draw(st.integers(0, rays - 1))] = second
        elif kind == "run":
            begin, length = draw(st.integers(0, rays - 1)), draw(st.integers(1, rays))
            ranges[np.arange(begin, begin + length) % rays] = second
        elif kind == "noise":
            rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
            ranges = rng.choice(np.array([*ODD, 0.3, 0.5, 1.0, 2.0], dtype=np.float32), rays)
    return ranges


clocks = st.sampled_from(
    [0, 1, 50_000_000, 50_000_000, 50_000_000, 400_000_000, HOUR_NS, -50_000_000, -HOUR_NS]
)
"""ns from one tick to the next: it stands still, goes, jumps, and runs backwards."""


@st.composite
def ticks(draw):
    """What one tick brings: clock, scan, when scan and odometry came, velocity, command, pose, tilt."""
    pair = st.one_of(st.none(), st.tuples(odd, odd))
    return (
        draw(clocks),
        draw(st.one_of(st.none(), scans(), scans(rays=3))),
        draw(clocks),
        draw(clocks),
        draw(pair),
        draw(pair),
        draw(st.one_of(st.none(), st.tuples(odd, odd, odd))),
        draw(st.one_of(st.none(), odd)),
        draw(odd),
    )


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None)
@given(st.lists(ticks(), min_size=1, max_size=8), models, st.booleans())
def test_whatever_comes_in_a_ruling_comes_out(course, model, zoned):
    zones = (Zone("keep_out", ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (1.0, 2.0))),) if zoned else ()
    monitor = SafetyMonitor(model, zones=zones, fields=(ProtectiveField(0.3, 0.5),))
    now_ns = HOUR_NS
    for (
        elapsed_ns,
        ranges,
        scan_ago_ns,
        odometry_ago_ns,
        velocity,
        command,
        pose,
        tilt_rad,
        novelty,
    ) in course:
        now_ns += elapsed_ns
        monitor.reset_emergency()
        monitor.arm()
        inputs = Inputs(
            now_ns, ranges, now_ns - scan_ago_ns, velocity, now_ns - odometry_ago_ns, command, pose,
            tilt_rad=tilt_rad, novelty=novelty, command_from_policy=True,
        )  # fmt: skip
        final = monitor.step(inputs).command
        monitor.settle()
        monitor.advise(inputs)
        assert all(math.isfinite(each) for each in final)
        if command is None or not all(math.isfinite(each) for each in command):
            assert final == (0.0, 0.0)
            continue
        for asked, given_back in zip(command, final, strict=True):
            assert abs(given_back) <= abs(asked)
            assert given_back == 0.0 or math.copysign(1.0, given_back) == math.copysign(1.0, asked)


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None)
@given(
    scans(), st.tuples(finite_odd, finite_odd), st.tuples(finite_odd, finite_odd), st.floats(0.0, 0.3), models
)
def test_admission_alone_reduces_whatever_is_finite(ranges, command, velocity, age_s, model):
    admission = Admission(MonitorConfig(), model)
    admission.see(ScanCleaner(LIDAR).clean(ranges))
    speed, turn_rate, free_m = admission.admit(command, velocity, age_s)
    assert abs(speed) <= abs(command[0])
    assert abs(turn_rate) <= abs(command[1])
    assert 0.0 <= free_m <= MonitorConfig().reach_m


@pytest.mark.filterwarnings("error")
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(scans(), st.floats(0.0, 0.5), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0)), max_size=8),
    st.tuples(finite_odd, finite_odd),
    models,
)
def test_movers_give_a_share_whatever_they_saw(course, command, model):
    movers, cleaner = Movers(MonitorConfig(), model), ScanCleaner(LIDAR)
    for ranges, elapsed_s, speed, turn_rate in course:
        movers.advance(elapsed_s, (speed, turn_rate))
        movers.take(cleaner.clean(ranges))
        movers.settle()
        assert np.isfinite(movers.tracks).all()
        assert 0.0 <= movers.share(command, 0.05) <= 1.0


@given(finite_odd, st.floats(0.05, 3.0), st.floats(0.01, 1.0), st.floats(0.0, 2.0))
def test_the_braking_law_is_a_number(free_m, braking_mps2, reaction_s, closing_mps):
    cap = speed_cap(free_m, braking_mps2, reaction_s, closing_mps)
    assert cap >= 0.0


def test_a_clock_that_stands_still_lets_nothing_grow():
    monitor = SafetyMonitor(AMR_SMALL)
    monitor.arm()
    ranges = np.full(LIDAR.rays, np.inf, dtype=np.float32)
    for _ in range(20):
        ruling = monitor.step(Inputs(NS, ranges, NS, (0.0, 0.0), NS, (1.0, 1.0)))
        assert ruling.command == (0.0, 0.0)


@pytest.mark.parametrize("jump_ns", [HOUR_NS, -HOUR_NS])
def test_a_clock_that_jumps_gives_one_ticks_growth_at_most(jump_ns):
    monitor = SafetyMonitor(AMR_SMALL)
    monitor.arm()
    ranges, now_ns = np.full(LIDAR.rays, np.inf, dtype=np.float32), 2 * HOUR_NS
    for tick in range(6):
        now_ns += jump_ns if tick == 3 else 50_000_000
        before = abs(monitor._last_command[0])
        ruling = monitor.step(Inputs(now_ns, ranges, now_ns, (0.0, 0.0), now_ns, (1.0, 0.0)))
        assert abs(ruling.command[0]) <= before + AMR_SMALL.acceleration_max_mps2 * 0.2 + 1e-9


def share_beside_a_walker(odometry):
    """Shares of full speed ahead while somebody walks up to the standing robot, after ``odometry`` said something."""
    monitor, now_ns = SafetyMonitor(AMR_SMALL), NS
    monitor.arm()
    angles = LIDAR.angle_min_rad + np.arange(LIDAR.rays) * LIDAR.angle_step_rad
    shares = []
    for tick in range(80):
        now_ns += 50_000_000
        monitor.reset_emergency()
        monitor.arm()
        ahead_m = max(3.0 - 1.4 * 0.05 * max(tick - 50, 0), 1.0)
        chord_m2 = 0.25**2 - (ahead_m * np.sin(angles)) ** 2
        hit_m = ahead_m * np.cos(angles) - np.sqrt(np.maximum(chord_m2, 0.0))
        ranges = np.where((chord_m2 > 0.0) & (hit_m > 0.0), hit_m, 6.0).astype(np.float32)
        velocity = odometry if 5 <= tick < 8 else (0.0, 0.0)
        monitor.step(Inputs(now_ns, ranges, now_ns, velocity, now_ns, (0.0, 0.0)))
        monitor.settle()
        shares.append(monitor.share_beside_movers((1.2, 0.0), 0.05))
    return shares


@pytest.mark.parametrize("speed", [1.0, 50.0, 1e4, 1e20, 1e300, -1.7e308])
@pytest.mark.parametrize("turn_rate", [0.0, -3.0, 1e17, 1.7e308])
def test_odometry_that_once_spoke_nonsense_does_not_blind_the_monitor_for_good(speed, turn_rate):
    """The place it reckoned was 1e20 m off for ever, where a walker and a shelf are in one and the same place."""
    usual, after = share_beside_a_walker((0.0, 0.0)), share_beside_a_walker((speed, turn_rate))
    assert min(usual) < 0.3
    assert after[50:] == usual[50:]
