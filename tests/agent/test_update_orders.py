"""Attacks on what a robot is told: a stolen hub has every message, no person's key. Each is refused by its code,
logged, and leaves every byte on the robot's disk as it was."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest

from contracts.canonical import canonical_json, digest_hex
from contracts.keyring import ACCESS_FILE, CARD_FILE, CARDS_FOLDER
from contracts.messages import FileChunk, FromRobot, Order, RolloutReport
from contracts.papers import ACCESS_TYPE, AccessFile, Witness, open_access
from contracts.plan import Plan, Release, RobotCard, Stage, Who, encode_plan
from contracts.provenance import TrustedKeys
from contracts.trust import Wanted
from edge_agent.update.checker import CheckResult
from edge_agent.update.twice import copy_of
from edge_agent.update.updater import State, Updater
from edge_agent.update.witness import sign_witness
from outrider.verbs.keys import access as sign_access_again
from outrider.verbs.keys import person
from tests.support.fleet import act, approve, facts_of, make_keys, make_order, make_plan
from trainer.release.keys import load_signer
from trainer.release.pack import seal
from trainer.release.papers import sign_card

RELEASE = Release("a" * 64, "routing", "v2", 7, 1000)
OTHER = Release("b" * 64, "routing", "v1", 6, 1000)
NAMED = Who(robots=("robot_1",))


def stage(name: str, kind: str, who: Who, **fields: Any) -> Stage:
    values: dict[str, Any] = {"soak_s": 0.1, "deadline_s": 60.0}
    return Stage(name=name, kind=kind, who=who, **(values | fields))  # type: ignore[arg-type]


TWO_STAGES = (
    stage("canary", "canary", Who(robots=("robot_2",))),
    stage("all", "full", NAMED),
)


class NeverReady:
    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Nothing."""

    def question(self) -> None:
        """Never."""

    def answer(self, chunk: FileChunk) -> None:
        """Nothing."""

    def result(self, now_ns: int) -> CheckResult | None:
        """Never."""

    def cancel(self) -> None:
        """Nothing."""


class Robot:
    """An updater, what it said, what it logged, and its clock."""

    def __init__(self, state: Path, keys: Path) -> None:
        self.state, self.keys = state, keys
        self.said: list[FromRobot] = []
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.clock_ns = time.time_ns
        self.updater = Updater(
            state, NeverReady(), self._send, self._note, keys / "robots" / "robot_1", "robot_1",
            lambda: self.clock_ns(),
        )  # fmt: skip

    def _send(self, message: FromRobot) -> bool:
        self.said.append(message)
        return True

    def _note(self, name: str, **detail: Any) -> None:
        self.logged.append((name, detail))

    def disk(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.state)): p.read_bytes() for p in self.state.rglob("*") if p.is_file()}

    def refuses(self, order: Order, code: str) -> str:
        """The order is refused by that code, and nothing has changed; the reason."""
        before, state, told = self.disk(), self.updater.state, len(self.said)
        self.updater.on_order(order, 0)
        report = self.said[-1]
        assert len(self.said) == told + 1
        assert isinstance(report, RolloutReport)
        assert (report.state, report.code) == ("refused", code), report
        name, detail = self.logged[-1]
        assert (name, detail["code"]) == ("order_refused", code)
        assert self.disk() == before
        assert self.updater.state is state
        return report.reason

    def follows(self, order: Order) -> None:
        """The order is taken and remembered: the robot fetches the bundle."""
        self.updater.on_order(order, 0)
        assert self.updater.orders.standing().plan_digest == digest_hex(order.plan), self.said[-1]
        assert self.updater.state is State.DOWNLOADING


@pytest.fixture
def robot(tmp_path: Path, keys: Path) -> Robot:
    """A robot that has never had an update."""
    return Robot(tmp_path / "state", keys)


def plan_of(*stages: Stage, issued_s: float = 0.0, **fields: Any) -> Plan:
    issued = datetime.now(UTC) + timedelta(seconds=issued_s)
    return make_plan(RELEASE, *stages, issued=issued, expires=issued + timedelta(hours=1), **fields)


def resigned(keys: Path, access: AccessFile, signer_of: Path | None = None) -> bytes:
    return seal(canonical_json(access), ACCESS_TYPE, [load_signer(signer_of or keys)])


def access_of(keys: Path) -> AccessFile:
    trusted = TrustedKeys.load(keys / "trusted_release_keys.json")
    return open_access((keys / "hub" / ACCESS_FILE).read_bytes(), trusted)


