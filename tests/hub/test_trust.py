"""Keys, ceremonies and the live way: real hub and comms processes over CURVE, a stick between them."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets, Timestamp
from typer.testing import CliRunner, Result

from contracts.bundle import verify_signed
from contracts.canonical import digest_hex
from contracts.errors import KeyFileError
from contracts.framelog import Kind, decode_event, iterate_frames, list_segments
from contracts.keyring import TRUSTED_FILE
from contracts.messages import (
    BeginRelease,
    Chunk,
    CommitRelease,
    FetchFile,
    FileChunk,
    Hello,
    ReleaseChunk,
    UploadFrom,
    encode,
)
from contracts.observation import ROUTING_LAYOUT
from contracts.plan import Release
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from contracts.trust import DIRECTOR, IMAGE, ONLINE, REPOSITORIES, Code, TrustError, Wanted, check_root
from contracts.trust import facts_of as manifest_facts
from edge_agent.update.checker import CheckResult
from edge_agent.update.fetchers import FolderFetcher
from edge_agent.update.floor import FloorStore
from edge_agent.update.slots import SlotStore
from edge_agent.update.stick import update_from
from edge_agent.update.trust import RobotTrust
from edge_agent.update.updater import State, Updater
from edge_agent.uplink.link import HubLink
from fleet_hub.client import HubClient
from fleet_hub.errors import DataFolderError, RefusedByHubError
from fleet_hub.trust.ceremony import Ceremony, make_target, names_of
from fleet_hub.trust.repository import Repository, after, read, sign
from fleet_hub.trust.stick import write_stick
from fleet_hub.trust.versions import CEILING_FILE, STEP, Versions
from outrider.verbs.keys import app as keys_app
from tests.support.fleet import Fleet, facts_of, make_bundle, make_order, make_plan
from tests.support.network import RawRobot
from tests.support.trust import ORDER, ROBOT, World, tree
from tests.support.waiting import wait_for

NOW = datetime.now(UTC)


@pytest.fixture
def own(tmp_path: Path, keys: Path) -> Iterator[Fleet]:
    """A fleet with keys that may be changed."""
    shutil.copytree(keys, tmp_path / "keys")
    made = Fleet(tmp_path, tmp_path / "keys")
    yield made
    made.close()


def outrider(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "outrider.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def keys_verb(*words: str | Path) -> Result:
    return CliRunner().invoke(keys_app, [*map(str, words)])


def stick_of(fleet: Fleet) -> Path:
    """What `outrider release --stick` writes, and that it says for whom."""
    folder = fleet.folder / "stick"
    done = outrider("release", "--stick", folder, "--keys", fleet.keys, "--hub", fleet.address, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"robot_1", "robot_2"}
    return folder


def update(fleet: Fleet, stick: Path) -> dict[str, str]:
    done = outrider(
        "update",
        "--from",
        stick,
        "--state",
        fleet.state(),
        "--robot",
        "robot_1",
        "--keys",
        fleet.keys,
        "--json",
    )
    outcome: dict[str, str] = json.loads(done.stdout)
    assert (done.returncode == 1) == (outcome["state"] == "refused"), done
    return outcome


def test_keys_lie_encrypted_where_there_is_a_passphrase(tmp_path: Path) -> None:
    (tmp_path / "robots" / "robot_1").mkdir(parents=True)
    ceremony = Ceremony(tmp_path, b"correct horse")
    ceremony.create(NOW)
    status = ceremony.status()
    assert sorted(key.name for key in status) == sorted(name for r in REPOSITORIES for name in names_of(r))
    assert all(key.here and key.encrypted for key in status)
    for path in tmp_path.rglob("*.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"ENCRYPTED" in path.read_bytes()
    assert ceremony.signer("trainer").public_key.keyid
    for wrong in (None, b"wrong"):
        with pytest.raises(KeyFileError, match="passphrase"):
            Ceremony(tmp_path, wrong).signer("trainer")
    with pytest.raises(KeyFileError, match="never overwritten"):
        ceremony.create(NOW)
    for repository in REPOSITORIES:
        check_root(repository, ceremony.root(repository).signed)


def test_a_stolen_root_key_is_replaced_by_the_other_two(own: Fleet) -> None:
    ceremony = Ceremony(own.keys)
    stolen = ceremony.signer("image_root_1").public_key.keyid
    done = keys_verb("revoke", "image_root_1", "--why", "a laptop was stolen", "--keys", own.keys)
    assert done.exit_code == 0, done.output
    root = ceremony.root(IMAGE).signed
    assert root.version == 2
    assert stolen not in root.keys
    assert stolen not in ceremony.root(IMAGE).signatures
    assert "a laptop was stolen" in (own.keys / "trust" / "revoked.log").read_text()
    assert not list((own.keys / "trust").glob(f"*{stolen[:12]}*"))
    (next((own.keys / "trust").glob("image_root_2-*"))).unlink()
    before = tree(own.keys)
    done = keys_verb("rotate", "image_root_3", "--keys", own.keys)
    assert (done.exit_code, "image_root_2" in done.output) == (1, True)
    assert tree(own.keys) == before
    done = keys_verb("rotate", "nobody", "--keys", own.keys)
    assert (done.exit_code, "no key is called" in done.output) == (1, True)
    shown = json.loads(keys_verb("status", "--keys", own.keys, "--json").stdout)
    assert [key["name"] for key in shown["keys"] if not key["here"]] == ["image_root_2"]


def test_signers_do_not_sign_what_a_stolen_hub_shows_them(own: Fleet) -> None:
    ceremony = Ceremony(own.keys)
    data = make_bundle(own.keys, version="9.9.9", release_counter=99)  # released by no other test
    trusted = TrustedKeys.load(own.keys / TRUSTED_FILE)
    facts = manifest_facts(verify_signed(data, trusted).manifest)
    old = ceremony.targets()
    forged = read(old.to_bytes(), Targets)
    forged.signed.version += 1
    with pytest.raises(TrustError) as caught:
        ceremony.sign_release(forged.to_bytes(), "a" * 64, 10, facts, NOW)
    assert caught.value.code == Code.TOO_FEW
    newer = ceremony.sign_release(old.to_bytes(), digest_hex(data), len(data), facts, NOW)
    assert newer
    ceremony.keep_targets(newer)
    with pytest.raises(TrustError) as caught:
        ceremony.sign_release(old.to_bytes(), "a" * 64, 10, facts, NOW)
    assert caught.value.code == Code.ROLLBACK


def test_the_hub_publishes_only_what_both_signed(own: Fleet) -> None:
    own.start_hub()
    first = own.release(make_bundle(own.keys))
    ceremony = Ceremony(own.keys)
    path = own.folder / "second"
    # Released by no other test: the keys that are copied here may list what others have released.
    path.write_bytes(make_bundle(own.keys, version="8.8.8", release_counter=88))
    with own.client() as client:
        current = client.file("image/targets.json")
        for drop in (True, False):
            new = read(current, Targets)
            new.signed.version += 1
            if drop:
                new.signed.targets.clear()
            with pytest.raises(RefusedByHubError, match=Code.DISAGREE):
                _upload(client, path, sign(new, ceremony.signers("targets")))
        for signers in ([ceremony.signer("trainer")], [ceremony.signer("image_snapshot")] * 2):
            with pytest.raises(RefusedByHubError, match=Code.TOO_FEW):
                _upload(client, path, sign(new, signers))
        with pytest.raises(RefusedByHubError, match="no signed image targets"):
            _upload(client, path, b"")
        assert [release.digest for release in client.releases()] == [first]
        assert client.file("image/targets.json") == current
        next((own.keys / "trust").glob("release_manager-*")).rename(own.folder / "away.pem")
        with pytest.raises(KeyFileError, match="release_manager"):
            client.release(path)
        assert [release.digest for release in client.releases()] == [first]


def _upload(client: HubClient, path: Path, targets: bytes) -> None:
    data = path.read_bytes()
    digest = digest_hex(data)
    begun = client.call(BeginRelease(digest, len(data)))
    assert isinstance(begun, UploadFrom)
    if begun.offset < len(data):
        client.call(ReleaseChunk(digest, 0, data))
    client.call(CommitRelease(digest, targets))


def test_online_keys_change_while_hub_and_robot_run(own: Fleet) -> None:
    own.start_hub()
    own.release(make_bundle(own.keys))
    own.start_rollout("v1", "robot_1")
    own.start_comms()
    own.answer_candidate(accepted=True)
    wait_for(lambda: own.rollout_state()[0] in ("active", "soaked"), "the first policy")
    ceremony = Ceremony(own.keys)
    for name in ("image_timestamp", "image_snapshot", "trainer", "director_targets", "director_timestamp"):
        ceremony.replace(name, datetime.now(UTC))
    second = own.release(make_bundle(own.keys, version="v2", release_counter=2))
    own.start_rollout("v2", "robot_1")
    assert own.answer_candidate(accepted=True).digest == second
    wait_for(lambda: own.rollout_state()[0] in ("active", "soaked"), "the second policy")
    floor = FloorStore(own.state()).read()
    assert floor.counters == {"routing": 2}
    assert floor.versions["image/root/-"] == 4
    assert floor.versions["director/root/-"] == 3
    told = [name for name in _events(own.state()) if name.startswith("hub_time")]
    assert told == ["hub_time"]  # the clock's key changed, too; the time it had told goes on meanwhile


def test_a_robot_refuses_what_a_stolen_hub_serves(own: Fleet) -> None:
    """The hub's disk is the attacker's: it serves image targets that nobody signed, under its own timestamp."""
    own.start_hub()
    own.release(make_bundle(own.keys))
    folder = own.folder / "data" / "trust" / IMAGE
    path = max(folder.glob("*.targets.json"), key=lambda found: int(found.name.split(".")[0]))
    path.write_bytes(path.read_bytes().replace(b'"release_counter":1', b'"release_counter":8'))
    own.start_rollout("v1", "robot_1")
    own.start_comms()
    state, reason = wait_for(lambda: (s := own.rollout_state())[0] == "refused" and s, "the refusal", 60.0)
    assert state == "refused"
    assert "targets.json" in reason
    assert SlotStore(own.state()).active() is None
    floor = FloorStore(own.state()).read()  # the hub's time was good; nothing else of it was
    assert [name.split("/")[1] for name in floor.versions] == ["time"]
    assert (floor.counters, floor.verified_wall_ns) == ({}, 0)
    assert not (own.state() / "trust").exists()


def test_a_robot_sees_its_own_director_alone(own: Fleet) -> None:
    own.start_hub()
    hello = Hello("robot_1", "a" * 32, "b" * 32, 0, AMR_SMALL.name, ROUTING_LAYOUT.hash(), "", "")
    link = HubLink(own.address, own.keys / "robots" / "robot_1", lambda: hello, 1)

    def heard(kind: type) -> list[object]:
        link.wait(50)
        now_ns = time.monotonic_ns()
        messages = [message for message in link.receive(now_ns) if isinstance(message, kind)]
        link.step(now_ns, 0)
        return messages

    try:
        wait_for(lambda: heard(object) and link.online, "the hub")
        for name, found in (
            ("director/robot_1/timestamp.json", True),
            ("director/robot_2/timestamp.json", False),
            ("director/robot_9/timestamp.json", False),
            ("image/timestamp.json", True),
            ("image/77.root.json", False),
            ("../hub.sqlite", False),
            ("image/../../hub.sqlite", False),
        ):
            link.send(FetchFile(name))
            (chunk,) = wait_for(lambda: heard(FileChunk), name)
            assert isinstance(chunk, FileChunk)
            assert (chunk.name, chunk.found) == (name, found)
            assert len(encode(chunk)) < 8192
    finally:
        link.close()


def test_a_stick_updates_a_robot_without_a_network(own: Fleet) -> None:
    own.start_hub()
    digest = own.release(make_bundle(own.keys))
    own.start_rollout("v1", "robot_1")
    stick = stick_of(own)
    own.kill_hub()
    again = outrider("release", "--stick", stick, "--keys", own.keys, "--hub", own.address)
    assert again.returncode == 1
    cut = own.folder / "cut"
    shutil.copytree(stick, cut)
    next(cut.glob("image/*.targets.json")).unlink()
    outcome = update(own, cut)
    assert (outcome["state"], outcome["code"]) == ("refused", "incomplete")
    assert not list(own.state().glob("slots/?/*"))
    assert not (own.state() / "floor").exists()
    assert update(own, stick) == {"state": "staged", "digest": digest, "code": "", "reason": ""}
    by_url = update_from(
        f"file://{stick}", own.folder / "elsewhere", own.keys / "robots" / "robot_1", "robot_1", AMR_SMALL,
        lambda *_a, **_k: None,
    )  # fmt: skip
    assert (by_url.state, by_url.digest) == ("staged", digest)
    assert [name for name in _events(own.state()) if name.startswith("update")] == [
        "update_refused",
        "update_staged",
    ]
    own.start_comms()  # no hub: control takes it, comms commits it
    assert own.answer_candidate(accepted=True).digest == digest
    active = wait_for(SlotStore(own.state()).active, "the commit")
    assert active.digest == digest
    assert FloorStore(own.state()).read().counters == {"routing": 1}
    own.end_comms()
    assert update(own, stick)["state"] == "active"


def _events(state: Path) -> list[str]:
    found = []
    for segment in list_segments(state / "log"):
        for frame in iterate_frames(segment.path.read_bytes(), segment.data_start, segment.record_bytes):
            if frame.kind is Kind.EVENT:
                found.append(decode_event(frame.payload).name)
    return found


def test_a_stolen_director_cannot_do_without_approvals(own: Fleet) -> None:
    """Its keys sign an order whose plan nobody approved: the papers are refused as over the network."""
    own.start_hub()
    digest = own.release(make_bundle(own.keys))
    own.start_rollout("v1", "robot_1")
    stick = stick_of(own)
    size = (stick / "bundles" / f"{digest}.outrider").stat().st_size
    plan = make_plan(Release(digest, "routing", "v1", 1, size))
    order = encode(make_order(own.keys, plan, approvals=()))
    repository = Repository(stick / DIRECTOR / "robot_1", DIRECTOR)
    online = {role: Ceremony(own.keys).signer(names[0]) for role, names in ONLINE[DIRECTOR].items()}
    targets = Targets(9, expires=after(datetime.now(UTC), 7))
    targets.targets["order"] = make_target("order", digest_hex(order), len(order), None)
    (repository.folder / "order").write_bytes(order)
    repository.publish(sign(Metadata(targets), [online["targets"]]), online, datetime.now(UTC))
    own.state().mkdir()
    before = tree(own.state())
    logged: list[str] = []
    outcome = update_from(
        stick,
        own.state(),
        own.keys / "robots" / "robot_1",
        "robot_1",
        AMR_SMALL,
        lambda name, **_: logged.append(name),
    )
    assert (outcome.state, outcome.code) == ("refused", "not_approved")
    assert logged == ["order_refused"]
    assert tree(own.state()) == before


def test_a_stick_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(DataFolderError, match="not empty"):
        write_stick(tmp_path / "full", lambda _: b"", ["robot_1"])

    def breaks(name: str) -> bytes:
        raise OSError(28, "No space left on device", name)

    with pytest.raises(OSError, match="No space"):
        write_stick(tmp_path / "stick", breaks, ["robot_1"])
    assert not (tmp_path / "stick").exists()


def test_a_silent_hub_refuses_nothing(tmp_path: Path, keys: Path) -> None:
    """A check that could not ask the hub begins again; the bundle that is there stays."""
    bundle = make_bundle(keys)
    digest = digest_hex(bundle)

    class Silent:
        started = 0

        def start(self, *_: object) -> None:
            self.started += 1

        def question(self) -> None:
            return None

        def answer(self, _: FileChunk) -> None:
            raise AssertionError("nothing was asked")

        def result(self, _: int) -> CheckResult | None:
            first = CheckResult(None, Code.UNREACHABLE, "no answer")
            return first if self.started == 1 else CheckResult(facts_of(digest))

        def cancel(self) -> None:
            return None

    checker, own = Silent(), keys / "robots" / "robot_1"
    updater = Updater(tmp_path, checker, lambda _: True, lambda *_a, **_k: None, own, "robot_1")
    updater.on_order(make_order(keys, make_plan(Release(digest, "routing", "v1", 1, len(bundle)))), 0)
    updater.on_chunk(Chunk(digest, 0, bundle), 0)
    assert updater.state is State.CHECKING
    updater.step(0)
    assert updater.state is State.DOWNLOADING
    updater.step(4_000_000_000)
    assert (updater.state, checker.started) == (State.CHECKING, 2)
    updater.step(4_000_000_000)
    assert updater.state is State.WAITING


def test_any_file_system_may_hold_a_copy(own: Fleet, tmp_path: Path) -> None:
    """Files in fsspec's memory: taken when they are good, refused when one was changed, missing or has no server."""
    import fsspec

    (tmp_path / "world").mkdir()
    world = World.make(tmp_path / "world", own.keys, (make_bundle(own.keys),))
    memory = fsspec.filesystem("memory")
    memory.put(str(world.stick), "/fleet", recursive=True)
    wanted = Wanted(digest_hex(world.bundles[0]), ORDER)

    def check(url: str) -> None:
        keys = world.keys / "robots" / ROBOT
        trust = RobotTrust(world.state, keys, ROBOT, AMR_SMALL, FolderFetcher(url))
        trust.check(wanted, world.path(0), world.facts(0))

    try:
        check("memory://fleet/")
        memory.pipe("/fleet/image/timestamp.json", b"{}")
        with pytest.raises(TrustError) as caught:
            check("memory://fleet")
        assert caught.value.code == Code.UNREADABLE
        memory.rm("/fleet/image/timestamp.json")
        for url, code in (("memory://fleet", Code.INCOMPLETE), ("no-such-thing://fleet", Code.UNREACHABLE)):
            with pytest.raises(TrustError) as caught:
                check(url)
            assert caught.value.code == code
    finally:
        memory.rm("/fleet", recursive=True)


