"""A new policy: shadow, flip, probation, return; and how the robot's command gets from one to the other."""

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.decision import FLAG_BLENDED, FLAG_PROBATION, FLAG_RETURNED, FLAG_SWAPPED, Source, Verdict
from contracts.robot import AMR_SMALL
from edge_agent.actuate.blend import Blend, towards
from edge_agent.infer.dropped import DROPPED_FILE, KEPT_MAX, DroppedStore
from edge_agent.infer.ladder import FAILURES_MAX
from edge_agent.infer.loader import PolicyLoader
from edge_agent.infer.trial import Habits, Stage, Trial, TrialConfig
from edge_agent.update.mailbox import CommsMailbox, new_candidate
from edge_agent.update.slots import BundleFacts, SlotStore
from safety.config import MonitorConfig
from tests.support.agent import PERIOD_NS, RATE_HZ, Bench, FakePolicy
from tests.support.fleet import make_bundle
from tests.support.waiting import wait_for

CONFIG = TrialConfig(shadow_ticks=4, probation_ticks=10, slow_max=2, late_extra=3, interventions_extra=3)
SLOW_NS = PERIOD_NS + 1


@pytest.fixture
def bench() -> Bench:
    """A robot that v1 drives at 0.8 m/s."""
    made = Bench(CONFIG)
    made.ladder.policy = FakePolicy((0.8, 0.0), "v1")
    made.drive(20)
    return made


def ticking(bench: Bench, policy: FakePolicy) -> FakePolicy:
    """A policy whose answers take time on the bench's clock."""
    policy.clock = bench.clock
    return policy


def test_a_candidate_runs_beside_then_drives_and_passes(bench: Bench) -> None:
    old, new = bench.ladder.policy, FakePolicy((0.6, 0.2), "v2")
    trial = bench.ladder.offer(new)
    shadow = [bench.drive(1) for _ in range(CONFIG.shadow_ticks)]
    for record in shadow:
        assert tuple(record["raw_command"]) == pytest.approx((0.8, 0.0))
        assert tuple(record["other_command"]) == pytest.approx((0.6, 0.2))
        assert not int(record["flags"]) & (FLAG_SWAPPED | FLAG_PROBATION)
    assert bench.ladder.policy is old
    flipped = bench.drive(1)
    assert int(flipped["flags"]) & FLAG_SWAPPED
    assert int(flipped["flags"]) & FLAG_PROBATION
    assert bytes(flipped["policy_digest"]) == new.digest_bytes.tobytes()
    assert np.isnan(flipped["other_command"]).all()
    bench.drive(CONFIG.probation_ticks - 2)
    assert not trial.over
    bench.drive(1)
    assert trial.stage is Stage.PASSED
    assert f"{CONFIG.probation_ticks} ticks" in trial.detail
    bench.drive(1)
    assert (bench.ladder.policy, bench.ladder.previous, bench.ladder.swaps) == (new, old, 1)


@pytest.mark.parametrize(
    ("answer", "spend_ns", "hint"),
    [
        ((math.nan, 0.0), 0, "not finite"),
        (ValueError("no"), 0, "raised ValueError"),
        ((0.5, 0.0), SLOW_NS, "slow"),
    ],
)
def test_a_bad_candidate_never_drives(bench: Bench, answer: object, spend_ns: int, hint: str) -> None:
    old = bench.ladder.policy
    trial = bench.ladder.offer(ticking(bench, FakePolicy(answer, "v2", spend_ns)))
    for _ in range(CONFIG.shadow_ticks + 2):
        bench.drive(1)
        assert bench.ladder.policy is old
        assert bench.source is Source.POLICY
    assert trial.stage is Stage.REFUSED
    assert trial.why.startswith("shadow: ")
    assert hint in trial.why
    assert bench.ladder.swaps == 0


@pytest.mark.parametrize(
    ("answer", "spend_ns", "hint"),
    [
        ((math.nan, 0.0), 0, "not finite"),
        (ValueError("no"), 0, "raised ValueError"),
        ((0.5, 0.0), SLOW_NS, "slow"),
    ],
)
def test_what_fails_on_probation_is_taken_off_again(
    bench: Bench, answer: object, spend_ns: int, hint: str
) -> None:
    old, new = bench.ladder.policy, ticking(bench, FakePolicy((0.7, 0.0), "v2"))
    trial = bench.ladder.offer(new)
    bench.drive(CONFIG.shadow_ticks + 3)
    assert bench.ladder.policy is new
    new.answer, new.spend_ns = answer, spend_ns
    for _ in range(CONFIG.slow_max + 1):
        bench.drive(1)
        assert bench.source in (Source.RULE_BASED, Source.POLICY)  # never a tick without a command
    record = bench.drive(1)
    assert trial.stage is Stage.REFUSED
    assert trial.why.startswith("probation: ")
    assert hint in trial.why
    assert bench.ladder.policy is old
    assert bench.ladder.previous is None
    flags = [int(found["flags"]) for found in bench.ring.records[-4:]]
    assert sum(flag & FLAG_RETURNED > 0 for flag in flags) == 1
    assert bytes(record["policy_digest"]) == old.digest_bytes.tobytes()  # type: ignore[union-attr]
    assert any("v2 returned" in event and "v1 drive again" in event for event in bench.ladder.events)


