"""The firmware's watchdog, freshness, arming and faults, and the trials, in virtual time."""

import subprocess
from pathlib import Path

import pytest

from firmware_interface.emulator.build import SOURCES
from firmware_interface.emulator.trials import LineTrial, power_cuts
from firmware_interface.emulator.virtual import Sent
from firmware_interface.link.machine import Lost
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import Fault, Result, State, StopReason
from firmware_interface.protocol.schema import FUTURE_MAX_US
from tests.support.firmware import Pair, drive, executed, states, zero_at_us

WATCHDOG_US = 80_000


def test_nothing_moves_before_arming(pair: Pair) -> None:
    for _ in range(10):
        pair.command(0.5)
        pair.run(10)
    pair.run(60)
    assert executed(pair.observed) == []
    assert pair.latest(frames.Status).commands_refused == 10


@pytest.mark.parametrize(("gap_ms", "stops"), [(79, False), (82, True)])
def test_the_watchdog_waits_80_ms_and_no_longer(pair: Pair, gap_ms: int, stops: bool) -> None:
    pair.arm()
    pair.command(0.5, expiry_us=200_000)
    pair.run(gap_ms)
    sequence = pair.command(0.5, expiry_us=200_000)
    seen = pair.run(5)
    assert [done.sequence for done in executed(seen)] == ([] if stops else [sequence])


def test_wheels_are_asked_for_zero_when_commands_cease_and_stay_so_until_armed(pair: Pair) -> None:
    drive(pair)
    last_us = executed(pair.observed)[-1].time_us
    seen = pair.run(1000)
    zero_us = zero_at_us(seen)
    assert zero_us is not None
    assert zero_us - last_us <= WATCHDOG_US + 1000
    assert [(s.state, s.reason) for s in states(seen)] == [
        (State.STOPPING, StopReason.WATCHDOG),
        (State.DISARMED, StopReason.WATCHDOG),
    ]
    for _ in range(20):
        pair.command(0.5)
        assert executed(pair.run(10)) == []
    pair.arm()
    sequence = pair.command(0.5)
    assert [done.sequence for done in executed(pair.run(10))] == [sequence]


def test_heartbeats_alone_do_not_keep_it_moving(pair: Pair) -> None:
    drive(pair)
    for beat in range(30):
        pair.send(frames.Heartbeat(pair.machine.session, beat))
        pair.run(10)
    assert pair.latest(frames.Status).state == State.DISARMED


def test_a_command_ends_with_its_expiry(pair: Pair) -> None:
    pair.arm()
    pair.command(0.5, age_us=10_000, expiry_us=40_000)
    seen = pair.run(100)
    zero_us = zero_at_us(seen)
    assert zero_us is not None
    assert zero_us - executed(seen)[0].time_us <= 31_000


@pytest.mark.parametrize(("late_us", "age_us", "runs"), [(0, 0, True), (-4000, 0, True), (-8000, 0, False),
                                                         (45_000, 0, True), (55_000, 0, False), (0, 49_000, False),
                                                         (0, 45_000, True), (2**31, 0, False)])  # fmt: skip
def test_only_fresh_commands_run(pair: Pair, late_us: int, age_us: int, runs: bool) -> None:
    """``late_us``: on the way; negative: sent in the future."""
    pair.arm()
    pair.sequence += 1
    sent_us = (pair.now_us + 1000 - late_us) & 0xFFFFFFFF
    pair.send(frames.VelocityCommand(pair.machine.session, pair.sequence, sent_us, age_us, 49_000, 0.3, 0.0))
    assert bool(executed(pair.run(3))) is runs
    pair.run(60)
    assert pair.latest(frames.Status).commands_stale == (0 if runs else 1)


def test_the_same_frame_runs_once_and_an_older_one_never(pair: Pair) -> None:
    pair.arm()
    frames_sent = []
    for linear in (0.1, 0.2, 0.3):
        pair.sequence += 1
        stamp = pair.machine.stamp_us(pair.host_ns)
        frames_sent.append(
            frames.VelocityCommand(pair.machine.session, pair.sequence, stamp, 0, 80_000, linear, 0.0)
        )
    for frame in (frames_sent[1], frames_sent[1], frames_sent[0], frames_sent[2], frames_sent[2]):
        pair.send(frame)
    seen = pair.run(60)
    assert [done.sequence for done in executed(seen)] == [frames_sent[1].sequence, frames_sent[2].sequence]
    assert pair.latest(frames.Status).commands_repeated == 3


