"""Bundles from an operator through the hub into a robot's slots: real sockets, real processes, real kills."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from contracts.canonical import digest_hex
from contracts.errors import BundleCounterTooLowError
from contracts.messages import CHUNK_MAX_BYTES, BeginRelease, Chunk, FileChunk, FromRobot, RolloutReport
from contracts.plan import Release
from contracts.trust import DirectorFacts, Wanted
from edge_agent.update.checker import BundleChecker, Checker, CheckRequest, CheckResult
from edge_agent.update.mailbox import CommsMailbox, ControlMailbox, new_candidate
from edge_agent.update.slots import SlotStore
from edge_agent.update.updater import State, Updater
from fleet_hub.errors import RefusedByHubError, UnknownReleaseError
from fleet_hub.limits import DOWNLOAD_CHUNK_BYTES
from tests.support.fleet import Fleet, facts_of, large_policy, make_bundle, make_order, make_plan
from tests.support.waiting import wait_for
from trainer.release.keys import create_release_key, load_signer


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_update_arrives_and_the_next_one_too(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    first = fleet.release(make_bundle(keys))
    assert [entry.state for entry in fleet.start_rollout("routing", "robot_1").robots] == ["waiting"]
    fleet.ring()
    fleet.start_comms()  # told at Hello
    assert fleet.answer_candidate(accepted=True).digest == first
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the first policy")
    second = fleet.release(make_bundle(keys, version="v2", release_counter=2))
    fleet.start_rollout("v2")  # pushed
    assert fleet.answer_candidate(accepted=True).digest == second
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the second policy")
    assert fleet.rollout_state("robot_2") == ("waiting", "")
    store = SlotStore(fleet.state())
    active, previous = store.active(), store.previous()
    assert active
    assert previous
    assert (active.digest, active.slot, previous.digest, previous.slot) == (second, "b", first, "a")

    def seen() -> dict[str, tuple[bool, str]]:
        with fleet.client() as client:
            return {one.robot: (one.online, one.active_version) for one in client.fleet().robots}

    wait_for(
        lambda: seen() == {"robot_1": (True, "v2"), "robot_2": (False, "")}, "both in the fleet's status"
    )


def test_control_refuses_and_nothing_is_lost(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    fleet.release(make_bundle(keys))
    fleet.start_rollout("v1", "robot_1")
    fleet.start_comms()
    fleet.answer_candidate(accepted=True)
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the first policy")
    before = (fleet.state() / "slots" / "a" / "policy.outrider").read_bytes()
    fleet.release(make_bundle(keys, version="v2", release_counter=2))
    fleet.start_rollout("v2", "robot_1")
    fleet.answer_candidate(accepted=False, reason="another monitor")
    _, reason = wait_for(lambda: (s := fleet.rollout_state())[0] == "refused" and s, "the refusal")
    assert "another monitor" in reason
    active = SlotStore(fleet.state()).active()
    assert active
    assert (active.slot, active.facts.version) == ("a", "v1")
    assert Path(active.path).read_bytes() == before
    assert not (fleet.state() / "slots" / "b" / "policy.outrider").exists()


def test_the_hub_survives_kill_9(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    digest = fleet.release(make_bundle(keys))
    fleet.start_rollout(digest[:8], "robot_2")
    fleet.kill_hub()
    fleet.start_hub()
    with fleet.client() as client:
        assert [release.digest for release in client.releases()] == [digest]
    assert fleet.rollout_state("robot_2") == ("waiting", "")
    assert fleet.release(make_bundle(keys)) == digest  # again is the same release


def test_a_cut_transfer_goes_on(fleet: Fleet, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill hub and comms while the bundle is on its way: no byte that is there is fetched again."""
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    bundle = make_bundle(keys)
    fleet.start_hub()
    digest = fleet.release(bundle)
    fleet.kill_hub()
    staging = fleet.state() / "staging"
    staging.mkdir(parents=True)
    part = staging / f"{digest}.part"
    part.write_bytes(bundle[: 3 * DOWNLOAD_CHUNK_BYTES + 17])
    inode = part.stat().st_ino
    fleet.start_hub()
    fleet.start_rollout(digest, "robot_1")
    fleet.start_comms()
    wait_for(lambda: not part.exists() or part.stat().st_size > 3 * DOWNLOAD_CHUNK_BYTES + 17, "more bytes")
    fleet.kill_hub()
    fleet.end_comms(number=signal.SIGKILL)
    fleet.start_hub()
    fleet.start_comms()
    candidate = fleet.answer_candidate(accepted=True)
    wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy")
    assert candidate.path.read_bytes() == bundle
    assert candidate.path.stat().st_ino == inode


