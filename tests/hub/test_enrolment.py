"""Attacks with tokens on a real hub: each refused by its code; nobody is in the fleet after it who was not before."""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.canonical import canonical_json, digest_hex
from contracts.enrolment import TOKEN_PREFIX, EnrolCode, EnrolmentError, decode_token, encode_token
from contracts.errors import RobotCardError
from contracts.keyring import CARD_FILE, CurvePair, read_key_file
from contracts.messages import AskTime, Enrol, Enrolled, Refused
from contracts.papers import EnrolledCard, open_card
from contracts.provenance import TrustedKeys
from edge_agent.update.enrol import ask, enrol
from fleet_hub.enrolment import ATTEMPTS_MAX
from fleet_hub.errors import RefusedByHubError
from fleet_hub.store.audit import read_entries, verify_chain
from tests.hub.test_members import hello, told
from tests.support.enrolment import Issued, Peer, binding, fleet_act, issue, make_token
from tests.support.fleet import Fleet
from trainer.release.keys import create_release_key

WAIT_S = 30.0


@pytest.fixture(scope="module")
def hub(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One hub for all attacks."""
    made = Fleet(tmp_path_factory.mktemp("enrolment"), keys)
    made.start_hub()
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """A robot that is not in the fleet."""
    return f"robot_{secrets.token_hex(4)}"


def say(fleet: Fleet, issued: Issued, paper: bytes) -> Enrolled:
    return ask(fleet.address, issued.token.hub_key, issued.own, Enrol(paper), WAIT_S)


def edited(issued: Issued, **changes: object) -> Issued:
    return Issued(msgspec.structs.replace(issued.token, **changes), issued.voucher)


def forged(fleet: Fleet, name: str, folder: Path) -> None:
    """A token that somebody made up; even its voucher is good, but the hub was never told."""
    enrol(make_token(fleet.keys, name).token, fleet.address, folder, WAIT_S)


def changed_by_a_bit(fleet: Fleet, name: str, folder: Path) -> None:
    issued = issue(fleet, name)
    secret = bytes([issued.token.secret[0] ^ 1]) + issued.token.secret[1:]
    enrol(edited(issued, secret=secret).token, fleet.address, folder, WAIT_S)


def replayed(fleet: Fleet, name: str, folder: Path) -> None:
    """The token was used by the robot; a thief comes with it and keys of their own."""
    issued = issue(fleet, name)
    enrol(issued.token, fleet.address, folder / "robot", WAIT_S)
    enrol(issued.token, fleet.address, folder / "thief", WAIT_S)


def replayed_after_a_kill(fleet: Fleet, name: str, folder: Path) -> None:
    issued = issue(fleet, name)
    enrol(issued.token, fleet.address, folder / "robot", WAIT_S)
    fleet.kill_hub()
    fleet.start_hub()
    enrol(issued.token, fleet.address, folder / "thief", WAIT_S)


def expired(fleet: Fleet, name: str, folder: Path) -> None:
    for life_s in (0.3, 1.0, 3.0, 10.0):
        with contextlib.suppress(RefusedByHubError):  # where it took longer than that to tell the hub
            issued = issue(fleet, name, life_ns=int(life_s * 1e9))
            break
    time.sleep(life_s + 0.1)
    enrol(issued.token, fleet.address, folder, WAIT_S)


def called_back(fleet: Fleet, name: str, folder: Path) -> None:
    issued = issue(fleet, name)
    with fleet.client() as client:
        client.act_on_fleet(fleet_act(fleet.keys, "revoke", name))
    enrol(issued.token, fleet.address, folder, WAIT_S)


def another_name(fleet: Fleet, name: str, folder: Path) -> None:
    """The token is for this robot; its bearer would rather be robot_77."""
    enrol(edited(issue(fleet, name), robot="robot_77").token, fleet.address, folder, WAIT_S)


def signed_by_another_key(fleet: Fleet, name: str, _: Path) -> None:
    issued = issue(fleet, name)
    say(fleet, issued, binding(issued, signing=Ed25519PrivateKey.generate()))


def no_binding(fleet: Fleet, name: str, _: Path) -> None:
    say(fleet, issue(fleet, name), b'{"payload": "garbage"}')


def anothers_curve_key(fleet: Fleet, name: str, _: Path) -> None:
    """A thief of a token would take robot_1's place at the door."""
    issued = issue(fleet, name)
    key = read_key_file(fleet.keys / "robots" / "robot_1" / "curve.json", CurvePair).public
    say(fleet, issued, binding(issued, curve=key))


def no_curve_key(fleet: Fleet, name: str, _: Path) -> None:
    issued = issue(fleet, name)
    say(fleet, issued, binding(issued, curve="~" * 40))


def second_token(fleet: Fleet, name: str, folder: Path) -> None:
    """Two tokens were out for one robot; the second comes after the first was used."""
    first, second = issue(fleet, name), issue(fleet, name)
    enrol(first.token, fleet.address, folder / "robot", WAIT_S)
    enrol(second.token, fleet.address, folder / "thief", WAIT_S)


def guesses(fleet: Fleet, name: str, _: Path) -> None:
    issued = issue(fleet, name)
    for _ in range(ATTEMPTS_MAX):
        with pytest.raises(EnrolmentError, match="refused"):
            say(fleet, issued, binding(issued, signing=Ed25519PrivateKey.generate()))
    say(fleet, issued, binding(issued))  # a good one does not help


def another_fleets_hub(fleet: Fleet, name: str, folder: Path) -> None:
    """The hub (a stolen one) answers with other roots than the token was issued for."""
    enrol(edited(issue(fleet, name), fleet=bytes(32)).token, fleet.address, folder, WAIT_S)


def enrolled_before(fleet: Fleet, name: str, folder: Path) -> None:
    enrol(issue(fleet, name).token, fleet.address, folder, WAIT_S)
    enrol(issue(fleet, f"{name}x").token, fleet.address, folder, WAIT_S)


def mistyped(_: Fleet, name: str, __: Path) -> None:
    text = encode_token(make_token(_.keys, name).token)
    for wrong in (
        text[:-1],
        text[1:],
        text.replace(text[20], "_" if text[20] != "_" else "-"),
        "",
        "x" * 600,
    ):
        with pytest.raises(EnrolmentError):
            decode_token(wrong)
    decode_token(TOKEN_PREFIX + "AAAA")


ATTACKS: list[tuple[Callable[[Fleet, str, Path], None], EnrolCode, int]] = [
    (forged, EnrolCode.UNKNOWN, 0),
    (changed_by_a_bit, EnrolCode.UNKNOWN, 0),
    (replayed, EnrolCode.USED, 1),
    (replayed_after_a_kill, EnrolCode.USED, 1),
    (expired, EnrolCode.EXPIRED, 0),
    (called_back, EnrolCode.EXPIRED, 0),
    (another_name, EnrolCode.OTHER_ROBOT, 0),
    (signed_by_another_key, EnrolCode.FORGED, 0),
    (no_binding, EnrolCode.FORGED, 0),
    (no_curve_key, EnrolCode.FORGED, 0),
    (anothers_curve_key, EnrolCode.KEY_TAKEN, 0),
    (second_token, EnrolCode.NAME_TAKEN, 1),
    (guesses, EnrolCode.TOO_MANY, 0),
    (another_fleets_hub, EnrolCode.FLEET_CHANGED, 1),
    (enrolled_before, EnrolCode.ALREADY, 1),
    (mistyped, EnrolCode.UNREADABLE, 0),
]
AT_THE_DOOR = {
    EnrolCode.UNKNOWN,
    EnrolCode.TOO_MANY,
    EnrolCode.FLEET_CHANGED,
    EnrolCode.ALREADY,
    EnrolCode.UNREADABLE,
}
"""Refused by the ZAP handler, by the rate limit, or by the robot: the hub's audit log has no entry of each."""


@pytest.mark.parametrize(("attack", "code", "come"), ATTACKS, ids=lambda v: getattr(v, "__name__", None))
def test_an_attack_is_refused_and_lets_nobody_in(
    hub: Fleet,
    name: str,
    tmp_path: Path,
    attack: Callable[[Fleet, str, Path], None],
    code: EnrolCode,
    come: int,
) -> None:
    before = robots(hub)
    with pytest.raises(EnrolmentError) as caught:
        attack(hub, name, tmp_path)
    assert caught.value.code == code
    assert len(robots(hub)) == len(before) + come
    assert not (tmp_path / "thief" / CARD_FILE).exists()
    entries = read_entries(hub.folder / "data")
    verify_chain(entries)
    if code not in AT_THE_DOOR:
        denied = json.loads(entries[-1].body)
        assert (entries[-1].who, denied["type"], denied["code"]) == (f"enrolment:{name}", "Denied", code)


def robots(fleet: Fleet) -> set[str]:
    with fleet.client() as client:
        return {one.name for one in client.members().members if one.role == "robot" and one.state == "in"}


def test_a_token_is_good_for_nothing_else(hub: Fleet, name: str) -> None:
    issued = issue(hub, name)
    peer = Peer(hub, issued.own.curve_public, issued.own.curve_secret)
    robot = Peer.of(hub, hub.keys / "robots" / "robot_1")
    try:
        for message in (hello(name), AskTime(bytes(16))):
            answer = peer.say(message)
            assert isinstance(answer, Refused)
            assert answer.code == "not_allowed"
        answer = robot.say(Enrol(binding(issued)))
        assert isinstance(answer, Refused)
        assert answer.code == "not_allowed"
    finally:
        peer.close()
        robot.close()


def test_a_lost_answer_costs_no_token(hub: Fleet, name: str, tmp_path: Path) -> None:
    """The robot is killed after the hub has taken it in, the hub after that; the robot asks again with its keys."""
    issued = issue(hub, name)
    folder = tmp_path / "keys"
    enrol(issued.token, hub.address, folder, WAIT_S)
    (folder / CARD_FILE).unlink()
    keys = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.kill_hub()
    hub.start_hub()
    card = enrol(issued.token, hub.address, folder, WAIT_S)
    assert (card.robot, card.site) == (name, "")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CARD_FILE} == keys
    bodies = [json.loads(entry.body) for entry in read_entries(hub.folder / "data")]
    assert sum(body.get("robot") == name and body["type"] == "RobotEnrolled" for body in bodies) == 1