def test_a_repeated_or_late_arm_does_not_arm(pair: Pair) -> None:
    pair.sequence += 1
    arm = frames.Arm(pair.machine.session, pair.sequence, pair.machine.stamp_us(pair.host_ns))
    pair.send(arm)
    pair.run(500)
    assert pair.latest(frames.Status).state == State.DISARMED
    pair.send(arm)
    pair.run(10)
    assert states(pair.observed)[-1].state is State.DISARMED
    assert pair.ask(frames.Arm, (pair.now_us - 250_000) & 0xFFFFFFFF).result == Result.STALE
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.OK


def test_stop_needs_no_session(pair: Pair) -> None:
    drive(pair)
    pair.machine.close()
    pair.send(frames.Stop(1))
    seen = pair.run(2)
    assert states(seen)[0].reason is StopReason.STOP_FRAME
    assert zero_at_us(seen) is not None


def test_another_sessions_commands_are_refused(pair: Pair) -> None:
    pair.arm()
    pair.sequence += 1
    stamp = pair.machine.stamp_us(pair.host_ns)
    pair.send(frames.VelocityCommand(pair.machine.session ^ 1, pair.sequence, stamp, 0, 80_000, 0.5, 0.0))
    assert executed(pair.run(10)) == []


@pytest.mark.parametrize(
    ("frame", "limit_us"), [("arm", 200_000), ("command", 50_000)], ids=["arm", "command"]
)
@pytest.mark.parametrize(("past_us", "good"), [(1, True), (0, False)])
def test_the_age_is_counted_to_the_microsecond(
    pair: Pair, frame: str, limit_us: int, past_us: int, good: bool
) -> None:
    if frame == "command":
        pair.arm()
    pair.sequence += 1
    pair.now_us += 1000
    sent_us = (pair.now_us - limit_us + past_us) & 0xFFFFFFFF
    session = pair.machine.session
    if frame == "arm":
        asked: frames.AnyFrame = frames.Arm(session, pair.sequence, sent_us)
    else:
        sent_us += 10_000  # a part of its age it has from before
        asked = frames.VelocityCommand(session, pair.sequence, sent_us, 10_000, limit_us, 0.5, 0.0)
    seen = pair.board.exchange(pair.now_us, codec.encode(asked))
    if frame == "arm":
        assert bool(states(seen)) is good
    else:
        assert bool(executed(seen)) is good


@pytest.mark.parametrize(("ahead_us", "good"), [(FUTURE_MAX_US, True), (FUTURE_MAX_US + 1, False)])
def test_a_stamp_may_lie_so_far_ahead_and_no_further(pair: Pair, ahead_us: int, good: bool) -> None:
    pair.arm()
    pair.sequence += 1
    pair.now_us += 1000
    command = (pair.machine.session, pair.sequence, pair.now_us + ahead_us, 0, 50_000, 0.5, 0.0)
    seen = pair.board.exchange(pair.now_us, codec.encode(frames.VelocityCommand(*command)))
    assert bool(executed(seen)) is good


def test_a_new_session_stops_the_robot_and_the_old_host_notices(pair: Pair) -> None:
    drive(pair)
    pair.send(frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, 12345, 0, 0))
    seen = pair.run(60)
    assert states(seen)[0].reason is StopReason.SESSION_NEW
    assert any(isinstance(event, Lost) and event.answered for event in pair.events)


def test_a_board_does_not_arm_before_it_has_looked_at_its_sensors(program: Path) -> None:
    with Pair(program) as pair:
        session = (1 << 16) | 1
        hello = codec.encode(frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, 5, 0, 0))
        seen = pair.board.exchange(200, hello + codec.encode(frames.Arm(session, 1, 200)))
        assert states(seen) == []
        answers = pair.board.exchange(900)
        found = [
            f for item in [*seen, *answers] if isinstance(item, Sent) for f in codec.Reader().feed(item.data)
        ]
        refused = [frame for frame in found if isinstance(frame, frames.Acknowledge)]
        assert [(frame.session, frame.result) for frame in refused] == [(session, Result.FAULTED)]


def test_a_repeated_hello_changes_nothing(pair: Pair) -> None:
    drive(pair)
    session = pair.machine.session
    pair.send(frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, pair.machine._nonce, 0, 0))
    pair.command(0.5)
    assert executed(pair.run(5))
    assert pair.machine.session == session


