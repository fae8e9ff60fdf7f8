"""Every fault, injected into a healthy drive one by one: caught within its bound, acted on, over when it is over."""

import ast
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.decision import Reason, Verdict
from contracts.robot import AMR_SMALL, TUGGER
from safety.config import WatchConfig
from safety.errors import MonitorConfigError, ZoneError
from safety.faults import DISARMING, FAULTS, INJECTED, REACTION
from safety.fields import CLEAR_SCANS, ProtectiveField
from safety.inputs import NS, Inputs
from safety.monitor import SafetyMonitor
from safety.watch.policy import Advice
from safety.zones import Zone, ZoneGuard, rectangle, signed_distance
from tools.fault_table import PAGE, page

ROOT = Path(__file__).resolve().parents[2]
TICK_NS = 50_000_000
HEALTHY_TICKS = 60
CLOCKS_APART_NS = 5_000 * NS
ROW = {fault.id: fault for fault in FAULTS}
RAYS = AMR_SMALL.lidar.rays
AHEAD = RAYS // 2


class Drive:
    """A robot that does as it is told in a wide hall, sensed without fault until an injection says otherwise."""

    def __init__(
        self, zones=(), command=(0.5, 0.1), at=(0.0, 0.0, 0.0), model=AMR_SMALL, armed=True, fields=()
    ):
        self.monitor = SafetyMonitor(model, zones=zones, fields=fields)
        if armed:
            assert self.monitor.arm() == ""
        self.command, self.velocity, self.pose = command, (0.0, 0.0), at
        self.rng = np.random.default_rng(1)
        self.now_ns = 1_000 * NS
        self.scans = []

    def inputs(self):
        now_ns, (speed, turn_rate) = self.now_ns, self.command
        self.scans.append(self.rng.uniform(5.0, 7.0, RAYS).astype(np.float32))
        wanted = (speed, turn_rate + self.rng.uniform(-0.01, 0.01))
        stamp_ns = now_ns + CLOCKS_APART_NS
        return Inputs(
            now_ns, self.scans[-1], now_ns, self.velocity, now_ns, wanted, self.pose,
            stamp_ns, stamp_ns, 0.01, True, 0.8,
        )  # fmt: skip

    def step(self, **changes):
        inputs = msgspec.structs.replace(self.inputs(), **changes)
        ruling = self.monitor.step(inputs)
        self.advice = self.monitor.advise(inputs)
        x, y, heading = self.pose
        speed, turn_rate = self.velocity = ruling.command
        way_m, middle = speed * TICK_NS / NS, heading + 0.5 * turn_rate * TICK_NS / NS
        self.pose = (
            x + way_m * math.cos(middle), y + way_m * math.sin(middle), heading + turn_rate * TICK_NS / NS
        )  # fmt: skip
        self.now_ns += TICK_NS
        return ruling

    def healthy(self, ticks=HEALTHY_TICKS):
        for _ in range(ticks):
            ruling = self.step()
        assert (ruling.verdict, ruling.reason, self.advice) == (Verdict.PASS, Reason.CLEAR, Advice.NONE)
        assert self.monitor.armed
        return ruling


def later(drive, seconds):
    return drive.now_ns + int(seconds * NS)


def with_ranges(rays, value):
    def changes(drive, _):
        scan = drive.rng.uniform(5.0, 7.0, RAYS).astype(np.float32)
        scan[list(rays)] = value
        return {"ranges_m": scan}

    return changes


def fixed(**values):
    return lambda *_: values


def stamp(field, seconds):
    return lambda drive, _: {field: later(drive, seconds) + CLOCKS_APART_NS}


def same_stamp(field):
    return lambda drive, tick: {field: drive.now_ns - (tick + 1) * TICK_NS + CLOCKS_APART_NS}


def pose_held(**values):
    held = []

    def changes(drive, tick):
        held.append(drive.pose)
        return {"pose": held[-tick - 1], **values}

    return changes


def somebody_comes(drive, tick):
    """From ahead at 1.4 m/s, 1.6 m away at first."""
    ranges = drive.rng.uniform(5.0, 7.0, RAYS).astype(np.float32)
    ranges[AHEAD - 8 : AHEAD + 8] = 1.6 - 1.4 * tick * TICK_NS / NS
    return {"ranges_m": ranges}