def test_versions_never_come_twice(tmp_path: Path) -> None:
    """Whatever was given away before a start, and however often: what comes after is above it."""
    highest = 0
    for _ in range(3):
        versions, known = Versions(tmp_path), 0
        for _ in range(STEP + 5):
            known = versions.after(known)
            assert known > highest
        assert versions.after(0) > highest  # another robot's: only its own must rise
        highest = known
    assert Versions(tmp_path).after(10 * STEP) == 10 * STEP + 1
    for torn in ("torn", "", "-5", "1_000", "9" * 13):
        (tmp_path / CEILING_FILE).write_text(torn)
        with pytest.raises(TrustError, match="holds no number"):
            Versions(tmp_path)


def test_a_lost_ceiling_is_above_every_version_that_is_there(tmp_path: Path) -> None:
    """No power cut takes it; a copy that somebody made without it may be put back."""
    for name in ("robot_1/1007.targets.json", "robot_2/12.snapshot.json", "robot_2/timestamp.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert Versions(tmp_path).after(0) > 1007


def test_what_a_power_cut_takes_of_a_director_is_signed_anew_above_it(own: Fleet) -> None:
    """Director files are not synced: a hub that finds them torn or gone goes on under versions no robot has seen."""
    own.start_hub()
    folder = own.folder / "data" / "trust" / DIRECTOR / "robot_1"

    def version() -> int:
        with RawRobot(own.keys, "robot_1", own.address) as robot:
            robot.hello()
            data = robot.ask(FetchFile("director/robot_1/timestamp.json"), FileChunk).data
            again = robot.ask(FetchFile("director/robot_1/timestamp.json"), FileChunk).data
        assert again == data  # nothing new: nothing signed
        return int(read(data, Timestamp).signed.version)

    seen = version()
    own.kill_hub()
    (folder / "timestamp.json").write_bytes(b"")
    for path in folder.glob("*.snapshot.json"):
        path.unlink()
    own.start_hub()
    assert version() > seen
