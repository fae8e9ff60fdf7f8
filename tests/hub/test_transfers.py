"""Who may fetch and who waits: the core with its own clock, then a real hub among flooding, silent and broken peers."""

import os
import socket
import time
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages import Ack, Chunk, FetchChunk, Heartbeat, Wait, encode
from fleet_hub.limits import DOWNLOAD_CHUNK_BYTES
from fleet_hub.transfers import (
    IDLE_MAX_S,
    LATE_MAX_S,
    NS,
    PLACE_MAX_S,
    WAIT_MAX_MS,
    WAITING_MAX,
    TransferLimits,
    Transfers,
)
from tests.support.fleet import Fleet, large_policy, make_bundle
from tests.support.network import CutLine, RawRobot
from tests.support.waiting import wait_for

DIGEST = "a" * 64


def test_a_cap_and_first_come_first_served() -> None:
    transfers = Transfers(TransferLimits(at_once=2), 0)
    assert [transfers.ask(robot, DIGEST, 0) for robot in ("a", "b")] == [0, 0]
    assert all(transfers.ask(robot, DIGEST, 0) > 0 for robot in ("c", "d"))
    assert transfers.ask("a", DIGEST, 1) == 0  # goes on
    transfers.sent("a", 10, True, 2)
    assert transfers.ask("e", DIGEST, 3) > 0  # does not overtake
    assert transfers.ask("d", DIGEST, 3) > 0
    assert transfers.ask("c", DIGEST, 3) == 0
    transfers.sent("b", 10, True, 4)
    assert transfers.ask("d", DIGEST, 5) == 0
    assert (transfers.active, transfers.waiting, transfers.told_to_wait) == (2, 1, 4)


def test_the_queue_has_a_bound() -> None:
    transfers = Transfers(TransferLimits(at_once=1), 0)
    transfers.ask("first", DIGEST, 0)
    for number in range(0, WAITING_MAX, 1):
        transfers._due_ns[f"robot_{number}"] = 0
    assert transfers.ask("late", DIGEST, 0) == WAIT_MAX_MS
    assert transfers.waiting == WAITING_MAX


def test_the_dead_do_not_hold_up_the_living() -> None:
    transfers = Transfers(TransferLimits(at_once=1), 0)
    transfers.ask("dies fetching", DIGEST, 0)
    transfers.ask("dies waiting", DIGEST, 0)
    assert transfers.ask("lives", DIGEST, 0) > 0
    just_before = int((IDLE_MAX_S - 1.0) * NS)
    assert transfers.ask("lives", DIGEST, just_before) > 0
    after = int((max(IDLE_MAX_S, LATE_MAX_S) + 1.5) * NS)
    assert transfers.ask("lives", DIGEST, after) == 0
    assert (transfers.active, transfers.waiting) == (1, 0)


def test_a_slow_drip_keeps_no_place_for_ever() -> None:
    transfers = Transfers(TransferLimits(at_once=1), 0)
    now_ns = 0
    while now_ns < (PLACE_MAX_S + 10.0) * NS:
        first = transfers.ask("drip", DIGEST, now_ns)
        assert first == 0 or transfers.active == 1
        now_ns += int(2.0 * NS)
        if transfers.ask("other", DIGEST, now_ns) == 0:
            break
    assert PLACE_MAX_S < now_ns / NS < PLACE_MAX_S + 6.0
    assert transfers.ask("drip", DIGEST, now_ns) > 0  # behind who waited


@pytest.mark.parametrize(("robot_rate", "fleet_rate", "robots"), [(1e6, 1e9, 1), (1e9, 1e6, 3)])
def test_a_rate_is_kept(robot_rate: float, fleet_rate: float, robots: int) -> None:
    """Ten seconds of robots that ask the moment they may."""
    transfers = Transfers(TransferLimits(16, robot_rate, fleet_rate), 0)
    sent, due_ns, now_ns = 0, [0] * robots, 0
    while now_ns < 10 * NS:
        for robot in range(robots):
            if now_ns >= due_ns[robot]:
                wait_ms = transfers.ask(str(robot), DIGEST, now_ns)
                due_ns[robot] = now_ns + wait_ms * 1_000_000
                if not wait_ms:
                    transfers.sent(str(robot), DOWNLOAD_CHUNK_BYTES, False, now_ns)
                    sent += DOWNLOAD_CHUNK_BYTES
        now_ns += 10_000_000
    assert 9e6 < sent < 10e6 + 0.5e6 + (robots + 1) * DOWNLOAD_CHUNK_BYTES


@pytest.mark.parametrize("values", [(0, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, -1.0), (1, float("nan"), 1.0)])
def test_no_zero_takes_a_limit_off(values: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        TransferLimits(*values)


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 3), st.booleans()), max_size=200))
def test_never_more_than_the_cap(steps: list[tuple[str, int, bool]]) -> None:
    transfers, now_ns = Transfers(TransferLimits(at_once=2), 0), 0
    for robot, seconds, last in steps:
        now_ns += seconds * NS
        if transfers.ask(robot, DIGEST, now_ns) == 0:
            transfers.sent(robot, 1000, last, now_ns)
        assert transfers.active <= 2
        assert transfers.waiting <= 7


def served(robot: RawRobot) -> None:
    assert isinstance(robot.ask(Heartbeat(0), Ack), Ack)