def witness(
    keys: Path, plan: Plan, of_stage: int, robot: str = "robot_2", **changes: Any
) -> tuple[bytes, bytes]:
    card = (keys / "hub" / CARDS_FOLDER / f"{robot}.dsse.json").read_bytes()
    seen = Witness(encode_plan(plan)[1], of_stage, robot, plan.release.digest)
    return card, sign_witness(msgspec.structs.replace(seen, **changes), keys / "robots" / robot)


Forge = Callable[[Path, Path], Order]


def _signed_by(*people: str) -> Forge:
    def forge(keys: Path, _: Path) -> Order:
        plan = plan_of()
        return make_order(keys, plan, approvals=approve(keys, encode_plan(plan)[1], *people))

    return forge


def _yesterdays(keys: Path, _: Path) -> Order:
    old = approve(keys, encode_plan(plan_of(name="yesterday"))[1], "anna", "boris")
    return make_order(keys, plan_of(), approvals=old)


def _foreign_people(keys: Path, folder: Path) -> Order:
    foreign, plan = make_keys(Path(mkdtemp(dir=folder)) / "keys"), plan_of()
    return make_order(keys, plan, approvals=approve(foreign, encode_plan(plan)[1], "anna", "boris"))


def _foreign_access(keys: Path, folder: Path) -> Order:
    foreign, plan = make_keys(Path(mkdtemp(dir=folder)) / "keys"), plan_of()
    papers = approve(foreign, encode_plan(plan)[1], "anna", "boris")
    return make_order(keys, plan, approvals=papers, access=(foreign / "hub" / ACCESS_FILE).read_bytes())


def _promoted_viewer(keys: Path, _: Path) -> Order:
    """The thief of the hub gives himself roles, with the only key there is: a person's."""
    known = access_of(keys)
    people = tuple(msgspec.structs.replace(one, roles=("approver", "releaser")) for one in known.people)
    forged = resigned(keys, AccessFile(99, people), keys / "people" / "vera.pem")
    return make_order(keys, plan_of(), access=forged)


def _act_as_approval(keys: Path, _: Path) -> Order:
    plan = plan_of()
    digest = encode_plan(plan)[1]
    return make_order(keys, plan, approvals=(act(keys, "start", digest, "anna"), act(keys, "start", digest)))


def _changed(**changes: Any) -> Forge:
    return lambda keys, _: make_order(keys, plan_of(), **changes)


def _edited_plan(keys: Path, _: Path) -> Order:
    order = make_order(keys, plan_of())
    return msgspec.structs.replace(order, plan=order.plan.replace(b'"soak_s":0.1', b'"soak_s":0.2'))


def _padded_plan(keys: Path, _: Path) -> Order:
    order = make_order(keys, plan_of())
    return msgspec.structs.replace(order, plan=order.plan + b" ")


def _in_time(seconds: float) -> Forge:
    return lambda keys, _: make_order(keys, plan_of(issued_s=seconds))


def _staged(number: int, *papers: Callable[[Path, Plan], tuple[bytes, bytes]]) -> Forge:
    def forge(keys: Path, _: Path) -> Order:
        plan = plan_of(*TWO_STAGES)
        return make_order(keys, plan, number, witnesses=tuple(paper(keys, plan) for paper in papers))

    return forge


def _by_itself(keys: Path, plan: Plan) -> tuple[bytes, bytes]:
    """A robot of the later stage witnesses for the earlier one."""
    return witness(keys, plan, 0, "robot_1")


def _own_card(keys: Path, plan: Plan) -> tuple[bytes, bytes]:
    """The hub makes up a robot: a card that the release key never saw, with a key of the hub's."""
    key = load_signer(keys / "people" / "vera.pem")
    card = sign_card(RobotCard("robot_2", "c" * 64), key)
    return card, witness(keys, plan, 0)[1]


def _somebody_elses_signature(keys: Path, plan: Plan) -> tuple[bytes, bytes]:
    card, _ = witness(keys, plan, 0)
    seen = Witness(encode_plan(plan)[1], 0, "robot_2", plan.release.digest)
    return card, sign_witness(seen, keys / "robots" / "robot_1")