def test_who_may_issue_what(hub: Fleet, name: str, tmp_path: Path) -> None:
    create_release_key(tmp_path / "stranger.pem")
    good, long = make_token(hub.keys, name), make_token(hub.keys, name, life_ns=30 * 86400 * 10**9)
    strange = make_token(hub.keys, name, signer=tmp_path / "stranger.pem")
    taken = make_token(hub.keys, "robot_1")
    with hub.client() as client:
        for issued, person, changes, why in (
            (good, "vera", {}, "vera is viewer"),
            (strange, "anna", {}, "a voucher is refused"),
            (long, "anna", {}, "at most 7 days"),
            (good, "anna", {"name": f"{name}x"}, f"the voucher is for {name}"),
            (good, "anna", {"voucher": "a" * 64}, "another voucher"),
            (good, "anna", {"role": "operator"}, "tokens are for robots"),
            (taken, "anna", {"name": "robot_1"}, "robot_1 is in the fleet"),
        ):
            fields = {"name": name, "person": person, "voucher": digest_hex(issued.voucher)} | changes
            with pytest.raises(RefusedByHubError, match=why):
                client.act_on_fleet(fleet_act(hub.keys, "enrol", **fields), issued.voucher)
        act = fleet_act(hub.keys, "enrol", name, voucher=digest_hex(good.voucher))
        client.act_on_fleet(act, good.voucher)
        with pytest.raises(RefusedByHubError, match="carried out before"):
            client.act_on_fleet(act, good.voucher)
        with pytest.raises(RefusedByHubError, match="issued before"):
            client.act_on_fleet(
                fleet_act(hub.keys, "enrol", name, why="again", voucher=digest_hex(good.voucher)),
                good.voucher,
            )
        states = [token.state for token in client.members().tokens if token.robot == name]
    assert states == ["open"]
    assert "TokenIssued" in told(hub)


