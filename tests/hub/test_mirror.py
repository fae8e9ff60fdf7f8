"""Hub -> mirror -> mirror -> robot: the same bundle by the same checks; a mirror that lies or dies only costs time."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from contracts.framelog import Kind, decode_event, iterate_frames, list_segments
from contracts.keyring import AUTHORIZED_FOLDER, MIRRORS_FOLDER, ROBOTS_FILE
from contracts.messages import (
    Ack,
    Chunk,
    FetchChunk,
    FetchFile,
    FileChunk,
    Heartbeat,
    Refused,
    RolloutReport,
    Wait,
    decode_from_hub,
    encode,
)
from contracts.plan import Release
from edge_agent.update.checker import CheckResult
from edge_agent.update.updater import State, Updater
from edge_agent.uplink.routes import (
    AVOIDED_S,
    CONNECTS_S,
    MIRROR_SILENT_S,
    MIRROR_WAIT_MAX_S,
    SILENT_TIMES,
    TURN_MAX_S,
    Routes,
)
from fleet_hub.limits import DOWNLOAD_CHUNK_BYTES
from outrider.verbs.hub import mirror_keys
from tests.support.fleet import Fleet, free_port, make_bundle, make_keys, make_order, make_plan
from tests.support.network import CutLine, RawRobot
from tests.support.waiting import wait_for

NS = 1_000_000_000
DIGEST = "a" * 64


@pytest.fixture(scope="module")
def site_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet with two mirrors, the second behind the first; robots use the second."""
    keys = make_keys(tmp_path_factory.mktemp("site") / "keys")
    mirror_keys("site", keys)
    mirror_keys("hall", keys, behind="site")
    return keys


class Site:
    """A fleet and its mirrors."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.fleet, self.keys = Fleet(folder, keys), keys
        self.ports = {"site": free_port(), "hall": free_port()}
        self._mirrors: dict[str, subprocess.Popen[str]] = {}

    def data(self, name: str) -> Path:
        return self.fleet.folder / f"mirror-{name}"

    def start(self, name: str, upstream_port: int) -> None:
        command = [sys.executable, "-m", "outrider.cli", "hub", "mirror", name, "--keys", str(self.keys)]
        command += ["--upstream", f"tcp://127.0.0.1:{upstream_port}", "--data", str(self.data(name))]
        command += ["--listen", f"tcp://127.0.0.1:{self.ports[name]}"]
        self._mirrors[name] = mirror = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert mirror.stdout is not None
        assert "listens" in mirror.stdout.readline()

    def start_chain(self) -> None:
        self.start("site", self.fleet.port)
        self.start("hall", self.ports["site"])

    def start_comms(self, port: int, hub_port: int | None = None, robot: str = "robot_1") -> None:
        """A robot with a mirror at ``port``."""
        hub, mirror = (f"tcp://127.0.0.1:{each}" for each in (hub_port or self.fleet.port, port))
        self.fleet.start_comms(robot, address=hub, mirror_endpoint=mirror)

    def end(self, name: str, number: int = signal.SIGKILL) -> int:
        mirror = self._mirrors.pop(name)
        mirror.send_signal(number)
        code = mirror.wait(timeout=100.0)
        assert mirror.stdout is not None
        mirror.stdout.close()
        return code

    def close(self) -> None:
        for name in list(self._mirrors):
            self.end(name)
        self.fleet.close()


@pytest.fixture
def site(tmp_path: Path, site_keys: Path) -> Iterator[Site]:
    """Everything ends with the test."""
    made = Site(tmp_path, site_keys)
    yield made
    made.close()


def bundle_of(keys: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    from tests.support.fleet import large_policy

    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    return make_bundle(keys)


def noted(fleet: Fleet, robot: str, *names: str) -> Counter[str]:
    """How often the robot has noted each of these in its log."""
    found: Counter[str] = Counter()
    for segment in list_segments(fleet.state(robot) / "log"):
        for frame in iterate_frames(segment.path.read_bytes(), segment.data_start, segment.record_bytes):
            if frame.kind is Kind.EVENT and (name := decode_event(frame.payload).name) in names:
                found[name] += 1
    return found


def test_a_bundle_comes_by_two_mirrors(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And hardly any of it by the hub: the robot's line to it is counted.

    A machine that stands still may keep a mirror silent twice on end, which is left alone then: the other robot has
    the bundle from it.
    """
    fleet, bundle = site.fleet, bundle_of(site.keys, monkeypatch)
    fleet.start_hub()
    digest = fleet.release(bundle)
    site.start_chain()
    for robot in ("robot_1", "robot_2"):
        notes, by_hub_bytes = fetched(site, robot, digest, bundle)
        if not notes["mirror_avoided"]:
            break
    assert notes["mirror_avoided"] == 0
    # Some 20 KB; one question before the mirror's connection stands, for the hub's may stand first; and one more each
    # time that a busy machine has kept the mirror silent.
    assert by_hub_bytes < 50_000 + (1 + notes["mirror_silent"]) * (DOWNLOAD_CHUNK_BYTES + 1000)
    for name in ("site", "hall"):
        assert (site.data(name) / "bundles" / f"{digest}.outrider").read_bytes() == bundle