ATTACKS: dict[str, tuple[Forge, str]] = {
    "nobody approved": (_signed_by(), "not_approved"),
    "one of two signatures": (_signed_by("anna"), "not_approved"),
    "one person twice": (_signed_by("anna", "anna"), "not_approved"),
    "two without an approver": (_signed_by("boris", "boris"), "not_approved"),
    "a viewer approves": (_signed_by("anna", "vera"), "access_denied"),
    "yesterday's approval": (_yesterdays, "not_approved"),
    "approved by strangers": (_foreign_people, "access_denied"),
    "strangers bring their access file": (_foreign_access, "access_refused"),
    "a viewer signs himself roles": (_promoted_viewer, "access_refused"),
    "an order taken for an approval": (_act_as_approval, "access_denied"),
    "noise for an approval": (_changed(approvals=(b"noise", b"{}")), "access_denied"),
    "no access file": (_changed(access=b""), "access_refused"),
    "another release": (_changed(digest="c" * 64), "wrong_release"),
    "plan edited after approval": (_edited_plan, "not_approved"),
    "plan in another encoding": (_padded_plan, "plan_invalid"),
    "noise for a plan": (
        lambda keys, _: msgspec.structs.replace(make_order(keys, plan_of()), plan=b"noise"), "plan_invalid",
    ),
    "a stage that is not": (_changed(stage=5), "plan_invalid"),
    "expired": (_in_time(-3601.0), "plan_expired"),
    "from the future": (_in_time(400.0), "plan_expired"),
    "another's stage": (_staged(0), "not_named"),
    "stage skipped": (_staged(1), "stage_out_of_order"),
    "a witness of the same stage": (_staged(1, _by_itself), "stage_out_of_order"),
    "a made-up robot witnesses": (_staged(1, _own_card), "stage_out_of_order"),
    "another robot signs": (_staged(1, _somebody_elses_signature), "stage_out_of_order"),
    "witness of another stage": (_staged(1, lambda k, p: witness(k, p, 1)), "stage_out_of_order"),
    "witness of another release": (
        _staged(1, lambda k, p: witness(k, p, 0, release="d" * 64)), "stage_out_of_order",
    ),
    "witness of another plan": (
        _staged(1, lambda k, p: witness(k, p, 0, plan_digest="d" * 64)), "stage_out_of_order",
    ),
    "drive where shadow was approved": (
        lambda keys, _: make_order(keys, plan_of(stage("s", "shadow", NAMED), stage("all", "full", Who(rest=True)))),
        "stage_out_of_order",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_by_a_stolen_hub(attack: str, robot: Robot, keys: Path, tmp_path: Path) -> None:
    forge, code = ATTACKS[attack]
    robot.refuses(forge(keys, tmp_path), code)
    assert not (robot.state / "slots" / "orders.json").exists()
    robot.follows(make_order(keys, plan_of()))  # it is not locked out by what was refused
    robot.refuses(forge(keys, tmp_path), code)  # and not taken in either, once it follows another plan


def test_a_stage_with_its_witness_is_followed(robot: Robot, keys: Path) -> None:
    plan = plan_of(*TWO_STAGES)
    robot.follows(make_order(keys, plan, 1, witnesses=(witness(keys, plan, 0),)))


def test_two_witnesses_where_the_plan_asks_for_two(robot: Robot, keys: Path) -> None:
    plan = plan_of(*TWO_STAGES, witnesses=2)
    one = witness(keys, plan, 0)
    reason = robot.refuses(make_order(keys, plan, 1, witnesses=(one, one)), "stage_out_of_order")
    assert "needs 2" in reason


def test_never_back_to_an_earlier_plan(robot: Robot, keys: Path) -> None:
    early, late = plan_of(issued_s=-10.0, name="early"), plan_of(name="late")
    robot.follows(make_order(keys, early))
    robot.follows(make_order(keys, late))
    robot.refuses(make_order(keys, early), "order_replayed")
    same_time = msgspec.structs.replace(early, issued=late.issued)
    robot.refuses(make_order(keys, same_time), "order_replayed")


def test_never_back_to_an_earlier_stage(robot: Robot, keys: Path) -> None:
    plan = plan_of(stage("s", "shadow", NAMED, soak_s=1.0), stage("all", "full", Who(rest=True)))
    robot.follows(make_order(keys, plan, 1, witnesses=(witness(keys, plan, 0, "robot_1"),)))
    robot.refuses(make_order(keys, plan, 0, "shadow"), "stage_out_of_order")


def test_what_was_taken_back_does_not_return(robot: Robot, keys: Path) -> None:
    plan = plan_of()
    robot.follows(make_order(keys, plan))
    robot.updater.on_order(make_order(keys, plan, action="revert"), 0)
    report = robot.said[-1]
    assert isinstance(report, RolloutReport)
    assert report.state == "reverted"
    assert robot.updater.state is State.IDLE
    assert not list((robot.state / "staging").iterdir())
    robot.refuses(make_order(keys, plan), "order_replayed")


def test_the_way_back_needs_no_approval_anew(robot: Robot, keys: Path) -> None:
    """Somebody who approved was removed since: robots must still be able to leave what they approved."""
    plan = plan_of()
    robot.follows(make_order(keys, plan))
    other = make_order(keys, plan_of(name="another", issued_s=1.0), action="revert", approvals=())
    robot.refuses(other, "order_replayed")
    robot.updater.on_order(make_order(keys, plan, action="revert", approvals=()), 0)
    report = robot.said[-1]
    assert isinstance(report, RolloutReport)
    assert report.state == "reverted"


def test_a_way_back_from_what_never_came_changes_nothing(robot: Robot, keys: Path) -> None:
    robot.updater.on_order(make_order(keys, plan_of(), action="revert"), 0)
    report = robot.said[-1]
    assert isinstance(report, RolloutReport)
    assert report.state == "reverted"
    assert robot.disk() == {}


def test_the_clock_turned_back_makes_no_plan_young_again(robot: Robot, keys: Path) -> None:
    robot.follows(make_order(keys, plan_of(issued_s=-3500.0, name="first")))
    robot.clock_ns = lambda: time.time_ns() + 200 * 10**9  # what it has seen last: 200 s from now
    robot.follows(make_order(keys, plan_of(issued_s=-3300.0, name="second")))
    robot.clock_ns = lambda: time.time_ns() - 1800 * 10**9
    robot.refuses(make_order(keys, plan_of(issued_s=-3450.0, name="third")), "plan_expired")


def test_somebody_who_was_removed_approves_no_more(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    robot = Robot(tmp_path / "state", keys)
    old_access = (keys / "hub" / ACCESS_FILE).read_bytes()
    source = keys / "access.yaml"
    kept = (
        source.read_text().split("- name: boris")[0]
        + "- name: vera"
        + source.read_text().split("- name: vera")[1]
    )
    source.write_text(kept)
    sign_access_again(keys)
    plan = plan_of()
    robot.refuses(make_order(keys, plan), "access_denied")
    robot.follows(
        make_order(keys, plan, access=old_access)
    )  # what it was told before it heard of the new one
    person("carla", "releaser", keys)
    newer = plan_of(issued_s=1.0, name="newer")
    good = approve(keys, encode_plan(newer)[1], "anna", "carla")
    robot.follows(make_order(keys, newer, approvals=good))
    robot.refuses(make_order(keys, plan_of(issued_s=2.0), access=old_access), "access_refused")


def test_a_card_of_another_robot_or_none(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    robot = Robot(tmp_path / "state", keys)
    own = keys / "robots" / "robot_1" / CARD_FILE
    mine = own.read_bytes()
    own.write_bytes((keys / "robots" / "robot_2" / CARD_FILE).read_bytes())
    robot.refuses(make_order(keys, plan_of()), "card_refused")
    own.write_bytes(mine.replace(b"payload", b"poyload"))
    robot.refuses(make_order(keys, plan_of()), "card_refused")
    own.unlink()
    robot.refuses(make_order(keys, plan_of()), "card_refused")
    own.write_bytes(mine)
    robot.follows(make_order(keys, plan_of()))


def test_unreadable_memory_of_orders_refuses_all(robot: Robot, keys: Path) -> None:
    path = robot.state / "slots" / "orders.json"
    robot.follows(make_order(keys, plan_of()))
    path.write_bytes(b"torn")
    robot.follows(make_order(keys, plan_of()))  # the copy says what has been accepted; both are whole again
    for place in (path, copy_of(path)):
        place.write_bytes(b"torn")
    assert "remove both" in robot.refuses(make_order(keys, plan_of()), "order_replayed")


def test_a_release_below_the_floor_is_refused_whoever_approved(
    robot: Robot, keys: Path, tmp_path: Path
) -> None:
    source = tmp_path / "bundle"
    source.write_bytes(b"x")
    robot.updater.slots.commit(robot.updater.slots.stage(source, facts_of("e" * 64, 8)))
    robot.updater.on_order(make_order(keys, plan_of()), 0)
    report = robot.said[-1]
    assert isinstance(report, RolloutReport)
    assert (report.state, report.code) == ("refused", "counter_too_low")
    active = robot.updater.slots.active()
    assert active
    assert active.digest == "e" * 64
