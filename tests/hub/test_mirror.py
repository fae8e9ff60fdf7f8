"""Hub -> mirror -> mirror -> robot: the same bundle by the same checks; a mirror that lies or dies only costs time."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from contracts.keyring import MIRRORS_FOLDER
from contracts.messages import (
    Chunk,
    FetchChunk,
    FetchFile,
    FileChunk,
    Heartbeat,
    Refused,
    RolloutReport,
    Wait,
    encode,
)
from contracts.plan import Release
from edge_agent.update.checker import CheckResult
from edge_agent.update.updater import State, Updater
from edge_agent.uplink.routes import AVOIDED_S, MIRROR_SILENT_S, MIRROR_WAIT_MAX_S, Routes
from outrider.verbs.hub import mirror_keys
from tests.support.fleet import Fleet, free_port, make_bundle, make_keys, make_order, make_plan, wait_for
from tests.support.network import CutLine, RawRobot

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

    def start_comms(self, port: int, hub_port: int | None = None) -> None:
        """Robot 1 with a mirror at ``port``."""
        folder, hub_port = self.fleet.folder, hub_port or self.fleet.port
        values = {"robot_id": "robot_1", "state_dir": str(self.fleet.state())}
        values |= {"hub_endpoint": f"tcp://127.0.0.1:{hub_port}", "ring_name": f"{self.fleet.prefix}-robot_1"}
        values |= {
            "keys_dir": str(self.keys / "robots" / "robot_1"),
            "mirror_endpoint": f"tcp://127.0.0.1:{port}",
        }
        (folder / "robot_1.json").write_text(json.dumps(values))
        command = [sys.executable, "-m", "edge_agent.comms", "--config", str(folder / "robot_1.json")]
        self.fleet.comms["robot_1"] = subprocess.Popen(command, text=True)

    def end(self, name: str, number: int = signal.SIGKILL) -> int:
        mirror = self._mirrors.pop(name)
        mirror.send_signal(number)
        code = mirror.wait(timeout=20.0)
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


def test_a_bundle_comes_by_two_mirrors(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And hardly any of it by the hub: the robot's line to it is counted."""
    fleet, bundle = site.fleet, bundle_of(site.keys, monkeypatch)
    fleet.start_hub()
    digest = fleet.release(bundle)
    site.start_chain()
    line = CutLine(fleet.port, 0, 0)
    try:
        fleet.start_rollout(digest, "robot_1")
        site.start_comms(site.ports["hall"], line.port)
        candidate = fleet.answer_candidate(accepted=True)
        wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy")
        assert candidate.path.read_bytes() == bundle
        # Some 20 KB; a mirror that a busy machine keeps silent for 3 s is rightly passed by for what is left.
        assert line.down_bytes < len(bundle) // 4
        for name in ("site", "hall"):
            assert (site.data(name) / "bundles" / f"{digest}.outrider").read_bytes() == bundle
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
    assert fleet.answer_candidate(accepted=True).path.read_bytes() == bundle
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy, by way of the hub", 60.0)


def test_a_dead_mirror_costs_nothing_but_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror whose upstream is away: the hub serves, and the mirror still ends when it is told to."""
    fleet, bundle = site.fleet, bundle_of(site.keys, monkeypatch)
    fleet.start_hub()
    digest = fleet.release(bundle)
    site.start("hall", free_port())
    fleet.start_rollout(digest, "robot_1")
    site.start_comms(site.ports["hall"])
    assert fleet.answer_candidate(accepted=True).path.read_bytes() == bundle
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy, by way of the hub", 60.0)
    assert site.end("hall", signal.SIGTERM) == 0


def test_a_mirror_serves_files_alone(site: Site) -> None:
    fleet = site.fleet
    fleet.start_hub()
    digest = fleet.release(make_bundle(site.keys))
    site.start("site", fleet.port)
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
        image = robot.ask(FetchFile("image/timestamp.json", 0), FileChunk)
        assert image.found
        assert image.data == (fleet.folder / "data" / "trust" / "image" / "timestamp.json").read_bytes()
        report = RolloutReport(1, 0, digest, "active")
        assert "tell the hub" in robot.ask(report, Refused).reason
        assert robot.ask(FetchChunk(digest, 0), Wait).wait_ms > 0
        wait_for(lambda: (site.data("site") / "bundles" / f"{digest}.outrider").exists(), "the bundle")
        assert robot.ask(FetchChunk(digest, 0), Chunk).data
        for silent in (FetchFile("director/robot_1/timestamp.json", 0), FetchFile("image/../../x", 0)):
            robot.socket.send(encode(silent))
            assert not robot.socket.poll(300) or not robot.ask(silent, FileChunk).found
        robot.ask(FetchChunk(DIGEST, 0), Wait)  # nobody has signed such a bundle: it never comes
        time.sleep(0.5)
        assert not (site.data("site") / "bundles" / f"{DIGEST}.outrider").exists()
        robot.socket.setsockopt(zmq.LINGER, 0)


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
    assert not routes.step(now[0] + 100 * NS)  # nothing is asked
    routes.send(shared[0])
    assert not routes.step(int(now[0] + (MIRROR_SILENT_S - 0.1) * NS))
    assert routes.step(int(now[0] + (MIRROR_SILENT_S + 0.1) * NS))
    routes.send(shared[0])
    assert (hub.sent, mirror.sent) == (4, 3)
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