def fetched(site: Site, robot: str, digest: str, bundle: bytes) -> tuple[Counter[str], int]:
    """The robot gets the bundle; what it noted of the mirror, and how many bytes came by its line to the hub."""
    fleet, line = site.fleet, CutLine(site.fleet.port, 0, 0)
    try:
        fleet.start_rollout(digest, robot)
        site.start_comms(site.ports["hall"], line.port, robot)
        candidate = fleet.answer_candidate(accepted=True, robot=robot)
        wait_for(lambda: fleet.rollout_state(robot)[0] in ("active", "soaked"), "the policy")
        assert candidate.path.read_bytes() == bundle
        return noted(fleet, robot, "mirror_silent", "mirror_avoided"), line.down_bytes
    finally:
        line.close()


def test_a_mirror_that_lies_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, bundle = site.fleet, bundle_of(site.keys, monkeypatch)
    fleet.start_hub()
    digest = fleet.release(bundle)
    site.start("hall", fleet.port)
    changed = bytearray(bundle)
    changed[len(bundle) // 2] ^= 1
    (site.data("hall") / "bundles" / f"{digest}.outrider").write_bytes(changed)
    fleet.start_rollout(digest, "robot_1")
    site.start_comms(site.ports["hall"])
    candidate = wait_for(fleet.mailbox().poll, "a candidate for control", 60.0)
    fleet.mailbox().answer(candidate, True)
    assert candidate.path.read_bytes() == bundle
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy, by way of the hub", 60.0)


def test_a_dead_mirror_costs_nothing_but_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror whose upstream is away: the hub serves, and the mirror still ends when it is told to."""
    fleet, bundle = site.fleet, bundle_of(site.keys, monkeypatch)
    fleet.start_hub()
    digest = fleet.release(bundle)
    site.start("hall", free_port())
    fleet.start_rollout(digest, "robot_1")
    site.start_comms(site.ports["hall"])
    candidate = wait_for(fleet.mailbox().poll, "a candidate for control", 60.0)
    fleet.mailbox().answer(candidate, True)
    assert candidate.path.read_bytes() == bundle
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy, by way of the hub", 60.0)
    assert site.end("hall", signal.SIGTERM) == 0


def test_a_mirror_serves_files_alone(site: Site) -> None:
    fleet = site.fleet
    fleet.start_hub()
    digest = fleet.release(make_bundle(site.keys))
    site.start("site", fleet.port)
    with fleet.client() as client:
        assert "site" not in {robot.robot for robot in client.fleet().robots}, (
            "let in as robots are, and none"
        )
    robots = site.keys / "robots"
    hub_public = (robots / "robot_1" / "hub_public.json").read_bytes()
    own = fleet.folder / "as-robot" / "robots" / "robot_1"
    own.mkdir(parents=True)
    (own / "curve.json").write_bytes((robots / "robot_1" / "curve.json").read_bytes())
    site_pair = json.loads((site.keys / MIRRORS_FOLDER / "site" / "curve.json").read_bytes())
    (own / "hub_public.json").write_text(json.dumps({"public": site_pair["public"]}))
    assert (own / "hub_public.json").read_bytes() != hub_public
    with RawRobot(fleet.folder / "as-robot", "robot_1", f"tcp://127.0.0.1:{site.ports['site']}") as robot:
        assert robot.ask(Heartbeat(0), Refused).code == "hello_first"
        robot.hello()
        image = robot.ask_again(FetchFile("image/timestamp.json", 0), FileChunk)
        assert image.found
        assert image.data == (fleet.folder / "data" / "trust" / "image" / "timestamp.json").read_bytes()
        report = RolloutReport(1, 0, digest, "active")
        assert "tell the hub" in robot.ask(report, Refused).reason
        assert robot.ask_again(FetchChunk(digest, 0), Wait).wait_ms > 0
        wait_for(lambda: (site.data("site") / "bundles" / f"{digest}.outrider").exists(), "the bundle")
        assert robot.ask(FetchChunk(digest, 0), Chunk).data
        for silent in (FetchFile("director/robot_1/timestamp.json", 0), FetchFile("image/../../x", 0)):
            robot.socket.send(encode(silent))
            robot.socket.send(encode(Heartbeat(0)))  # what the mirror answers, it answers in turn
            while robot.socket.poll(30_000):
                answer = decode_from_hub(robot.socket.recv())
                assert not (isinstance(answer, FileChunk) and answer.name == silent.name and answer.found)
                if isinstance(answer, Ack):
                    break
            else:
                raise AssertionError("the mirror is gone")
        robot.ask_again(FetchChunk(DIGEST, 0), Wait)  # nobody has signed such a bundle: it never comes
        time.sleep(0.5)
        assert not (site.data("site") / "bundles" / f"{DIGEST}.outrider").exists()
        robot.socket.setsockopt(zmq.LINGER, 0)


def test_a_mirror_follows_its_list(site: Site) -> None:
    """Whose key goes is refused on the connection it has and on the next; with the key back it is let in again."""
    site.fleet.start_hub()
    site.fleet.release(make_bundle(site.keys))
    site.start("site", site.fleet.port)
    own = site.fleet.folder / "as-robot" / "robots" / "robot_1"
    own.mkdir(parents=True)
    (own / "curve.json").write_bytes((site.keys / "robots" / "robot_1" / "curve.json").read_bytes())
    site_pair = json.loads((site.keys / MIRRORS_FOLDER / "site" / "curve.json").read_bytes())
    (own / "hub_public.json").write_text(json.dumps({"public": site_pair["public"]}))
    path = site.keys / MIRRORS_FOLDER / "site" / AUTHORIZED_FOLDER / ROBOTS_FILE
    whole = path.read_bytes()
    listed = json.loads(whole)
    listed["keys"] = {key: name for key, name in listed["keys"].items() if name != "robot_1"}
    address = f"tcp://127.0.0.1:{site.ports['site']}"
    try:
        with RawRobot(site.fleet.folder / "as-robot", "robot_1", address) as robot:
            robot.hello()
            path.write_bytes(b"{half of it")
            time.sleep(1.2)
            robot.ask(Heartbeat(0), Ack)  # a damaged list changes nothing
            assert robot.ask_again(FetchFile("image/timestamp.json", 0), FileChunk).found
            path.write_text(json.dumps(listed))

            def answer() -> str:
                robot.socket.send(encode(Heartbeat(0)))
                told = decode_from_hub(robot.socket.recv()) if robot.socket.poll(5000) else None
                return told.code if isinstance(told, Refused) else ""

            wait_for(lambda: answer() == "not_allowed", "the refusal")
            with RawRobot(site.fleet.folder / "as-robot", "robot_1", address) as again:
                again.socket.send(encode(Heartbeat(0)))
                assert not again.socket.poll(1000)
            path.write_bytes(whole)
            wait_for(lambda: answer() == "hello_first", "the way back in")
            robot.hello()
    finally:
        path.write_bytes(whole)


class _Link:
    def __init__(self) -> None:
        self.online, self.sent = True, 0

    def send(self, _message: object) -> bool:
        self.sent += self.online
        return self.online


def test_routes() -> None:
    """Orders and reports go to the hub whatever happens; files to the mirror while it answers."""
    hub, mirror, notes = _Link(), _Link(), []
    now = [0]
    routes = Routes(hub, mirror, lambda: now[0], lambda *_a, **k: notes.append(k))
    shared = (FetchChunk(DIGEST, 0), FetchFile("image/timestamp.json", 0))
    own = (
        Heartbeat(0),
        FetchFile("director/robot_1/timestamp.json", 0),
        RolloutReport(1, 0, DIGEST, "active"),
    )
    for message in (*shared, *own):
        assert routes.send(message)
    assert (hub.sent, mirror.sent) == (3, 2)
    assert routes.heard(Chunk(DIGEST, 0, b"x"))
    now[0] += 100 * NS
    assert not routes.step(now[0])  # nothing is asked

    def silent_after_s() -> float:
        """Turns of 0.1 s until the mirror counts as silent."""
        began_ns = now[0]
        for _ in range(1000):
            now[0] += NS // 10
            if routes.step(now[0]):
                return (now[0] - began_ns) / NS
        raise AssertionError("never silent")

    routes.send(shared[0])
    now[0] += 100 * NS  # the robot itself was kept from its work: it could not have heard anything
    assert not routes.step(now[0])
    assert silent_after_s() == pytest.approx(MIRROR_SILENT_S - TURN_MAX_S, abs=0.11)
    assert routes.send(shared[0])  # that question alone goes to the hub
    assert (hub.sent, mirror.sent, notes) == (4, 3, [{}])
    routes.send(shared[0])
    assert (hub.sent, mirror.sent) == (4, 4)
    for _ in range(20):  # 2 s: slow, but it answers
        now[0] += NS // 10
        assert not routes.step(now[0])
    assert routes.heard(Chunk(DIGEST, 0, b"x"))
    routes.send(shared[0])
    assert silent_after_s() == pytest.approx(SILENT_TIMES * 2.0, abs=0.11)
    routes.send(shared[0])
    routes.send(shared[0])
    silent_after_s()  # the second time on end: it is left alone
    routes.send(shared[0])
    assert (hub.sent, mirror.sent, notes[-1]["why"]) == (6, 6, "no answer")
    hub.sent, mirror.sent, notes[:] = 4, 3, [{}]
    now[0] += int((AVOIDED_S + 1.0) * NS)
    routes.send(shared[0])
    assert mirror.sent == 4
    assert not routes.heard(
        Chunk(DIGEST, 0, b"")
    )  # it has none: the robot must not take that for the hub's word
    routes.send(shared[0])
    assert (hub.sent, mirror.sent, len(notes)) == (5, 4, 2)
    assert not routes.other_way()  # nothing came from it since
    now[0] += int((AVOIDED_S + 1.0) * NS)
    routes.send(shared[0])
    assert routes.other_way()
    assert not routes.other_way()
    now[0] += int((AVOIDED_S + 1.0) * NS)
    for _ in range(2):  # put off, but not for ever
        routes.send(shared[0])
        assert routes.heard(Wait(DIGEST, 1000))
        now[0] += int((MIRROR_WAIT_MAX_S / 2 + 1.0) * NS)
    assert not routes.heard(Wait(DIGEST, 1000))
    before = hub.sent
    routes.send(shared[0])
    assert hub.sent == before + 1


class _Refusing:
    """A check that refuses the metadata so many times."""

    def __init__(self, times: int) -> None:
        self.times, self.started = times, 0

    def start(self, *_: object) -> None:
        self.started += 1

    def question(self) -> None:
        """None."""

    def answer(self, chunk: FileChunk) -> None:
        """Nothing."""

    def result(self, _now_ns: int) -> CheckResult | None:
        return CheckResult(None, "metadata_mixed", "a test") if self.started <= self.times else None

    def cancel(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("mirrored", [True, False])
def test_metadata_that_is_refused_is_asked_of_the_hub_once(
    mirrored: bool, tmp_path: Path, site_keys: Path
) -> None:
    from contracts.canonical import digest_hex

    bundle = b"a bundle"
    order = make_order(site_keys, make_plan(Release(digest_hex(bundle), "routing", "v1", 1, len(bundle))))
    ways, said = [mirrored], []
    other: Callable[[], bool] = lambda: bool(ways and ways.pop())  # noqa: E731
    checker = _Refusing(2)
    updater = Updater(
        tmp_path, checker, lambda m: bool(said.append(m)) or True, lambda *_a, **_k: None,
        site_keys / "robots" / "robot_1", "robot_1", other_way=other,
    )  # fmt: skip
    updater.on_order(order, 0)
    updater.on_chunk(Chunk(digest_hex(bundle), 0, bundle), 0)
    updater.step(0)
    assert (updater.state is State.CHECKING, checker.started) == (mirrored, 2 if mirrored else 1)
    updater.step(0)
    refusals = [m for m in said if isinstance(m, RolloutReport) and m.state == "refused"]
    assert len(refusals) == 1
    assert len([m for m in said if isinstance(m, FetchChunk)]) == 1


def test_the_first_question_waits_for_the_mirrors_connection_but_not_long() -> None:
    hub, mirror, now = _Link(), _Link(), [0]
    mirror.online = False
    asked = FetchChunk(DIGEST, 0)
    routes = Routes(hub, mirror, lambda: now[0], lambda *_a, **_k: None)
    assert routes.send(asked)
    assert not routes.step(now[0])
    assert routes.send(Heartbeat(0))  # what is the hub's waits for nothing
    assert (hub.sent, mirror.sent) == (1, 0)
    mirror.online = True
    assert routes.step(now[0])  # ask again
    assert not routes.step(now[0])
    assert routes.send(asked)
    assert (hub.sent, mirror.sent) == (1, 1)
    assert routes.heard(Chunk(DIGEST, 0, b"x"))
    late = Routes(hub, mirror, lambda: now[0], lambda *_a, **_k: None)
    mirror.online = False
    assert late.send(asked)
    now[0] += int(CONNECTS_S * NS)
    assert late.step(now[0])
    assert late.send(asked)
    assert (hub.sent, mirror.sent) == (2, 1)
