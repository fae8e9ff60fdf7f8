"""Each watch alone, at the limits: numbers are sums of powers of two, so that "exactly at" is exact."""

import math

import msgspec
import numpy as np
import pytest

from contracts.robot import AMR_SMALL, LidarModel
from safety.config import WatchConfig
from safety.inputs import Inputs
from safety.watch.arrivals import NS, FrozenScanWatch, StampFault, StampWatch
from safety.watch.board import WatchBoard
from safety.watch.debounce import Debounce
from safety.watch.motion import (
    OverspeedWatch,
    PoseJumpWatch,
    RunawayWatch,
    SlipWatch,
    StuckWatch,
    TiltWatch,
    turned,
)
from safety.watch.policy import Advice, PolicyWatch

CONFIG = WatchConfig(
    frozen_scans=3, frozen_speed_mps=0.125, frozen_turn_radps=0.25, frozen_rays_share=0.25,
    stamp_stuck_ticks=2, stamp_ahead_max_s=0.25, stamp_late_max_s=0.5, stamp_drift=2.0**-10, stamp_relearn_arrivals=4,
    pose_jump_m=0.5, pose_jump_rad=0.25, pose_steady_ticks=3,
    overspeed_share=0.25, overspeed_ticks=2, overspeed_clear_ticks=3,
    runaway_share=0.25, runaway_mps=0.125, runaway_radps=0.25, runaway_reaction_s=0.5, runaway_braking_share=0.5,
    runaway_ticks=2,
    stuck_command_mps=0.125, stuck_command_radps=0.5, stuck_measured_mps=0.03125, stuck_measured_radps=0.0625,
    stuck_after_s=1.0, stuck_hold_s=0.5,
    slip_window_s=1.0, slip_m=0.25, slip_rad=0.125, slip_share=0.25,
    tilt_max_rad=0.125, tilt_ticks=2, tilt_clear_ticks=3,
    chatter_share=0.25, chatter_window_s=1.0, saturated_share=0.75, saturated_after_s=1.0, novelty_max=3.0,
    novelty_ticks=2, advice_clear_ticks=3,
)  # fmt: skip
MODEL = msgspec.structs.replace(
    AMR_SMALL, speed_max_mps=1.0, reverse_max_mps=0.5, turn_rate_max_radps=2.0, braking_mps2=1.0,
    turn_acceleration_max_radps2=4.0, lidar=LidarModel(rays=8, range_max_m=8.0),
)  # fmt: skip
TINY = 2.0**-20
DT = 0.125
STAND = (0.0, 0.0)
MS = NS // 1000


def test_debounce_trips_and_clears_at_its_counts():
    debounce = Debounce(2, 3)
    assert [debounce.step(bad) for bad in (True, False, True, True)] == [False, False, False, True]
    assert [debounce.step(bad) for bad in (False, False, True, False, False, False)] == [True] * 5 + [False]
    at_once = Debounce(1)
    assert [at_once.step(bad) for bad in (True, False)] == [True, False]
    assert not Debounce(1, 1).tripped


class Stamps:
    """Arrivals 0.1 s apart, stamped by a clock that is 5 s ahead, unless a step says otherwise."""

    def __init__(self, armed=True, config=CONFIG):
        self.watch, self.armed, self.arrived_ns, self.apart_ns = StampWatch(config), armed, 1000 * NS, 5 * NS

    def step(self, apart_ns=None, after_ns=100 * MS):
        self.arrived_ns += after_ns
        return self.watch.step(
            self.arrived_ns + (self.apart_ns if apart_ns is None else apart_ns), self.arrived_ns, self.armed
        )


def test_stamps_in_step_have_no_fault_and_the_first_none_either():
    stamps = Stamps()
    assert {stamps.step() for _ in range(50)} == {StampFault.NONE}


def drifted(ticks, after_ns=100 * MS):
    """ns by which the quickest arrival so far has aged after so many arrivals."""
    return ticks * int(CONFIG.stamp_drift * after_ns)


