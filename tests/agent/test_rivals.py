"""Two commanders on one robot: named, disarming, and nobody is armed until one of them is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

from contracts.decision import Reason, Verdict
from edge_agent.ros.rivals import OWN_FILE
from tests.support.agent import ROOT, LiveAgent
from tests.support.domain import domain_id
from tests.support.waiting import WAIT_MAX_S, wait_for

BOUND_S = 2.0
"""The table's 40 ticks."""
SLACK_S = 1.0
"""For a busy machine, and for status at 5 Hz."""
RIVAL = """
import sys, time, rclpy
from geometry_msgs.msg import TwistStamped
rclpy.init()
node = rclpy.create_node("teleop", namespace=sys.argv[1])
publisher = node.create_publisher(TwistStamped, "cmd_vel", 1)
while rclpy.ok():
    time.sleep(0.1)  # it need not say anything: it could at any moment
node.destroy_node()
"""


@pytest.fixture
def rival() -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Starts somebody else who may command a robot."""
    started: list[subprocess.Popen[bytes]] = []

    def start(robot: str) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([sys.executable, "-c", RIVAL, robot], cwd=ROOT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_commander_disarms_is_named_and_must_go_before_arming(
    live: LiveAgent, rival: Callable[[str], Any]
) -> None:
    live.start()
    live.arm()
    process = rival(live.robot)
    wait_for(lambda: live.commands[-1][1:] == (0.0, 0.0), "standing")
    safety = wait_for(
        lambda: (found := live.status()["safety"]).reason_code == Reason.OTHER_COMMANDER and found,
        "the fault",
    )
    assert (safety.verdict, safety.armed, safety.reason_text) == (Verdict.DISARM, False, "other commander")
    refused = live.client().arm("test")
    assert not refused.success
    assert f"/{live.robot}/teleop" in refused.message

    process.send_signal(signal.SIGTERM)  # rclpy ends in order: DDS hears of it at once
    ended_ns = time.monotonic_ns()
    wait_for(lambda: live.status()["safety"].reason_text == "not armed", "the fault's end")
    assert (time.monotonic_ns() - ended_ns) / 1e9 < BOUND_S + SLACK_S
    live.arm()

    # What a killed control leaves in the graph is its own: it is armed again without waiting for DDS.
    control = live.child("control")
    control.kill()
    wait_for(lambda: live.child("control").pid != control.pid, "control runs again")
    wait_for(lambda: live.status()["safety"].reason_text == "not armed", "a scan at the new control")
    live.arm()
    assert len(json.loads((live.state / OWN_FILE).read_bytes())) == 2


def test_the_monitor_alone_is_not_armed_beside_who_bypasses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rival: Callable[[str], Any]
) -> None:
    from edge_agent.ros.client import RobotClient

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    robot = f"robot_{os.getpid()}"
    rival(robot)
    words = ["agent", "filter", "--robot", robot, "--state", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-m", "outrider.cli", *words], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        with RobotClient(robot, WAIT_MAX_S) as client:
            answer = wait_for(
                lambda: (found := client.arm("test")) and "publishes" in found.message and found,
                "the refusal",
            )
            assert not answer.success
            assert "cmd_vel_in" in answer.message
    finally:
        running.terminate()
        assert running.wait(WAIT_MAX_S) == 0