def request(emergency):
    return lambda drive, _: drive.monitor.request_stop(emergency) or {}


def disarmed_and_pushed(drive, _):
    drive.monitor.disarm()
    return {"velocity": (0.9, 0.0)}


def ahead_at(edge_m, kind, **values):
    """A zone whose edge is ``edge_m`` ahead of the hall's origin."""
    low, high = (-9.0, edge_m) if kind == "stay_in" else (edge_m, 9.0)
    return (Zone(kind, rectangle(low, -9.0, high, 9.0), **values),)


STANDING = (0.0, 0.0)
EDGE_M = AMR_SMALL.reach_m + WatchConfig().zone_margin_m + 0.02
INJECTIONS = {
    Reason.OBSTACLE_AHEAD: (with_ranges(range(AHEAD - 8, AHEAD + 8), 0.45), {}),
    Reason.MOVING_OBSTACLE: (somebody_comes, {}),
    Reason.COMMAND_OUT_OF_LIMITS: (fixed(command=(1.9, 0.0)), {}),
    Reason.ACCELERATION_LIMITED: (fixed(command=(1.2, 0.0)), {}),
    Reason.BLIND_SECTOR: (with_ranges(range(AHEAD - 4, AHEAD + 4), math.nan), {}),
    Reason.PROTECTIVE_FIELD: (
        with_ranges(range(AHEAD - 2, AHEAD + 2), 3.0),
        {"fields": (ProtectiveField(0.2, 3.0),)},
    ),
    Reason.SPEED_ZONE: (
        fixed(command=(0.35, 0.0)),
        {"zones": ahead_at(-9.5, "speed_limit", speed_mps=0.3), "command": (0.3, 0.0)},
    ),
    Reason.KEEP_OUT: (
        fixed(command=(0.05, 0.0)),
        {"zones": ahead_at(EDGE_M, "keep_out"), "command": STANDING},
    ),
    Reason.STAY_IN: (fixed(command=(0.05, 0.0)), {"zones": ahead_at(EDGE_M, "stay_in"), "command": STANDING}),
    Reason.COMMAND_MISSING: (fixed(command=None), {}),
    Reason.COMMAND_NOT_FINITE: (fixed(command=(math.nan, 0.0)), {}),
    Reason.SCAN_MISSING: (fixed(ranges_m=None), {}),
    Reason.SCAN_STALE: (lambda drive, _: {"scan_ns": later(drive, -0.31)}, {}),
    Reason.SCAN_FROM_FUTURE: (lambda drive, _: {"scan_ns": later(drive, 0.06)}, {}),
    Reason.SCAN_INVALID: (with_ranges(range(20), math.nan), {}),
    Reason.SCAN_WRONG_SHAPE: (fixed(ranges_m=np.ones(RAYS // 2, dtype=np.float32)), {}),
    Reason.SCAN_FROZEN: (lambda drive, tick: {"ranges_m": drive.scans[-tick - 1]}, {}),
    Reason.SCAN_STAMP_STUCK: (same_stamp("scan_stamp_ns"), {}),
    Reason.SCAN_STAMP_BACKWARDS: (lambda _, tick: {"scan_stamp_ns": 10 * NS - tick}, {}),
    Reason.SCAN_STAMP_AHEAD: (stamp("scan_stamp_ns", 0.4), {}),
    Reason.SCAN_STAMP_LATE: (stamp("scan_stamp_ns", -0.35), {}),
    Reason.ODOMETRY_MISSING: (fixed(velocity=None), {}),
    Reason.ODOMETRY_STALE: (lambda drive, _: {"odometry_ns": later(drive, -0.31)}, {}),
    Reason.ODOMETRY_NOT_FINITE: (fixed(velocity=(0.0, math.inf)), {}),
    Reason.ODOMETRY_FROM_FUTURE: (lambda drive, _: {"odometry_ns": later(drive, 0.06)}, {}),
    Reason.ODOMETRY_STAMP_STUCK: (same_stamp("odometry_stamp_ns"), {}),
    Reason.ODOMETRY_STAMP_BACKWARDS: (fixed(odometry_stamp_ns=0), {}),
    Reason.ODOMETRY_STAMP_AHEAD: (stamp("odometry_stamp_ns", 0.4), {}),
    Reason.ODOMETRY_STAMP_LATE: (stamp("odometry_stamp_ns", -0.35), {}),
    Reason.POSE_MISSING: (fixed(pose=(math.nan, 0.0, 0.0)), {}),
    Reason.POSE_JUMP: (lambda drive, _: {"pose": (drive.pose[0] + 2.5, drive.pose[1], drive.pose[2])}, {}),
    Reason.NOT_ARMED: (lambda drive, _: drive.monitor.disarm() or {}, {}),
    Reason.STOP_REQUESTED: (request(emergency=False), {}),
    Reason.EMERGENCY_STOP_LATCHED: (request(emergency=True), {}),
    Reason.RUNAWAY: (fixed(velocity=(1.1, 0.0)), {}),
    Reason.STANDSTILL_LOST: (disarmed_and_pushed, {}),
    Reason.OVERSPEED: (fixed(velocity=(1.45, 0.0)), {"command": (1.2, 0.0)}),
    Reason.TILTED: (fixed(tilt_rad=0.2), {}),
    Reason.STUCK: (pose_held(velocity=STANDING), {}),
    Reason.SLIPPING: (pose_held(), {}),
    Advice.CHATTERING: (lambda _, tick: {"command": ((1.2, -0.3)[tick % 2], (1.8, -1.8)[tick % 2])}, {}),
    Advice.SATURATED: (fixed(command=(0.5, 0.1)), {}),
    Advice.UNFAMILIAR: (fixed(novelty=3.5), {}),
}
GAP_FIRST_S = {Reason.SCAN_STAMP_LATE: 0.4, Reason.ODOMETRY_STAMP_LATE: 0.4}
"""Time without a tick before the injection: what comes late comes after nothing did, or it would go backwards."""
NEEDS_A_PERSON = {Reason.STOP_REQUESTED, Reason.NOT_ARMED, Reason.EMERGENCY_STOP_LATCHED} | {
    fault.id for fault in FAULTS if fault.reaction is not None and fault.reaction >= Verdict.DISARM
}


@pytest.mark.parametrize(
    "fault", [row for row in FAULTS if row.test == INJECTED], ids=lambda row: row.id.name
)
def test_a_fault_is_caught_within_its_bound(fault):
    inject, options = INJECTIONS[fault.id]
    drive = Drive(**options)
    before = drive.healthy()
    drive.now_ns += int(GAP_FIRST_S.get(fault.id, 0.0) * NS)
    for tick in range(fault.bound_ticks):
        changes = inject(drive, tick)
        ruling = drive.step(**changes)
        found = drive.advice if isinstance(fault.id, Advice) else ruling.reason
        if found is fault.id:
            break
        assert ruling.verdict <= Verdict.LIMIT or ruling.reason is Reason.NOT_ARMED, ruling.reason.name
    assert found is fault.id
    if fault.reaction is None:
        assert ruling.verdict <= Verdict.LIMIT, "an advice lets the robot drive on"
    else:
        assert ruling.verdict is fault.reaction
        wanted = changes.get("command", before.command)
        assert (
            ruling.command == (0.0, 0.0) if fault.reaction >= Verdict.STOP else ruling.command[0] < wanted[0]
        )
    if fault.id not in NEEDS_A_PERSON:
        drive.healthy(100)


def test_every_reason_is_in_the_table_once():
    assert len(ROW) == len(FAULTS) >= 24
    assert set(ROW) == (set(Reason) - {Reason.CLEAR}) | (set(Advice) - {Advice.NONE})
    assert set(REACTION) == set(Reason)
    assert {row.id for row in FAULTS if row.test == INJECTED} == set(INJECTIONS)


@pytest.mark.parametrize("named", sorted({fault.test for fault in FAULTS}))
def test_every_named_test_exists(named):
    path, function = named.split("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_page_is_the_tables():
    assert PAGE.read_text() == page(), "run python -m tools.fault_table"


@pytest.mark.parametrize("reason", sorted(DISARMING), ids=lambda reason: reason.name)
def test_what_disarms_is_a_stop_that_lasts(reason):
    assert REACTION[reason] in (Verdict.STOP, Verdict.DISARM)


def test_runaway_latches_and_a_person_brings_it_back():
    drive = Drive()
    drive.healthy()
    reasons = [drive.step(velocity=(1.1, 0.0)).reason for _ in range(4)]
    assert reasons[2:] == [Reason.RUNAWAY, Reason.EMERGENCY_STOP_LATCHED]
    ruling = drive.step()
    assert (ruling.verdict, ruling.reason) == (Verdict.EMERGENCY_STOP, Reason.EMERGENCY_STOP_LATCHED)
    assert "reset it first" in drive.monitor.arm()
    assert drive.monitor.reset_emergency() == ""
    assert drive.step().reason is Reason.NOT_ARMED
    assert drive.monitor.arm() == ""
    drive.healthy(40)


@pytest.mark.parametrize("velocity", [(-0.3, 0.0), (0.5, 0.6), (0.5, -0.6)], ids=["back", "left", "right"])
def test_motion_the_other_way_is_a_runaway(velocity):
    drive = Drive()
    drive.healthy()
    assert [drive.step(velocity=velocity).verdict for _ in range(3)][-1] is Verdict.EMERGENCY_STOP


def test_a_robot_may_take_its_time_to_stop_but_not_forever():
    """Braking with half of the model's deceleration after half a second is explained; rolling on is not."""
    for braking, reason in ((0.9, Reason.COMMAND_MISSING), (0.0, Reason.RUNAWAY)):
        drive = Drive(command=(0.8, 0.0))
        drive.healthy()
        speed = 0.8
        for tick in range(60):
            speed = max(0.0, speed - (braking * TICK_NS / NS if tick > 5 else 0.0))
            pose = (drive.pose[0] + speed * TICK_NS / NS, *drive.pose[1:])
            ruling = drive.step(command=None, velocity=(speed, 0.0), pose=pose)
            drive.pose = pose
            if ruling.verdict is Verdict.EMERGENCY_STOP:
                break
        assert ruling.reason is reason


def test_armed_while_pushed_is_refused():
    drive = Drive(armed=False)
    for _ in range(20):
        ruling = drive.step()
    assert ruling.reason is Reason.NOT_ARMED
    for _ in range(5):
        ruling = drive.step(velocity=(0.3, 0.0))
    assert (ruling.verdict, ruling.reason) == (Verdict.DISARM, Reason.STANDSTILL_LOST)
    assert "fault" in drive.monitor.arm()
    drive.step()
    assert drive.monitor.arm() == ""


def test_the_most_restrictive_wins():
    drive = Drive()
    drive.healthy()
    for _ in range(3):
        ruling = drive.step(velocity=(1.1, 0.0), ranges_m=None, tilt_rad=1.0, command=None)
    assert (ruling.verdict, ruling.reason) == (Verdict.EMERGENCY_STOP, Reason.RUNAWAY)


def test_a_standing_robots_scan_and_an_empty_halls_may_repeat():
    drive = Drive(command=STANDING)
    drive.healthy()
    assert {drive.step(ranges_m=drive.scans[0], command=STANDING).reason for _ in range(20)} == {Reason.CLEAR}
    drive = Drive()
    drive.healthy()
    empty = np.full(RAYS, np.inf, dtype=np.float32)
    assert {drive.step(ranges_m=empty).reason for _ in range(20)} == {Reason.CLEAR}


def test_a_frozen_scan_stays_frozen_while_the_robot_stands_and_between_arrivals():
    drive = Drive()
    drive.healthy()
    scan, arrived_ns = drive.scans[-1], drive.now_ns - TICK_NS
    assert [drive.step(ranges_m=scan, scan_ns=arrived_ns).verdict for _ in range(4)] == [Verdict.PASS] * 4
    drive.healthy(2)
    reasons = [drive.step(ranges_m=drive.scans[-tick - 1]).reason for tick in range(20)]
    assert set(reasons[2:]) == {Reason.SCAN_FROZEN}
    assert drive.monitor.armed
    assert drive.velocity == (0.0, 0.0)


def test_new_clocks_are_accepted_of_a_disarmed_robot_only():
    drive = Drive()
    drive.healthy()
    for tick in range(60):
        ruling = drive.step(scan_stamp_ns=drive.now_ns + 2 * CLOCKS_APART_NS)
        assert ruling.command == (0.0, 0.0)
        assert drive.monitor.armed == (tick <= 40), "two seconds of it disarm"
    assert ruling.reason is Reason.NOT_ARMED
    assert drive.monitor.arm() == ""
    assert drive.step(scan_stamp_ns=drive.now_ns + 2 * CLOCKS_APART_NS).command[0] > 0.0


def test_unstamped_sensors_have_no_stamp_faults():
    drive = Drive()
    assert {drive.step(scan_stamp_ns=0, odometry_stamp_ns=0).verdict for _ in range(40)} <= {0, 1}


def test_no_watch_can_be_switched_off_or_changed():
    for name in WatchConfig.__struct_fields__:
        for value in (0, -1, math.nan):
            with pytest.raises(MonitorConfigError, match=f"{name} is"):
                SafetyMonitor(AMR_SMALL, watch=msgspec.structs.replace(WatchConfig(), **{name: value}))
    monitor = SafetyMonitor(AMR_SMALL)
    for name in ("config", "watch"):
        with pytest.raises(AttributeError):
            setattr(monitor, name, getattr(monitor, name))
        with pytest.raises(AttributeError):
            setattr(getattr(monitor, name), "future_max_s" if name == "config" else "tilt_max_rad", 9.0)
    assert monitor.watch.hash() == WatchConfig().hash()


def test_a_scan_is_cleaned_once_a_tick():
    monitor = SafetyMonitor(AMR_SMALL)
    scan = np.full(RAYS, 3.0, dtype=np.float32)
    assert monitor.clean_ranges(scan, 5)[0] == 3.0
    scan[0] = 1.0
    assert monitor.clean_ranges(scan, 5)[0] == 3.0, "the same scan at the same time"
    assert monitor.clean_ranges(scan, 6)[0] == 1.0
    scan[0] = 2.0
    assert monitor.clean_ranges(scan)[0] == 2.0, "without a time it is always cleaned"


BAD_ZONES = {
    "two corners": Zone("keep_out", ((0.0, 0.0), (1.0, 0.0))),
    "no area": Zone("keep_out", ((0.0, 0.0), (1.0, 0.0), (2.0, 0.0))),
    "one twice": Zone("stay_in", ((0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0))),
    "not finite": Zone("keep_out", ((0.0, 0.0), (1.0, 0.0), (math.nan, 1.0))),
    "no speed": Zone("speed_limit", rectangle(0.0, 0.0, 1.0, 1.0)),
    "no motion": Zone("speed_limit", rectangle(0.0, 0.0, 1.0, 1.0), 0.0),
    "a speed too many": Zone("keep_out", rectangle(0.0, 0.0, 1.0, 1.0), 0.5),
}


@pytest.mark.parametrize("zone", BAD_ZONES.values(), ids=BAD_ZONES.keys())
def test_a_zone_that_is_none_is_refused(zone):
    with pytest.raises(ZoneError, match="zone"):
        SafetyMonitor(AMR_SMALL, zones=(zone,))


def test_signed_distance_of_a_polygon_with_a_notch():
    corners = np.array([(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (2.0, 1.0), (0.0, 4.0)])
    places = np.array([(2.0, -1.0), (2.0, 0.5), (2.0, 3.0), (-3.0, -4.0), (0.2, 2.0)])
    found = signed_distance(places, corners)
    across = 2.0 * 2.0 / math.hypot(2.0, 3.0)
    assert found == pytest.approx([1.0, -0.5, across, 5.0, -0.2])


@pytest.mark.parametrize("kind", ["keep_out", "stay_in"])
@pytest.mark.parametrize("model", [AMR_SMALL, TUGGER], ids=lambda model: model.name)
@pytest.mark.parametrize("turn_rate", [0.0, 0.2])
def test_a_robot_stops_before_a_zone_close_by_it_and_gets_away(kind, model, turn_rate):
    drive = Drive(zones=ahead_at(4.0, kind), command=(1.0, turn_rate), model=model)
    for _ in range(200):
        ruling = drive.step(command=(1.0, turn_rate if drive.pose[0] < 3.0 else 0.0))
    if turn_rate == 0.0:
        assert ruling.reason in (Reason.KEEP_OUT, Reason.STAY_IN)
        assert 0.0 <= 4.0 - drive.pose[0] - model.reach_m - WatchConfig().zone_margin_m < 0.2
    assert drive.pose[0] + model.reach_m < 4.0
    assert drive.step(command=(0.0, 0.4)).reason not in (Reason.KEEP_OUT, Reason.STAY_IN)
    x_m = drive.pose[0]
    for _ in range(20):
        drive.step(command=(-0.2, 0.0))
    assert drive.pose[0] < x_m - 0.05


def test_out_of_a_zone_is_free_and_deeper_is_not():
    guard = ZoneGuard(ahead_at(0.0, "keep_out"), AMR_SMALL, SafetyMonitor(AMR_SMALL).config, WatchConfig())
    for pose, command, passes in (
        ((0.5, 0.0, 0.0), (-0.3, 0.0), True),
        ((0.5, 0.0, math.pi), (0.5, 0.0), True),
        ((0.5, 0.0, 0.0), (0.3, 0.0), False),
        ((0.5, 0.0, 0.0), (0.0, 1.0), True),
    ):
        limited, reason = guard.limit(command, command, pose, 0.0)
        assert (limited == command) == passes, (pose, command)
        assert (reason is Reason.CLEAR) == passes
    far = guard.limit((1.0, 0.0), (1.0, 0.0), (-5.0, 0.0, 0.0), 0.0)
    assert far == ((1.0, 0.0), Reason.CLEAR)


def test_a_robot_is_slow_by_the_time_it_enters_a_speed_zone():
    drive = Drive(zones=ahead_at(3.0, "speed_limit", speed_mps=0.3), command=(1.0, 0.0))
    outside = inside = 0.0
    for _ in range(160):
        drive.step(command=(1.0, 0.0))
        if drive.pose[0] + AMR_SMALL.reach_m < 3.0:
            outside = max(outside, drive.velocity[0])
        else:
            inside = max(inside, drive.velocity[0])
    assert outside > 0.9
    assert 0.25 < inside <= 0.3 + 1e-9


def test_zones_without_a_pose_stop_the_robot():
    drive = Drive(zones=ahead_at(40.0, "keep_out"))
    drive.healthy()
    ruling = drive.step(pose=None)
    assert (ruling.command, ruling.reason) == ((0.0, 0.0), Reason.POSE_MISSING)


def test_a_lone_invalid_ray_is_in_no_field():
    drive = Drive(fields=(ProtectiveField(0.0, 0.5),))
    drive.healthy()
    scan = drive.rng.uniform(5.0, 7.0, RAYS).astype(np.float32)
    scan[AHEAD] = math.nan
    assert drive.step(ranges_m=scan).reason is Reason.CLEAR


def test_a_field_clears_by_scans_not_by_ticks():
    drive = Drive(fields=(ProtectiveField(0.0, 0.5),), command=(0.2, 0.0))
    drive.healthy()
    scan = drive.rng.uniform(5.0, 7.0, RAYS).astype(np.float32)
    scan[AHEAD] = 0.6
    assert drive.step(ranges_m=scan).reason is Reason.PROTECTIVE_FIELD
    for number in range(1, CLEAR_SCANS + 1):
        same = {"scan_ns": drive.now_ns, "scan_stamp_ns": drive.now_ns + CLOCKS_APART_NS}
        for changes in ({}, {"ranges_m": drive.inputs().ranges_m, **same}):
            held = drive.step(**changes).reason is Reason.PROTECTIVE_FIELD
            assert held is (number < CLEAR_SCANS)
