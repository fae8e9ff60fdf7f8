"""Rollouts as stories, on a real database with a clock of the test: stages, failures, silence, gates, kills."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import (
    AccessDeniedError,
    AccessFileError,
    NotApprovedError,
    PlanError,
    PlanExpiredError,
    RobotCardError,
)
from contracts.messages import RolloutReport
from contracts.papers import Act
from contracts.plan import Gate, Plan, Release, Stage, Who, Window, encode_plan
from fleet_hub.errors import AuditBrokenError, RolloutRefusedError, UnknownReleaseError, UnknownRolloutError
from fleet_hub.store import database, schema
from fleet_hub.store.audit import read_entries, verify_chain
from tests.support.fleet import make_bundle
from tests.support.hub_room import NS, HubRoom, fingerprint
from trainer.release.keys import create_release_key
from trainer.release.papers import person_signer, sign_act

ROBOTS = tuple(f"robot_{n:02}" for n in range(12))
CANARIES = ROBOTS[:2]
GATES = (Gate("delivery_time_s", 3.0), Gate("contacts", 0.05))


@pytest.fixture
def room(tmp_path: Path, keys: Path) -> Iterator[HubRoom]:
    """A fleet of twelve."""
    made = HubRoom(tmp_path, keys, ROBOTS, dict.fromkeys(ROBOTS[2:5], "north"))
    yield made
    made.close()


@pytest.fixture
def release(room: HubRoom, keys: Path) -> Release:
    """A release of the catalogue."""
    return room.release(make_bundle(keys))


def stage(name: str, kind: str, who: Who, **fields: Any) -> Stage:
    values: dict[str, Any] = {"soak_s": 10.0, "deadline_s": 1000.0}
    return Stage(name=name, kind=kind, who=who, **(values | fields))  # type: ignore[arg-type]


def plan_of(room: HubRoom, release: Release, *stages: Stage, **fields: Any) -> Plan:
    now = datetime.fromtimestamp(room.now_ns / NS, UTC)
    values: dict[str, Any] = {"name": "plan", "issued": now, "expires": now + timedelta(days=1)}
    return Plan(release=release, stages=stages, **(values | fields))


def canary(**fields: Any) -> Stage:
    return stage("canary", "canary", Who(robots=CANARIES), **fields)


REST = stage("rest", "full", Who(rest=True), at_once=4)


def take(room: HubRoom, *robots: str, soak: bool = True) -> None:
    """These robots take what they are told, and soak."""
    for robot in robots:
        for state in ("downloading", "staged", "active", *(["soaked"] if soak else [])):
            room.report(robot, state)


def test_from_canary_to_everybody(room: HubRoom, release: Release) -> None:
    plan = plan_of(room, release, canary(), REST)
    number = room.start(plan)
    room.step()
    assert {robot for robot in ROBOTS if room.told(robot) == "run"} == set(CANARIES)
    take(room, CANARIES[0])
    room.pass_s(1.0)
    assert room.told(ROBOTS[5]) == ""
    take(room, CANARIES[1])
    room.pass_s(1.0)
    assert sum(room.told(robot) == "run" for robot in ROBOTS[2:]) == REST.at_once
    for _ in range(3):
        take(room, *[robot for robot in ROBOTS[2:] if room.states()[robot] == "ordered"])
        room.pass_s(1.0)
    view = room.rollouts.view(number)
    assert view.state == "finished"
    assert set(room.states().values()) == {"soaked"}
    assert [found.state for found in view.stages] == ["passed", "passed"]
    assert verify_chain(room.audit.page(1))[0] > 20


def test_robots_that_come_later_join(room: HubRoom, release: Release) -> None:
    room.online -= {ROBOTS[11]}
    room.start(plan_of(room, release, canary(), stage("rest", "full", Who(rest=True), failures_max=1)))
    room.step()
    take(room, *CANARIES)
    room.pass_s(1.0)
    take(room, *ROBOTS[2:11])
    room.pass_s(1001.0)
    assert room.rollouts.view(0).state == "finished"
    assert room.told(ROBOTS[11]) == ""
    room.online.add(ROBOTS[11])
    room.pass_s(1.0)
    assert room.told(ROBOTS[11]) == "run"


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_a_failure_stops_it_and_takes_it_back(room: HubRoom, release: Release, state: str) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    take(room, CANARIES[1])
    room.report(CANARIES[0], "downloading")
    room.report(CANARIES[0], state, "golden_mismatch", "it answers otherwise")
    room.step()
    view = room.rollouts.view(0)
    assert view.state == "stopped"
    assert "it answers otherwise" in view.reason
    assert room.told(CANARIES[1]) == "revert"
    assert room.told(CANARIES[0]) == ("" if state == "refused" else "revert")
    assert all(room.told(robot) == "" for robot in ROBOTS[2:])
    for robot in CANARIES:
        if room.told(robot):
            room.report(robot, "reverted")
    room.pass_s(5.0)
    assert all(room.told(robot) == "" for robot in ROBOTS)


def test_a_canary_that_fails_after_its_soak_still_counts(room: HubRoom, release: Release) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    take(room, *CANARIES)
    room.pass_s(1.0)
    told = [robot for robot in ROBOTS if room.told(robot) == "run"]
    assert len(told) == REST.at_once
    number = room.rollouts.view(0).rollout
    late = RolloutReport(number, 0, release.digest, "failed", "dropped", "its answer is not finite")
    room.rollouts.report(CANARIES[0], late)
    room.step()
    assert "not finite" in room.rollouts.view(0).reason
    assert {robot for robot in ROBOTS if room.told(robot) == "revert"} == {*CANARIES, *told}


def test_as_many_failures_as_the_plan_allows(room: HubRoom, release: Release) -> None:
    room.start(plan_of(room, release, canary(failures_max=1), REST))
    room.step()
    room.report(CANARIES[0], "refused", "disk", "full")
    room.step()
    assert room.rollouts.view(0).state == "running"
    room.report(CANARIES[1], "refused", "disk", "full")
    room.step()
    assert room.rollouts.view(0).state == "stopped"


@pytest.mark.parametrize(("silent_s", "stopped"), [(60.0, False), (61.0, True)])
def test_silence_is_a_failure(room: HubRoom, release: Release, silent_s: float, stopped: bool) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    take(room, *CANARIES, soak=False)
    room.online -= {CANARIES[0]}
    room.pass_s(silent_s)
    assert (room.rollouts.view(0).state == "stopped") is stopped
    if stopped:
        assert room.told(CANARIES[0]) == "revert"  # for when it comes back


def test_a_robot_that_is_away_fails_the_stage_at_its_deadline(room: HubRoom, release: Release) -> None:
    room.online -= {CANARIES[0]}
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    take(room, CANARIES[1])
    room.pass_s(1000.0)
    assert room.rollouts.view(0).state == "running"
    room.pass_s(1.0)
    view = room.rollouts.view(0)
    assert (view.state, "not done by its deadline" in view.reason) == ("stopped", True)


def test_a_pause_stops_clocks_and_orders(room: HubRoom, release: Release) -> None:
    plan = plan_of(room, release, canary(), REST)
    number = room.start(plan)
    room.step()
    room.act("pause", plan, rollout=number)
    take(room, *CANARIES)  # those under way go on
    room.pass_s(5000.0)
    assert room.rollouts.view(0).state == "paused"
    assert all(room.told(robot) == "" for robot in ROBOTS[2:])
    with pytest.raises(RolloutRefusedError, match="nothing to pause"):
        room.act("pause", plan, rollout=number)
    room.act("resume", plan, rollout=number)
    room.step()
    assert room.rollouts.view(0).state == "running"
    assert any(room.told(robot) == "run" for robot in ROBOTS[2:])


@pytest.mark.parametrize("revert", [True, False])
def test_abort_keeps_or_reverts(room: HubRoom, release: Release, revert: bool) -> None:
    plan = plan_of(room, release, canary(), REST)
    number = room.start(plan)
    room.step()
    take(room, *CANARIES)
    room.act("abort", plan, rollout=number, revert=revert)
    room.pass_s(1.0)
    assert [room.told(robot) for robot in CANARIES] == ["revert" if revert else ""] * 2
    if revert:
        room.report(CANARIES[0], "reverted")
        room.reopen()  # a hub that was killed still owes the other one
        assert [room.told(robot) for robot in CANARIES] == ["", "revert"]


def test_shadow_goes_before(room: HubRoom, release: Release) -> None:
    shadow = stage("shadow", "shadow", Who(robots=CANARIES))
    room.start(plan_of(room, release, shadow, canary(), REST))
    room.step()
    assert [room.told(robot) for robot in CANARIES] == ["shadow", "shadow"]
    for robot in CANARIES:
        room.report(robot, "staged")
        room.report(robot, "shadowed")
    room.pass_s(1.0)
    assert [room.told(robot) for robot in CANARIES] == ["run", "run"]
    told = room.rollouts.told_for(CANARIES[0])
    assert told is not None
    order = room.rollouts.order(told)
    assert order is not None
    assert len(order.witnesses) == 2


def test_a_window_is_waited_for(room: HubRoom, release: Release) -> None:
    at = datetime.fromtimestamp(room.now_ns / NS, UTC)
    later = Window((at + timedelta(hours=2)).strftime("%H:%M"), (at + timedelta(hours=3)).strftime("%H:%M"))
    room.start(plan_of(room, release, canary(window=later), REST))
    room.pass_s(3600.0)
    assert room.told(CANARIES[0]) == ""
    room.pass_s(3660.0)
    assert room.told(CANARIES[0]) == "run"


def trips(
    rng: np.random.Generator, count: int, mean_s: float, contacts: float = 0.0
) -> list[dict[str, float]]:
    times = np.minimum(rng.gamma(6.0, mean_s / 6.0, count), 60.0)
    return [{"delivery_time_s": float(time), "contacts": float(rng.random() < contacts)} for time in times]


@pytest.mark.parametrize(
    ("mean_s", "contacts", "verdict"),
    [(15.0, 0.0, "promote"), (30.0, 0.0, "stop"), (15.0, 0.6, "stop")],
    ids=["as good", "slow", "reckless"],
)
def test_gates_decide(room: HubRoom, release: Release, mean_s: float, contacts: float, verdict: str) -> None:
    rng = np.random.default_rng(3)
    gated = canary(gates=GATES, minimum_trips=100, deadline_s=100_000.0)
    for robot in ROBOTS:
        room.add_trips(robot, room.now_ns - 10_000 * NS, *trips(rng, 400, 15.0))
    room.start(plan_of(room, release, gated, REST))
    room.step()
    take(room, *CANARIES)
    for _ in range(12):
        for robot in ROBOTS:
            new = robot in CANARIES
            figures = trips(rng, 40, mean_s if new else 15.0, contacts if new else 0.0)
            room.add_trips(robot, room.now_ns + NS, *figures)
        room.pass_s(700.0)
    view = room.rollouts.view(0)
    gates = view.stages[0].gates
    assert {gate.metric for gate in gates} == {"delivery_time_s", "contacts"}
    assert all(gate.low <= gate.difference <= gate.high for gate in gates)
    if verdict == "promote":
        assert view.stages[0].state == "passed"
        assert {gate.verdict for gate in gates} == {"promote"}
        return
    assert view.state == "stopped"
    assert "worse than the control robots" in view.reason
    assert {robot for robot in ROBOTS if room.told(robot)} == set(CANARIES)
    judged = [entry for entry in room.audit.page(1) if '"Judged"' in entry.body]
    assert '"stop"' in judged[-1].body  # the evidence is kept


def test_without_trips_nothing_is_promoted(room: HubRoom, release: Release) -> None:
    room.start(plan_of(room, release, canary(gates=GATES, minimum_trips=1), REST))
    room.step()
    take(room, *CANARIES)
    room.pass_s(999.0)
    assert room.rollouts.view(0).stages[0].state == "running"
    room.pass_s(2.0)
    assert "undecided by its deadline" in room.rollouts.view(0).reason


FLEET_FAULTS = {
    "no robot robot_99": (stage("a", "canary", Who(robots=("robot_99",))), REST),
    "names no robot": (stage("a", "canary", Who(sites=("moon",))), REST),
    "robot_03 is in stage a and in b": (
        stage("a", "canary", Who(robots=(ROBOTS[3],))),
        stage("b", "cohort", Who(sites=("north",))),
    ),
    "no robot to compare": (stage("a", "canary", Who(robots=ROBOTS), gates=GATES, minimum_trips=1),),
}


@pytest.mark.parametrize("hint", FLEET_FAULTS)
def test_a_plan_that_does_not_fit_the_fleet(room: HubRoom, release: Release, hint: str) -> None:
    plan = plan_of(room, release, *FLEET_FAULTS[hint])
    with pytest.raises(PlanError, match=hint):
        room.approve(plan, "anna")
    assert room.database.rows("SELECT COUNT(*) FROM approval")[0][0] == 0


def test_a_plan_for_what_is_not_in_the_catalogue(room: HubRoom, release: Release) -> None:
    for wrong in ({"digest": "f" * 64}, {"release_counter": 9}, {"version": "v9"}):
        plan = plan_of(room, msgspec.structs.replace(release, **wrong), canary(), REST)  # type: ignore[arg-type]
        with pytest.raises(UnknownReleaseError):
            room.approve(plan, "anna")


def test_who_may_do_what(room: HubRoom, release: Release) -> None:
    plan = plan_of(room, release, canary(), REST)
    with pytest.raises(NotApprovedError, match="came: nobody"):
        room.act("start", plan)
    room.approve(plan, "anna")
    with pytest.raises(NotApprovedError, match=r"anna \(approver\)"):
        room.act("start", plan)
    with pytest.raises(AccessDeniedError, match="vera is viewer"):
        room.approve(plan, "vera")
    assert room.approve(plan, "boris").missing == ""
    with pytest.raises(AccessDeniedError, match="vera is viewer"):
        room.act("start", plan, "vera")
    other = plan_of(room, release, canary(), REST, name="other")
    with pytest.raises(NotApprovedError):
        room.act("start", other)  # approvals are for one plan
    with pytest.raises(NotApprovedError, match="signed for plan"):
        room.act("start", plan, plan_digest=encode_plan(other)[1])
    with pytest.raises(AccessDeniedError, match="another time"):
        room.act("start", plan, signed_wall_ns=room.now_ns - 301 * NS)
    forged = Act("start", "anna", "a test", room.now_ns, encode_plan(plan)[1])
    paper = sign_act(forged, person_signer(room.keys, "boris"))
    with pytest.raises(AccessDeniedError, match="but says"):
        room.rollouts.act(paper, encode_plan(plan)[0])
    room.act("start", plan)
    with pytest.raises(RolloutRefusedError, match="rolled out before"):
        room.act("start", plan, supersede=True)
    room.approve(other, "anna", "boris")
    with pytest.raises(RolloutRefusedError, match="is running"):
        room.act("start", other)
    room.act("start", other, supersede=True)
    assert room.rollouts.view(1).state == "superseded"


def test_a_signed_act_counts_once(room: HubRoom, release: Release) -> None:
    plan = plan_of(room, release, canary(), REST)
    number = room.start(plan)
    digest = encode_plan(plan)[1]
    pause = sign_act(
        Act("pause", "boris", "a test", room.now_ns, digest, number), person_signer(room.keys, "boris")
    )
    room.rollouts.act(pause, b"")
    room.act("resume", plan, rollout=number)
    with pytest.raises(RolloutRefusedError, match="carried out before"):
        room.rollouts.act(pause, b"")
    assert room.rollouts.view(0).state == "running"


def test_an_expired_plan_is_neither_approved_nor_started(room: HubRoom, release: Release) -> None:
    plan = plan_of(room, release, canary(), REST)
    room.approve(plan, "anna", "boris")
    room.now_ns += 86_401 * NS
    with pytest.raises(PlanExpiredError):
        room.act("start", plan)
    with pytest.raises(PlanExpiredError):
        room.approve(plan, "anna")


def test_without_an_access_file_nobody_may(tmp_path: Path, room: HubRoom, release: Release) -> None:
    room.rollouts._people._path = tmp_path / "none"
    with pytest.raises(AccessFileError, match="outrider keys person"):
        room.approve(plan_of(room, release, canary(), REST), "anna")


def test_a_soak_that_somebody_else_signed(room: HubRoom, release: Release) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    take(room, *CANARIES, soak=False)
    (room._robot_keys / "robot.pem").unlink()
    create_release_key(room._robot_keys / "robot.pem")
    with pytest.raises(RobotCardError, match="has not signed"):
        room.report(CANARIES[0], "soaked")
    assert room.states()[CANARIES[0]] == "active"


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_hub_that_forgets_everything_goes_on_where_it_was(
    data: Any, keys: Path, tmp_path_factory: Any
) -> None:
    """Random steps; at random points everything in memory is thrown away: nothing that can be seen changes."""
    room = HubRoom(tmp_path_factory.mktemp("room"), keys, ROBOTS)
    try:
        release = room.release(make_bundle(keys))
        shadow = stage("shadow", "shadow", Who(robots=CANARIES))
        plan = plan_of(room, release, shadow, canary(failures_max=1), REST)
        number = room.start(plan)
        for _ in range(data.draw(st.integers(3, 25))):
            _random_step(room, plan, number, data)
            before, told = fingerprint(room.rollouts.view(0)), [room.told(robot) for robot in ROBOTS]
            if data.draw(st.booleans()):
                room.reopen()
                assert fingerprint(room.rollouts.view(0)) == before
                assert [room.told(robot) for robot in ROBOTS] == told
        verify_chain(read_entries(room.folder / "data"))
    finally:
        room.close()


def _random_step(room: HubRoom, plan: Plan, number: int, data: Any) -> None:
    what = data.draw(st.sampled_from(["report"] * 6 + ["time", "time", "pause", "resume", "online", "abort"]))
    if what == "report":
        told = [robot for robot in ROBOTS if room.told(robot)]
        if told:
            states = [
                "downloading",
                "staged",
                "active",
                "soaked",
                "shadowed",
                "refused",
                "failed",
                "reverted",
            ]
            room.report(data.draw(st.sampled_from(told)), data.draw(st.sampled_from(states)))
        room.step()
    elif what == "time":
        room.pass_s(data.draw(st.sampled_from([1.0, 30.0, 70.0, 1100.0])))
    elif what == "online":
        room.online ^= {data.draw(st.sampled_from(ROBOTS))}
    else:
        with suppress(RolloutRefusedError, UnknownRolloutError):  # not in this state
            room.act(what, plan, rollout=number, revert=True)


TAMPER = {
    "changed": ("UPDATE audit SET body = replace(body, 'canary', 'cenary') WHERE seq = 3", "entry 3"),
    "who": ("UPDATE audit SET who = 'anna' WHERE seq = 4", "entry 4"),
    "time": ("UPDATE audit SET wall_ns = wall_ns + 1 WHERE seq = 2", "entry 2"),
    "removed": ("DELETE FROM audit WHERE seq = 3", "entry 3 is missing"),
    "first removed": ("DELETE FROM audit WHERE seq = 1", "entry 1 is missing"),
}


@pytest.mark.parametrize("how", TAMPER)
def test_tampering_with_the_audit_log_is_found(room: HubRoom, release: Release, how: str) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    take(room, *CANARIES)
    count, _ = verify_chain(room.audit.page(1))
    statement, where = TAMPER[how]
    room.database.run("UPDATE audit SET body = replace(body, 'a test', 'canary test') WHERE seq = 0")
    room.database.run(statement.replace("'canary', 'cenary'", "'a', 'e'"))
    assert count > 5
    with pytest.raises(AuditBrokenError, match=where):
        verify_chain(read_entries(room.folder / "data"))


def test_an_end_cut_off_is_found_by_who_noted_a_hash(room: HubRoom, release: Release) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    count, head = verify_chain(room.audit.page(1))
    assert verify_chain(read_entries(room.folder / "data"), head) == (count, head)
    room.database.run("DELETE FROM audit WHERE seq = ?", count)
    verify_chain(read_entries(room.folder / "data"))  # by itself a shorter chain is whole
    with pytest.raises(AuditBrokenError, match="its end was cut off"):
        verify_chain(read_entries(room.folder / "data"), head)


def test_a_database_of_before_keeps_its_releases(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    old = sqlite3.connect(path)
    old.executescript(
        ";".join(schema.SQLITE.write(schema.RELEASES)) + ";"
        "CREATE TABLE rollout (id INTEGER PRIMARY KEY); CREATE TABLE rollout_robot (rollout INTEGER);"
        "INSERT INTO release VALUES (1, 'd', 'routing', 'v1', 1, 9, 0); PRAGMA user_version = 1;"
    )
    old.close()
    opened = database.Database(path)
    assert opened.rows("SELECT version FROM release") == [("v1",)]
    assert opened.rows("SELECT COUNT(*) FROM audit") == [(0,)]
    opened.close()
    database.Database(path).close()


def test_robots_come_and_go_while_a_release_rolls_out(room: HubRoom, release: Release) -> None:
    """Who is cut off has left, neither done nor failed; who comes is in a stage as the plan says; kills between."""
    plan = plan_of(room, release, canary(), REST)
    room.start(plan)
    room.step()
    take(room, CANARIES[0])
    cards = room._cards
    gone, new = cards.pop(CANARIES[1]), cards.pop(ROBOTS[-1])
    room.online -= {CANARIES[1], ROBOTS[-1]}
    room.rollouts.fleet_changed()
    assert room.states()[CANARIES[0]] == "soaked"
    assert CANARIES[1] not in room.states()
    room.reopen()
    room.rollouts.fleet_changed()  # as a hub does when it starts: nothing new
    room.step()
    room.step()
    assert [body for body in _bodies(room) if '"Left"' in body] == [
        f'{{"type":"Left","robot":"{CANARIES[1]}"}}'
    ]
    cards[ROBOTS[-1]] = new
    room.online.add(ROBOTS[-1])
    room.rollouts.fleet_changed()
    while left := [robot for robot in ROBOTS[2:] if room.told(robot) and room.states()[robot] != "soaked"]:
        take(room, *left)
        room.step()
    view = room.rollouts.view(0)
    assert view.state == "finished"
    assert room.states() == dict.fromkeys((CANARIES[0], *ROBOTS[2:]), "soaked")
    cards[CANARIES[1]] = gone  # and comes back: it gets what the others have
    room.online.add(CANARIES[1])
    room.rollouts.fleet_changed()
    room.step()
    assert room.told(CANARIES[1]) == "run"


def test_what_a_robot_had_failed_before_it_left_still_counts(room: HubRoom, release: Release) -> None:
    room.start(plan_of(room, release, canary(), REST))
    room.step()
    room.report(CANARIES[1], "failed", "dropped", "too slow")
    room._cards.pop(CANARIES[1])
    room.rollouts.fleet_changed()
    room.step()
    assert room.rollouts.view(0).state == "stopped"


def _bodies(room: HubRoom) -> list[str]:
    return [row[0] for row in room.database.rows("SELECT body FROM audit ORDER BY seq")]