def make_updater(state: Path, keys: Path, checker: Checker, send: Callable[[FromRobot], bool]) -> Updater:
    return Updater(state, checker, send, lambda *_a, **_k: None, keys / "robots" / "robot_1", "robot_1")


def test_at_most_one_chunk_is_asked_again(tmp_path: Path, keys: Path) -> None:
    """The updater against a hub that is cut at every chunk."""
    bundle = os.urandom(10 * DOWNLOAD_CHUNK_BYTES + 5)
    digest = digest_hex(bundle)
    order = make_order(keys, make_plan(Release(digest, "routing", "v1", 1, len(bundle))))
    asked: list[FromRobot] = []

    def send(message: FromRobot) -> bool:
        asked.append(message)
        return True

    sent = 0
    for _ in range(40):
        updater = make_updater(tmp_path, keys, _NeverReady(), send)  # killed and started again
        updater.on_order(order, 0)
        if updater.state is State.CHECKING:
            break
        request = asked[-1]
        data = bundle[request.offset : request.offset + DOWNLOAD_CHUNK_BYTES]  # type: ignore[union-attr]
        sent += len(data)
        updater.on_chunk(Chunk(digest, request.offset, data), 0)  # type: ignore[union-attr]
    assert updater.state is State.CHECKING
    assert sent == len(bundle)
    assert DOWNLOAD_CHUNK_BYTES <= CHUNK_MAX_BYTES


class _NeverReady:
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


@pytest.mark.parametrize(
    "name", ["changed", "stranger", "layout", "truncated", "garbage", "wrong_monitor_text", "old_counter"]
)
def test_a_robot_refuses_and_stays_as_it_was(name: str, tmp_path: Path, keys: Path) -> None:
    """A hub that offers bad bytes: reported by name, disk and active slot as before."""
    good = make_bundle(keys, release_counter=5)
    store = SlotStore(tmp_path)
    source = tmp_path / "first"
    source.write_bytes(good)
    store.commit(store.stage(source, facts_of("a" * 64, 5)))
    bad, code = _bad_bundles(keys, tmp_path)[name]
    for path in tmp_path.glob("stranger*"):
        path.unlink()
    before = tree(tmp_path)
    reports: list[FromRobot] = []
    checker = BundleChecker(keys / "robots" / "robot_1", "amr_small", tmp_path)
    updater = make_updater(tmp_path, keys, checker, lambda m: bool(reports.append(m)) or True)
    digest = digest_hex(bad)
    counter = 4 if name == "old_counter" else 6
    order = make_order(keys, make_plan(Release(digest, "routing", "v1", counter, len(bad))))
    updater.on_order(order, 0)
    updater.on_chunk(Chunk(digest, 0, bad), 0)

    def refusals() -> list[RolloutReport]:
        updater.step(0)
        return [r for r in reports if isinstance(r, RolloutReport) and r.state == "refused"]

    (report,) = wait_for(refusals, "the refusal")
    assert code in report.reason, report.reason
    after = tree(tmp_path)
    assert after.pop("slots/refused.json")
    assert after.pop("slots/orders.json") == after.pop("slots/orders.json.copy")  # its papers were good
    assert after == before
    assert ControlMailbox(tmp_path).poll() is None
    updater.on_order(order, 0)
    assert len(refusals()) == 2  # told again without fetching again
    assert updater.state is State.IDLE


