"""What the firmware says and counts: sessions, answers, feedback, parameters, bad frames; in virtual time."""

import random
from pathlib import Path

import pytest

from firmware_interface.emulator.virtual import Sent
from firmware_interface.link.machine import Mismatch, Opened
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import Fault, Result, State
from firmware_interface.protocol.tables import PARAMETERS
from firmware_interface.protocol.values import BY_NAME, to_bits
from tests.support.firmware import Pair, drive, states


def test_each_session_counts_from_the_beginning_and_has_a_number_of_its_own(pair: Pair) -> None:
    before = pair.machine.session
    for count in range(1, 4):
        pair.sequence += 50
        assert pair.ask(frames.ParameterGet, 1).result == Result.OK
        pair.open()
        assert pair.machine.session == before + count
        assert pair.ask(frames.ParameterGet, 1).result == Result.OK


def test_a_new_session_is_told_the_state_at_once(pair: Pair) -> None:
    pair.run(7)  # between two of the regular ones
    pair.now_us += 1000
    hello = codec.encode(frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, 99, 0, 0))
    seen = pair.board.exchange(pair.now_us, hello)
    pair.now_us += 1000
    seen += pair.board.exchange(pair.now_us)
    came = [frame for item in seen if isinstance(item, Sent) for frame in codec.Reader().feed(item.data)]
    told = [frame.session for frame in came if isinstance(frame, frames.Status)]
    assert told == [pair.machine.session + 1]


def test_every_change_of_state_is_told_at_once(pair: Pair) -> None:
    reader = codec.Reader()

    def regular() -> None:
        """Go on to the next of the regular ones, which come every 50 ms, and a little further."""
        for _ in range(51):
            mark = len(pair.events)
            pair.run(1)
            if any(isinstance(event, frames.Status) for event in pair.events[mark:]):
                pair.run(7)
                return
        raise AssertionError("no status in 50 ms")

    def told(*sent: frames.AnyFrame) -> list[State]:
        """The states that are told within two steps; after ``regular`` none of them is."""
        seen = []
        for data in (b"".join(map(codec.encode, sent)), b""):
            pair.now_us += 1000
            seen += pair.board.exchange(pair.now_us, data)
        came = [frame for item in seen if isinstance(item, Sent) for frame in reader.feed(item.data)]
        return [State(frame.state) for frame in came if isinstance(frame, frames.Status)]

    def ordered(kind: type[frames.AnyFrame], *rest: int) -> frames.AnyFrame:
        pair.sequence += 1
        return kind(pair.machine.session, pair.sequence, *rest)  # type: ignore[arg-type,call-arg]

    regular()
    assert told() == []
    assert told(ordered(frames.Arm, pair.now_us + 1000)) == [State.ARMED]
    regular()
    assert told(ordered(frames.Disarm)) == [State.STOPPING]
    pair.run(200)
    regular()
    pair.board.control(pair.now_us, "estop 1")
    assert told() == [State.FAULTED]
    regular()
    pair.board.control(pair.now_us, "estop 0")
    assert told(ordered(frames.ClearFaults, 0xFFFFFFFF)) == [State.DISARMED]


def test_what_was_done_with_commands_is_counted(pair: Pair) -> None:
    pair.command(0.5)
    pair.run(2)
    pair.arm()
    for _ in range(3):
        pair.command(0.5)
        pair.run(10)
    pair.command(0.5, age_us=80_000)
    pair.sequence -= 1
    pair.command(0.5)
    pair.run(60)
    status = pair.latest(frames.Status)
    counted = (
        status.commands_executed,
        status.commands_stale,
        status.commands_repeated,
        status.commands_refused,
    )
    assert counted == (3, 1, 1, 1)
    assert status.sequence_executed == pair.sequence - 1
    assert status.frames_bad == 0


def test_every_good_frame_is_counted_once(pair: Pair) -> None:
    reader = codec.Reader()

    def good() -> int:
        pair.now_us += 60_000
        seen = pair.board.exchange(pair.now_us)
        came = [frame for item in seen if isinstance(item, Sent) for frame in reader.feed(item.data)]
        return [frame.frames_good for frame in came if isinstance(frame, frames.Status)][-1]

    before = good()
    assert before > 0
    for count in (1, 5):
        beat = codec.encode(frames.Heartbeat(pair.machine.session, 1))
        pair.board.exchange(pair.now_us, beat * count + b"\7\0")
        after = good()
        assert after - before == count
        before = after


