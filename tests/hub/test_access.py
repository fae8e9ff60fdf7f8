"""Who may talk to the hub, and how it says no: one clear line, exit code not 0."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from contracts.keyring import CURVE_FILE, CurvePair, CurvePublic, read_key_file
from contracts.messages import (
    HELLO_FIRST,
    AskFleet,
    Heartbeat,
    Hello,
    Refused,
    Welcome,
    decode_from_hub,
    encode,
)
from contracts.observation import ROUTING_LAYOUT
from fleet_hub.client import ANSWER_MAX_S, HubClient
from fleet_hub.errors import HubUnreachableError
from tests.support.fleet import Fleet, free_port, make_keys


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outrider.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert done.stderr.startswith("outrider: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def hello(robot: str) -> Hello:
    return Hello(robot, "a" * 32, "b" * 32, 0, "amr_small", ROUTING_LAYOUT.hash(), "", "")


def talk(fleet: Fleet, party: Path, *messages: bytes, wait_ms: int = 30_000) -> list[object]:
    """Send raw messages with a party's key; the answers."""
    pair = read_key_file(party / CURVE_FILE, CurvePair)
    server = read_key_file(party / "hub_public.json", CurvePublic)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.encode()
        socket.curve_serverkey = server.public.encode()
        socket.connect(fleet.address)
        answers: list[object] = []
        for message in messages:
            socket.send(message)
            if socket.poll(wait_ms):
                answers.append(decode_from_hub(socket.recv()))
        return answers


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    files = [path for path in keys.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    before = {path: path.read_bytes() for path in files}
    one_line(run("keys", "init", str(keys), "--robots", "robot_1"), "never overwritten")
    one_line(run("keys", "init", str(tmp_path / "other"), "--robots", "a,../b"), "--robots")
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before
    secrets = {read_key_file(path, CurvePair).secret for path in keys.rglob(CURVE_FILE)}
    assert len(secrets) == 4
    robot = b"".join(path.read_bytes() for path in (keys / "robots" / "robot_1").iterdir())
    assert not any(secret.encode() in robot for secret in secrets - {_secret(keys / "robots" / "robot_1")})


def _secret(folder: Path) -> str:
    return read_key_file(folder / CURVE_FILE, CurvePair).secret


def test_a_foreign_key_gets_no_answer(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_hub()
    foreign = make_keys(tmp_path / "foreign")
    (foreign / "operator" / "hub_public.json").write_bytes(
        (fleet.keys / "operator/hub_public.json").read_bytes()
    )
    with (
        HubClient(fleet.address, foreign, 1.0) as client,
        pytest.raises(HubUnreachableError, match="no answer"),
    ):
        client.fleet()
    assert talk(fleet, foreign / "operator", encode(AskFleet()), wait_ms=1500) == []
    with fleet.client() as client:
        assert len(client.fleet().robots) == 2


def test_robots_are_who_their_key_says(fleet: Fleet) -> None:
    fleet.start_hub()
    robot = fleet.keys / "robots" / "robot_1"
    first, second, third = talk(
        fleet, robot, encode(Heartbeat(1)), encode(hello("robot_2")), encode(hello("robot_1"))
    )
    assert isinstance(first, Refused)
    assert first.code == HELLO_FIRST
    assert isinstance(second, Refused)
    assert "belongs to robot_1" in second.reason
    assert third == Welcome(0)
    (refused,) = talk(fleet, robot, encode(AskFleet()))
    assert isinstance(refused, Refused)
    assert refused.code == "not_allowed"
    (refused,) = talk(fleet, fleet.keys / "operator", encode(hello("robot_1")))
    assert isinstance(refused, Refused)
    assert "only robots" in refused.reason


def test_noise_is_answered_and_the_hub_stays(fleet: Fleet) -> None:
    fleet.start_hub()
    robot = fleet.keys / "robots" / "robot_1"
    answers = talk(
        fleet,
        robot,
        b"",
        b"noise",
        encode(hello("robot_1"))[:-3],
        bytes(8) + b"\x90",
        encode(hello("robot_1")),
    )
    assert [type(answer) for answer in answers] == [Refused] * 4 + [Welcome]
    with fleet.client() as client:
        assert client.releases() == ()


def test_a_busy_port_and_a_busy_folder(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_hub()
    common = ("--keys", str(fleet.keys), "--listen")
    one_line(
        run("hub", "run", "--data", str(tmp_path / "other"), *common, fleet.address), "Address already in use"
    )
    data = str(fleet.folder / "data")
    one_line(run("hub", "run", "--data", data, *common, f"tcp://127.0.0.1:{free_port()}"), "another hub uses")
    one_line(run("hub", "run", "--data", str(tmp_path / "third"), *common, "nonsense"), "cannot listen")


def test_missing_and_open_keys(fleet: Fleet, tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    one_line(
        run("hub", "run", "--data", str(tmp_path / "d"), "--keys", nothing), "no key at", "outrider keys init"
    )
    assert not (tmp_path / "d").exists()
    one_line(run("fleet", "status", "--keys", nothing), "no key at")
    one_line(run("release", str(tmp_path / "none.outrider"), "--keys", str(fleet.keys)), "no bundle at")
    one_line(
        run("bundle", "verify", str(tmp_path / "none.outrider"), "--keys", str(fleet.keys)), "no bundle at"
    )
    open_keys = make_keys(tmp_path / "open")
    (open_keys / "hub" / CURVE_FILE).chmod(0o644)
    one_line(run("hub", "run", "--data", str(tmp_path / "d"), "--keys", str(open_keys)), "chmod 600")
    config = tmp_path / "c.json"
    config.write_text('{"robot_id": "robot_1", "unknown": 1}')
    command = [sys.executable, "-m", "edge_agent.comms", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("outrider comms: ")


def test_no_hub_is_one_line_that_says_how_long_it_waited(fleet: Fleet) -> None:
    done = run("fleet", "status", "--keys", str(fleet.keys), "--hub", fleet.address)
    one_line(done, "no answer from the hub", f"within {ANSWER_MAX_S:g} s")
