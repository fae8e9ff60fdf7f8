"""The watchdogs in series: the real agent over ROS, the real firmware over the serial link, and a kill between them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

from firmware_interface.emulator.process import Emulator
from firmware_interface.protocol.frames import State
from tests.support.agent import LiveAgent
from tests.support.fleet import make_keys
from tests.support.waiting import wait_for


class SerialAgent(LiveAgent):
    """An agent with a motor controller."""

    port = ""

    def command(self, *more: str) -> list[str]:
        return super().command("--serial", self.port, *more)


def drive(agent: SerialAgent) -> None:
    """Arm until it drives: on a busy machine a late tick may stop the board at once, as it should."""
    for _ in range(20):
        agent.client().arm("test")
        end_s = time.monotonic() + 3.0
        while time.monotonic() < end_s:
            if agent.commands[-1][1] > 0.2:
                return
            time.sleep(0.02)
    raise AssertionError(f"it does not drive: {agent.status()['policy'].detail}")


def last_asked(emulator: Emulator) -> dict[str, Any]:
    """Whether the wheels are asked to turn, and since when."""
    return next(event for event in reversed(emulator.events) if event["event"] == "asked")


@pytest.fixture
def agent(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[SerialAgent]:
    made = SerialAgent(tmp_path, make_keys(tmp_path / "keys"), monkeypatch)
    made.port = emulator.port
    yield made
    made.close()


@pytest.mark.slow
def test_the_agent_drives_the_board_and_a_killed_control_stops_it(
    agent: SerialAgent, emulator: Emulator
) -> None:
    agent.start()
    assert not [event for event in emulator.events if event["event"] == "asked"], "nobody has armed it"
    start = emulator.mark()
    drive(agent)
    emulator.wait_for("asked", start, on=1)
    assert emulator.counts()["executed"] > 0

    control = agent.child("control")
    killed_us = time.monotonic_ns() // 1000
    control.kill()
    asked = wait_for(lambda: last_asked(emulator)["on"] == 0 and last_asked(emulator), "zero at the board")
    stalls = sum(e["gap_us"] for e in emulator.events if e["event"] == "stall" and e["us"] > killed_us)
    assert asked["us"] - killed_us <= 100_000 + stalls
    wait_for(lambda: agent.child("control").pid != control.pid, "control runs again")
    wait_for(lambda: agent.commands[-1][0] > 1000 * killed_us + 1_000_000_000, "commands again")
    wait_for(lambda: agent.status()["safety"].reason_text == "not armed", "a scan at the new control")
    assert emulator.counts()["state"] == State.DISARMED

    start = emulator.mark()
    for _ in range(5):  # where a late tick stops the board first, that is what the agent tells
        drive(agent)
        emulator.wait_for("asked", start, on=1)
        emulator.ask("bumper 1")
        wait_for(lambda: not agent.status()["safety"].armed, "the agent learns that the board has stopped")
        told = wait_for(lambda: (d := agent.status()["policy"].detail) and "stopped" in d and d, "why it has")
        if "bumper" in told:
            break
        emulator.ask("bumper 0")
        agent.client().reset("test")
    assert "bumper" in told
    refused = agent.client().arm("test")
    assert not refused.success
    assert "motor controller" in refused.message
    assert agent.end() == 0
