"""When the firmware powers the motors and when it does not, to the millisecond; in virtual time.

``push`` turns the wheels of a robot that does not drive: its wheels are seen to move, whatever its motors do.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_interface.emulator.virtual import Asked, Observed, Powered, Sent
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import Fault, Result, State, StopReason
from firmware_interface.protocol.values import BY_NAME
from tests.support.firmware import Pair, drive, executed, states, zero_at_us

LATER_US = 4_000_000
"""Of the board's clock: later than the longest stop."""
STANDING_US, STOPPING_MAX_US, STEP_US = 50_000, 3_000_000, 1000
WATCHDOG_US = 80_000


@pytest.fixture
def later(program: Path) -> Iterator[Pair]:
    """A board that has run for a while, with a session."""
    with Pair(program) as pair:
        pair.now_us = LATER_US
        pair.open()
        yield pair


def powered(observed: list[Observed]) -> list[tuple[int, bool]]:
    """When the bridges were switched."""
    return [(seen.time_us, seen.on) for seen in observed if isinstance(seen, Powered)]


def disarm(pair: Pair) -> None:
    """Send the order, without waiting for what comes of it."""
    pair.sequence += 1
    pair.send(frames.Disarm(pair.machine.session, pair.sequence))


def restart(pair: Pair, *texts: str) -> list[Observed]:
    """As a reset does, with these lines of control; until just before the board's first step."""
    for text in (*texts, "restart 1"):
        pair.board.control(pair.now_us, text)
    pair.now_us += STEP_US
    return pair.board.exchange(pair.now_us)


def test_a_stop_ends_once_the_robot_has_stood_for_50_ms(later: Pair) -> None:
    drive(later, ms=300)
    later.board.control(later.now_us, "push 0.06")  # too little for the loop to move the wheel
    disarm(later)
    later.run(400)  # by then its own motors stand
    later.board.control(later.now_us, "push 0")
    last_us = later.now_us
    seen = later.run(100)
    assert [(s.time_us - last_us, s.state) for s in states(seen)] == [(STANDING_US + STEP_US, State.DISARMED)]
    assert powered(seen) == [(last_us + STANDING_US + STEP_US, False)]


def test_a_stop_of_a_robot_that_stands_takes_as_long(later: Pair) -> None:
    later.arm()
    later.run(70)
    disarm(later)
    began, ended = states(later.run(100))
    assert (began.state, ended.state) == (State.STOPPING, State.DISARMED)
    assert ended.time_us - began.time_us == STANDING_US + STEP_US
    told = [
        f for f in later.events if isinstance(f, frames.Status) and f.time_us == ended.time_us & 0xFFFFFFFF
    ]
    assert [State(status.state) for status in told] == [State.DISARMED], "told at once"


