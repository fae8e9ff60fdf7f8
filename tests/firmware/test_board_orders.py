"""Which orders and words the firmware takes, at the edges: sessions, ages, faults cleared in part; in virtual time."""

import pytest

from firmware_interface.emulator.virtual import Sent
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import Fault, Kind, Result, State
from firmware_interface.protocol.schema import FUTURE_MAX_US
from firmware_interface.protocol.values import BY_NAME, to_bits
from tests.support.firmware import Pair, drive, executed


def told(pair: Pair, later_us: int, *sent: frames.AnyFrame) -> list[frames.AnyFrame]:
    """Send these after a while in which the host is silent; what the board says to them."""
    pair.now_us += later_us
    pair.board.exchange(pair.now_us)
    seen = pair.board.exchange(pair.now_us, b"".join(map(codec.encode, sent)))
    seen += pair.board.exchange(pair.now_us + 900)
    reader = codec.Reader()
    return [frame for item in seen if isinstance(item, Sent) for frame in reader.feed(item.data)]


def test_orders_alone_keep_a_session(pair: Pair) -> None:
    for number in range(6):
        order = frames.Disarm(pair.machine.session, pair.sequence + 1 + number)
        came = told(pair, 700_000, order)
        assert [frame.result for frame in came if isinstance(frame, frames.Acknowledge)] == [Result.OK]


def test_refused_and_repeated_orders_do_not_keep_it(pair: Pair) -> None:
    session = pair.machine.session
    told(pair, 0, frames.Disarm(session, pair.sequence + 1))
    told(pair, 700_000, frames.Disarm(session, pair.sequence + 1), frames.Disarm(session ^ 1, 99))
    assert [f for f in told(pair, 700_000, frames.TimeRequest(77)) if isinstance(f, frames.TimeReply)] == []


def test_a_host_that_was_silent_too_long_gets_another_session_for_the_same_greeting(pair: Pair) -> None:
    hello = frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, pair.machine._nonce, 0, 0)
    sessions = [
        frame.session
        for later_us in (500_000, 500_000, 1_100_000)
        for frame in told(pair, later_us, hello)
        if isinstance(frame, frames.Hello)
    ]
    session = pair.machine.session
    assert sessions == [session, session, session + 1]


@pytest.mark.parametrize(("age_us", "runs"), [(49_999, True), (50_000, False)])
def test_a_stamp_that_lies_ahead_makes_no_command_older(pair: Pair, age_us: int, runs: bool) -> None:
    pair.arm()
    pair.now_us += 1000
    command = (pair.machine.session, pair.sequence + 1, pair.now_us + FUTURE_MAX_US, age_us, 50_000, 0.5, 0.0)
    seen = pair.board.exchange(pair.now_us, codec.encode(frames.VelocityCommand(*command)))
    assert bool(executed(seen)) is runs


def test_faults_may_be_cleared_one_by_one(pair: Pair) -> None:
    both = Fault.EMERGENCY_STOP | Fault.BUMPER
    for text in ("estop 1", "bumper 1"):
        pair.board.control(pair.now_us, text)
    pair.run(60)
    pair.board.control(pair.now_us, "estop 0")
    pair.run(60)
    assert pair.latest(frames.Status).faults == both
    answer = pair.ask(frames.ClearFaults, Fault.BUMPER)
    assert (answer.result, answer.value) == (Result.FAULTED, both), "its cause persists"
    answer = pair.ask(frames.ClearFaults, 0)
    assert (answer.result, answer.value) == (Result.OK, both), "none was named"
    answer = pair.ask(frames.ClearFaults, 0xFFFFFFFF)
    assert (answer.result, answer.value) == (Result.FAULTED, Fault.BUMPER)
    pair.board.control(pair.now_us, "bumper 0")
    pair.run(60)
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.FAULTED, "not cleared yet"
    assert pair.latest(frames.Status).state == State.FAULTED
    answer = pair.ask(frames.ClearFaults, Fault.BUMPER)
    assert (answer.result, answer.value) == (Result.OK, 0)
    pair.run(2)
    assert pair.latest(frames.Status).state == State.DISARMED


def test_clearing_faults_that_are_none_does_not_stop_a_robot(pair: Pair) -> None:
    drive(pair, ms=100)
    assert pair.ask(frames.ClearFaults, 0xFFFFFFFF).result == Result.OK
    pair.command(0.5)
    assert len(executed(pair.run(2))) == 1


def test_an_arm_while_it_stops_is_not_allowed_and_while_armed_is_nothing(pair: Pair) -> None:
    drive(pair, ms=300)
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.OK
    assert pair.ask(frames.Disarm).result == Result.OK
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.NOT_ALLOWED


def test_what_could_not_be_reached_is_not_made_up_for(pair: Pair) -> None:
    """The loop's integral does not grow while the effort is at its limit, or it would hold the speed up later."""
    asked = (frames.ParameterSet, BY_NAME["effort_max"].id, Kind.F32, to_bits("f32", 0.2))
    assert pair.ask(*asked).result == Result.OK
    drive(pair, ms=2000, linear=1.0)
    at_limit = pair.latest(frames.Wheels)
    assert at_limit.left_radps < 0.7 * at_limit.left_wanted_radps
    speeds = []
    for _ in range(120):
        pair.command(0.2)
        pair.run(10)
        speeds.append(pair.latest(frames.Wheels).left_radps)
    assert speeds[59] < 3.2, "it comes down with the ramp"
    assert speeds[-1] == pytest.approx(0.2 / 0.08, rel=0.02)


def test_minus_zero_is_zero_where_zero_is_in_range(pair: Pair) -> None:
    """Bounds of floats are compared as floats, not as their bits."""
    damping = BY_NAME["wheel_d"]
    assert damping.low == 0.0
    for bits, result in ((to_bits("f32", -0.0), Result.OK), (to_bits("f32", -1e-9), Result.OUT_OF_RANGE)):
        assert pair.ask(frames.ParameterSet, damping.id, Kind.F32, bits).result == result
