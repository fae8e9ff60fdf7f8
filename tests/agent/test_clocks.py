"""The wall clock is set while the robot drives: time-outs do not move, stamps that jump are named, nothing runs off."""

import pytest

from contracts.decision import Mode, Reason, Source
from edge_agent.infer.trial import Stage, TrialConfig
from safety.config import MonitorConfig, WatchConfig
from tests.support.agent import PERIOD_NS, RATE_HZ, Bench, FakePolicy

NS = 1_000_000_000
HOUR_NS = 3600 * NS
JUMPS = {"back": -HOUR_NS, "forward": HOUR_NS, "a little back": -NS // 2, "a little forward": NS // 2}
CONFIG = TrialConfig(shadow_ticks=4, probation_ticks=10, stage_max_s=5.0)
RELEARN_TICKS = WatchConfig().stamp_relearn_arrivals + int(MonitorConfig().disarm_after_s * RATE_HZ) + 2


def driving(stamped: bool = True) -> Bench:
    """A robot that v1 drives at 0.8 m/s."""
    bench = Bench(CONFIG, stamped)
    bench.ladder.policy = FakePolicy((0.8, 0.0), "v1")
    bench.drive(20)
    return bench


@pytest.mark.parametrize("jump_ns", JUMPS.values(), ids=JUMPS)
def test_without_stamps_a_set_wall_clock_changes_nothing_but_the_records_wall_time(jump_ns: int) -> None:
    bench = driving(stamped=False)
    before = bench.drive(1)
    bench.wall_apart_ns += jump_ns
    for _ in range(30):
        record = bench.drive(1)
        assert bench.sink.commands[-1] == (0.8, 0.0)
        assert Reason(int(record["reason"])) is Reason.CLEAR
        assert (int(record["scan_age_us"]), int(record["late_us"])) == (0, 0)
    wall, mono = (int(record[name]) - int(before[name]) for name in ("wall_ns", "mono_ns"))
    assert wall - mono == jump_ns


@pytest.mark.parametrize("jump_ns", JUMPS.values(), ids=JUMPS)
def test_stamps_that_jump_stop_the_robot_and_are_learnt_anew_once_it_is_disarmed(jump_ns: int) -> None:
    bench = driving()
    bench.wall_apart_ns += jump_ns
    named = (
        {Reason.SCAN_STAMP_BACKWARDS, Reason.SCAN_STAMP_LATE} if jump_ns < 0 else {Reason.SCAN_STAMP_AHEAD}
    )
    for tick in range(RELEARN_TICKS):
        record = bench.drive(1)
        assert bench.sink.commands[-1] == (0.0, 0.0), tick
        assert Reason(int(record["reason"])) in {*named, Reason.NOT_ARMED}
    assert not bench.gate.armed
    assert bench.gate.arm() == ""
    bench.drive(20)
    assert bench.sink.commands[-1][0] == pytest.approx(0.8)


@pytest.mark.parametrize("jump_ns", JUMPS.values(), ids=JUMPS)
def test_an_approval_lasts_as_long_as_it_was_given_for(jump_ns: int) -> None:
    bench = driving(stamped=False)
    policy, modes = FakePolicy((0.4, 0.0)), bench.core.modes
    bench.ladder.policy, modes.mode = policy, Mode.ASSIST
    assert modes.approve(1.0, policy.digest, bench.clock.now_ns) == ""
    bench.wall_apart_ns += jump_ns
    sources = [bench.source for _ in range(RATE_HZ + 2) if bench.drive(1) is not None]
    assert sources == [Source.POLICY] * (RATE_HZ - 1) + [Source.RULE_BASED] * 3


@pytest.mark.parametrize("jump_ns", JUMPS.values(), ids=JUMPS)
def test_shadow_and_probation_end_when_their_time_is_over(jump_ns: int) -> None:
    bench = driving(stamped=False)
    trial = bench.ladder.offer(FakePolicy((0.7, 0.0), "v2"))
    bench.slots.goal = None
    bench.tick()
    for stage, after in ((Stage.SHADOW, Stage.PROBATION), (Stage.PROBATION, Stage.PASSED)):
        assert trial.stage is stage
        bench.wall_apart_ns += jump_ns
        bench.clock.now_ns += int(CONFIG.stage_max_s * NS) - 2 * PERIOD_NS
        bench.tick()
        assert trial.stage is stage
        bench.tick()
        assert trial.stage is after