def test_a_first_policy_that_fails_on_probation_leaves_the_rules(bench: Bench) -> None:
    bench.ladder.policy = None
    new = FakePolicy((0.7, 0.0), "v2")
    bench.ladder.offer(new)
    bench.drive(CONFIG.shadow_ticks + 2)
    assert bench.source is Source.POLICY
    new.answer = (math.inf, 0.0)
    bench.drive(2)
    assert bench.ladder.policy is None
    assert bench.source is Source.RULE_BASED


@pytest.mark.parametrize(("usual", "passes"), [(False, False), (True, True)])
def test_interventions_count_against_what_was_usual_before(usual: bool, passes: bool) -> None:
    bench = Bench(CONFIG)
    beyond, within = (3.0 * AMR_SMALL.speed_max_mps, 0.0), (1.15, 0.0)
    bench.ladder.policy = FakePolicy(beyond if usual else within, "v1")
    bench.drive(60)
    trial = bench.ladder.offer(FakePolicy(beyond, "v2"))
    for _ in range(CONFIG.shadow_ticks + CONFIG.probation_ticks + 2):
        record = bench.drive(1)
    assert Verdict(int(bench.ring.records[-3]["verdict"])) <= Verdict.LIMIT
    assert (trial.stage is Stage.PASSED) == passes
    if not passes:
        assert "interventions" in trial.why
        assert tuple(record["raw_command"]) == pytest.approx(within)


@pytest.mark.parametrize(
    ("pattern", "asked", "stage"),
    [
        ("!" * 9, 9, Stage.PROBATION),
        ("!" * 10, 10, Stage.REFUSED),  # at once: three periods' worth
        ("!!!.......", 10, Stage.PASSED),
        ("!!!!......", 10, Stage.PROBATION),  # somebody stood in the way: it goes on
        ("!!!!......" + "....", 14, Stage.PASSED),
        ("!!!!......" + "!...!.....", 20, Stage.PASSED),
        ("!!!!......" * 2 + "!.!", 23, Stage.REFUSED),
        ("!!!!......" * 2 + "!.........", 30, Stage.PASSED),
    ],
)
def test_a_burst_of_interventions_prolongs_a_probation(pattern: str, asked: int, stage: Stage) -> None:
    trial = Trial(FakePolicy(), CONFIG)
    trial.flipped(Habits(100), 0)
    ticks = 0
    for mark in pattern:
        if not trial.over:
            trial.drove(late=False, intervened=mark == "!")
            ticks += 1
    assert (trial.stage, ticks) == (stage, asked), trial.why


def test_a_probation_that_time_ends_is_passed_only_without_too_many_interventions() -> None:
    for count, stage in ((3, Stage.PASSED), (4, Stage.REFUSED)):
        trial = Trial(FakePolicy(), CONFIG)
        trial.flipped(Habits(100), 0)
        for _ in range(count):
            trial.drove(late=False, intervened=True)
        trial.expire(int(CONFIG.stage_max_s * 1e9))
        assert trial.stage is stage


@pytest.mark.parametrize(("forgiven", "stage"), [(0, Stage.REFUSED), (1, Stage.PROBATION)])
def test_advice_against_a_policy_on_probation_ends_it_unless_forgiven(forgiven: int, stage: Stage) -> None:
    bench = Bench(msgspec.structs.replace(CONFIG, advice_max=forgiven))
    bench.ladder.policy = FakePolicy((0.8, 0.0), "v1")
    bench.drive(20)
    trial = bench.ladder.offer(FakePolicy((0.7, 0.0), "v2"))
    bench.drive(CONFIG.shadow_ticks + 2)
    assert trial.stage is Stage.PROBATION
    bench.ladder.advised("saturated")
    assert trial.stage is stage
    bench.ladder.advised("saturated")
    assert (trial.stage, trial.why) == (Stage.REFUSED, "probation: the monitor finds it saturated")
    bench.drive(1)
    assert bench.ladder.policy is not None
    assert bench.ladder.policy.version == "v1"


