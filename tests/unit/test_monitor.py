"""The safety monitor, read as a story: what stops a robot, what disarms it, and what lets it go again."""

import math

import msgspec
import numpy as np
import pytest

from contracts.decision import Reason, Verdict
from contracts.robot import AMR_SMALL
from safety.config import MonitorConfig, WatchConfig
from safety.errors import MonitorConfigError
from safety.monitor import NS, Inputs, SafetyMonitor
from safety.watch.policy import Advice
from safety.zones import Zone, rectangle

CONFIG = MonitorConfig()
STANDING = (0.0, 0.0)
TICK_NS = 50_000_000
START_NS = 1_000 * NS
RAYS = AMR_SMALL.lidar.rays
AHEAD = RAYS // 2


def clear():
    return np.full(RAYS, np.inf, dtype=np.float32)


def good(now_ns=START_NS, **changes):
    inputs = Inputs(now_ns, clear(), now_ns, (0.5, 0.0), now_ns, (0.5, 0.0))
    return msgspec.structs.replace(inputs, **changes)


def scan(*rays, value=math.nan):
    ranges = clear()
    ranges[list(rays)] = value
    return ranges


@pytest.fixture
def monitor():
    """Armed and at 0.5 m/s since a while."""
    made = SafetyMonitor(AMR_SMALL)
    assert made.arm() == ""
    for tick in range(40):
        ruling = made.step(good(START_NS - (40 - tick) * TICK_NS))
    assert ruling.command == (0.5, 0.0)
    return made


FAULTS = {
    "no scan": ({"ranges_m": None}, Reason.SCAN_MISSING),
    "stale scan": ({"scan_ns": START_NS - int(0.301 * NS)}, Reason.SCAN_STALE),
    "scan from the future": ({"scan_ns": START_NS + int(0.051 * NS)}, Reason.SCAN_FROM_FUTURE),
    "short scan": ({"ranges_m": clear()[:-1]}, Reason.SCAN_WRONG_SHAPE),
    "flat scan": ({"ranges_m": clear()[None]}, Reason.SCAN_WRONG_SHAPE),
    "blind scan": ({"ranges_m": scan(*range(RAYS))}, Reason.SCAN_INVALID),
    "partly blind scan": ({"ranges_m": scan(*range(10))}, Reason.SCAN_INVALID),
    "negative ranges": ({"ranges_m": scan(*range(10), value=-1.0)}, Reason.SCAN_INVALID),
    "ranges below the lidar's": ({"ranges_m": scan(*range(10), value=0.049)}, Reason.SCAN_INVALID),
    "minus infinity": ({"ranges_m": scan(*range(10), value=-math.inf)}, Reason.SCAN_INVALID),
    "no odometry": ({"velocity": None}, Reason.ODOMETRY_MISSING),
    "stale odometry": ({"odometry_ns": START_NS - int(0.301 * NS)}, Reason.ODOMETRY_STALE),
    "odometry from the future": ({"odometry_ns": START_NS + int(0.051 * NS)}, Reason.ODOMETRY_FROM_FUTURE),
    "odometry NaN": ({"velocity": (math.nan, 0.0)}, Reason.ODOMETRY_NOT_FINITE),
    "odometry infinite": ({"velocity": (0.0, math.inf)}, Reason.ODOMETRY_NOT_FINITE),
    "command NaN": ({"command": (0.5, math.nan)}, Reason.COMMAND_NOT_FINITE),
    "command infinite": ({"command": (math.inf, 0.0)}, Reason.COMMAND_NOT_FINITE),
}
STOPS = {**FAULTS, "no command": ({"command": None}, Reason.COMMAND_MISSING)}


@pytest.mark.parametrize(("changes", "reason"), STOPS.values(), ids=STOPS.keys())
def test_bad_data_stops_in_the_same_tick(monitor, changes, reason):
    ruling = monitor.step(good(**changes))
    assert (ruling.command, ruling.verdict, ruling.reason) == ((0.0, 0.0), Verdict.STOP, reason)
    assert monitor.armed
    after = monitor.step(good(START_NS + TICK_NS))
    assert after.verdict is Verdict.LIMIT
    assert after.reason is Reason.ACCELERATION_LIMITED
    assert 0.0 < after.command[0] <= AMR_SMALL.acceleration_max_mps2 * TICK_NS / NS + 1e-9