def test_the_number_of_a_session_wraps_within_a_start_of_the_board(pair: Pair) -> None:
    boots, count = pair.machine.session >> 16, pair.machine.session & 0xFFFF
    nonces = iter(range(1_000_000, 2_000_000))
    while count < 0xFFFF:
        several = min(1000, 0xFFFF - count)
        hellos = (
            frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, next(nonces), 0, 0)
            for _ in range(several)
        )
        pair.now_us += 1000
        pair.board.exchange(pair.now_us, b"".join(map(codec.encode, hellos)))
        count += several
    pair.open()
    assert pair.machine.session == (boots << 16) | 1, "zero is no session"


def test_frames_for_hosts_and_of_strangers_are_not_answered(pair: Pair) -> None:
    pair.run(20)
    mark = len(pair.events)
    for stranger in (
        frames.Heartbeat(1, 1),
        frames.InfoRequest(1),
        frames.InfoRequest(0),
        frames.Disarm(0, 9),
    ):
        pair.send(stranger)
    pair.send(frames.TimeReply(1, 2, 3))
    pair.send(frames.Acknowledge(pair.machine.session, 1, 0x11, 0, 0))
    pair.run(60)
    kinds = {type(event) for event in pair.events[mark:]}
    assert kinds <= {
        frames.Status,
        frames.Wheels,
        frames.Imu,
        frames.Battery,
        frames.Bumper,
        frames.Heartbeat,
    }
    assert pair.latest(frames.Status).commands_refused == 1


def test_a_board_without_a_session_answers_only_hello(program: Path) -> None:
    with Pair(program) as pair:
        for frame in (
            frames.TimeRequest(7),
            frames.InfoRequest(0),
            frames.Heartbeat(0, 1),
            frames.Disarm(0, 1),
        ):
            pair.send(frame)
        data = b"".join(pair._out)
        seen = pair.board.exchange(500, data)
        assert [item for item in seen if isinstance(item, Sent)] == []


def test_noise_costs_the_c_core_one_frame_at_most(pair: Pair) -> None:
    rng, reader = random.Random(3), codec.Reader()
    for number in range(1, 500):
        noise = rng.randbytes(rng.randint(1, 600))
        asked = codec.encode(frames.TimeRequest(2 * number)) + codec.encode(
            frames.TimeRequest(2 * number + 1)
        )
        pair.now_us += 1000
        alive = codec.encode(frames.Heartbeat(pair.machine.session, number))
        seen = pair.board.exchange(pair.now_us, noise + asked + alive)
        pair.now_us += 1000
        seen += pair.board.exchange(pair.now_us)
        came = [frame for item in seen if isinstance(item, Sent) for frame in reader.feed(item.data)]
        assert 2 * number + 1 in [frame.host_us for frame in came if isinstance(frame, frames.TimeReply)]


def test_what_lies_between_two_zeros_counts_as_one_bad_frame_and_nothing_as_none(pair: Pair) -> None:
    def bad() -> int:
        pair.run(60)
        return int(pair.latest(frames.Status).frames_bad)

    before = bad()
    for junk, count in (
        (bytes(50), 0),
        (b"\1\0", 1),
        (b"\1\1\0", 1),
        (b"\1" * 900 + b"\0", 1),
        (b"\7\0\0\5\0", 2),
    ):
        pair.send_raw(junk)
        after = bad()
        assert after - before == count, junk
        before = after
    assert pair.ask(frames.Disarm).result == Result.OK


def test_a_stop_of_a_board_that_stands_is_nothing(pair: Pair) -> None:
    pair.send(frames.Stop(1))
    answer = pair.ask(frames.Disarm)
    assert (answer.result, answer.value, answer.code) == (Result.OK, 0, 0x12)
    assert pair.latest(frames.Status).state == State.DISARMED
    assert states(pair.observed) == []


def test_maintenance_is_refused_while_armed(pair: Pair) -> None:
    drive(pair, 50)
    asked = [
        (frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 100),
        (frames.UpdateBegin, 2, 100, bytes(32), bytes(64)),
        (frames.UpdateBlock, 0, 1, bytes(128)),
        (frames.UpdateVerify,),
        (frames.UpdateSwitch,),
    ]
    for question in asked:
        pair.command(0.5)
        assert pair.ask(*question).result == Result.NOT_ALLOWED
    assert pair.ask(frames.ParameterGet, BY_NAME["wheels_hz"].id).result == Result.OK
    assert pair.ask(frames.ParameterGet, 250).result == Result.UNKNOWN


def test_a_memory_that_does_not_answer_refuses_parameters_and_changes_none(pair: Pair) -> None:
    wheels = BY_NAME["wheels_hz"].id
    before = pair.ask(frames.ParameterGet, wheels).value
    pair.board.control(pair.now_us, "flash 0")
    assert pair.ask(frames.ParameterSet, wheels, frames.Kind.U32, 77).result == Result.STORAGE
    assert pair.ask(frames.ParameterGet, wheels).value == before
    pair.board.control(pair.now_us, "flash 1")
    assert pair.ask(frames.ParameterSet, wheels, frames.Kind.U32, 77).result == Result.OK


