"""Who drives: modes, approvals, recovery; what the record says of who does not."""

import math
from pathlib import Path

import numpy as np
import pytest

from contracts.decision import Mode, Source
from edge_agent.guard.modes import APPROVAL_MAX_S, MODE_FILE, Modes
from navigation.controllers.recovery import Recovery
from tests.support.agent import PERIOD_NS, RATE_HZ, Bench, FakePolicy

NS = 1_000_000_000
BACK = (Recovery().recovery_speed_mps, Recovery().recovery_turn_radps)


def stuck_for(bench: Bench, ticks: int) -> list[Source]:
    """Sources of ticks in which a policy holds the robot where it is."""
    found = []
    for _ in range(ticks):
        bench.tick()
        found.append(bench.source)
    return found


def test_recovery_begins_anew_after_the_rules_drove_and_never_while_disarmed(bench: Bench) -> None:
    policy = FakePolicy((0.0, 0.0))
    bench.ladder.policy = policy
    sources = stuck_for(bench, 9 * RATE_HZ)
    first = sources.index(Source.RECOVERY)
    assert Recovery().stuck_after_s * RATE_HZ <= first + 1 <= 2 * Recovery().stuck_after_s * RATE_HZ + 1
    assert tuple(bench.ring.records[-len(sources) + first]["raw_command"]) == pytest.approx(BACK)
    bench.ladder.rest()
    assert Source.RECOVERY not in stuck_for(bench, first - 2)
    policy.answer = (math.nan, 0.0)
    assert stuck_for(bench, 1) == [Source.RULE_BASED]
    policy.answer = (0.0, 0.0)
    assert Source.RECOVERY not in stuck_for(bench, first - 2)
    bench.gate.disarm()
    assert Source.RECOVERY not in stuck_for(bench, 10 * RATE_HZ)
    assert bench.gate.arm() == ""
    assert Source.RECOVERY not in stuck_for(bench, first - 2)


def test_shadow_lets_the_rules_drive_and_records_the_policy(bench: Bench) -> None:
    bench.ladder.policy = FakePolicy((0.9, -0.4))
    bench.core.modes.mode = Mode.SHADOW
    record = bench.drive(30)
    assert bench.source is Source.RULE_BASED
    assert Mode(int(record["mode"])) is Mode.SHADOW
    assert tuple(record["other_command"]) == pytest.approx((0.9, -0.4))
    assert tuple(record["raw_command"]) != pytest.approx((0.9, -0.4))
    assert record["policy_digest"].any()
    assert float(record["other_reduction"]) == pytest.approx(0.0, abs=1e-6)
    ranges = np.full(180, np.inf, dtype=np.float32)
    ranges[80:100] = 0.35
    bench.scan(ranges)
    bench.clock.now_ns += PERIOD_NS
    bench.odometry()
    record = bench.run()
    assert float(record["other_reduction"]) > 0.5  # the monitor would have stopped it
    bench.ladder.policy.answer = (math.nan, 0.0)  # type: ignore[attr-defined]
    record = bench.tick()
    assert np.isnan(record["other_command"]).all()
    assert np.isfinite(record["raw_command"]).all()


def test_fallback_asks_no_policy(bench: Bench) -> None:
    policy = FakePolicy()
    bench.ladder.policy, bench.core.modes.mode = policy, Mode.FALLBACK
    record = bench.drive(10)
    assert policy.calls == 0
    assert bench.source is Source.RULE_BASED
    assert not record["policy_digest"].any()
    assert np.isnan(record["other_command"]).all()


def test_assist_lets_the_policy_drive_only_while_approved(bench: Bench) -> None:
    policy, modes = FakePolicy((0.4, 0.0)), bench.core.modes
    bench.ladder.policy, modes.mode = policy, Mode.ASSIST
    record = bench.drive(2)
    assert bench.source is Source.RULE_BASED
    assert tuple(record["other_command"]) == pytest.approx((0.4, 0.0))
    assert modes.approve(1.0, policy.digest, bench.clock.now_ns) == ""
    assert {bench.drive(1) is not None and bench.source for _ in range(RATE_HZ - 1)} == {Source.POLICY}
    bench.drive(1)
    assert bench.source is Source.RULE_BASED  # the time is over
    modes.approve(5.0, "ab" * 32, bench.clock.now_ns)
    bench.drive(1)
    assert bench.source is Source.RULE_BASED  # it was another policy's
    modes.approve(5.0, policy.digest, bench.clock.now_ns)
    bench.gate.disarm()
    bench.drive(2)
    assert bench.gate.arm() == ""
    bench.drive(1)
    assert bench.source is Source.RULE_BASED  # who disarms, ends it


def test_approvals_at_the_wrong_moment_are_refused_by_name() -> None:
    modes = Modes()
    assert "mode is controller" in modes.approve(5.0, "ab", 0)
    modes.mode = Mode.ASSIST
    assert "no policy" in modes.approve(5.0, "", 0)
    for seconds in (-1.0, APPROVAL_MAX_S + 0.1, math.nan, math.inf):
        assert "an approval lasts" in modes.approve(seconds, "ab", 0)
    assert modes.approved_s("ab", 0) == 0.0
    assert modes.approve(APPROVAL_MAX_S, "ab", 0) == ""
    assert modes.approved_s("ab", NS) == pytest.approx(APPROVAL_MAX_S - 1.0)
    assert modes.approve(0.0, "ab", NS) == ""
    assert modes.approved_s("ab", NS) == 0.0
    modes.approve(5.0, "ab", 0)
    modes.switch(Mode.ASSIST, "", "")
    assert modes.approved_s("ab", 0) == 0.0


def test_the_mode_is_changed_only_where_it_is_safe_and_survives(tmp_path: Path) -> None:
    modes = Modes(tmp_path)
    assert modes.mode is Mode.CONTROLLER
    assert "moves" in modes.switch(Mode.SHADOW, "test", "moves")
    assert "no mode 9" in modes.switch(9, "test", "")
    assert (modes.mode, (tmp_path / MODE_FILE).exists()) == (Mode.CONTROLLER, False)
    assert modes.switch(Mode.SHADOW, "test", "") == ""
    assert Modes(tmp_path).mode is Mode.SHADOW
    assert modes.switch(Mode.FALLBACK, "test", "moves") == ""
    assert Modes(tmp_path).mode is Mode.FALLBACK
    (tmp_path / MODE_FILE).write_text('{"mode": 7}')
    broken = Modes(tmp_path)
    assert broken.mode is Mode.FALLBACK
    assert "unreadable" in broken.fault


def test_a_full_disk_leaves_the_mode_but_lets_into_fallback(tmp_path: Path) -> None:
    (tmp_path / MODE_FILE).mkdir()  # nothing can replace it
    modes = Modes(tmp_path)
    modes.mode = Mode.CONTROLLER
    assert "mode unchanged" in modes.switch(Mode.SHADOW, "test", "")
    assert modes.mode is Mode.CONTROLLER
    assert "only until a restart" in modes.switch(Mode.FALLBACK, "test", "moves")
    assert modes.mode is Mode.FALLBACK
