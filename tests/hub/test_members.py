"""Who may connect changes while the hub runs; real hub and robots over CURVE."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from typer.testing import CliRunner

from contracts.keyring import CurvePair, read_key_file
from contracts.messages import (
    MEMBERS_MAX,
    MESSAGE_MAX_BYTES,
    TOKENS_MAX,
    AskFleet,
    Heartbeat,
    Hello,
    MembersView,
    MemberView,
    Refused,
    ReleaseInfo,
    TokenView,
    Welcome,
    encode,
)
from contracts.observation import ROUTING_LAYOUT
from contracts.plan import Release, Stage, Who
from edge_agent.update.slots import SlotStore
from fleet_hub.client import HubClient
from fleet_hub.errors import RefusedByHubError
from fleet_hub.store.audit import read_entries, verify_chain
from outrider.verbs.agent import app as agent_app
from outrider.verbs.fleet import app as fleet_app
from outrider.verbs.keys import app as keys_app
from tests.support.enrolment import Peer, fleet_act, issue
from tests.support.fleet import Fleet, make_bundle, make_plan
from tests.support.waiting import wait_for


@pytest.fixture
def own(tmp_path: Path, keys: Path) -> Iterator[Fleet]:
    """A running hub with keys that may be changed."""
    shutil.copytree(keys, tmp_path / "keys")
    made = Fleet(tmp_path, tmp_path / "keys")
    made.start_hub()
    yield made
    made.close()


def verb(app: object, *words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])  # type: ignore[arg-type]
    assert done.exit_code == code, done.output
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
    return done.output if code else done.stdout


def hub_options(fleet: Fleet) -> tuple[str, ...]:
    return "--keys", str(fleet.keys), "--hub", fleet.address


def hello(robot: str) -> Hello:
    return Hello(robot, "a" * 32, "b" * 32, 0, "amr_small", ROUTING_LAYOUT.hash(), "", "")


def names(fleet: Fleet) -> list[str]:
    with fleet.client() as client:
        return [robot.robot for robot in client.fleet().robots]


def told(fleet: Fleet) -> list[str]:
    return [json.loads(entry.body)["type"] for entry in read_entries(fleet.folder / "data")]


def test_a_revoked_robot_is_cut_off_at_once_and_for_good(own: Fleet) -> None:
    robot = Peer.of(own, own.keys / "robots" / "robot_1")
    other = Peer.of(own, own.keys / "robots" / "robot_2")
    try:
        assert robot.say(hello("robot_1")) == Welcome(0)
        assert other.say(hello("robot_2")) == Welcome(0)
        verb(fleet_app, "revoke", "robot_1", "--as", "boris", "--why", "stolen", *hub_options(own))
        for message in (Heartbeat(1), hello("robot_1")):  # over the connection that is open
            answer = robot.say(message)
            assert isinstance(answer, Refused)
            assert answer.code == "revoked"
        assert not isinstance(other.say(Heartbeat(0)), Refused)
    finally:
        robot.close()
        other.close()
    for _ in range(2):
        again = Peer.of(own, own.keys / "robots" / "robot_1")
        assert again.say(hello("robot_1"), 500) is None  # nor over a new one
        wait_for(lambda: "StrangersRefused" in told(own), "the stranger at the door")
        again.close()
        assert names(own) == ["robot_2"]
        own.kill_hub()
        own.start_hub()
    assert {"MemberRevoked", "StrangersRefused"} <= set(told(own))
    with own.client() as client:
        with pytest.raises(RefusedByHubError, match="no robot robot_1"):
            client.act_on_fleet(fleet_act(own.keys, "revoke", "robot_1"))
        states = {(one.name, one.state) for one in client.members().members}
    assert states == {("robot_1", "out"), ("robot_2", "in"), ("operator", "in")}


def test_operators_come_and_go(own: Fleet, tmp_path: Path) -> None:
    lena = tmp_path / "lena"
    hub_key = own.keys / "operator" / "hub_public.json"
    public = verb(keys_app, "operator", lena, "--hub-key", hub_key).strip()
    assert read_key_file(lena / "operator" / "curve.json", CurvePair, private=True).public == public
    as_boris = ("--as", "boris", "--why", "night shift", *hub_options(own))
    last = verb(fleet_app, "revoke", "operator", "--operator", *as_boris, code=1)
    assert "last operator" in last
    verb(fleet_app, "allow", "lena", "--key", public, *as_boris)
    with HubClient(own.address, lena) as client:
        assert len(client.fleet().robots) == 2
        verb(fleet_app, "revoke", "lena", "--operator", *as_boris)
        with pytest.raises(RefusedByHubError, match="revoked"):
            client.fleet()
    assert "is or was somebody's" in verb(fleet_app, "allow", "lena", "--key", public, *as_boris, code=1)
    for key, why, code in (("x" * 39, "key", 2), ("~" * 40, "no CURVE key", 1)):
        assert why in verb(fleet_app, "allow", "max", "--key", key, *as_boris, code=code)
    own.kill_hub()
    own.start_hub()
    peer = Peer.of(own, lena / "operator")
    assert peer.say(AskFleet(), 500) is None
    peer.close()


def test_only_who_may_changes_the_fleet_and_only_once(own: Fleet) -> None:
    with own.client() as client:
        for person, why in (("vera", "vera is viewer"), ("boris", "another time")):
            late = {"signed_wall_ns": time.time_ns() - 3600 * 10**9} if person == "boris" else {}
            with pytest.raises(RefusedByHubError, match=why):
                client.act_on_fleet(fleet_act(own.keys, "revoke", "robot_1", person, **late))
        public = zmq.curve_keypair()[0].decode()
        allow = fleet_act(own.keys, "allow", "max", role="operator", key=public)
        client.act_on_fleet(allow)
        client.act_on_fleet(fleet_act(own.keys, "revoke", "max", role="operator"))
        with pytest.raises(RefusedByHubError, match="carried out before"):
            client.act_on_fleet(allow)
    assert told(own).count("Denied") == 3
    assert names(own) == ["robot_1", "robot_2"]


def test_a_new_robot_comes_by_token_and_joins_the_rollout(own: Fleet) -> None:
    """From the operator's command to the robot's policy, by the command line; the hub is killed in between."""
    digest = own.release(make_bundle(own.keys))
    release = own.start_rollout("v1").release
    issued = json.loads(
        verb(
            fleet_app,
            "enrol",
            "robot_9",
            "--site",
            "north",
            "--as",
            "anna",
            "--why",
            "new",
            "--json",
            *hub_options(own),
        )
    )
    own.kill_hub()
    own.start_hub()
    state = own.state("robot_9")
    options = ("--hub", own.address, "--state", str(state))
    assert "site north" in verb(agent_app, "enrol", issued["token"], *options)
    assert "already_enrolled" in verb(agent_app, "enrol", issued["token"], *options, code=1)
    folder = state / "keys"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    secret = read_key_file(folder / "curve.json", CurvePair, private=True).secret.encode()
    private = (folder / "robot.pem").read_bytes()
    database = b"".join(path.read_bytes() for path in (own.folder / "data").glob("hub.sqlite*"))
    assert secret not in database
    assert private.splitlines()[1] not in database
    assert issued["token"].encode() not in database
    own.start_comms("robot_9", folder)
    assert own.answer_candidate(accepted=True, robot="robot_9").digest == digest
    wait_for(lambda: own.rollout_state("robot_9")[0] == "soaked", "the new robot's soak")  # with a witness
    assert names(own) == ["robot_1", "robot_2", "robot_9"]

    north = Stage(name="north", kind="canary", who=Who(sites=("north",)), soak_s=60.0, deadline_s=600.0)
    rest = Stage(name="rest", kind="full", who=Who(rest=True), soak_s=0.1, deadline_s=600.0)
    plan = make_plan(_release(release), north, rest)
    own.start_plan(plan, supersede=True)
    wait_for(lambda: own.rollout_state("robot_9")[0] == "active", "the canary")
    with own.client() as client:
        client.act_on_fleet(fleet_act(own.keys, "revoke", "robot_9"))
        assert [robot.robot for robot in client.rollout().robots if robot.stage == "north"] == []
        assert client.rollout().state == "running"  # who left has not failed
    for _ in range(2):  # and a hub that starts again knows it
        assert "Left" in told(own)
        own.kill_hub()
        own.start_hub()
    active = SlotStore(state).active()
    assert active
    assert active.digest == digest
    verify_chain(read_entries(own.folder / "data"))


def _release(info: ReleaseInfo) -> Release:
    return Release(info.digest, info.policy_name, info.version, info.release_counter, info.size_bytes)


def test_all_that_is_shown_of_members_fits_into_a_message() -> None:
    name, key = "r" * 63, "k" * 40
    member = MemberView("operator", name, key, "out", 2**62)
    token = TokenView(name, "a" * 64, "expired", "p" * 63, 2**62)
    assert len(encode(MembersView((member,) * MEMBERS_MAX, (token,) * TOKENS_MAX, 9))) <= MESSAGE_MAX_BYTES


def test_a_revoked_name_may_come_again_with_other_keys(own: Fleet, tmp_path: Path) -> None:
    with own.client() as client:
        client.act_on_fleet(fleet_act(own.keys, "revoke", "robot_2"))
    assert names(own) == ["robot_1"]
    issued = issue(own, "robot_2", site="south")
    verb(agent_app, "enrol", issued.text, "--hub", own.address, "--state", tmp_path / "new")
    assert names(own) == ["robot_1", "robot_2"]
    old = Peer.of(own, own.keys / "robots" / "robot_2")
    new = Peer.of(own, tmp_path / "new" / "keys")
    try:
        assert old.say(hello("robot_2"), 500) is None
        assert new.say(hello("robot_2")) == Welcome(0)
    finally:
        old.close()
        new.close()
