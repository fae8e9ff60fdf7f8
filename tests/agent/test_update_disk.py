"""Disks that tear files or are full, checks that are killed: a robot keeps a policy that runs, a hub its audit log."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.bundle import verify_bundle
from contracts.canonical import digest_hex
from contracts.errors import BundleError
from contracts.keyring import TRUSTED_FILE
from contracts.messages import Chunk, FromRobot, RolloutReport
from contracts.observation import ROUTING_LAYOUT
from contracts.plan import Release
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from contracts.trust import DirectorFacts, TrustError, Wanted
from edge_agent.update.check import CHECK_CPU_MAX_S, CPU_GRACE_S
from edge_agent.update.checker import CHECK_COSTLY, CHECK_KILLED, BundleChecker
from edge_agent.update.floor import FloorStore
from edge_agent.update.job import CHECK_KILLS_MAX
from edge_agent.update.mailbox import CommsMailbox, ControlMailbox, new_candidate
from edge_agent.update.slots import SlotStore
from edge_agent.update.updater import State, Updater
from fleet_hub.errors import HubError, RefusedByHubError
from fleet_hub.rollout.events import Released
from fleet_hub.store.audit import AuditLog, read_entries, verify_chain
from fleet_hub.store.database import Database
from tests.support.fleet import (
    ANSWER_MAX_S,
    Fleet,
    facts_of,
    large_policy,
    make_bundle,
    make_order,
    make_plan,
)
from tests.support.trust import World
from tests.support.waiting import wait_for

MIB = 1024 * 1024
TMPFS_BYTES = 9 * MIB


@pytest.fixture(scope="module")
def template(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A robot that has taken the first of two releases; the second has been sent since."""
    bundles = tuple(make_bundle(keys, version=f"v{n}", release_counter=n) for n in (1, 2))
    made = World.make(tmp_path_factory.mktemp("torn"), keys, bundles)
    made.take(0)
    made.send(1)
    return made


def torn(data: bytes, draw: random.Random) -> list[bytes]:
    """What a disk may make of a file: nothing, a beginning, zeros, a bit that has turned."""
    cut, turned = draw.randrange(1, max(2, len(data))), bytearray(data)
    turned[draw.randrange(len(data))] ^= 0x10
    return [b"", data[:cut], data[: cut - 1] + bytes(len(data) - cut + 1), bytes(len(data)), bytes(turned)]