def test_a_second_robot_is_told_to_wait_and_has_its_turn(
    fleet: Fleet, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    bundle = make_bundle(keys)
    fleet.start_hub("--no-ingest", "--transfers", "1")
    digest = fleet.release(bundle)
    with (
        RawRobot(keys, "robot_1", fleet.address) as first,
        RawRobot(keys, "robot_2", fleet.address) as second,
    ):
        first.hello()
        second.hello()
        data: bytes = first.ask(FetchChunk(digest, 0), Chunk).data
        assert 0 < second.ask(FetchChunk(digest, 0), Wait).wait_ms <= WAIT_MAX_MS
        while len(data) < len(bundle):
            data += first.ask(FetchChunk(digest, len(data)), Chunk).data
        assert data == bundle
        assert second.ask(FetchChunk(digest, 0), Chunk).data == bundle[:DOWNLOAD_CHUNK_BYTES]
        assert first.ask(FetchChunk(digest, 0), Wait).digest == digest


def test_a_flood_costs_the_others_nothing(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    with (
        RawRobot(keys, "robot_1", fleet.address) as good,
        RawRobot(keys, "robot_2", fleet.address) as bad,
    ):
        good.hello()
        bad.hello()
        beat = encode(Heartbeat(0))
        for _ in range(20):
            for _ in range(1000):
                try:
                    bad.socket.send(beat, zmq.NOBLOCK)
                except zmq.Again:
                    break
            served(good)
        served(good)
        with fleet.client() as client:
            assert {robot.robot: robot.online for robot in client.fleet().robots}["robot_1"]


def test_half_open_peers_and_slow_drips(fleet: Fleet, keys: Path) -> None:
    """300 connections that never finish a greeting, a third of them sending a byte now and then."""
    fleet.start_hub()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15)
    silent = [socket.create_connection(("127.0.0.1", fleet.port)) for _ in range(300)]
    try:
        for number, one in enumerate(silent):
            one.sendall(greeting[: number % len(greeting)])
        with RawRobot(keys, "robot_1", fleet.address) as good:
            good.hello()
            for byte in range(5):
                for one in silent[::3]:
                    try:
                        one.sendall(bytes([byte]))
                    except OSError:
                        continue  # the hub has hung up
                served(good)
    finally:
        for one in silent:
            one.close()


def test_malformed_frames(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    prefix = encode(Heartbeat(0))[:8]
    with (
        RawRobot(keys, "robot_1", fleet.address) as good,
        RawRobot(keys, "robot_2", fleet.address) as bad,
    ):
        good.hello()
        bad.hello()
        for frames in (
            [b""],
            [b"", b""],
            [b"a"] * 50,
            [os.urandom(1000)],
            [prefix],
            [prefix + b"\xc1" + os.urandom(100)],
            [prefix + b"\xdd\xff\xff\xff\xff"],
            [prefix + os.urandom(500_000)],
        ):
            bad.socket.send_multipart(frames)
            served(good)
        for _ in range(3):
            bad.socket.send(bytes(4 * 1024 * 1024))  # longer than any message: hung up on
            served(good)
        wait_for(lambda: _hello_again(bad), "the same key, as it should be")
        served(good)


def _hello_again(robot: RawRobot) -> bool:
    try:
        robot.hello(5.0)  # the first may go down with the connection
    except AssertionError:
        return False
    return True


def test_a_cut_line_costs_at_most_a_chunk(fleet: Fleet, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real comms process behind a line that is cut twice in 2 MB: bytes that crossed it are counted."""
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    bundle = make_bundle(keys)
    fleet.start_hub()
    digest = fleet.release(bundle)
    fleet.start_rollout(digest, "robot_1")
    line, hub_port = CutLine(fleet.port, 700_000, 2), fleet.port
    try:
        fleet.port = line.port
        fleet.start_comms()
        fleet.port = hub_port
        candidate = fleet.answer_candidate(accepted=True)
        wait_for(lambda: fleet.rollout_state()[0] in ("active", "soaked"), "the policy")
        assert candidate.path.read_bytes() == bundle
        assert line.cuts_left == 0
        beside = 40_000  # handshakes, orders, TUF metadata
        assert line.down_bytes < len(bundle) + 2 * DOWNLOAD_CHUNK_BYTES + beside
    finally:
        line.close()


def test_rates_of_the_command_line(fleet: Fleet, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A robot held to 1 MB/s is told to wait with a time, and gets every byte."""
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    bundle = make_bundle(keys)
    fleet.start_hub("--no-ingest", "--robot-mb-s", "1")
    digest = fleet.release(bundle)
    data, waits, began_s = b"", 0, time.monotonic()
    with RawRobot(keys, "robot_1", fleet.address) as robot:
        robot.hello()
        while len(data) < len(bundle):
            answer = robot.ask(FetchChunk(digest, len(data)), Chunk | Wait)  # type: ignore[arg-type]
            if isinstance(answer, Wait):
                waits += 1
                time.sleep(answer.wait_ms / 1000)
            else:
                data += answer.data
    assert data == bundle
    assert waits
    assert time.monotonic() - began_s > (len(bundle) - 0.5e6 - 2 * DOWNLOAD_CHUNK_BYTES) / 1e6