@pytest.mark.parametrize("push", ["2 0", "0 2", "0.05 0", "0 0.05", "-2 0"])
def test_a_stop_ends_after_3_s_when_a_wheel_does_not_stand(later: Pair, push: str) -> None:
    drive(later, ms=300)
    later.board.control(later.now_us, f"push {push}")
    disarm(later)
    seen = later.run(STOPPING_MAX_US // 1000 + 10)
    began, ended = states(seen)
    assert (began.state, ended.state) == (State.STOPPING, State.DISARMED)
    assert ended.time_us - began.time_us == STOPPING_MAX_US + STEP_US
    assert powered(seen) == [(ended.time_us, False)]


def test_what_moves_slower_than_a_twentieth_of_a_radian_a_second_stands(later: Pair) -> None:
    later.board.control(later.now_us, "push 0.0499 -0.0499")
    later.arm()
    disarm(later)
    began, ended = states(later.run(100))
    assert ended.time_us - began.time_us == STANDING_US + STEP_US


def test_a_bumpers_stop_has_power_for_3_s_at_most(later: Pair) -> None:
    drive(later, ms=300)
    later.board.control(later.now_us, "push 2")
    later.board.control(later.now_us, "bumper 1")
    seen = later.run(STOPPING_MAX_US // 1000 + 1000)
    assert [s.state for s in states(seen)] == [State.FAULTED]
    assert powered(seen) == [(states(seen)[0].time_us + STOPPING_MAX_US, False)]


def test_a_bumpers_stop_has_power_until_the_robot_has_stood_for_50_ms(later: Pair) -> None:
    drive(later, ms=300)
    later.board.control(later.now_us, "push 0.06")
    later.board.control(later.now_us, "bumper 1")
    assert powered(later.run(400)) == []
    later.board.control(later.now_us, "push 0")
    last_us = later.now_us
    assert powered(later.run(100)) == [(last_us + STANDING_US + STEP_US, False)]
    later.board.control(later.now_us, "push 2")
    later.board.control(later.now_us, "bumper 0")
    later.run(20)
    assert later.ask(frames.ClearFaults, 0xFFFFFFFF).result == Result.OK
    later.run(20)
    assert later.latest(frames.Status).state == State.DISARMED


@pytest.mark.parametrize(
    "text", ["bumper 1", "estop 1", "current 40", "battery 18", "silent 1", "imu nan", "current nan"]
)
def test_a_robot_that_is_pushed_is_not_powered_by_a_fault(pair: Pair, text: str) -> None:
    """Neither at once nor later; the clock has not yet run for the longest stop."""
    pair.board.control(pair.now_us, "push 2")
    pair.board.control(pair.now_us, text)
    seen = pair.run(200)
    assert [s.state for s in states(seen)] == [State.FAULTED]
    pair.now_us += 3 * STOPPING_MAX_US
    assert powered(seen + pair.board.exchange(pair.now_us)) == []


def test_a_start_switches_the_motors_off_before_anything_else(later: Pair) -> None:
    drive(later, ms=300)
    seen = restart(later)
    assert powered(seen) == [(later.now_us, False)]
    assert [s for s in seen if isinstance(s, Asked)] == [Asked(later.now_us, False)]
    later.now_us += 200_000
    seen = later.board.exchange(later.now_us)
    assert [s for s in seen if isinstance(s, Powered | Asked)] == []


def test_a_start_without_memory_is_a_fault_before_the_first_step_and_never_powers_the_motors(
    pair: Pair,
) -> None:
    """Not even a robot that rolls, in the first seconds of its clock."""
    drive(pair, ms=300)
    seen = restart(pair, "push 2", "flash 0")
    assert [(s.time_us, s.state) for s in states(seen)][-1] == (pair.now_us, State.FAULTED)
    assert powered(seen) == [(pair.now_us, False)]
    mark = len(pair.observed)
    pair.open()
    pair.run(60)
    assert pair.latest(frames.Status).faults == Fault.STORAGE
    pair.now_us += 3 * STOPPING_MAX_US
    seen = pair.observed[mark:] + pair.board.exchange(pair.now_us)
    assert powered(seen) == []


def test_nothing_turns_when_it_is_armed_and_not_told_to(later: Pair) -> None:
    for angular in (0.0, 1.0):
        later.arm()
        assert [s for s in later.run(60) if isinstance(s, Asked)] == []
        later.command(0.5, angular)
        later.run(70)
        disarm(later)
        later.run(1000)
        assert later.latest(frames.Status).state == State.DISARMED


def test_a_straight_stop_is_straight_and_ends_without_turning_back(later: Pair) -> None:
    assert later.ask(frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 200).result == Result.OK
    later.events.clear()
    drive(later, ms=800)
    disarm(later)
    later.run(600)
    drive(later, ms=100)
    told = [event for event in later.events if isinstance(event, frames.Wheels)]
    assert len(told) > 200
    assert [e for e in told if (e.left_radps, e.left_current_a) != (e.right_radps, e.right_current_a)] == []
    assert min(event.left_radps for event in told) > -0.01


def test_an_arm_of_a_robot_that_is_pushed_does_not_take_the_push_for_a_jolt(later: Pair) -> None:
    """The loop's damping looks at how the speed changes; before the arm it has not looked."""
    assert later.ask(frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 200).result == Result.OK
    drive(later, ms=100)
    disarm(later)
    later.run(600)
    later.board.control(later.now_us, "push 2")
    later.run(20)
    later.events.clear()
    later.arm()
    later.run(15)
    told = [event for event in later.events if isinstance(event, frames.Wheels)]
    assert len(told) >= 3
    assert [event for event in told if event.left_radps != event.right_radps] == []
    assert max(abs(event.left_current_a) for event in told) < 4.0


def test_the_watchdog_ends_a_command_to_the_millisecond_and_says_why(later: Pair) -> None:
    later.arm()
    later.command(0.5, expiry_us=200_000)
    seen = later.run(200)
    assert zero_at_us(seen) == executed(seen)[0].time_us + WATCHDOG_US
    lines = [event for event in later.events if isinstance(event, frames.LogLine)]
    assert [bytes(line.text[: line.length]).decode() for line in lines] == [
        "watchdog: no fresh command in time; arm to go on"
    ]


@pytest.mark.parametrize(("silent_us", "lost"), [(1_000_000, False), (1_001_000, True)])
def test_a_session_is_lost_after_a_second_without_a_word(later: Pair, silent_us: int, lost: bool) -> None:
    later.now_us += STEP_US
    later.board.exchange(later.now_us, codec.encode(frames.Heartbeat(later.machine.session, 1)))
    later.now_us += silent_us
    later.board.exchange(later.now_us)
    seen = later.board.exchange(later.now_us, codec.encode(frames.TimeRequest(77)))
    seen += later.board.exchange(later.now_us + 900)
    reader = codec.Reader()
    came = [frame for item in seen if isinstance(item, Sent) for frame in reader.feed(item.data)]
    assert [frame.host_us for frame in came if isinstance(frame, frames.TimeReply)] == ([] if lost else [77])


@pytest.mark.parametrize("text", ["battery 20", "current 20 0", "current 0 20", "current -20"])
def test_what_is_just_at_its_limit_is_no_fault(pair: Pair, text: str) -> None:
    assert (BY_NAME["battery_min_v"].default, BY_NAME["current_max_a"].default) == (20.0, 20.0)
    pair.board.control(pair.now_us, text)
    pair.run(200)
    assert pair.latest(frames.Status).faults == 0


@pytest.mark.parametrize(
    "text",
    [
        "current nan 0",
        "current 0 nan",
        "push nan 0",
        "push 0 inf",
        "battery inf",
        *(f"imu nan {i}" for i in range(5)),
    ],
)
def test_no_sensor_may_say_what_is_no_number(pair: Pair, text: str) -> None:
    pair.board.control(pair.now_us, text)
    began_us = pair.now_us
    seen = pair.run(20)
    assert [(s.time_us - began_us, s.state) for s in states(seen)] == [(STEP_US, State.FAULTED)]
    assert pair.latest(frames.Status).faults == Fault.SENSOR


def test_a_fault_of_a_robot_that_drives_is_told_with_what_stopped_it(later: Pair) -> None:
    drive(later, ms=100)
    later.board.control(later.now_us, "estop 1")
    later.events.clear()
    later.run(1)
    told = [event for event in later.events if isinstance(event, frames.Status)]
    assert [(s.state, s.faults, s.stop_reason) for s in told] == [
        (State.FAULTED, Fault.EMERGENCY_STOP, StopReason.FAULT)
    ]