@pytest.mark.parametrize(
    "changes",
    [
        {"scan_ns": START_NS - int(0.3 * NS)},
        {"scan_ns": START_NS + int(0.05 * NS)},
        {"odometry_ns": START_NS - int(0.3 * NS)},
        {"odometry_ns": START_NS + int(0.05 * NS)},
        {"ranges_m": scan(*range(0, 18, 2))},
        {"ranges_m": scan(*range(10), value=0.0501)},
    ],
    ids=["scan age", "scan future", "odometry age", "odometry future", "5 % blind", "nearest range"],
)
def test_at_the_limit_it_still_drives(monitor, changes):
    assert monitor.step(good(**changes)).command[0] > 0.0


@pytest.mark.parametrize(("changes", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_lasts_disarms(monitor, changes, reason):
    begin = START_NS
    last_ns = begin + int(CONFIG.disarm_after_s * NS)
    for now_ns in range(begin, last_ns + 1, TICK_NS):
        shift = now_ns - START_NS
        shifted = {k: v + shift if k.endswith("_ns") else v for k, v in changes.items()}
        ruling = monitor.step(good(now_ns, **({"velocity": STANDING} | shifted)))
        assert ruling.command == (0.0, 0.0)
    assert monitor.armed, "exactly at the limit it is still armed"
    shifted = {k: v + shift + 1 if k.endswith("_ns") else v for k, v in changes.items()}
    ruling = monitor.step(good(last_ns + 1, **({"velocity": STANDING} | shifted)))
    assert not monitor.armed
    assert (ruling.verdict, ruling.reason) == (Verdict.DISARM, reason)
    assert "fault" in monitor.arm()
    assert not monitor.armed
    # The data come back: it stays disarmed until someone arms it.
    ruling = monitor.step(good(last_ns + TICK_NS, velocity=STANDING))
    assert (ruling.command, ruling.verdict, ruling.reason) == ((0.0, 0.0), Verdict.DISARM, Reason.NOT_ARMED)
    assert monitor.arm() == ""
    assert monitor.step(good(last_ns + 2 * TICK_NS, velocity=STANDING)).command[0] > 0.0


def test_no_command_is_no_sensor_fault(monitor):
    for tick in range(100):
        ruling = monitor.step(good(START_NS + tick * TICK_NS, command=None, velocity=STANDING))
        assert ruling.command == (0.0, 0.0)
    assert monitor.armed
    assert monitor.arm() == ""


def test_a_fault_is_over_when_data_are_good_though_no_command_comes(monitor):
    monitor.step(good(ranges_m=None))
    monitor.disarm()
    assert "fault" in monitor.arm()
    monitor.step(good(START_NS + TICK_NS, command=None))
    assert monitor.arm() == ""
    # An old fault does not count towards a new one.
    monitor.step(good(START_NS + 10 * NS, ranges_m=None))
    assert monitor.armed


def test_a_fault_during_a_requested_stop_does_not_lock_it(monitor):
    monitor.request_stop(emergency=False)
    monitor.step(good(ranges_m=None))
    monitor.step(good(START_NS + TICK_NS))
    assert monitor.arm() == ""
    assert monitor.step(good(START_NS + 2 * TICK_NS)).command[0] > 0.0


def test_new_monitor_is_disarmed():
    ruling = SafetyMonitor(AMR_SMALL).step(good())
    assert (ruling.command, ruling.verdict, ruling.reason) == ((0.0, 0.0), Verdict.DISARM, Reason.NOT_ARMED)


def test_stop_holds_until_armed_again(monitor):
    monitor.request_stop(emergency=False)
    for tick in range(5):
        ruling = monitor.step(good(START_NS + tick * TICK_NS))
        assert (ruling.command, ruling.verdict) == ((0.0, 0.0), Verdict.STOP)
        assert ruling.reason is Reason.STOP_REQUESTED
    assert monitor.arm() == ""
    assert monitor.step(good(START_NS + 6 * TICK_NS)).command[0] > 0.0


def test_emergency_stop_is_latched_and_needs_reset_then_arming(monitor):
    monitor.request_stop(emergency=True)
    ruling = monitor.step(good())
    assert (ruling.command, ruling.verdict) == ((0.0, 0.0), Verdict.EMERGENCY_STOP)
    assert ruling.reason is Reason.EMERGENCY_STOP_LATCHED
    assert "reset it first" in monitor.arm()
    assert monitor.step(good(START_NS + TICK_NS)).verdict is Verdict.EMERGENCY_STOP
    assert monitor.reset_emergency() == ""
    assert "not latched" in monitor.reset_emergency()
    assert monitor.step(good(START_NS + 2 * TICK_NS)).verdict is Verdict.DISARM
    assert monitor.arm() == ""
    assert monitor.step(good(START_NS + 3 * TICK_NS)).command[0] > 0.0


def test_emergency_outranks_a_fault(monitor):
    monitor.request_stop(emergency=True)
    assert monitor.step(good(ranges_m=None)).reason is Reason.EMERGENCY_STOP_LATCHED


@pytest.mark.parametrize(
    ("wanted", "limit"),
    [
        ((9.0, 0.0), (1.2, 0.0)),
        ((-9.0, 0.0), (-0.3, 0.0)),
        ((0.0, 9.0), (0.0, 1.8)),
        ((0.0, -9.0), (0.0, -1.8)),
    ],
)
def test_command_beyond_the_robot_is_clipped(monitor, wanted, limit):
    ruling = monitor.step(good(command=(0.0, 0.0)))
    for tick in range(1, 60):
        ruling = monitor.step(good(START_NS + tick * TICK_NS, command=wanted, velocity=ruling.command))
        assert ruling.reason is Reason.COMMAND_OUT_OF_LIMITS
    assert ruling.command == pytest.approx(limit)


@pytest.mark.parametrize(
    ("speed", "reason"),
    [(1.2, Reason.CLEAR), (float(np.float32(1.2)), Reason.CLEAR), (1.201, Reason.COMMAND_OUT_OF_LIMITS)],
)
def test_speed_limit_is_sharp(monitor, speed, reason):
    for tick in range(60):
        ruling = monitor.step(good(START_NS + tick * TICK_NS, command=(speed, 0.0)))
    assert ruling.reason is reason
    assert ruling.command[0] <= AMR_SMALL.speed_max_mps


def test_acceleration_is_limited_and_slowing_down_is_not(monitor):
    speeds = [
        monitor.step(good(START_NS + tick * TICK_NS, command=(1.2, 0.0))).command[0] for tick in range(20)
    ]
    assert np.diff(speeds).max() <= AMR_SMALL.acceleration_max_mps2 * 0.05 + 1e-9
    assert speeds[-1] == pytest.approx(1.2)
    assert monitor.step(good(START_NS + 20 * TICK_NS, command=(0.1, 0.0))).command[0] == 0.1
    turned = monitor.step(good(START_NS + 21 * TICK_NS, command=(-0.3, 0.0)))
    assert -0.0601 < turned.command[0] < 0.0


@pytest.mark.parametrize(("jerk_max_mps3", "ticks"), [(6.0, 4), (1.2, 20), (1000.0, 1)])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_jerk_limit_lets_acceleration_grow_slowly_and_never_slows_braking(jerk_max_mps3, ticks, direction):
    monitor = SafetyMonitor(AMR_SMALL, watch=WatchConfig(jerk_max_mps3=jerk_max_mps3))
    tick_s, now_ns, velocity = TICK_NS / NS, START_NS, STANDING
    assert monitor.arm() == ""

    def speeds(wanted, count):
        nonlocal now_ns, velocity
        found = []
        for _ in range(count):
            now_ns += TICK_NS
            velocity = monitor.step(good(now_ns, velocity=velocity, command=(wanted, 0.0))).command
            found.append(velocity[0])
        return np.array(found)

    fastest = (1.2 if direction > 0 else 0.3) * direction
    speeds(0.0, 2)
    steps = np.diff(speeds(fastest, 40) * direction, prepend=0.0) / tick_s
    assert np.diff(steps, prepend=0.0).max() <= max(jerk_max_mps3 * tick_s, 1.2) + 1e-9
    expected = np.minimum(jerk_max_mps3 * tick_s * np.arange(1, 7), AMR_SMALL.acceleration_max_mps2)
    rising = np.cumsum(expected * tick_s) < abs(fastest)
    assert steps[:6][rising] == pytest.approx(expected[rising])
    assert (expected[: ticks - 1] < AMR_SMALL.acceleration_max_mps2 - 1e-9).all()
    assert speeds(0.1 * direction, 1)[0] == 0.1 * direction, "braking is never slowed down"
    again = speeds(0.3 * direction, 1)[0] * direction
    assert again - 0.1 == pytest.approx(expected[0] * tick_s), "after braking it begins anew"
    monitor.sent(STANDING)
    assert speeds(0.3 * direction, 1)[0] * direction == pytest.approx(expected[0] * tick_s)


def test_long_gap_between_ticks_gives_no_jump(monitor):
    ruling = monitor.step(good(START_NS + 100 * NS, command=(1.2, 0.0)))
    assert ruling.command[0] <= 0.5 + AMR_SMALL.acceleration_max_mps2 * 0.2 + 1e-9


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_wall_ahead_stops_and_wall_behind_does_not(monitor, direction):
    ranges = clear()
    middle = AHEAD if direction > 0 else 0
    ranges[np.arange(middle - 12, middle + 13) % RAYS] = 0.37
    velocity, command = (0.0, 0.0), (0.25 * direction, 0.0)
    ruling = monitor.step(good(ranges_m=ranges, velocity=velocity, command=command))
    assert ruling.command[0] == 0.0
    assert (ruling.verdict, ruling.reason) == (Verdict.LIMIT, Reason.OBSTACLE_AHEAD)
    away = (-0.25 * direction, 0.0)
    for tick in range(1, 10):
        ruling = monitor.step(
            good(START_NS + tick * TICK_NS, ranges_m=ranges, velocity=velocity, command=away)
        )
    assert ruling.command == pytest.approx(away)
    # In front of a wall it may still turn on the spot, at full rate.
    for tick in range(10, 30):
        ruling = monitor.step(
            good(
                START_NS + tick * TICK_NS, ranges_m=ranges, velocity=velocity, command=(0.25 * direction, 1.0)
            )
        )
    assert ruling.command == pytest.approx((0.0, 1.0))


def test_a_lone_invalid_ray_takes_its_nearer_neighbour(monitor):
    ranges = np.full(RAYS, 3.0, dtype=np.float32)
    ranges[AHEAD] = math.nan
    with_gap = monitor.step(good(ranges_m=ranges))
    assert with_gap.command == (0.5, 0.0)
    ranges[AHEAD + 1] = 0.4
    assert monitor.step(good(START_NS + TICK_NS, ranges_m=ranges)).command[0] == 0.0


@pytest.mark.parametrize(("width", "reason"), [(2, Reason.OBSTACLE_AHEAD), (3, Reason.BLIND_SECTOR)])
def test_a_blind_sector_is_as_wide_as_it_is_set_rounded_up(width, reason):
    made = SafetyMonitor(AMR_SMALL, watch=WatchConfig(blind_sector_rad=2.5 * AMR_SMALL.lidar.angle_step_rad))
    assert made.arm() == ""
    for tick in range(20):
        ranges = scan(*range(AHEAD, AHEAD + width))
        ruling = made.step(good(START_NS + tick * TICK_NS, ranges_m=ranges, velocity=STANDING))
    assert ruling.reason is reason


def test_a_velocity_that_is_out_of_date_freezes_no_scan(monitor):
    for tick in range(8):
        now_ns = START_NS + tick * TICK_NS
        ranges = np.full(RAYS, 3.0, dtype=np.float32)
        ruling = monitor.step(good(now_ns, ranges_m=ranges, odometry_ns=now_ns - NS))
        assert ruling.reason is Reason.ODOMETRY_STALE


def test_scattered_invalid_rays_are_no_blind_sector(monitor):
    wall = np.arange(AHEAD - 12, AHEAD + 13)
    ranges = scan(*wall, value=0.37)
    ranges[[0, 4, 8, 12]] = math.nan
    assert monitor.step(good(ranges_m=ranges)).reason is Reason.OBSTACLE_AHEAD


def test_a_policy_is_judged_by_both_numbers_of_its_command(monitor):
    for tick in range(5):
        for command in ((math.nan, 0.3), (0.3, math.inf)):
            inputs = good(START_NS + tick * TICK_NS, command=command, command_from_policy=True)
            assert monitor.step(inputs).command == STANDING
            monitor.settle()
            assert monitor.advise(inputs) is Advice.NONE


def test_a_robot_that_may_not_drive_makes_no_policy_constant(monitor):
    """It stands and sees the same, but for somebody behind a shelf: on probation that took a policy off."""

    def advices(count, first):
        found, velocity = [], STANDING
        for tick in range(first, first + count):
            ranges = np.full(RAYS, 3.0 + 0.1 * (tick % 2), dtype=np.float32)
            inputs = good(
                START_NS + tick * TICK_NS,
                ranges_m=ranges,
                command=(0.5, 0.1),
                command_from_policy=True,
                velocity=velocity,
            )
            velocity = monitor.step(inputs).command
            monitor.settle()
            found.append(monitor.advise(inputs))
        return found

    monitor.disarm()
    assert set(advices(100, 0)) == {Advice.NONE}
    assert monitor.arm() == ""
    monitor.request_stop(emergency=False)
    assert set(advices(100, 100)) == {Advice.NONE}
    assert monitor.arm() == ""
    found = advices(100, 200)
    assert found[0] is Advice.NONE, "what it said before does not count"
    assert found[-1] is Advice.SATURATED


def test_a_pushed_robot_is_disarmed_also_where_it_was_only_stopped(monitor):
    monitor.request_stop(emergency=False)
    for tick in range(20):
        monitor.step(good(START_NS + tick * TICK_NS, velocity=STANDING))
    assert monitor.armed
    for tick in range(20, 24):
        ruling = monitor.step(good(START_NS + tick * TICK_NS, velocity=(0.4, 0.0)))
    assert (ruling.verdict, ruling.reason, ruling.clearance_m) == (
        Verdict.DISARM,
        Reason.STANDSTILL_LOST,
        0.0,
    )
    assert not monitor.armed


def test_an_old_pose_makes_zones_come_earlier():
    found = []
    for age_s in (0.0, 0.2):
        zone = Zone("keep_out", rectangle(0.8, -9.0, 9.0, 9.0))
        made = SafetyMonitor(AMR_SMALL, zones=(zone,))
        assert made.arm() == ""
        for tick in range(20):
            now_ns = START_NS + tick * TICK_NS
            taken_ns = now_ns - int(age_s * NS)
            stands = {"velocity": STANDING, "pose": (0.0, 0.0, 0.0)}
            ruling = made.step(good(now_ns, odometry_ns=taken_ns, command=(1.0, 0.0), **stands))
        assert ruling.reason is Reason.KEEP_OUT
        found.append(ruling.command[0])
    assert 0.0 < found[1] < found[0] - 0.1


@pytest.mark.parametrize("value", [math.nan, -1.0, 0.0, -math.inf])
@pytest.mark.parametrize("width", [2, 3, 9])
def test_blind_sector_ahead_does_not_read_as_clear(monitor, width, value):
    blind = scan(*range(AHEAD - width // 2, AHEAD - width // 2 + width), value=value)
    ruling = monitor.step(good(ranges_m=blind))
    assert ruling.command[0] == 0.0
    assert ruling.reason is Reason.BLIND_SECTOR
    behind = scan(*(np.arange(-(width // 2), width - width // 2) % RAYS), value=value)
    assert monitor.step(good(START_NS + TICK_NS, ranges_m=behind)).command[0] > 0.0


def test_clean_ranges_are_finite_and_bounded():
    monitor = SafetyMonitor(AMR_SMALL)
    ranges = clear()
    ranges[:6] = [math.nan, -1.0, 0.0, 0.049, 0.05, 9.0]
    clean = monitor.clean_ranges(ranges)
    assert clean[:7].tolist() == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.05, 8.0, 8.0])
    lone = clear()
    lone[[4, 5, 6]] = 2.0, math.nan, 3.0
    assert monitor.clean_ranges(lone)[5] == pytest.approx(2.0), "a lone gap takes its nearer neighbour"
    assert math.isnan(ranges[0]), "the scan itself is left alone"


@pytest.mark.parametrize("name", MonitorConfig.__struct_fields__)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_no_setting_can_be_switched_off(name, value):
    config = msgspec.structs.replace(CONFIG, **{name: value})
    with pytest.raises(MonitorConfigError, match=f"{name} is .*; it must be a finite number above zero"):
        SafetyMonitor(AMR_SMALL, config)


def test_config_hash_is_its_version():
    assert MonitorConfig().hash() == CONFIG.hash()
    assert msgspec.structs.replace(CONFIG, margin_m=0.07).hash() != CONFIG.hash()


def test_turning_over_looks_at_the_way_between(monitor):
    """Measured to the left, commanded to the right, a post straight ahead: both arcs pass it, the robot would not."""
    left, right = {"command": (0.5, 1.7)}, {"command": (0.5, -1.7), "velocity": (0.5, 1.7)}
    for tick in range(1, 9):
        monitor.step(good(START_NS + tick * TICK_NS, velocity=(0.5, min(0.25 * tick, 1.7)), **left))
    for tick in range(9, 14):
        ruling = monitor.step(good(START_NS + tick * TICK_NS, **right))
    assert ruling.command == pytest.approx((0.5, -1.25))
    post = {"ranges_m": scan(AHEAD - 1, AHEAD, AHEAD + 1, value=0.7)}
    ruling = monitor.step(good(START_NS + 14 * TICK_NS, **right, **post))
    assert ruling.reason is Reason.OBSTACLE_AHEAD
    assert 0.0 <= ruling.command[0] < 0.3


def test_turned_over_the_way_between_no_longer_counts(monitor):
    post = {"ranges_m": scan(AHEAD - 1, AHEAD, AHEAD + 1, value=0.7)}
    for tick in range(1, 9):
        turn = -min(0.25 * tick, 1.7)
        ruling = monitor.step(good(START_NS + tick * TICK_NS, velocity=(0.5, turn), command=(0.5, -1.7)))
    ruling = monitor.step(good(START_NS + 9 * TICK_NS, velocity=(0.5, -1.7), command=(0.5, -1.7), **post))
    assert ruling.command == pytest.approx((0.5, -1.7))


def someone(bearing_rad, gap_m):
    """A scan of somebody 0.25 m wide, ``gap_m`` from the footprint."""
    lidar = AMR_SMALL.lidar
    angles = lidar.angle_min_rad + np.arange(RAYS) * lidar.angle_step_rad
    far_m = gap_m + AMR_SMALL.footprint_radius_m + 0.25
    across = far_m * np.sin(np.angle(np.exp(1j * (angles - bearing_rad))))
    along = far_m * np.cos(angles - bearing_rad)
    seen = (np.abs(across) < 0.25) & (along > 0.0)
    ranges = clear()
    ranges[seen] = (along - np.sqrt(np.maximum(0.25**2 - across**2, 0.0)))[seen]
    return ranges


@pytest.mark.parametrize("side", [1.0, -1.0], ids=["left", "right"])
@pytest.mark.parametrize(
    ("measured", "turns"), [(0.8, False), (0.1, True)], ids=["rolling", "as good as still"]
)
def test_a_base_that_is_to_stand_does_not_turn_towards_somebody_while_it_rolls(
    monitor, side, measured, turns
):
    """Found by a policy that turned at 0.9 m/s: braked, but on an arc that led to who stood beside it."""
    near = {"ranges_m": someone(0.75 * side, 0.12), "velocity": (measured, 0.0), "command": (1.2, 1.8 * side)}
    ruling = monitor.step(good(**near))
    assert (ruling.command[0], ruling.reason) == (0.0, Reason.OBSTACLE_AHEAD)
    assert (ruling.command[1] * side > 0.0) is turns
    assert ruling.command[1] * -side <= 0.0


def test_a_base_that_is_to_stand_turns_away_from_somebody_while_it_rolls(monitor):
    away = {"ranges_m": someone(0.3, 0.25), "velocity": (0.3, 0.0), "command": (0.0, -1.8)}
    assert monitor.step(good(**away)).command[1] < 0.0
