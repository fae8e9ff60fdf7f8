"""A release that drives, fails, is taken back or runs in shadow alone: slots, mailbox, loader, ladder and updater."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.canonical import digest_hex
from contracts.decision import FLAG_RETURNED
from contracts.messages import FileChunk, FromRobot, RolloutReport
from contracts.papers import open_card, open_witness
from contracts.plan import Plan, Release, Stage, Who, encode_plan
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from contracts.trust import Wanted
from edge_agent.infer.dropped import DroppedStore
from edge_agent.infer.loader import PolicyLoader
from edge_agent.infer.trial import Stage as TrialStage
from edge_agent.update.checker import CheckResult
from edge_agent.update.mailbox import CommsMailbox, ControlMailbox, new_candidate
from edge_agent.update.slots import BundleFacts, SlotStore
from edge_agent.update.updater import State, Updater
from tests.support.agent import Bench, FakePolicy
from tests.support.fleet import make_bundle, make_order, make_plan
from tests.support.waiting import wait_for

NOTHING = lambda *_a, **_k: None  # noqa: E731


@pytest.mark.parametrize("before", [True, False], ids=["to the policy before", "to the rules"])
def test_a_policy_leaves_between_two_ticks(bench: Bench, before: bool) -> None:
    old, bad = FakePolicy((0.5, 0.0), "v1"), FakePolicy((0.8, 0.0), "v2")
    bench.ladder.policy, bench.ladder.previous = bad, old if before else None
    bench.drive(3)
    bench.ladder.leave(bad.digest)
    record = bench.drive(1)
    assert int(record["flags"]) & FLAG_RETURNED
    assert bench.ladder.policy is (old if before else None)
    assert bench.ladder.previous is None
    assert not int(bench.drive(1)["flags"]) & FLAG_RETURNED


def test_somebody_elses_leaving_changes_nothing(bench: Bench) -> None:
    bench.ladder.policy = FakePolicy((0.5, 0.0), "v1")
    bench.ladder.leave("f" * 64)
    assert not int(bench.drive(1)["flags"]) & FLAG_RETURNED
    assert bench.ladder.policy is not None


def test_a_policy_on_trial_leaves_at_once(bench: Bench) -> None:
    old, bad = FakePolicy((0.5, 0.0), "v1"), FakePolicy((0.8, 0.0), "v2")
    bench.ladder.policy = old
    trial = bench.ladder.offer(bad)
    bench.drive(30)
    assert trial.stage is TrialStage.PROBATION
    bench.ladder.leave(bad.digest)
    bench.drive(2)
    assert (trial.stage, bench.ladder.policy) == (TrialStage.REFUSED, old)


def test_a_shadow_alone_never_drives(bench: Bench) -> None:
    old, new = FakePolicy((0.5, 0.0), "v1"), FakePolicy((0.8, 0.0), "v2")
    bench.ladder.policy = old
    trial = bench.ladder.offer(new, shadow_s=2.0)
    records = [bench.drive(1) for _ in range(45)]
    assert trial.stage is TrialStage.PASSED
    assert bench.ladder.policy is old
    assert sum(not np.isnan(row["other_command"]).any() for row in records) == 40
    assert {tuple(row["raw_command"]) for row in records} == {(0.5, 0.0)}
    assert "does not drive" in trial.detail


def test_the_loader_takes_a_policy_off(bench: Bench, keys: Path, tmp_path: Path) -> None:
    own = keys / "robots" / "robot_1"
    loader = PolicyLoader(tmp_path, own, AMR_SMALL, "ab" * 32, bench.ladder, NOTHING)
    bad = FakePolicy((0.8, 0.0), "v2")
    bench.ladder.policy = bad
    store, comms = SlotStore(tmp_path), CommsMailbox(tmp_path)
    entry = stage_file(store, tmp_path, BundleFacts(bad.digest, "routing", "v2", 2))
    candidate = new_candidate(entry, 1, kind="revert")
    comms.offer(candidate)
    loader.start()
    try:
        answer = wait_for(lambda: comms.answer_to(candidate), "the answer")
        assert answer.accepted
        bench.drive(1)
        assert bench.ladder.policy is None
    finally:
        loader.close()


def stage_file(store: SlotStore, folder: Path, facts: BundleFacts, data: bytes = b"x") -> Any:
    source = folder / "bundle"
    source.write_bytes(data)
    return store.stage(source, facts)


class Ready:
    """A check that passes."""

    def __init__(self, facts: BundleFacts) -> None:
        self.facts = facts

    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Nothing."""

    def question(self) -> None:
        """Never."""

    def answer(self, chunk: FileChunk) -> None:
        """Nothing."""

    def result(self, _: int) -> CheckResult | None:
        """Passed."""
        return CheckResult(self.facts)

    def cancel(self) -> None:
        """Nothing."""


