"""The agent's sink over the serial link: it drives the board, never waits, and notices when the board has stopped."""

import time

import pytest

from edge_agent.actuate.serial_sink import EXPIRY_US, SerialSink
from edge_agent.config import ControlConfig
from edge_agent.errors import ConfigError
from edge_agent.observe.slots import UNSTAMPED, Stamp
from firmware_interface.emulator.process import Emulator
from tests.support.waiting import wait_for

TRIES_MAX = 20


class Recorded:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.commands: list[tuple[float, float, Stamp]] = []

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        self.commands.append((speed_mps, turn_rate_radps, stamp))


def tick(sink: SerialSink, speed_mps: float, count: int) -> None:
    """At 20 Hz."""
    for _ in range(count):
        sink.send(speed_mps, 0.0, UNSTAMPED)
        time.sleep(0.05)


def arm(sink: SerialSink) -> None:
    """Arm, once there is a session: a machine that stands still loses it."""
    wait_for(lambda: sink.arm() == "", "arming")


def asked(emulator: Emulator, start: int) -> list[int]:
    """What the wheels were asked since then: 1 to turn, 0 to stand."""
    return [event["on"] for event in emulator.events[start:] if event["event"] == "asked"]


def drive(sink: SerialSink, emulator: Emulator, count: int) -> int:
    """Arm and drive so many ticks; again where a late tick has stopped the board, as it should. The mark before it."""
    for _ in range(TRIES_MAX):
        arm(sink)
        start = emulator.mark()
        tick(sink, 0.4, count)
        if asked(emulator, start) == [1]:
            return start
    raise AssertionError(f"never {count} ticks on end in {TRIES_MAX} tries: {asked(emulator, 0)}")


def test_it_drives_both_and_says_when_the_board_has_stopped(emulator: Emulator) -> None:
    ros = Recorded()
    sink = SerialSink(emulator.port, ros)
    try:
        for _ in range(TRIES_MAX):
            drive(sink, emulator, 10)
            assert ros.commands == [(0.4, 0.0, UNSTAMPED)] * len(ros.commands)
            assert len(ros.commands) % 10 == 0
            driven = sink.stopped() == ""
            emulator.ask("bumper 1")
            tick(sink, 0.4, 2)
            if driven and "stopped by itself (bumper)" in wait_for(
                sink.stopped, "that the board has stopped"
            ):
                break
            emulator.ask("bumper 0")  # a late tick had stopped it before
            wait_for(lambda: sink.clear() == "", "the fault's end")
        else:
            raise AssertionError(f"never stopped by the bumper in {TRIES_MAX} tries: {emulator.events[-5:]}")
        assert sink.stopped() == "", "said once"
        wait_for(lambda: "faulted" in sink.arm(), "the refusal")
        emulator.ask("bumper 0")
    finally:
        sink.close()


def test_the_board_comes_before_whatever_may_keep_the_tick_waiting(emulator: Emulator) -> None:
    class Watching(Recorded):
        sent: float = -1

        def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
            super().send(speed_mps, turn_rate_radps, stamp)
            self.sent = sink.figures()["commands_out"]

    for _ in range(TRIES_MAX):
        ros = Watching()
        sink = SerialSink(emulator.port, ros)
        try:
            arm(sink)
            before = sink.figures()
            assert before["commands_out"] == 0
            sink.send(0.4, 0.0, UNSTAMPED)
            dropped = sink.figures()["frames_unsent"] > before["frames_unsent"]
        finally:
            sink.close()
        if not dropped:  # as it is, rather than waiting, where the link's thread was just writing
            break
    assert ros.sent == 1


def test_a_frozen_caller_stops_the_robot_though_the_link_lives(emulator: Emulator) -> None:
    sink = SerialSink(emulator.port, Recorded())
    try:
        start = drive(sink, emulator, 3)
        last_us = time.monotonic_ns() // 1000
        stopped = emulator.wait_for("asked", start, on=0)
        stalls = sum(e["gap_us"] for e in emulator.events[start:] if e["event"] == "stall")
        assert stopped["us"] - last_us <= EXPIRY_US + 5_000 + stalls, (
            "commands are repeated until they expire, not longer"
        )
        told = wait_for(sink.stopped, "that the board has stopped")
        assert "watchdog" in told or "link is lost" in told, told
    finally:
        sink.close()


def test_what_the_board_said_before_it_was_armed_again_is_not_told(emulator: Emulator) -> None:
    sink = SerialSink(emulator.port, Recorded())
    try:
        for _ in range(TRIES_MAX):
            drive(sink, emulator, 3)
            told = wait_for(sink.stopped, "that the board has stopped")
            if "watchdog" in told:  # and not a link that was lost while this machine stood still
                break
        assert "watchdog" in told
        for _ in range(TRIES_MAX):
            arm(sink)
            start, said = emulator.mark(), []
            for _ in range(50):
                sink.send(0.4, 0.0, UNSTAMPED)
                time.sleep(0.005)
                said.append(sink.stopped())
            if asked(emulator, start) == [1]:  # it was not stopped by a late test meanwhile
                break
        else:
            raise AssertionError(f"never 50 commands on end in {TRIES_MAX} tries")
        assert set(said) == {""}
    finally:
        sink.close()


def test_sending_never_waits_for_a_port_that_is_not_there(tmp_path: object) -> None:
    ros = Recorded()
    sink = SerialSink(f"{tmp_path}/nothing", ros)
    took_s = []
    try:
        for _ in range(1000):
            began_s = time.monotonic()
            sink.send(0.4, 0.0, UNSTAMPED)
            took_s.append(time.monotonic() - began_s)
        assert len(ros.commands) == 1000
        assert sorted(took_s)[500] < 0.001, "half of them, since this machine may stand still in any"
        wait_for(lambda: "there is no such port" in sink.arm(), "the reason")
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("rate_hz", "factor", "good"), [(20, 1.0, True), (10, 1.0, False), (20, 2.0, True), (20, 2.1, False)]
)
def test_a_rate_that_the_watchdog_would_not_bear_is_refused(rate_hz: int, factor: float, good: bool) -> None:
    config = ControlConfig(
        robot_id="r1", state_dir="s", keys_dir="k", layout_path="l", ring_name="r",
        rate_hz=rate_hz, real_time_factor=factor, serial_port="/dev/ttyACM0",
    )  # fmt: skip
    if good:
        assert config.check() is config
    else:
        with pytest.raises(ConfigError, match="every 80 ms"):
            config.check()