def test_an_enrolled_card_is_one_piece(hub: Fleet, name: str) -> None:
    """Voucher and binding of two robots make no card; nor does a voucher that the release key has not signed."""
    trusted = TrustedKeys.load(hub.keys / "trusted_release_keys.json")
    mine, other = make_token(hub.keys, name), make_token(hub.keys, f"{name}x")
    good = canonical_json(EnrolledCard(mine.voucher, binding(mine)))
    assert open_card(good, trusted).robot == name
    for voucher, paper in (
        (mine.voucher, binding(other)),
        (mine.voucher, binding(mine, robot="robot_1")),
        (binding(mine), binding(mine)),
        (mine.voucher[:-9], binding(mine)),
    ):
        with pytest.raises(RobotCardError):
            open_card(canonical_json(EnrolledCard(voucher, paper)), trusted)


def test_a_hub_that_is_not_there_is_one_code(tmp_path: Path, keys: Path) -> None:
    issued = make_token(keys, "robot_9")
    for address in (f"ipc://{tmp_path / 'nobody'}", "nonsense"):
        with pytest.raises(EnrolmentError) as caught:
            enrol(issued.token, address, tmp_path / "keys", 0.2)
        assert caught.value.code == EnrolCode.SILENT
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["curve.json", "robot.pem"]
