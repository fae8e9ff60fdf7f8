"""The tick in memory: whatever comes in, a decision and a safe command go out in the same tick."""

import math

import numpy as np
import pytest

from contracts.decision import FLAG_SWAPPED, Reason, Source, Verdict
from contracts.robot import AMR_SMALL
from edge_agent.infer.ladder import FAILURES_MAX
from edge_agent.infer.policy import Policy
from edge_agent.infer.trial import Stage, TrialConfig
from edge_agent.observe.slots import UNSTAMPED
from tests.support.agent import PERIOD_NS, Bench, FakePolicy
from tests.support.fleet import POLICY_ONNX, golden

RAYS = AMR_SMALL.lidar.rays
STANDING = (0.0, 0.0)


def driving(bench: Bench) -> None:
    """Bring the robot to speed under a policy."""
    bench.ladder.policy = FakePolicy((0.8, 0.0))
    record = bench.drive(15)
    assert bench.sink.commands[-1][0] == pytest.approx(0.8)
    assert Verdict(int(record["verdict"])) is Verdict.PASS


def stopped_for(bench: Bench, reason: Reason) -> None:
    """Check that the last tick stopped the robot, and why."""
    record = bench.ring.records[-1]
    assert bench.sink.commands[-1] == STANDING
    assert bench.sink.stamps[-1] == UNSTAMPED
    assert (Reason(int(record["reason"])), Verdict(int(record["verdict"])) >= Verdict.STOP) == (reason, True)
    assert tuple(record["final_command"]) == STANDING


def test_rules_drive_without_a_policy(bench: Bench) -> None:
    bench.drive(10)
    assert bench.source is Source.RULE_BASED
    assert bench.sink.commands[-1][0] > 0.2
    assert not bench.ring.records[-1]["policy_digest"].any()


def test_a_moving_command_bears_the_stamp_of_its_scan(bench: Bench) -> None:
    driving(bench)
    assert bench.sink.stamps[-1] == bench.stamp


def test_not_armed_means_zero(bench: Bench) -> None:
    driving(bench)
    bench.gate.disarm()
    bench.tick()
    stopped_for(bench, Reason.NOT_ARMED)


def test_nan_scan_stops_in_the_same_tick(bench: Bench) -> None:
    driving(bench)
    bench.clock.now_ns += PERIOD_NS
    bench.odometry()
    bench.scan(np.full(RAYS, np.nan, dtype=np.float32))
    bench.run()
    stopped_for(bench, Reason.SCAN_INVALID)
    bench.drive(10)
    assert bench.sink.commands[-1][0] > 0.2  # a short fault ends by itself