@pytest.mark.parametrize(("late_before", "passes"), [(False, False), (True, True)])
def test_late_ticks_count_against_what_was_usual_before(
    bench: Bench, late_before: bool, passes: bool
) -> None:
    def drive(ticks: int, late: bool) -> None:
        for _ in range(ticks):
            bench.clock.now_ns += PERIOD_NS
            bench.scan()
            bench.odometry()
            bench.core.tick(bench.clock.now_ns - (PERIOD_NS + 1 if late else 0), 0)

    drive(60, late_before)
    trial = bench.ladder.offer(FakePolicy((0.7, 0.0), "v2"))
    drive(CONFIG.shadow_ticks + 1, late_before)
    drive(CONFIG.probation_ticks + 1, True)
    assert (trial.stage is Stage.PASSED) == passes
    assert passes or "late ticks" in trial.why


def test_without_traffic_the_time_limit_ends_both_stages(bench: Bench) -> None:
    new = FakePolicy((0.7, 0.0), "v2")
    trial = bench.ladder.offer(new)
    bench.slots.goal = None
    bench.tick()
    for stage in (Stage.SHADOW, Stage.PROBATION):
        assert trial.stage is stage
        bench.clock.now_ns += int(CONFIG.stage_max_s * 1e9) - PERIOD_NS - 1
        bench.tick()
        assert trial.stage is stage
        bench.clock.now_ns += 1
        bench.tick()
    assert trial.stage is Stage.PASSED
    assert "asked only 0 times" in trial.detail
    assert new.calls == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((1.1, 0.0), (-0.3, 1.5)),
        ((0.2, -1.5), (1.2, 1.5)),
        ((0.8, 0.0), (0.8, 0.0)),
        ((1.0, 0.5), (1e30, -1e30)),
    ],
)
def test_the_command_changes_within_the_limits_after_a_flip_and_after_a_return(
    old: tuple[float, float], new: tuple[float, float]
) -> None:
    bench = Bench(CONFIG)
    bench.ladder.policy = FakePolicy(old, "v1")
    bench.drive(60)
    policy = FakePolicy(new, "v2")
    bench.ladder.offer(policy)
    first = len(bench.sink.commands)
    bench.drive(CONFIG.shadow_ticks + 8)
    policy.answer = (math.nan, 0.0)
    bench.drive(40)
    commands = np.array(bench.sink.commands[first - 1 :])
    speed, turn = np.abs(commands[:, 0]), commands[:, 1]
    limits = AMR_SMALL
    assert np.diff(speed).max() <= limits.acceleration_max_mps2 / RATE_HZ + 1e-9
    assert -np.diff(speed).min() <= limits.braking_mps2 / RATE_HZ + 1e-9
    assert np.abs(np.diff(turn)).max() <= limits.turn_acceleration_max_radps2 / RATE_HZ + 1e-9
    blended = [bool(int(record["flags"]) & FLAG_BLENDED) for record in bench.ring.records[first:]]
    assert any(blended)
    assert not blended[-1]
    assert commands[-1] == pytest.approx(old)


def test_the_monitor_stops_a_robot_in_the_middle_of_a_blend(bench: Bench) -> None:
    bench.ladder.offer(FakePolicy((-0.3, 0.0), "v2"))
    bench.drive(CONFIG.shadow_ticks + 2)
    assert bench.sink.commands[-1][0] > 0.5
    bench.gate.stop(emergency=False)
    bench.tick()
    assert bench.sink.commands[-1] == (0.0, 0.0)


def test_steps_towards_a_command() -> None:
    assert towards(1.0, 0.5, 0.1, 0.2) == 0.6
    assert towards(-1.0, 0.5, 0.1, 0.2) == 0.3
    assert towards(-1.0, 0.1, 0.1, 0.2) == 0.0  # never across zero in one step
    assert towards(-1.0, 0.0, 0.1, 0.2) == -0.1
    assert towards(0.0, -0.5, 0.1, 0.2) == -0.3
    assert towards(-0.55, -0.5, 0.1, 0.2) == -0.55
    blend = Blend(AMR_SMALL, 0.05)
    blend.begin()
    assert blend.step((0.5, 0.1), (0.5, 0.1)) == (0.5, 0.1)
    assert not blend.active


