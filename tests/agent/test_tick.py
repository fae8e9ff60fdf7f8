"""The tick in memory: whatever comes in, a decision and a safe command go out in the same tick."""

import math

import numpy as np
import pytest

from contracts.decision import FLAG_SWAPPED, Reason, Source, Verdict
from contracts.observation import BEAMS
from contracts.robot import AMR_SMALL
from edge_agent.guard.gate import STANDING_MAX_MPS, STANDING_MAX_RADPS
from edge_agent.infer.ladder import FAILURES_MAX
from edge_agent.infer.policy import Policy
from edge_agent.infer.trial import Stage, TrialConfig
from edge_agent.observe.slots import UNSTAMPED
from navigation.novelty import Novelty, drift_reference
from safety.config import WatchConfig
from safety.faults import FAULTS
from safety.watch.policy import Advice
from tests.support.agent import PERIOD_NS, Bench, FakePolicy
from tests.support.fleet import POLICY_ONNX, golden

RAYS = AMR_SMALL.lidar.rays
STANDING = (0.0, 0.0)
ROW = {fault.id: fault for fault in FAULTS}


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
    bench.drive(1)
    stopped_for(bench, Reason.EMERGENCY_STOP_LATCHED)
    assert "moves (0.80 m/s" in bench.gate.reset()
    assert bench.gate.latched
    bench.drive(1)
    assert "reset" in bench.gate.arm()
    assert bench.gate.reset() == ""
    bench.tick()
    stopped_for(bench, Reason.NOT_ARMED)
    assert bench.gate.arm() == ""
    bench.drive(5)
    assert bench.sink.commands[-1][0] > 0.0


@pytest.mark.parametrize(
    ("velocity", "stands"),
    [((STANDING_MAX_MPS, STANDING_MAX_RADPS), True), ((-STANDING_MAX_MPS, -STANDING_MAX_RADPS), True),
     ((0.021, 0.0), False), ((-0.021, 0.0), False), ((0.0, 0.051), False), ((0.0, -0.051), False)],
)  # fmt: skip
def test_arming_and_resetting_need_a_robot_that_stands(
    bench: Bench, velocity: tuple[float, float], stands: bool
) -> None:
    bench.gate.stop(emergency=True)
    bench.velocity = velocity
    bench.tick()
    answer = bench.gate.reset()
    assert (answer == "", bench.gate.latched) == (stands, not stands)
    assert stands or "moves" in answer
    bench.gate.monitor.emergency = False
    answer = bench.gate.arm()
    assert (answer == "", bench.gate.armed) == (stands, stands)
    assert stands or "moves" in answer


def test_an_armed_robot_that_drives_is_not_armed_again_and_drives_on(bench: Bench) -> None:
    driving(bench)
    assert "it is armed where it stands" in bench.gate.arm()
    bench.drive(5)
    assert bench.sink.commands[-1][0] == pytest.approx(0.8)


def test_a_second_commander_disarms_and_hides_nothing_worse(bench: Bench) -> None:
    driving(bench)
    bench.gate.rival("somebody else publishes cmd_vel")
    bench.drive(1)
    stopped_for(bench, Reason.OTHER_COMMANDER)
    assert not bench.gate.armed
    bench.drive(2)
    assert "somebody else publishes cmd_vel: end it" in bench.gate.arm()
    bench.slots.scan = None
    bench.tick(fresh=False)
    stopped_for(bench, Reason.SCAN_MISSING)
    bench.gate.stop(emergency=True)
    bench.tick()
    stopped_for(bench, Reason.EMERGENCY_STOP_LATCHED)
    assert bench.gate.reset() == ""
    bench.gate.rival("")
    bench.tick()
    stopped_for(bench, Reason.NOT_ARMED)
    assert bench.gate.arm() == ""


def test_what_training_never_saw_is_driven_by_the_rules_until_it_is_familiar_again(bench: Bench) -> None:
    rng, policy = np.random.default_rng(0), FakePolicy()
    bench.ladder.policy = policy

    def drive(ticks: int, spread_m: float) -> list[Source]:
        found = []
        for _ in range(ticks):
            bench.clock.now_ns += PERIOD_NS
            bench.odometry()
            bench.scan(rng.uniform(7.5 - spread_m, 7.5, RAYS).astype(np.float32))
            policy.answer = (0.4, rng.uniform(0.0, 0.1))
            bench.run()
            bench.velocity = bench.sink.commands[-1]
            found.append(bench.source)
        return found

    drive(60, 1.0)
    rows = np.repeat(np.stack([entry["observation"] for entry in bench.ring.records[3:]]), 20, axis=0)
    rows[:, 2 * BEAMS :] += rng.normal(0.0, 3.0, rows[:, 2 * BEAMS :].shape)  # it has been everywhere
    policy.novelty = Novelty(drift_reference(rows))
    assert set(drive(40, 1.0)) == {Source.POLICY}
    strange = drive(20, 6.0)
    bound = ROW[Advice.UNFAMILIAR].bound_ticks
    assert Source.POLICY in strange[: bound - 1]
    assert set(strange[bound + 1 :]) == {Source.RULE_BASED}
    assert any("is unfamiliar; the rules drive" in event for event in bench.ladder.events)
    back = drive(WatchConfig().advice_clear_ticks + 10, 1.0)
    assert (back[0], back[-1]) == (Source.RULE_BASED, Source.POLICY)


def test_the_record_has_the_entropy_of_whoever_was_asked(bench: Bench) -> None:
    def drive() -> float:
        bench.clock.now_ns += PERIOD_NS
        bench.odometry()
        bench.scan()
        bench.run()
        return float(bench.ring.records[-1]["entropy_nats"])

    assert math.isnan(drive())  # the rules have none
    policy = FakePolicy()
    policy.entropy_nats = -0.25
    bench.ladder.policy = policy
    assert drive() == -0.25
    policy.answer = RuntimeError("broken")
    for _ in range(5):
        drive()
    assert math.isnan(drive())


def test_without_odometry_a_robot_does_not_surely_stand(bench: Bench) -> None:
    bench.gate.stop(emergency=True)
    for _ in range(7):
        bench.clock.now_ns += PERIOD_NS
        bench.scan()
        bench.run()
    assert "no odometry that says it stands" in bench.gate.reset()
    bench.slots.odometry = None
    bench.run()
    assert "no odometry that says it stands" in bench.gate.moves()
    bench.tick()
    assert bench.gate.reset() == ""
    assert "not latched" in bench.gate.reset()


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


def test_a_warm_run_goes_the_whole_way_and_changes_nothing(bench: Bench) -> None:
    driving(bench)
    commands, records = len(bench.sink.commands), len(bench.ring.records)
    for _ in range(20):
        for _ in range(4):
            bench.core.warm()
        warmed = bench.core._spare_recorder.record[0]
        # A spare monitor that had stopped would leave the admission cold, which is most of the tick.
        assert Verdict(int(warmed["verdict"])) <= Verdict.LIMIT, Reason(int(warmed["reason"])).name
        assert Verdict(int(bench.drive(1)["verdict"])) is Verdict.PASS
    assert len(bench.sink.commands) == commands + 20
    assert len(bench.ring.records) == records + 20


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