@pytest.mark.parametrize(("limit_ns", "fault"), [(250 * MS, StampFault.AHEAD), (-500 * MS, StampFault.LATE)])
def test_ahead_and_late_begin_beyond_their_limits(limit_ns, fault):
    for beyond_ns in (-1, 0, 1):
        stamps = Stamps()
        stamps.step()
        more_ns = beyond_ns if limit_ns > 0 else -beyond_ns
        apart_ns = stamps.apart_ns - drifted(1, 600 * MS) + limit_ns + more_ns
        found = stamps.step(apart_ns, 600 * MS)
        assert found is (fault if beyond_ns > 0 else StampFault.NONE), beyond_ns
        if beyond_ns > 0:
            stamps.arrived_ns -= 1
            assert stamps.step(apart_ns, 1) is fault, "the same arrival again: the same word"


def test_the_quickest_arrival_counts_and_ages():
    stamps = Stamps()
    stamps.step()
    assert stamps.step(stamps.apart_ns + 200 * MS) is StampFault.NONE, "quicker: the new measure"
    edge_ns = stamps.apart_ns + 200 * MS - 500 * MS - drifted(1, 900 * MS)
    assert stamps.step(edge_ns - 1, 900 * MS) is StampFault.LATE
    again = Stamps()
    again.step()
    again.step(again.apart_ns + 200 * MS)
    assert again.step(edge_ns, 900 * MS) is StampFault.NONE
    slow = Stamps()
    slow.step()
    for tick in range(2000):  # the sender's clock goes slower by half of what may be
        assert slow.step(slow.apart_ns - tick * int(0.5 * 2.0**-10 * 100 * MS)) is StampFault.NONE


def test_a_stamp_that_stays_is_stuck_at_the_second_time_and_a_smaller_one_is_backwards():
    stamps = Stamps()
    stamps.step()
    stuck = [stamps.step(stamps.apart_ns - (tick + 1) * 100 * MS) for tick in range(3)]
    assert stuck == [StampFault.NONE, StampFault.STUCK, StampFault.STUCK]
    assert stamps.step() is StampFault.NONE
    assert stamps.step(stamps.apart_ns - 100 * MS) is StampFault.NONE, "once more the same: counted anew"
    assert stamps.step(stamps.apart_ns - 200 * MS - 1) is StampFault.BACKWARDS
    unstamped = StampWatch(CONFIG)
    assert {unstamped.step(0, tick * NS, True) for tick in range(5)} == {StampFault.NONE}
    assert unstamped.step(7, 6 * NS, True) is StampFault.NONE, "the first stamp is compared with none"
    assert unstamped.step(0, 7 * NS, True) is StampFault.BACKWARDS


def test_a_stamp_stuck_beside_a_fault_keeps_that_fault_until_it_counts():
    stamps = Stamps()
    stamps.step()
    assert stamps.step(stamps.apart_ns + 300 * MS) is StampFault.AHEAD
    assert stamps.step(stamps.apart_ns + 200 * MS) is StampFault.AHEAD
    assert stamps.step(stamps.apart_ns + 100 * MS) is StampFault.STUCK


@pytest.mark.parametrize(("armed", "learnt"), [(False, True), (True, False)])
def test_steady_arrivals_teach_a_new_clock_to_a_disarmed_robot(armed, learnt):
    stamps = Stamps(armed)
    stamps.step()
    found = [stamps.step(9 * NS) for _ in range(CONFIG.stamp_relearn_arrivals + 2)]
    steady = CONFIG.stamp_relearn_arrivals
    assert found[:steady] == [StampFault.AHEAD] * steady, "the first only begins to be steady"
    assert set(found[steady:]) == {StampFault.NONE if learnt else StampFault.AHEAD}


@pytest.mark.parametrize(("jump_ns", "steady"), [(125 * MS - 1, True), (125 * MS, False)])
def test_arrivals_are_steady_within_half_of_the_smaller_limit(jump_ns, steady):
    stamps = Stamps(armed=False)
    stamps.step()
    found = [stamps.step(9 * NS + jump_ns * (tick % 2)) for tick in range(8)]
    assert (found[-1] is StampFault.NONE) == steady