def test_a_policy_dropped_on_this_robot_is_known_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "slots").mkdir()
    told: list[str] = []
    store = DroppedStore(tmp_path, told.append)
    for number in range(KEPT_MAX + 1):
        store.add(f"{number:064x}", f"v{number}", "probation: its answer is not finite")
    again = DroppedStore(tmp_path, told.append)
    assert again.why(f"{0:064x}") == ""  # the oldest gave way
    assert "not finite" in again.why(f"{KEPT_MAX:064x}")
    again.forget(f"{KEPT_MAX:064x}")
    assert DroppedStore(tmp_path, told.append).why(f"{KEPT_MAX:064x}") == ""
    assert told == []
    (tmp_path / "slots" / DROPPED_FILE).write_text('[{"digest": "short"}]')
    assert DroppedStore(tmp_path, told.append).why(f"{1:064x}") == ""
    assert "unreadable" in told[0]


class LoadingRobot:
    """A bench whose ladder is fed by a real loader out of a real state folder."""

    def __init__(self, state: Path, keys: Path) -> None:
        self.bench = Bench(CONFIG)
        self.told: list[str] = []
        self.slots, self.mailbox = SlotStore(state), CommsMailbox(state)
        self.loader = PolicyLoader(
            state,
            keys / "robots" / "robot_1",
            AMR_SMALL,
            MonitorConfig().hash(),
            self.bench.ladder,
            self.told.append,
        )
        self.loader.load_committed()
        self.loader.start()

    def drive_until_told(self, words: str) -> None:
        """Tick until the loader has said it."""

        def told() -> bool:
            self.bench.drive(1)
            return any(words in line for line in self.told)

        wait_for(told, words)


def test_only_what_has_passed_is_accepted_and_what_failed_does_not_come_back(
    tmp_path: Path, keys: Path
) -> None:
    state, path = tmp_path / "state", tmp_path / "v1.outrider"
    bundle = make_bundle(keys, monitor_hash=MonitorConfig().hash())
    path.write_bytes(bundle)
    robot = LoadingRobot(state, keys)
    digest = robot.loader.verify(path).digest
    entry = robot.slots.stage(path, BundleFacts(digest, "routing", "v1", 1))
    first = new_candidate(entry, 1)
    robot.mailbox.offer(first)
    wait_for(lambda: robot.bench.ladder._incoming is not None, "the candidate at the ladder")
    robot.bench.drive(CONFIG.shadow_ticks + 3)
    assert robot.bench.ladder.policy is not None
    assert robot.mailbox.answer_to(first) is None  # drives already, but is not accepted yet
    robot.bench.ladder.policy.run = lambda _: (math.nan, 0.0)  # type: ignore[method-assign]
    robot.drive_until_told("refused: probation")
    answer = wait_for(lambda: robot.mailbox.answer_to(first), "an answer")
    assert not answer.accepted
    assert answer.reason.startswith("probation: ")
    assert robot.slots.active() is None
    robot.loader.close()
    assert [found["digest"] for found in json.loads((state / "slots" / DROPPED_FILE).read_bytes())] == [
        digest
    ]

    again = LoadingRobot(state, keys)
    second = new_candidate(entry, 2)
    again.mailbox.offer(second)
    answer = wait_for(lambda: again.mailbox.answer_to(second), "an answer after the restart")
    assert not answer.accepted
    assert "has failed on this robot" in answer.reason
    request = again.loader.request(Path(entry.path))  # a person may try it again
    again.drive_until_told("loaded by hand")
    assert wait_for(lambda: request.done, "the load's end")
    assert request.accepted
    again.loader.close()
    assert json.loads((state / "slots" / DROPPED_FILE).read_bytes()) == []


def test_a_committed_policy_that_was_dropped_is_not_used_after_a_restart(tmp_path: Path, keys: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "v1.outrider"
    path.write_bytes(make_bundle(keys, monitor_hash=MonitorConfig().hash()))
    slots = SlotStore(state)
    robot = LoadingRobot(state, keys)
    digest = robot.loader.verify(path).digest
    robot.loader.close()
    slots.commit(slots.stage(path, BundleFacts(digest, "routing", "v1", 1)))
    robot = LoadingRobot(state, keys)
    policy = robot.bench.ladder.policy
    assert policy is not None
    policy.run = lambda _: (math.nan, 0.0)  # type: ignore[method-assign]
    robot.bench.drive(FAILURES_MAX)
    assert robot.bench.ladder.policy is None
    wait_for(lambda: (state / "slots" / DROPPED_FILE).exists(), "the note on disk")
    robot.loader.close()
    robot = LoadingRobot(state, keys)
    robot.loader.close()
    assert robot.bench.ladder.policy is None
    assert any("is not used: dropped after" in line for line in robot.told)