class Robot:
    """An updater with a bundle that always passes its check."""

    def __init__(self, state: Path, keys: Path, bundle: bytes, release: Release) -> None:
        self.state, self.keys, self.bundle, self.release = state, keys, bundle, release
        self.said: list[FromRobot] = []
        self.control = ControlMailbox(state)
        self.wall_ns = time.time_ns()
        self.restart()

    def restart(self) -> None:
        release = self.release
        facts = BundleFacts(release.digest, release.policy_name, release.version, release.release_counter)
        self.updater = Updater(
            self.state, Ready(facts), lambda m: bool(self.said.append(m)) or True, NOTHING,
            self.keys / "robots" / "robot_1", "robot_1", lambda: self.wall_ns,
        )  # fmt: skip

    def fetch(self, order: Any) -> None:
        """Until it waits for control."""
        staging = self.state / "staging"
        staging.mkdir(exist_ok=True)
        (staging / f"{self.release.digest}.part").write_bytes(self.bundle)
        self.updater.on_order(order, 0)
        self.updater.step(0)
        assert self.updater.state is State.WAITING

    def answer(self, accepted: bool = True) -> str:
        """Control answers what it finds; its kind."""
        candidate = self.control.poll()
        assert candidate is not None
        self.control.answer(candidate, accepted)
        self.updater.step(0)
        return candidate.kind

    def last(self) -> RolloutReport:
        return next(message for message in reversed(self.said) if isinstance(message, RolloutReport))


@pytest.fixture
def robot(tmp_path: Path, keys: Path) -> Robot:
    """A robot, and the release it will be told to run."""
    bundle = make_bundle(keys, version="v2", release_counter=2)
    return Robot(tmp_path, keys, bundle, Release(digest_hex(bundle), "routing", "v2", 2, len(bundle)))


def plan_of(robot: Robot, kind: str = "full", soak_s: float = 10.0) -> Plan:
    stages = [Stage(name="all", kind="full", who=Who(rest=True), soak_s=soak_s, deadline_s=600.0)]
    if kind == "shadow":
        shadow = Stage(name="s", kind="shadow", who=Who(robots=("robot_1",)), soak_s=soak_s, deadline_s=600.0)
        stages.insert(0, shadow)
    now = datetime.now(UTC)
    return make_plan(robot.release, *stages, issued=now, expires=now + timedelta(hours=1))


def test_soaked_is_witnessed_after_its_time_and_not_before(robot: Robot) -> None:
    plan = plan_of(robot)
    robot.fetch(make_order(robot.keys, plan))
    assert robot.answer() == "run"
    assert robot.last().state == "active"
    robot.wall_ns += int(9.9e9)
    robot.updater.step(10**9)
    assert robot.last().state == "active"
    robot.restart()  # comms was killed meanwhile
    robot.wall_ns += int(0.2e9)
    robot.updater.step(3 * 10**9)
    report = robot.last()
    assert report.state == "soaked"
    card = open_card(
        (robot.keys / "hub" / "cards" / "robot_1.dsse.json").read_bytes(),
        TrustedKeys.load(robot.keys / "trusted_release_keys.json"),
    )
    seen = open_witness(report.witness, card)
    assert (seen.plan_digest, seen.release, seen.robot) == (
        encode_plan(plan)[1],
        robot.release.digest,
        "robot_1",
    )


