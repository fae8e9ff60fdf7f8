"""The agent's sink over the serial link: it drives the board, never waits, and notices when the board has stopped."""

import time

import pytest

from edge_agent.actuate.serial_sink import EXPIRY_US, SerialSink
from edge_agent.config import ControlConfig
from edge_agent.errors import ConfigError
from edge_agent.observe.slots import UNSTAMPED, Stamp
from firmware_interface.emulator.process import Emulator


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


def test_it_drives_both_and_says_when_the_board_has_stopped(emulator: Emulator) -> None:
    ros = Recorded()
    sink = SerialSink(emulator.port, ros)
    try:
        assert sink.arm() == ""
        start = emulator.mark()
        tick(sink, 0.4, 10)
        emulator.wait_for("asked", start, on=1)
        assert ros.commands == [(0.4, 0.0, UNSTAMPED)] * 10
        assert sink.stopped() == ""
        assert not [e for e in emulator.events[start:] if e["event"] == "asked" and e["on"] == 0]
        emulator.ask("bumper 1")
        tick(sink, 0.4, 5)
        assert "stopped by itself (bumper)" in sink.stopped()
        assert sink.stopped() == "", "said once"
        assert "faulted" in sink.arm()
        emulator.ask("bumper 0")
    finally:
        sink.close()


def test_the_board_comes_before_whatever_may_keep_the_tick_waiting(emulator: Emulator) -> None:
    class Watching(Recorded):
        sent: float = -1

        def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
            super().send(speed_mps, turn_rate_radps, stamp)
            self.sent = sink.figures()["commands_out"]

    ros = Watching()
    sink = SerialSink(emulator.port, ros)
    try:
        assert sink.arm() == ""
        assert sink.figures()["commands_out"] == 0
        sink.send(0.4, 0.0, UNSTAMPED)
        assert ros.sent == 1
    finally:
        sink.close()


def test_a_frozen_caller_stops_the_robot_though_the_link_lives(emulator: Emulator) -> None:
    sink = SerialSink(emulator.port, Recorded())
    try:
        assert sink.arm() == ""
        tick(sink, 0.4, 3)
        start = emulator.mark()
        last_us = time.monotonic_ns() // 1000
        stopped = emulator.wait_for("asked", start, on=0, timeout_s=2.0)
        stalls = sum(e["gap_us"] for e in emulator.events[start:] if e["event"] == "stall")
        assert stopped["us"] - last_us <= EXPIRY_US + 5_000 + stalls, (
            "commands are repeated until they expire, not longer"
        )
        time.sleep(0.1)
        assert "watchdog" in sink.stopped()
        time.sleep(0.5)
        assert sink.arm() == ""
        for _ in range(50):
            sink.send(0.4, 0.0, UNSTAMPED)
            time.sleep(0.005)
            assert sink.stopped() == "", "what it said before it was armed again"
    finally:
        sink.close()


def test_sending_never_waits_for_a_port_that_is_not_there(tmp_path: object) -> None:
    ros = Recorded()
    sink = SerialSink(f"{tmp_path}/nothing", ros)
    try:
        began_s = time.monotonic()
        for _ in range(1000):
            sink.send(0.4, 0.0, UNSTAMPED)
        assert time.monotonic() - began_s < 1.0
        assert len(ros.commands) == 1000
        assert "there is no such port" in sink.arm()
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
