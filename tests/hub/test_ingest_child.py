"""The hub keeps its replay store up to date by a child process of its own."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from contracts.errors import StoreFormatError
from fleet_hub.store import ingesting
from fleet_hub.store.ingesting import IngestChild
from fleet_hub.store.replay import Ingest
from tests.hub.test_store import BEGIN_NS, ask, trip_rows, write_log
from tests.support.fleet import Fleet, make_keys
from tests.support.waiting import wait_for

NS = 10**9


def count(data: Path) -> int:
    """Decisions in the store; none while it is being made."""
    try:
        return int(ask(data, "SELECT count(*) FROM decisions")[0][0])
    except StoreFormatError:
        return 0


def close_log(data: Path, robot: str) -> None:
    """A log that nothing was added to for a while."""
    write_log(data, trip_rows(1, BEGIN_NS, 20), robot)
    for path in (data / "telemetry" / robot).rglob("*.olog"):
        os.utime(path, (time.time() - 1000, time.time() - 1000))


def test_it_takes_what_closes_and_is_started_again_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingesting, "BACKOFF_MIN_S", 0.1)
    close_log(tmp_path, "robot_1")
    child = IngestChild(tmp_path, every_s=0.2)
    try:
        child.step(time.monotonic_ns())
        wait_for(lambda: count(tmp_path) == 200, "the first log in the store")
        os.kill(child.pid, signal.SIGKILL)
        close_log(tmp_path, "robot_2")

        def both() -> bool:
            child.step(time.monotonic_ns())
            return count(tmp_path) == 400

        wait_for(both, "a new child and the second log")
        assert child.starts == 2
        pid = child.pid
    finally:
        child.close()
    assert not psutil.pid_exists(pid)


def test_back_off_grows_and_what_did_well_starts_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingesting, "EVERY_S", 60.0)
    child = IngestChild(tmp_path / "missing")  # no telemetry: it ends at once
    now_ns, waits = 0, []
    for _ in range(3):
        child.step(now_ns)
        assert child._process is not None
        assert child._process.wait(60) == 1
        child.step(now_ns)
        waits.append(child._next_ns - now_ns)
        now_ns = child._next_ns
    assert waits == [2 * NS, 4 * NS, 8 * NS]
    child.step(now_ns)
    assert child._process is not None
    child._process.wait(60)
    child.step(now_ns + 121 * NS)
    assert child._next_ns == now_ns + 122 * NS
    child.close()


def test_others_get_the_store_between_two_passes(tmp_path: Path) -> None:
    close_log(tmp_path, "robot_1")
    child = IngestChild(tmp_path, every_s=30.0)
    try:
        child.step(time.monotonic_ns())
        wait_for(lambda: count(tmp_path) == 200, "the first pass")

        def free() -> bool:
            with Ingest(tmp_path):
                return True

        wait_for(free, "the store's lock")
        assert child.pid
    finally:
        child.close()


def test_a_hub_has_one_unless_told_otherwise_and_a_killed_hub_leaves_none(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, make_keys(tmp_path / "keys"))
    try:
        fleet.start_hub("--ingest")
        assert fleet.hub_process is not None
        hub = psutil.Process(fleet.hub_process.pid)
        (child,) = wait_for(hub.children, "the ingest")
        wait_for(lambda: (tmp_path / "data/store/catalogue.sqlite").exists(), "a store")
        fleet.kill_hub()
        wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end")
        fleet.start_hub("--no-ingest")
        with fleet.client() as client:
            client.fleet()
        assert psutil.Process(fleet.hub_process.pid).children() == []
    finally:
        fleet.close()