def test_a_policy_that_control_dropped_has_failed(robot: Robot) -> None:
    """NaN after a minute: the ladder drops it and remembers; comms tells the hub."""
    robot.fetch(make_order(robot.keys, plan_of(robot)))
    robot.answer()
    DroppedStore(robot.state, NOTHING).add(robot.release.digest, "v2", "its answer is not finite")
    robot.wall_ns += int(20e9)
    robot.updater.step(10**9)
    report = robot.last()
    assert (report.state, report.code) == ("failed", "dropped")
    assert "not finite" in report.reason
    robot.updater.step(3 * 10**9)
    assert robot.last() is report  # once


@pytest.mark.parametrize("killed", ["nobody", "before control reads it", "before comms hears the answer"])
def test_back_to_the_slot_before(robot: Robot, killed: str, tmp_path: Path) -> None:
    store = SlotStore(robot.state)
    store.commit(stage_file(store, tmp_path, BundleFacts("a" * 64, "routing", "v1", 1), b"the old one"))
    plan = plan_of(robot)
    robot.fetch(make_order(robot.keys, plan))
    robot.answer()
    robot.updater.on_order(make_order(robot.keys, plan, action="revert"), 0)
    active = store.active()
    assert active
    assert active.facts.version == "v1"  # before control has said a word
    if killed == "before control reads it":
        robot.restart()
    if killed == "before comms hears the answer":
        candidate = robot.control.poll()
        assert candidate
        robot.control.answer(candidate, True)
        robot.restart()
        robot.updater.step(0)
    else:
        assert robot.answer() == "revert"
    assert robot.last().state == "reverted"
    assert robot.updater.state is State.IDLE
    assert Path(active.path).read_bytes() == b"the old one"
    assert store.previous() is None
    assert not (robot.state / "slots" / "b" / "policy.outrider").exists()
    assert store.counter_floor("routing") == 2


def test_back_while_control_is_still_trying_it(robot: Robot) -> None:
    plan = plan_of(robot)
    robot.fetch(make_order(robot.keys, plan))
    robot.updater.on_order(make_order(robot.keys, plan, action="revert"), 0)
    assert robot.updater.state is State.WAITING
    assert robot.answer() == "run"
    assert robot.answer() == "revert"
    assert robot.last().state == "reverted"
    assert SlotStore(robot.state).active() is None


def test_something_new_waits_until_control_has_heard_of_the_way_back(robot: Robot) -> None:
    plan = plan_of(robot)
    robot.fetch(make_order(robot.keys, plan))
    robot.answer()
    robot.updater.on_order(make_order(robot.keys, plan, action="revert"), 0)
    later = make_plan(robot.release, name="later", issued=datetime.now(UTC))
    robot.updater.on_order(make_order(robot.keys, later), 0)
    assert robot.updater.state is State.WAITING
    assert robot.answer() == "revert"
    robot.updater.step(0)
    assert robot.updater.state is State.DOWNLOADING


def test_a_shadow_ends_with_a_witness_and_leaves_no_trace(robot: Robot) -> None:
    plan = plan_of(robot, "shadow", soak_s=5.0)
    robot.fetch(make_order(robot.keys, plan, 0, "shadow"))
    candidate = CommsMailbox(robot.state).waiting()
    assert candidate
    assert (candidate.kind, candidate.shadow_s) == ("shadow", 5.0)
    assert robot.answer() == "shadow"
    report = robot.last()
    assert report.state == "shadowed"
    assert report.witness
    assert SlotStore(robot.state).active() is None
    assert not list((robot.state / "slots").glob("?/policy.outrider"))
    robot.restart()
    robot.updater.on_order(make_order(robot.keys, plan, 0, "shadow"), 0)  # told again: says so again
    assert robot.last().state == "shadowed"
    assert robot.updater.state is State.IDLE