@pytest.mark.parametrize(
    ("text", "calm", "fault", "within_ms", "powerless"),
    [
        ("estop 1", "estop 0", Fault.EMERGENCY_STOP, 2, True),
        ("bumper 1", "bumper 0", Fault.BUMPER, 2, False),
        ("battery 18.0", "battery 25.0", Fault.BROWNOUT, 24, True),
        ("battery nan", "battery 25.0", Fault.SENSOR, 2, True),
        ("imu nan", "imu 0", Fault.SENSOR, 2, True),
        ("imu -inf", "imu 0", Fault.SENSOR, 2, True),
        ("current 40", "current 0", Fault.OVERCURRENT, 54, True),
        ("current 40 0", "current 0", Fault.OVERCURRENT, 54, True),
        ("current 0 40", "current 0", Fault.OVERCURRENT, 54, True),
        ("silent 1", "silent 0", Fault.SENSOR, 2, True),
    ],
)
def test_a_fault_stops_and_holds_until_cleared(
    pair: Pair, text: str, calm: str, fault: Fault, within_ms: int, powerless: bool
) -> None:
    drive(pair, ms=600)
    pair.board.control(pair.now_us, text)
    for _ in range(10):
        pair.command(0.5)
        pair.run(10)
    zero_us = zero_at_us(pair.observed)
    assert zero_us is not None
    assert zero_us - (pair.now_us - 100_000) <= within_ms * 1000
    status = pair.latest(frames.Status)
    assert (status.state, status.faults & fault) == (State.FAULTED, fault)
    assert status.stop_reason == StopReason.FAULT
    assert (
        abs(pair.latest(frames.Wheels).left_current_a) < 0.01 or text.startswith("current 40")
    ) is powerless
    pair.run(1000)
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.FAULTED
    assert pair.ask(frames.ClearFaults, 0xFFFFFFFF).result == Result.FAULTED, "its cause persists"
    pair.board.control(pair.now_us, calm)
    pair.run(60)
    assert pair.latest(frames.Status).state == State.FAULTED, "not by itself"
    assert pair.ask(frames.ClearFaults, 0xFFFFFFFF).result == Result.OK
    pair.run(60)
    assert pair.latest(frames.Status).state == State.DISARMED
    assert pair.ask(frames.Arm, pair.now_us & 0xFFFFFFFF).result == Result.OK


@pytest.mark.parametrize(
    ("text", "calm", "longest_ms"), [("battery 18.0", "battery 25.0", 20), ("current 40", "current 0", 50)]
)
@pytest.mark.parametrize("longer_ms", [0, 1])
def test_what_lasts_to_its_bound_is_no_fault_and_a_millisecond_more_is(
    pair: Pair, text: str, calm: str, longest_ms: int, longer_ms: int
) -> None:
    pair.board.control(pair.now_us, text)
    pair.run(longest_ms + longer_ms)
    pair.board.control(pair.now_us, calm)
    pair.run(100)
    assert bool(pair.latest(frames.Status).faults) is bool(longer_ms)


@pytest.mark.parametrize(
    ("text", "fault", "longest_ms"),
    [("battery 18.0", Fault.BROWNOUT, 20), ("current 40", Fault.OVERCURRENT, 50)],
)
def test_what_a_start_finds_counts_from_the_start_and_not_from_the_clocks_zero(
    pair: Pair, text: str, fault: Fault, longest_ms: int
) -> None:
    pair.run(500)
    pair.board.control(pair.now_us, text)
    pair.board.control(pair.now_us, "restart 1")
    seen = pair.run(longest_ms - 2)
    assert states(seen) == []
    seen = pair.run(5)
    assert [change.state for change in states(seen)] == [State.FAULTED]
    pair.open()
    pair.run(60)
    assert pair.latest(frames.Status).faults == fault


def test_a_board_that_has_just_started_claims_no_low_voltage_nor_high_current(pair: Pair) -> None:
    """Between the start and the first look at the sensors: that they were not read yet is all that it knows."""
    pair.run(500)
    pair.board.control(pair.now_us, "restart 1")
    pair.now_us += 1000
    pair.board.exchange(pair.now_us)
    session = (pair.machine.session & 0xFFFF0000) + (1 << 16) | 1
    asked = [frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, 5, 0, 0)]
    asked += [
        frames.ClearFaults(session, number, mask)
        for number, mask in enumerate((Fault.BROWNOUT, Fault.OVERCURRENT, Fault.SENSOR), 1)
    ]
    seen = pair.board.exchange(pair.now_us, b"".join(map(codec.encode, asked)))
    seen += pair.board.exchange(pair.now_us + 900)
    reader = codec.Reader()
    came = [frame for item in seen if isinstance(item, Sent) for frame in reader.feed(item.data)]
    results = [frame.result for frame in came if isinstance(frame, frames.Acknowledge)]
    assert results == [Result.OK, Result.OK, Result.FAULTED]