def test_whatever_file_of_its_trust_is_torn_the_robot_takes_the_next_update(
    template: World, tmp_path: Path
) -> None:
    """TUF's cache and the floor: each file in turn, in each of the ways; nothing older than the floor gets in."""
    draw, tried = random.Random(7), 0
    files = [
        path.relative_to(template.state)
        for path in sorted(template.state.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != "lock"
    ]
    assert len(files) >= 10
    for name in files:
        for number, data in enumerate(draw.sample(torn((template.state / name).read_bytes(), draw), 2)):
            world = template.copy(_folder(tmp_path / f"{tried}"))
            (world.state / name).write_bytes(data)
            floor = FloorStore(world.state).read()
            assert floor.counters == {"routing": 1}, (name, number)
            world.take(1)
            assert FloorStore(world.state).read().counters == {"routing": 2}, (name, number)
            shutil.rmtree(world.folder)
            tried += 1
    assert tried == 2 * len(files)


def test_a_torn_cache_lets_nothing_old_in(template: World, tmp_path: Path) -> None:
    world = template.copy(_folder(tmp_path / "world"))
    old = world.keep()
    world.take(1)
    for path in (world.state / "trust" / "current").rglob("*.json"):
        if not path.is_symlink():
            path.write_bytes(path.read_bytes()[:100])
    world.put_back(old)
    shutil.copytree(template.stick, world.stick, dirs_exist_ok=True)
    world.state.joinpath("floor", "a.json").write_bytes(b"{torn")
    with pytest.raises(TrustError) as caught:
        world.check(0)
    assert caught.value.code in ("not_in_director", "below_floor", "counter_too_low")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_whatever_file_of_its_slots_is_torn_the_robot_has_a_policy(keys: Path, tmp_path: Path) -> None:
    """Committed v1, v2 in the spare slot before control; then one file is torn, and everybody starts anew."""
    trusted = TrustedKeys.load(keys / TRUSTED_FILE)
    bundles = {n: make_bundle(keys, version=f"v{n}", release_counter=n) for n in (1, 2)}
    state = tmp_path / "state"
    store = SlotStore(state)
    for number, data in bundles.items():
        source = tmp_path / "bundle"
        source.write_bytes(data)
        entry = store.stage(source, facts_of(digest_hex(data), number))
        if number == 1:
            store.commit(entry)
    mailbox = CommsMailbox(state)
    mailbox.offer(new_candidate(entry, 1))
    ControlMailbox(state).answer(new_candidate(entry, 1), True)
    draw = random.Random(8)
    for name in ("active.json", "active.json.copy", "candidate.json", "loaded.json", "b/policy.outrider"):
        for number, data in enumerate(torn((state / "slots" / name).read_bytes(), draw)):
            copy = tmp_path / f"{name.replace('/', '-')}-{number}"
            shutil.copytree(state, copy)
            (copy / "slots" / name).write_bytes(data)
            active = SlotStore(copy).active()
            CommsMailbox(copy).waiting()
            ControlMailbox(copy).poll()
            assert active is not None, (name, number)
            bundle = verify_bundle(Path(active.path), trusted, ROUTING_LAYOUT.hash(), AMR_SMALL)
            assert bundle.manifest.version == "v1", (name, number)
            if name == "b/policy.outrider":
                with pytest.raises(BundleError):
                    verify_bundle(copy / "slots" / name, trusted, ROUTING_LAYOUT.hash(), AMR_SMALL)


def test_a_torn_write_ahead_log_leaves_a_whole_audit_chain(tmp_path: Path) -> None:
    """The hub is gone with its WAL half written: what is left is a beginning of what was, with every link."""
    database = Database(tmp_path / "hub.sqlite")
    audit = AuditLog(database, lambda: 1)
    for number in range(60):
        with database.transaction():
            audit.append("somebody", Released(f"{number:064x}", f"policy {number}"))
    whole = [row[0] for row in database.rows("SELECT hash FROM audit ORDER BY seq")]
    wal = (tmp_path / "hub.sqlite-wal").read_bytes()
    main = (tmp_path / "hub.sqlite").read_bytes()
    database.close()
    draw, lengths = random.Random(9), set()
    for number in range(24):
        folder = _folder(tmp_path / str(number))
        cut = draw.randrange(len(wal))
        (folder / "hub.sqlite").write_bytes(main)
        (folder / "hub.sqlite-wal").write_bytes(
            wal[:cut] + (b"" if number % 2 else os.urandom(len(wal) - cut))
        )
        again = Database(folder / "hub.sqlite")
        more = AuditLog(again, lambda: 2)
        count = more.head[0]
        more.append("somebody", Released("f" * 64, "after"))
        again.close()
        entries = read_entries(folder)
        verify_chain(entries)
        assert [entry.hash for entry in entries[:-1]] == whole[:count]
        lengths.add(count)
    assert len(lengths) > 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = _folder(tmp_path / "disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a full disk needs a small one: no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left_bytes: int) -> Path:
    """Use the disk up but for so much."""
    path = folder / f"filler-{left_bytes}"
    path.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    with path.open("wb") as file:
        file.write(bytes(max(0, free - left_bytes)))
    return path


def test_a_robots_full_disk(
    small_disk: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for the next bundle: refused by name, the policy that drives stays; with room it goes on."""
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    (tmp_path / "robot_1").symlink_to(_folder(small_disk / "robot_1"))
    fleet = Fleet(tmp_path, keys)
    try:
        fleet.start_hub()
        first = fleet.release(make_bundle(keys))
        fleet.start_rollout(first, "robot_1")
        fleet.start_comms()
        fleet.answer_candidate(accepted=True)
        wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the first policy")
        second = fleet.release(make_bundle(keys, version="v2", release_counter=2))
        filler = fill(small_disk, MIB)
        fleet.start_rollout(second, "robot_1")
        _, reason = wait_for(lambda: (s := fleet.rollout_state())[0] == "refused" and s, "the refusal")
        assert "No space" in reason
        fleet.end_comms(number=signal.SIGKILL)
        active = SlotStore(fleet.state()).active()
        assert active
        assert active.digest == first
        filler.unlink()
        fleet.start_comms()
        fleet.start_rollout(second, "robot_1")
        assert fleet.answer_candidate(accepted=True).digest == second
        wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the next policy")
    finally:
        fleet.close()


def start_until_full(fleet: Fleet, release: str) -> None:
    """Until a write-ahead log that is open already is full, too."""
    for _ in range(200):
        fleet.start_rollout(release)


def test_a_hubs_full_disk(
    small_disk: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses what it cannot keep, or ends in one line; started with room it goes on where it was."""
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    (tmp_path / "data").symlink_to(_folder(small_disk / "data"))
    fleet = Fleet(tmp_path, keys)
    try:
        fleet.start_hub()
        first = fleet.release(make_bundle(keys))
        second = make_bundle(keys, version="v2", release_counter=2)
        filler = fill(small_disk, MIB)
        with pytest.raises(RefusedByHubError, match="No space"):
            fleet.release(second)
        with fleet.client() as client:
            assert [release.digest for release in client.releases()] == [first]
        full = fill(small_disk, 0)
        fleet.answer_max_s = 5.0  # one that has ended gives none
        with pytest.raises(HubError):
            start_until_full(fleet, first)
        fleet.answer_max_s = ANSWER_MAX_S
        filler.unlink()
        full.unlink()
        assert fleet.hub_process is not None
        assert fleet.hub_process.wait(60) == 1
        assert fleet.hub_process.stdout is not None
        fleet.hub_process.stdout.close()
        verify_chain(read_entries(fleet.folder / "data"))
        fleet.start_hub()
        digest = fleet.release(second)
        with fleet.client() as client:
            assert [release.digest for release in client.releases()] == [digest, first]
        connection = sqlite3.connect(fleet.folder / "data" / "hub.sqlite")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    finally:
        fleet.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_check_is_tried_again_but_not_for_ever(
    how: signal.Signals, tmp_path: Path, keys: Path
) -> None:
    """The system kills it for want of memory, or stops the agent: not the bundle's fault, until it is."""
    last, ended = _checks_ended_by(how, tmp_path, keys)
    assert ended == CHECK_KILLS_MAX
    assert (last.state, last.code) == ("refused", CHECK_KILLED)


def test_a_check_that_used_up_its_cpu_time_is_the_bundles_fault_at_once(tmp_path: Path, keys: Path) -> None:
    """No busy machine does that: the limit counts what the check itself has used."""
    last, ended = _checks_ended_by(signal.SIGXCPU, tmp_path, keys)
    assert ended == 1
    assert (last.state, last.code) == ("refused", CHECK_COSTLY)


def _checks_ended_by(how: signal.Signals, state: Path, keys: Path) -> tuple[RolloutReport, int]:
    """The last report of a robot whose every check is ended by that signal, and how many were."""
    bundle = make_bundle(keys)
    digest = digest_hex(bundle)
    said: list[FromRobot] = []
    own = keys / "robots" / "robot_1"
    checker = BundleChecker(own, AMR_SMALL.name, state)
    updater = Updater(
        state, checker, lambda m: bool(said.append(m)) or True, lambda *_a, **_k: None, own, "robot_1"
    )
    updater.on_order(make_order(keys, make_plan(Release(digest, "routing", "v1", 1, len(bundle)))), 0)
    updater.on_chunk(Chunk(digest, 0, bundle), 0)
    ended, now_ns = 0, 0
    while updater.state is not State.IDLE:
        if updater.state is State.CHECKING:
            assert checker._child is not None
            checker._child.send_signal(how)
            checker._child.wait()
            ended += 1
        now_ns += 10**9
        updater.step(now_ns)
    last = said[-1]
    assert isinstance(last, RolloutReport)
    return last, ended


def test_the_check_limits_itself_and_goes_first_where_memory_runs_out(tmp_path: Path, keys: Path) -> None:
    """As the kernel sees the child while it waits for the hub: SIGXCPU comes before the SIGKILL that tells nothing."""
    bundle = make_bundle(keys)
    path = tmp_path / "bundle"
    path.write_bytes(bundle)
    wanted = Wanted(digest_hex(bundle), DirectorFacts("robot_1", 1, 0, "run", "ab" * 32))
    checker = BundleChecker(keys / "robots" / "robot_1", AMR_SMALL.name, tmp_path / "state")
    checker.start(path, 0, wanted)
    try:
        wait_for(checker.question, "the check's first question")
        child = checker._child
        assert child is not None
        soft_s, hard_s = resource.prlimit(child.pid, resource.RLIMIT_CPU)
        assert (soft_s, hard_s) == (CHECK_CPU_MAX_S, CHECK_CPU_MAX_S + CPU_GRACE_S)
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"
    finally:
        checker.cancel()