def scans(count, value=1.0, seen=8):
    """``count`` equal scans, each an array of its own; ``seen`` rays hit something."""
    return [np.array([value] * seen + [math.inf] * (8 - seen), dtype=np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("velocity", "seen", "frozen"),
    [((0.125, 0.25), 8, False), ((0.125 + TINY, 0.0), 8, True), ((-0.125 - TINY, 0.0), 8, True),
     ((0.0, 0.25 + TINY), 8, True), ((0.0, -0.25 - TINY), 8, True), ((1.0, 1.0), 2, True), ((1.0, 1.0), 1, False)],
)  # fmt: skip
def test_equal_scans_are_frozen_where_the_robot_moves_and_sees(velocity, seen, frozen):
    watch = FrozenScanWatch(CONFIG, MODEL.lidar)
    found = [watch.step(scan, tick, velocity) for tick, scan in enumerate(scans(6, seen=seen))]
    assert found == [False, False, False, *[frozen] * 3]
    assert not watch.changed
    assert not watch.step(scans(1, 2.0, seen)[0], 7, velocity)
    assert watch.changed
    assert not watch.step(scans(1, 2.0, seen)[0], 8, velocity), "counted anew"


def test_the_same_arrival_is_no_new_scan_and_the_farthest_range_sees_nothing():
    watch = FrozenScanWatch(CONFIG, MODEL.lidar)
    assert not any(watch.step(scan, 5, (1.0, 0.0)) for scan in scans(9))
    assert watch.changed, "the first"
    watch = FrozenScanWatch(CONFIG, MODEL.lidar)
    assert not any(watch.step(scan, tick, (1.0, 0.0)) for tick, scan in enumerate(scans(9, value=8.0)))
    assert any(watch.step(scan, tick, (1.0, 0.0)) for tick, scan in enumerate(scans(9, value=7.5)))


@pytest.mark.parametrize(
    ("at", "beyond"),
    [((1.25, 0.0), (1.25 + TINY, 0.0)), ((-0.75, 0.0), (-0.75 - TINY, 0.0)), ((0.0, 2.5), (0.0, 2.5 + TINY)),
     ((0.0, -2.5), (0.0, -2.5 - TINY))],
)  # fmt: skip
def test_overspeed_begins_beyond_the_models_limits_and_their_share(at, beyond):
    watch = OverspeedWatch(CONFIG, MODEL)
    assert not any(watch.step(at) for _ in range(5))
    assert [watch.step(beyond) for _ in range(2)] == [False, True]
    assert [watch.step(at) for _ in range(3)] == [True, True, False]


def signed(axis, value):
    return (value, 0.0) if axis == 0 else (0.0, value)


@pytest.mark.parametrize("way", [1.0, -1.0])
@pytest.mark.parametrize(("axis", "slack", "braking"), [(0, 0.125, 0.5), (1, 0.25, 2.0)])
def test_motion_is_explained_up_to_share_and_slack_then_falls_with_braking(axis, slack, braking, way):
    commanded = 0.5

    def drive(measured):
        """Words of a robot that is commanded to 0.5 for a second, then to stand."""
        watch, found = RunawayWatch(CONFIG, MODEL), []
        watch.step(STAND, STAND, DT)
        for tick, value in enumerate(measured):
            command = commanded if tick < 8 else 0.0
            found.append(watch.step(signed(axis, way * command), signed(axis, way * value), DT))
        return found

    most = commanded * 1.25 + slack
    assert not any(drive([most] * 8))
    assert drive([most + TINY] * 8)[:2] == [False, True]
    # The command is felt for half a second, then the envelope falls.
    explained = [0.5] * 8
    level = commanded
    for tick in range(8, 24):
        if tick > 8 + 3:
            level = max(level - braking * DT, 0.0)
        explained.append(level * 1.25 + slack)
    explained[:8] = [most] * 8
    assert not any(drive(explained))
    for tick in range(11, 22):
        beyond = [*explained]
        beyond[tick] += TINY
        beyond[tick + 1] += TINY
        assert drive(beyond)[tick : tick + 2] == [False, True], tick


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_what_moved_before_the_first_command_is_explained_until_it_could_have_braked(way):
    watch = RunawayWatch(CONFIG, MODEL)
    assert not watch.step(STAND, (way, 0.0), DT)
    assert not watch.step(STAND, (way, 0.0), DT)
    standing = RunawayWatch(CONFIG, MODEL)
    standing.step(STAND, STAND, DT)
    assert [standing.step(STAND, (way, 0.0), DT) for _ in range(2)] == [False, True]
    other_way = RunawayWatch(CONFIG, MODEL)
    found = [other_way.step((way * 0.5, 0.0), (-way * 0.25, 0.0), DT) for _ in range(5)]
    assert found[0] is False


def stuck_ticks(command, velocity, ticks=24):
    watch = StuckWatch(CONFIG)
    return [watch.step(command, velocity, DT) for _ in range(ticks)]


@pytest.mark.parametrize(
    ("command", "velocity", "stuck"),
    [((0.125, 0.0), STAND, True), ((-0.125, 0.0), STAND, True), ((0.0, 0.5), STAND, True), ((0.0, -0.5), STAND, True),
     ((0.125 - TINY, 0.5 - TINY), STAND, False), ((1.0, 0.0), (0.03125, 0.0), False),
     ((1.0, 0.0), (0.03125 - TINY, 0.0625 - TINY), True), ((1.0, 0.0), (-0.03125, 0.0), False),
     ((1.0, 0.0), (0.0, 0.0625), False), ((1.0, 0.0), (0.0, -0.0625), False)],
)  # fmt: skip
def test_stuck_is_commanded_to_move_and_standing(command, velocity, stuck):
    found = stuck_ticks(command, velocity)
    # 1 s until it counts, half a second of standing, then it tries again for as long.
    assert found == ([*[False] * 7, *[True] * 4, *[False] * 8, *[True] * 4, False] if stuck else [False] * 24)


def test_a_short_motion_begins_the_time_anew():
    watch = StuckWatch(CONFIG)
    for _ in range(3):
        assert not any(watch.step((1.0, 0.0), STAND, DT) for _ in range(7))
        assert not watch.step((1.0, 0.0), (0.5, 0.0), DT)


@pytest.mark.parametrize(
    ("at", "beyond"),
    [((0.5 + 1.25 * DT, 0.0, 0.0), (0.5 + 1.25 * DT + TINY, 0.0, 0.0)),
     ((0.0, -0.5 - 1.25 * DT, 0.0), (0.0, -0.5 - 1.25 * DT - TINY, 0.0)),
     ((0.0, 0.0, 0.25 + 2.5 * DT), (0.0, 0.0, 0.25 + 2.5 * DT + TINY)),
     ((0.0, 0.0, -0.25 - 2.5 * DT), (0.0, 0.0, -0.25 - 2.5 * DT - TINY))],
)  # fmt: skip
def test_a_pose_jumps_beyond_what_the_robot_can_have_driven(at, beyond):
    for pose, jumped in ((at, False), (beyond, True)):
        watch = PoseJumpWatch(CONFIG, MODEL)
        assert not watch.step((0.0, 0.0, 0.0), DT)
        assert watch.step(pose, DT) == jumped
        assert [watch.step(pose, DT) for _ in range(3)] == [jumped, jumped, False]


def test_a_quicker_robot_may_get_farther():
    for pose_m, jumped in ((0.5 + 1.25 * 2.0 * DT, False), (0.5 + 1.25 * 2.0 * DT + TINY, True)):
        watch = PoseJumpWatch(CONFIG, msgspec.structs.replace(MODEL, speed_max_mps=2.0))
        watch.step((0.0, 0.0, 0.0), DT)
        assert watch.step((pose_m, 0.0, 0.0), DT) == jumped


def test_a_pose_that_turns_over_has_not_jumped():
    watch = PoseJumpWatch(CONFIG, MODEL)
    watch.step((1.0, 2.0, math.pi - 0.05), DT)
    assert not watch.step((1.0, 2.0, -math.pi + 0.05), DT)
    assert turned(2.0 * math.pi + 0.5) == pytest.approx(0.5)
    assert turned(-2.0 * math.pi - 0.5) == pytest.approx(-0.5)


def slip(velocity, poses, jumped=()):
    """Words of a robot whose odometry says ``velocity`` and whose pose goes through ``poses``."""
    watch = SlipWatch(CONFIG)
    return [watch.step(velocity, pose, DT, tick in jumped) for tick, pose in enumerate(poses)]


@pytest.mark.parametrize(
    ("velocity", "share_m"), [((1.0, 0.0), 0.25), ((-1.0, 0.0), 0.25)], ids=["ahead", "back"]
)
def test_slip_is_a_way_that_the_pose_does_not_go(velocity, share_m):
    """Standing in the map, driving by odometry: 0.25 m and a quarter of the way may differ."""
    found = slip(velocity, [(0.0, 0.0, 0.0)] * 12)
    # |way| > 0.25 + 0.25 |way| from way > 1/3 m: the third tick after the start.
    assert found[:4] == [False, False, False, True]
    assert all(found[3:])
    del share_m


def test_slip_in_turn_and_in_which_direction():
    assert slip((0.0, 1.0), [(0.0, 0.0, 0.0)] * 4) == [False, False, True, True]
    exactly = [(0.0, 0.0, 0.0), *[(0.0, 0.0, 0.09375 * k) for k in range(1, 9)]]
    assert not any(slip((0.0, 0.75 + 0.25), exactly))
    heading = math.pi / 2
    along = [(0.0, DT * k, heading) for k in range(9)]
    assert not any(slip((1.0, 0.0), along))
    assert any(slip((1.0, 0.0), [(DT * k, 0.0, heading) for k in range(9)])), "sideways"
    arc = []
    for k in range(9):
        turn = 2.0 * DT * k
        arc.append((0.5 * math.sin(turn), 0.5 * (1.0 - math.cos(turn)), turn))
    assert not any(slip((1.0, 2.0), arc)), "an arc is reckoned in its middle"


def test_slip_is_over_after_one_whole_window_that_agrees():
    watch = SlipWatch(CONFIG)
    x = 0.0
    found = [watch.step((1.0, 0.0), (x, 0.0, 0.0), DT, False) for _ in range(9)]
    assert found[-1]
    ticks = 0
    while watch.step(STAND, (x, 0.0, 0.0), DT, False):
        ticks += 1
        assert ticks < 20
    assert ticks == 9, "what is left of this window does not agree, and the next must"
    watch = SlipWatch(CONFIG)
    for _ in range(9):
        watch.step((1.0, 0.0), (x, 0.0, 0.0), DT, False)
    assert watch.step(STAND, (x, 0.0, 0.0), DT, True), "a jump ends no fault"
    assert watch.step(STAND, (x, 0.0, 0.0), DT, True), "nor does one in a window that agrees so far"


def test_a_jump_begins_the_window_anew():
    poses = [(0.0, 0.0, 0.0)] * 2 + [(5.0, 0.0, 0.0)] * 2
    assert not any(slip((1.0, 0.0), poses, jumped=(2,)))
    assert any(slip((1.0, 0.0), poses))


@pytest.mark.parametrize(
    ("tilt_rad", "tilted"),
    [(0.125, False), (-0.125, False), (0.125 + TINY, True), (-0.125 - TINY, True), (math.nan, True)],
)
def test_tilt_is_beyond_its_limit_or_no_number(tilt_rad, tilted):
    watch = TiltWatch(CONFIG)
    assert [watch.step(tilt_rad) for _ in range(2)] == [False, tilted]
    assert [watch.step(0.0) for _ in range(3)] == [tilted, tilted, False]


def advice(commands, changed=True, from_policy=True, novelty=None, elapsed_s=DT):
    watch = PolicyWatch(CONFIG, MODEL)
    return [watch.step(command, from_policy, changed, novelty, elapsed_s) for command in commands]


def test_chatter_is_the_mean_step_as_a_share_of_the_range():
    """Speed has a range of 1.5 m/s, turn of 4 rad/s; a step of both by half of it each time means 0.5 in the end."""
    wide = [((-0.25, -1.0), (0.5, 1.0))[tick % 2] for tick in range(30)]
    found = advice(wide)
    # 0.5 (1 - (7/8)^n) > 0.25 from n = 6 steps on; the first command is no step.
    assert found[:7] == [Advice.NONE] * 6 + [Advice.CHATTERING]
    half = [((-0.25, 0.0), (0.5, 0.0))[tick % 2] for tick in range(60)]
    assert set(advice(half)) == {Advice.NONE}, "one of the two alone comes to a quarter at most"
    assert Advice.CHATTERING in advice([((-0.25, 0.1), (0.875, 0.1))[tick % 2] for tick in range(60)])
    assert set(advice(wide, from_policy=False)) == {Advice.NONE}
    apart = [(-0.1, -0.9), (0.6, 0.9)]
    assert advice(apart, elapsed_s=2.0) == [Advice.NONE, Advice.CHATTERING], (
        "a long tick forgets what was before"
    )


def test_chatter_is_over_when_calm_for_so_long_and_with_no_command():
    watch = PolicyWatch(CONFIG, MODEL)
    for tick in range(10):
        watch.step(((-0.25, -1.0), (0.5, 1.0))[tick % 2], True, True, None, DT)
    found = [watch.step(None, True, True, None, DT) for _ in range(3)]
    assert found == [Advice.CHATTERING, Advice.CHATTERING, Advice.NONE]


@pytest.mark.parametrize(
    ("command", "flat"),
    [((1.0, 2.0), True), ((-0.5, -2.0), True), ((0.625, 1.0), True), ((0.625 - TINY, 1.0), False),
     ((0.625, 1.0 - TINY), False), ((-0.125, -1.0), True), ((-0.125 + TINY, -1.0), False), ((1.0, 0.0), False)],
)  # fmt: skip
def test_saturated_is_both_at_their_limits(command, flat):
    """Within a quarter of the range of either end, and differing a little each time, so that it is not constant."""
    nudge = 2.0**-18
    commands = [
        (command[0] + nudge * (tick % 2) * (1 if command[0] > 0 else -1), command[1] + 0.0)
        for tick in range(12)
    ]
    found = advice(commands)
    # Seconds beyond one: after the ninth of them.
    assert found == [Advice.NONE] * 8 + [Advice.SATURATED] * 4 if flat else set(found) == {Advice.NONE}


def test_only_a_new_scan_counts_towards_a_constant_policy():
    """The lidar at half of the monitor's rate, the policy says the same each time."""
    board = WatchBoard(CONFIG, MODEL, pose_needed=False)
    found = []
    for tick in range(24):
        scan = np.full(8, 1.0 + tick // 2, dtype=np.float32)
        inputs = Inputs(
            tick * MS, scan, (tick // 2 + 1) * MS, STAND, tick * MS, (0.25, 0.1), command_from_policy=True
        )
        board.scan(inputs, True, STAND)
        found.append(board.advice(inputs, DT, True))
    assert found.index(Advice.SATURATED) == 18, "nine new scans, but for the first"


@pytest.mark.parametrize("broken", [(math.nan, 0.1), (0.1, math.nan), (0.1, math.inf)])
def test_one_command_that_is_none_does_not_blind_the_watch(broken):
    board = WatchBoard(CONFIG, MODEL, pose_needed=False)
    found = []
    for tick in range(12):
        command = broken if tick == 0 else ((-0.25, -1.0), (0.5, 1.0))[tick % 2]
        found.append(board.advice(Inputs(tick, command=command, command_from_policy=True), DT, True))
    assert found[0] is Advice.NONE
    assert Advice.CHATTERING in found


def test_constant_is_no_change_whatever_it_sees():
    same = [(0.25, 0.1)] * 12
    assert advice(same)[-1] is Advice.SATURATED
    assert advice(same)[8] is Advice.NONE, "the first is not yet the same as one before"
    assert advice(same)[9] is Advice.SATURATED
    assert set(advice(same, changed=False)) == {Advice.NONE}, "who sees nothing new may say nothing new"
    moving = [(0.25 + 3e-6 * (tick % 2), 0.1) for tick in range(12)]
    assert set(advice(moving)) == {Advice.NONE}
    turning = [(0.25, 0.1 + 8e-6 * (tick % 2)) for tick in range(12)]
    assert set(advice(turning)) == {Advice.NONE}
    still = [(0.25, 0.1 + 3e-6 * (tick % 2)) for tick in range(12)]
    assert advice(still)[-1] is Advice.SATURATED


@pytest.mark.parametrize(
    ("novelty", "strange"), [(3.0, False), (3.0 + TINY, True), (math.nan, True), (None, False), (-9.0, False)]
)
def test_unfamiliar_is_beyond_its_limit_or_no_number(novelty, strange):
    found = advice([None] * 3, novelty=novelty)
    assert found == ([Advice.NONE, Advice.UNFAMILIAR, Advice.UNFAMILIAR] if strange else [Advice.NONE] * 3)