def test_a_robot_that_rolls_is_not_powered_by_a_fault_before_it_was_armed(pair: Pair) -> None:
    drive(pair, ms=600, linear=1.0)
    pair.board.control(pair.now_us, "restart 1")
    pair.run(2)
    pair.open()
    pair.board.control(pair.now_us, "bumper 1")
    mark = len(pair.events)
    pair.run(100)
    wheels = [event for event in pair.events[mark:] if isinstance(event, frames.Wheels)]
    assert pair.latest(frames.Status).state == State.FAULTED
    assert len(wheels) >= 4
    assert min(event.left_radps for event in wheels) > 1.0
    assert {(event.left_current_a, event.right_current_a) for event in wheels} == {(0.0, 0.0)}


def test_a_short_dip_is_no_fault(pair: Pair) -> None:
    pair.board.control(pair.now_us, "battery 18.0")
    pair.run(15)
    pair.board.control(pair.now_us, "battery 25.0")
    pair.run(100)
    assert pair.latest(frames.Status).faults == 0


@pytest.mark.parametrize("drift", [-100e-6, 100e-6])
def test_the_clocks_offset_and_drift_are_found(program: Path, drift: float) -> None:
    with Pair(program, drift=drift) as pair:
        pair.open()
        pair.run(12_000)
        estimate = pair.machine.clock.estimate
        assert estimate is not None
        true_us = pair.now_us & 0xFFFFFFFF
        assert abs(estimate.board_us(pair.host_ns // 1000) - true_us) <= 1000
        assert estimate.board_not_after_us(pair.host_ns // 1000) <= true_us + 1000
        assert estimate.drift == pytest.approx(-drift, abs=100e-6)


def test_the_time_told_to_others_is_not_taken(pair: Pair) -> None:
    before = pair.machine.stamp_us(pair.host_ns)
    for foreign_us in range(20):
        pair.send(frames.TimeRequest(foreign_us))
    pair.run(10)
    assert abs(pair.machine.stamp_us(pair.host_ns) - before - 10_000) <= 500


def test_a_board_that_restarted_is_noticed(pair: Pair) -> None:
    """It knows no session then, and falls silent; the time it tells is no sign of life."""
    pair.board.control(pair.now_us, "restart 1")
    pair.run(600)
    assert any(isinstance(event, Lost) and event.answered for event in pair.events)


def test_a_silent_host_loses_its_session(pair: Pair) -> None:
    session = pair.machine.session
    pair.machine.close()
    pair.run(1100)
    pair.send(frames.Disarm(session, 9999))
    pair.events.clear()
    pair.run(100)
    assert pair.events == []


def test_a_bad_line_executes_nothing_wrong(program: Path) -> None:
    result = LineTrial(program, seed=5, commands_per_ms=2).run(40_000)
    assert result.wrong == 0
    assert result.damaged > 2_000
    assert result.executed > 10_000
    assert result.rearmed > 20


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("dispatch.c", "sequence <= core->sequence_last", "sequence + 20u <= core->sequence_last"),
        ("dispatch.c", "if (spent >= limit_us)", "if (spent >= limit_us + 90000u)"),
        ("framing.c", "encoded[fields + i] != crc_byte(crc, 8u * i)", "i > 9u"),
    ],
    ids=["repeated", "stale", "corrupt"],
)
def test_the_trial_finds_a_broken_firmware(
    tmp_path: Path, program: Path, file: str, right: str, wrong: str
) -> None:
    assert program.exists()
    sources = []
    for path in SOURCES.rglob("*.[ch]"):
        copy = tmp_path / path.relative_to(SOURCES)
        copy.parent.mkdir(exist_ok=True, parents=True)
        text = path.read_text()
        assert path.name != file or text.count(right) == 1
        copy.write_text(text.replace(right, wrong) if path.name == file else text)
        sources += [str(copy)] if path.suffix == ".c" else []
    broken = tmp_path / "broken"
    subprocess.run(["gcc", "-std=c11", "-O0", "-o", str(broken), *sources, "-lm"], check=True, timeout=100)
    # Without a checksum, a damaged sequence often ends a run early: one of a few finds it.
    assert any(LineTrial(broken, seed, commands_per_ms=4).run(10_000).wrong for seed in range(8))


def test_a_power_cut_anywhere_leaves_a_whole_image(verifying: Path) -> None:
    # 51 divides 4233: of the marker behind the first page just one byte is written.
    for size, stride in ((2200, 23), (128, 7), (8, 51)):
        result = power_cuts(verifying, size, stride)
        assert result["wrong"] == 0
        assert result["cuts"] > 300