@pytest.mark.parametrize("rays", [0, 1, RAYS - 1, RAYS + 1, RAYS // 2])
def test_a_scan_of_another_size_stops(bench: Bench, rays: int) -> None:
    driving(bench)
    bench.clock.now_ns += PERIOD_NS
    bench.odometry()
    bench.scan(np.full(rays, np.inf, dtype=np.float32))
    bench.run()
    stopped_for(bench, Reason.SCAN_WRONG_SHAPE)
    assert bench.slots.faults["scan_wrong_geometry"] == 1


@pytest.mark.parametrize(
    ("angle_min_rad", "angle_step_rad", "range_max_m"),
    [(0.0, math.tau / RAYS, 8.0), (-math.pi, math.pi / RAYS, 8.0), (-math.pi, math.tau / RAYS, 4.0),
     (math.nan, math.tau / RAYS, 8.0), (-math.pi, math.nan, 8.0), (-math.pi, math.tau / RAYS, math.nan),
     (-math.pi, -math.tau / RAYS, 8.0)],
)  # fmt: skip
def test_a_scan_of_another_geometry_stops(
    bench: Bench, angle_min_rad: float, angle_step_rad: float, range_max_m: float
) -> None:
    bench.odometry()
    ranges = np.full(RAYS, np.inf, dtype=np.float32)
    bench.intake.scan(ranges, angle_min_rad, angle_step_rad, range_max_m, (7, 0), bench.clock.now_ns)
    bench.run()
    stopped_for(bench, Reason.SCAN_WRONG_SHAPE)


def test_stale_scan_stops_after_its_limit_and_disarms_when_it_lasts(bench: Bench) -> None:
    driving(bench)
    for _ in range(6):
        bench.clock.now_ns += PERIOD_NS
        bench.odometry()
        bench.run()
        assert bench.sink.commands[-1][0] > 0.0  # up to 0.3 s
    bench.clock.now_ns += PERIOD_NS
    bench.odometry()
    bench.run()
    stopped_for(bench, Reason.SCAN_STALE)
    assert bench.gate.armed
    bench.velocity = STANDING  # it has stopped, as it was told
    for _ in range(41):
        bench.clock.now_ns += PERIOD_NS
        bench.odometry()
        bench.run()
    assert not bench.gate.armed
    assert "SCAN_STALE" in bench.gate.arm()
    bench.tick()
    stopped_for(bench, Reason.NOT_ARMED)


@pytest.mark.parametrize(
    "velocity", [(math.nan, 0.0), (0.0, math.inf), (-math.inf, 0.0), (1e9, 0.0)]
)  # fmt: skip
def test_odometry_that_is_no_number_stops(bench: Bench, velocity: tuple[float, float]) -> None:
    driving(bench)
    bench.velocity = velocity
    bench.tick()
    stopped_for(bench, Reason.ODOMETRY_NOT_FINITE)


def test_a_rotation_that_is_none_and_a_foreign_frame_stop(bench: Bench) -> None:
    for frame, rotation in (("map", (0.0, 0.0, 0.0, 0.0)), ("odom", (0.0, 0.0, 0.0, 1.0))):
        bench.tick()
        bench.intake.odometry(frame, (1.0, 1.0), rotation, (0.0, 0.0), bench.clock.now_ns)
        bench.run()
        stopped_for(bench, Reason.ODOMETRY_NOT_FINITE)


def test_no_goal_a_bad_goal_and_no_route_yet_mean_standing_still(bench: Bench) -> None:
    driving(bench)
    bench.slots.way = None
    bench.tick()
    stopped_for(bench, Reason.NO_GOAL)
    bench.intake.goal("map", 8.0, 4.2)
    bench.drive(10)
    assert bench.sink.commands[-1][0] > 0.2
    bench.intake.goal("map", math.nan, 4.2)
    bench.tick()
    stopped_for(bench, Reason.NO_GOAL)
    bench.intake.goal("odom", 8.0, 4.2)
    bench.tick()
    stopped_for(bench, Reason.NO_GOAL)
    assert bench.slots.faults == {"goal_not_finite": 1, "goal_wrong_frame": 1}


def test_an_emergency_stop_is_latched_until_reset_and_armed(bench: Bench) -> None:
    driving(bench)
    bench.gate.stop(emergency=True)
    bench.tick()
    stopped_for(bench, Reason.EMERGENCY_STOP_LATCHED)
    assert "reset" in bench.gate.arm()
    assert bench.gate.reset() == ""
    bench.tick()
    stopped_for(bench, Reason.NOT_ARMED)
    assert bench.gate.arm() == ""
    bench.drive(5)
    assert bench.sink.commands[-1][0] > 0.0


@pytest.mark.parametrize(
    "answer", [(math.nan, 0.0), (0.0, math.inf), ValueError("no"), MemoryError(), (1e30, -1e30)]
)
def test_commands_stay_within_the_robot_whatever_the_policy_says(bench: Bench, answer: object) -> None:
    bench.ladder.policy = FakePolicy(answer)
    bench.drive(60)
    for speed, turn_rate in bench.sink.commands:
        assert -AMR_SMALL.reverse_max_mps <= speed <= AMR_SMALL.speed_max_mps
        assert abs(turn_rate) <= AMR_SMALL.turn_rate_max_radps
    steps = np.abs(np.diff([speed for speed, _ in bench.sink.commands]))
    rising = np.diff(np.abs([speed for speed, _ in bench.sink.commands])) > 0
    assert (steps[rising] <= AMR_SMALL.acceleration_max_mps2 / 20 + 1e-9).all()


@pytest.mark.parametrize("answer", [(math.nan, 0.0), ValueError("no")])
def test_a_failing_policy_is_replaced_in_the_same_tick_and_dropped_after_five(
    bench: Bench, answer: object
) -> None:
    good, bad = FakePolicy((0.8, 0.0), "v1"), FakePolicy(answer, "v2")
    bench.ladder.policy, bench.ladder.previous = bad, good
    for _ in range(FAILURES_MAX):
        record = bench.drive(1)
        assert bench.source is Source.RULE_BASED
        assert np.isfinite(record["raw_command"]).all()
    assert bench.ladder.policy is good
    bench.drive(1)
    assert bench.source is Source.POLICY
    assert any("v2 dropped" in event and "v1 drive now" in event for event in bench.ladder.events)


def test_a_slow_policy_has_failed(bench: Bench) -> None:
    policy = FakePolicy((0.8, 0.0), spend_ns=PERIOD_NS + 1)
    policy.clock = bench.clock
    bench.ladder.policy = policy
    bench.tick()
    assert bench.source is Source.RULE_BASED
    bench.drive(FAILURES_MAX)
    assert bench.ladder.policy is None


def test_failures_must_follow_each_other_to_drop_a_policy(bench: Bench) -> None:
    policy = FakePolicy()
    bench.ladder.policy = policy
    for tick in range(40):
        policy.answer = (math.nan, 0.0) if tick % FAILURES_MAX else (0.5, 0.0)
        bench.drive(1)
    assert bench.ladder.policy is policy


def test_an_exception_in_the_sink_is_counted_and_disarms_at_the_third(bench: Bench) -> None:
    driving(bench)
    bench.sink.error = RuntimeError("publisher is gone")
    for _ in range(2):
        bench.tick()
    assert bench.gate.armed
    bench.tick()
    assert not bench.gate.armed
    assert bench.core.errors == 3
    assert "publisher is gone" in bench.core.events[0]


def test_an_exception_in_the_rules_stops_the_robot_and_the_monitor_still_rules(bench: Bench) -> None:
    driving(bench)
    bench.ladder.policy = None
    bench.ladder._rules = None  # type: ignore[assignment]
    bench.tick()
    stopped_for(bench, Reason.COMMAND_MISSING)


def test_every_tick_leaves_one_record_also_when_everything_is_missing() -> None:
    bench = Bench()
    bench.slots.scan = bench.slots.odometry = bench.slots.goal = None
    for _ in range(5):
        bench.tick(fresh=False)
    assert [int(record["tick"]) for record in bench.ring.records] == list(range(1, 7))
    stopped_for(bench, Reason.SCAN_MISSING)


def test_swaps_leave_no_tick_without_a_decision() -> None:
    bench = Bench(TrialConfig(shadow_ticks=1, probation_ticks=1))
    bench.ladder.policy = FakePolicy((0.5, 0.0), "v0")
    bench.drive(1)
    for number in range(1, 21):
        trial = bench.ladder.offer(FakePolicy((0.5 + number / 100, 0.0), f"v{number}"))
        bench.drive(1)
        record = bench.drive(1)
        assert int(record["flags"]) & FLAG_SWAPPED
        assert bench.source is Source.POLICY
        assert trial.stage is Stage.PASSED
        assert not int(bench.drive(1)["flags"]) & FLAG_SWAPPED
    ticks = [int(record["tick"]) for record in bench.ring.records]
    assert ticks == list(range(1, len(ticks) + 1))
    assert bench.ladder.swaps == 20
    assert bench.ladder.previous is not None
    assert bench.ladder.previous.version == "v19"


def test_a_real_network_bound_once_answers_as_a_plain_session_does() -> None:
    policy = Policy(POLICY_ONNX, "00" * 32, "v1", 1)
    observations, commands = golden()
    answers = [policy.run(row) for row in observations]
    np.testing.assert_allclose(answers, commands, atol=1e-6)
