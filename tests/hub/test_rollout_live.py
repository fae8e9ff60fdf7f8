"""Staged rollouts with a real hub and real comms processes over CURVE; control is a thread that takes all it is told.

``OUTRIDER_KILLS=100`` kills the hub more often.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from contracts.messages import ReleaseInfo, RolloutView
from contracts.plan import Gate, Plan, Release, Stage, Who, encode_plan
from edge_agent.update.mailbox import Candidate, ControlMailbox
from edge_agent.update.slots import SlotStore
from fleet_hub.catalogue.catalogue import resolve
from fleet_hub.store.audit import read_entries, verify_chain
from outrider.verbs import audit, rollout
from outrider.verbs._plans import example
from tests.support.fleet import Fleet, make_bundle, make_keys, make_plan
from tests.support.trips import push_trips
from tests.support.waiting import wait_for

ROBOTS = ("robot_1", "robot_2", "robot_3", "robot_4")
KILLS = int(os.environ.get("OUTRIDER_KILLS", "3"))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a fleet of four."""
    return make_keys(tmp_path_factory.mktemp("four") / "keys", ",".join(ROBOTS))


class Controls(threading.Thread):
    """Control of every robot: accepts each candidate at once."""

    def __init__(self, fleet: Fleet, robots: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.boxes = {robot: ControlMailbox(fleet.state(robot)) for robot in robots}
        self.told: list[tuple[str, Candidate]] = []
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.wait(0.02):
            for robot, box in self.boxes.items():
                candidate = box.poll()
                if candidate is not None:
                    self.told.append((robot, candidate))
                    box.answer(candidate, True)


@pytest.fixture
def live(tmp_path: Path, four: Path) -> Iterator[tuple[Fleet, Controls]]:
    """Hub, four robots, and their controls."""
    fleet = Fleet(tmp_path, four)
    fleet.start_hub()
    for robot in ROBOTS:
        fleet.ring(robot)
        fleet.start_comms(robot)
    controls = Controls(fleet, ROBOTS)
    controls.start()
    yield fleet, controls
    controls.ending.set()
    controls.join()
    fleet.close()


def release_of(fleet: Fleet, bundle: bytes) -> Release:
    digest = fleet.release(bundle)
    with fleet.client() as client:
        info: ReleaseInfo = resolve(client.releases(), digest)
    return Release(digest, info.policy_name, info.version, info.release_counter, info.size_bytes)


def staged(release: Release, soak_s: float = 0.3, **fields: Any) -> Plan:
    canary = Stage(
        name="canary", kind="canary", who=Who(robots=ROBOTS[:2]), soak_s=soak_s, deadline_s=120.0, silence_s=30.0,
        **fields,
    )  # fmt: skip
    rest = Stage(name="rest", kind="full", who=Who(rest=True), soak_s=soak_s, deadline_s=120.0, at_once=1)
    return make_plan(release, canary, rest)


def view_of(fleet: Fleet) -> RolloutView:
    with fleet.client() as client:
        return client.rollout()


def outrider(fleet: Fleet, verb: str, *words: str, code: int = 0) -> str:
    """Run a verb in this process; what it says. A failure is one line."""
    app = {"rollout": rollout.app, "audit": audit.app}[verb]
    done = CliRunner().invoke(app, [*words, "--keys", str(fleet.keys), "--hub", fleet.address])
    assert done.exit_code == code, done.output
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("outrider: ")
    return done.output


def test_stage_by_stage_with_witnesses(live: tuple[Fleet, Controls]) -> None:
    fleet, controls = live
    release = release_of(fleet, make_bundle(fleet.keys))
    fleet.start_plan(staged(release))
    view = wait_for(lambda: (v := view_of(fleet)).state == "finished" and v, "the end of the rollout")
    assert {robot.state for robot in view.robots} == {"soaked"}
    order = [robot for robot, _ in controls.told]
    assert set(order[:2]) == set(ROBOTS[:2])
    for robot in ROBOTS:
        active = SlotStore(fleet.state(robot)).active()
        assert active
        assert active.digest == release.digest
    assert "unbroken" in outrider(fleet, "audit", "verify")
    count, _ = verify_chain(read_entries(fleet.folder / "data"))
    told = outrider(fleet, "audit", "show", "--rollout", "1")
    assert "StagePassed" in told
    assert "boris" in told
    assert count > 20


def test_a_slow_policy_is_stopped_and_taken_back(live: tuple[Fleet, Controls]) -> None:
    """Real records through ring, log, uplink and intake become trips; the gate stops, the robots go back."""
    fleet, controls = live
    fleet.start_rollout(fleet_release(fleet, "v1", 1).digest[:12])
    wait_for(lambda: view_of(fleet).state == "finished", "the first release")
    first = {robot: SlotStore(fleet.state(robot)).active() for robot in ROBOTS}
    for robot in ROBOTS:
        push_trips(fleet, robot, 40, 10.0, time.time() - 3600.0, 1)
    release = fleet_release(fleet, "v2", 2)
    fleet.start_plan(staged(release, gates=(Gate("delivery_time_s", 5.0),), minimum_trips=1000))
    running = lambda: all(r.state in ("active", "soaked") for r in view_of(fleet).robots[:2])  # noqa: E731
    wait_for(running, "the canaries")
    for robot in ROBOTS:
        push_trips(fleet, robot, 60, 45.0 if robot in ROBOTS[:2] else 10.0, time.time() + 1.0, 1000)
    stopped = wait_for(lambda: (v := view_of(fleet)).state == "stopped" and v, "the gate's verdict")
    (gate,) = stopped.stages[0].gates
    assert gate.verdict == "stop"
    assert gate.low > 0.0
    back = lambda: [r.state for r in view_of(fleet).robots[:2]] == ["reverted"] * 2  # noqa: E731
    wait_for(back, "the way back")
    assert {robot for robot, candidate in controls.told if candidate.digest == release.digest} == set(
        ROBOTS[:2]
    )
    for robot in ROBOTS:
        store, before = SlotStore(fleet.state(robot)), first[robot]
        active = store.active()
        assert active
        assert before
        assert active.digest == before.digest
        assert Path(active.path).read_bytes()
        if robot in ROBOTS[:2]:
            assert store.counter_floor("routing") == 2  # the floor never goes down
            assert store.previous() is None
    last = [candidate.kind for robot, candidate in controls.told if robot in ROBOTS[:2]][-1]
    assert last == "revert"


def fleet_release(fleet: Fleet, version: str, counter: int) -> Release:
    return release_of(fleet, make_bundle(fleet.keys, version=version, release_counter=counter))


def test_a_killed_hub_goes_on_where_it_was(live: tuple[Fleet, Controls]) -> None:
    """``kill -9`` at random moments of a rollout: nobody is told twice, nothing is skipped, the chain is whole."""
    fleet, controls = live
    draw = random.Random(4)
    fleet.start_plan(staged(release_of(fleet, make_bundle(fleet.keys)), soak_s=1.0))
    for _ in range(KILLS):
        time.sleep(draw.uniform(0.0, 0.6))
        fleet.kill_hub()
        count, _ = verify_chain(read_entries(fleet.folder / "data"))
        assert count
        fleet.start_hub()
    wait_for(lambda: view_of(fleet).state == "finished", "the end of the rollout", 60.0)
    assert Counter(robot for robot, _ in controls.told) == dict.fromkeys(ROBOTS, 1)
    bodies = [json.loads(entry.body) for entry in read_entries(fleet.folder / "data")]
    kinds = Counter((body["type"], body.get("robot", body.get("stage"))) for body in bodies)
    assert all(kinds["Ordered", robot] == 1 for robot in ROBOTS)
    assert all(kinds["StagePassed", stage] == 1 for stage in (0, 1))
    verify_chain(read_entries(fleet.folder / "data"))


def test_a_killed_robot_goes_back_all_the_same(live: tuple[Fleet, Controls]) -> None:
    """Comms is killed while it takes a release back; control is not there: the disk says at once what drives next."""
    fleet, controls = live
    fleet.start_rollout(fleet_release(fleet, "v1", 1).digest[:12])
    wait_for(lambda: view_of(fleet).state == "finished", "the first release")
    release = fleet_release(fleet, "v2", 2)
    fleet.start_plan(staged(release, soak_s=60.0))
    wait_for(lambda: [r.state for r in view_of(fleet).robots[:2]] == ["active"] * 2, "the canaries")
    controls.ending.set()
    controls.join()
    outrider(fleet, "rollout", "abort", "--revert", "--as", "boris", "--why", "a test")
    store = SlotStore(fleet.state())
    wait_for(lambda: (a := store.active()) and a.facts.version == "v1", "the slot before")
    fleet.end_comms(number=signal.SIGKILL)
    fleet.start_comms()
    box = ControlMailbox(fleet.state())
    candidate: Candidate = wait_for(box.poll, "the mail")
    assert (candidate.kind, candidate.digest) == ("revert", release.digest)
    box.answer(candidate, True)
    wait_for(lambda: view_of(fleet).robots[0].state == "reverted", "the report")


PLAN = """
name: weekly
release: routing@v1
issued: {issued}
expires: {expires}
stages:
  - {{name: canary, kind: canary, who: {{robots: [robot_1]}}, soak_s: 0.2, deadline_s: 60}}
  - {{name: rest, kind: full, who: {{rest: true}}, soak_s: 0.2, deadline_s: 60}}
"""


def test_the_operators_command_line(tmp_path: Path, four: Path) -> None:
    fleet = Fleet(tmp_path, four)
    fleet.start_hub()
    try:
        release_of(fleet, make_bundle(four))
        now = datetime.now(UTC)
        path = tmp_path / "plan.yaml"
        path.write_text(PLAN.format(issued=now.isoformat(), expires=(now + timedelta(hours=1)).isoformat()))
        checked = json.loads(outrider(fleet, "rollout", "plan", "check", str(path), "--json"))
        assert [stage["count"] for stage in checked["stages"]] == [1, 3]
        assert "came: nobody" in checked["missing"]
        as_boris = ("--as", "boris", "--why", "weekly release")
        assert "came: nobody" in outrider(fleet, "rollout", "start", str(path), *as_boris, code=1)
        outrider(fleet, "rollout", "approve", str(path), "--as", "anna", "--why", "evaluated")
        assert "not yet" not in outrider(fleet, "rollout", "approve", str(path), *as_boris)
        assert "robot_2" in outrider(fleet, "rollout", "start", str(path), "--dry-run")
        assert "vera is viewer" in outrider(
            fleet, "rollout", "start", str(path), "--as", "vera", "--why", "just so", code=1
        )
        assert "no key of mallory" in outrider(
            fleet, "rollout", "start", str(path), "--as", "mallory", "--why", "just so", code=1
        )
        assert (
            json.loads(outrider(fleet, "rollout", "start", str(path), *as_boris, "--json"))["state"]
            == "running"
        )
        assert "paused" in outrider(fleet, "rollout", "pause", *as_boris)
        assert "running" in outrider(fleet, "rollout", "resume", *as_boris)
        assert "aborted" in outrider(fleet, "rollout", "abort", "--keep", *as_boris)
        shown = outrider(fleet, "audit", "show")
        for word in ("Approved", "Denied", "not_approved", "access_denied", "Started", "Paused", "evaluated"):
            assert word in shown, word
        bad = path.with_name("bad.yaml")
        good = path.read_text()
        for code, text, hint in (
            (2, "name: x", "rollout plan example"),
            (2, "a: [", "bad.yaml"),
            (2, good.replace("kind: full", "kind: whole"), "Invalid enum value 'whole'"),
            (2, good.replace("soak_s: 0.2, deadline_s: 60}", "soak_s: 0.2}"), "deadline_s"),
            (1, good.replace("robot_1", "robot_9"), "no robot robot_9"),
            (1, good.replace("routing@v1", "routing@v9"), "no release 'routing@v9'"),
            (1, good.replace("soak_s: 0.2", "soak_s: 60"), "less than deadline_s"),
        ):
            bad.write_text(text)
            assert hint in outrider(fleet, "rollout", "plan", "check", str(bad), code=code)
    finally:
        fleet.close()


def test_the_printed_example_is_a_good_plan() -> None:
    document = yaml.safe_load(example("routing@v1"))
    document["release"] = msgspec.to_builtins(Release("a" * 64, "routing", "v1", 1, 1))
    plan = msgspec.convert(document, Plan)
    encode_plan(plan)
    assert [stage.kind for stage in plan.stages] == ["shadow", "canary", "cohort", "full"]