def test_a_memory_that_is_silent_at_the_start_is_a_fault(pair: Pair) -> None:
    pair.board.control(pair.now_us, "flash 0")
    pair.board.control(pair.now_us, "restart 1")
    pair.run(3)
    pair.open()
    pair.run(60)
    status = pair.latest(frames.Status)
    assert (status.state, status.faults) == (State.FAULTED, Fault.STORAGE)
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.FAULTED


def test_what_finds_no_room_on_the_line_is_counted(pair: Pair) -> None:
    for _ in range(300):
        pair.send(frames.TimeRequest(1))
    pair.run(60)
    status = pair.latest(frames.Status)
    assert 100 < status.frames_unsent < 300
    assert status.state == State.DISARMED


def test_feedback_comes_at_its_own_rates(pair: Pair) -> None:
    pair.events.clear()
    pair.run(2000)
    expected = {"Wheels": 100, "Imu": 100, "Bumper": 40, "Battery": 2, "Status": 40, "Heartbeat": 20}
    counts = {name: sum(type(event).__name__ == name for event in pair.events) for name in expected}
    assert counts == pytest.approx(expected, abs=1)


def test_parameters_are_checked_kept_and_only_taken_while_disarmed(pair: Pair) -> None:
    speed = BY_NAME["speed_max_mps"]
    bits = to_bits("f32", 0.8)
    assert pair.ask(frames.ParameterSet, speed.id, frames.Kind.F32, bits).value == bits
    assert pair.ask(frames.ParameterGet, speed.id).value == bits
    for kind, wrong in (
        (frames.Kind.F32, to_bits("f32", 9.0)),
        (frames.Kind.F32, 0x7FC00000),
        (frames.Kind.U32, 1),
    ):
        answer = pair.ask(frames.ParameterSet, speed.id, kind, wrong)
        assert (answer.result, answer.value) == (Result.OUT_OF_RANGE, bits)
    assert pair.ask(frames.ParameterGet, 200).result == Result.UNKNOWN
    drive(pair)
    assert pair.ask(frames.ParameterSet, speed.id, frames.Kind.F32, bits).result == Result.NOT_ALLOWED


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_each_parameters_bounds_hold_in_c(program: Path, parameter: frames.AnyFrame) -> None:
    kind = frames.Kind.F32 if parameter.kind == "f32" else frames.Kind.U32  # type: ignore[attr-defined]
    with Pair(program) as pair:
        pair.open()
        for value, good in (
            (parameter.low, True),
            (parameter.high, True),
            (parameter.high * 1.01 + 1, False),
        ):  # type: ignore[attr-defined]
            bits = to_bits(parameter.kind, value)  # type: ignore[attr-defined]
            assert (pair.ask(frames.ParameterSet, parameter.id, kind, bits).result == Result.OK) is good  # type: ignore[attr-defined]


def test_another_schema_is_told_apart_and_the_older_side_named(program: Path) -> None:
    with Pair(program) as pair:
        pair.machine.start(pair.host_ns)
        pair.machine._nonce = 77
        reader = codec.Reader()
        pair.send(frames.Hello(9, 0xBAD, 77, 0, 0))
        seen = pair.board.exchange(2000, pair._out.pop())
        answers = [frame for item in seen if hasattr(item, "data") for frame in reader.feed(item.data)]
        assert answers == [
            frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, 77, 0, answers[0].capabilities)
        ]
        for revision, words in (
            (0, "the board is older; flash"),
            (9, "this host is older; update"),
            (frames.SCHEMA_REVISION, "development build"),
        ):
            pair.machine.start(pair.host_ns)
            hello = codec.encode(frames.Hello(revision, 0xBAD, pair.machine._nonce, 0, 0))
            events = pair.machine.receive(hello, pair.host_ns)
            assert len(events) == 1
            assert isinstance(events[0], Mismatch)
            assert words in events[0].advice()
            assert not any(isinstance(event, Opened) for event in events)


def test_of_all_that_was_stored_the_newest_holds_after_each_start(pair: Pair) -> None:
    wheels = BY_NAME["wheels_hz"].id
    for value in (60, 61, 62, 70, 63, 100, 64):
        for stored in (value + 1, value):
            asked = (frames.ParameterSet, wheels, frames.Kind.U32, stored)
            assert pair.ask(*asked).result == Result.OK
        pair.board.control(pair.now_us, "restart 1")
        pair.run(3)
        pair.open()
        assert pair.ask(frames.ParameterGet, wheels).value == value