def _bad_bundles(keys: Path, folder: Path) -> dict[str, tuple[bytes, str]]:
    create_release_key(folder / "stranger.pem")
    stranger = load_signer(folder / "stranger.pem")
    good = make_bundle(keys, release_counter=6)
    changed = bytearray(good)
    changed[len(good) // 2] ^= 1
    return {
        "changed": (bytes(changed), "damaged"),
        "stranger": (make_bundle(stranger, release_counter=6), "signature_refused"),
        "layout": (make_bundle(keys, release_counter=6, observation_layout_hash="0" * 64), "wrong_layout"),
        "truncated": (good[:-100], "damaged"),
        "garbage": (b"garbage", "damaged"),
        "wrong_monitor_text": (good.replace(b"abababab", b"cdcdcdcd"), "damaged"),
        "old_counter": (good, "release counter"),
    }


def test_bytes_with_another_digest_are_fetched_twice_then_refused(tmp_path: Path, keys: Path) -> None:
    sent: list[FromRobot] = []
    updater = make_updater(tmp_path, keys, _NeverReady(), lambda m: bool(sent.append(m)) or True)
    updater.on_order(make_order(keys, make_plan(Release("b" * 64, "routing", "v1", 1, 10))), 0)
    for _ in range(2):
        updater.on_chunk(Chunk("b" * 64, 0, bytes(10)), 0)
    last = sent[-1]
    assert isinstance(last, RolloutReport)
    assert last.state == "refused"
    assert not list((tmp_path / "staging").iterdir())


def test_the_catalogue_refuses_and_stays_empty(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    for name, (bad, _) in _bad_bundles(keys, fleet.folder).items():
        if name in ("layout", "old_counter"):
            continue
        with pytest.raises(RefusedByHubError, match="refused"):
            fleet.release(bad)
    with fleet.client() as client:
        assert client.releases() == ()
        with pytest.raises(RefusedByHubError, match="may have"):
            client.call(BeginRelease("a" * 64, 2**40))
    data = fleet.folder / "data"
    assert not list((data / "bundles").iterdir())
    assert not list((data / "staging").iterdir())
    fleet.release(make_bundle(keys, release_counter=6))
    for counter in (5, 6):
        with pytest.raises(RefusedByHubError, match="must be above 6"):
            fleet.release(make_bundle(keys, version="other", release_counter=counter))
    with pytest.raises(RefusedByHubError, match="no robot robot_9"):
        fleet.start_rollout("v1", "robot_9")
    with pytest.raises(UnknownReleaseError, match="no release 'v9'"):
        fleet.start_rollout("v9")


def test_slots_and_mailbox(tmp_path: Path) -> None:
    store, comms, control = SlotStore(tmp_path), CommsMailbox(tmp_path), ControlMailbox(tmp_path)
    assert store.active() is None
    assert control.poll() is None
    source = tmp_path / "x"
    source.write_bytes(b"one")
    entry = store.stage(source, facts_of("a" * 64, 2))
    assert store.active() is None
    candidate = new_candidate(entry, 1)
    comms.offer(candidate)
    assert control.poll() == candidate
    assert control.poll() is None
    control.answer(candidate, False, "no")
    assert ControlMailbox(tmp_path).poll() is None  # refused stays refused over a restart
    answer = comms.answer_to(candidate)
    assert answer
    assert answer.reason == "no"
    store.commit(entry)
    source.write_bytes(b"old")
    with pytest.raises(BundleCounterTooLowError):
        store.stage(source, facts_of("b" * 64, 1))
    assert source.exists()
    active = store.active()
    assert active
    assert Path(active.path).read_bytes() == b"one"
    assert json.loads((tmp_path / "slots" / "active.json").read_bytes())["counter_floors"] == {"routing": 2}


def test_the_check_ends_by_itself_on_any_file(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x05\x06" + bytes(18))
    wanted = Wanted("a" * 64, DirectorFacts("robot_1", 1, 0, "run", "b" * 64))
    request = CheckRequest(str(tmp_path / "x"), str(keys), "amr_small", str(tmp_path), wanted)
    command = [sys.executable, "-m", "edge_agent.update.check", msgspec.json.encode(request).decode()]
    done = subprocess.run(command, capture_output=True, timeout=100, check=True)
    assert json.loads(done.stdout)["code"] == "wrong_members"
