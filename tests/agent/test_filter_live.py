"""The monitor alone over somebody else's command, as real ROS nodes and processes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

from contracts.robot import AMR_SMALL
from safety.fields import ProtectiveField
from safety.settings import SafetySettings
from tests.support.agent import ROOT
from tests.support.domain import domain_id
from tests.support.waiting import WAIT_MAX_S, wait_for
from trainer.release.keys import load_signer
from trainer.release.safety import sign_safety

STALE_S = 0.3
ASKED_MPS = 0.8
WALL_M = 4.0
FIELD_M = 0.7
BRAKING_MAX_M = 0.35
SLACK_S = 0.25
"""For a busy machine: transport, and the robot's own period."""


class Base:
    """A robot in front of a wall, in this process: scan and odom out, follows cmd_vel exactly."""

    def __init__(self, name: str, odom_frame: str) -> None:
        import rclpy
        from geometry_msgs.msg import TwistStamped
        from nav_msgs.msg import Odometry as OdometryMessage
        from rclpy.experimental.events_executor import EventsExecutor
        from sensor_msgs.msg import LaserScan

        from edge_agent.ros.quality import NEWEST

        self._rclpy, self._context, self._frame = rclpy, rclpy.Context(), odom_frame
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("base", namespace=name, context=self._context)
        self._scan = self._node.create_publisher(LaserScan, "scan", NEWEST)
        self._odom = self._node.create_publisher(OdometryMessage, "odom", NEWEST)
        self._node.create_subscription(TwistStamped, "cmd_vel", self._take, NEWEST)
        self._node.create_timer(0.05, self._step)
        self._kinds = LaserScan, OdometryMessage
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.x_m, self._velocity, self._stepped_s = 0.0, (0.0, 0.0), time.monotonic()
        self.commands: list[tuple[int, float, float]] = []
        self._running = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._running:
            self._executor.spin_once(0.1)

    def _take(self, message: Any) -> None:
        self._velocity = message.twist.linear.x, message.twist.angular.z
        self.commands.append((time.monotonic_ns(), *self._velocity))

    def _step(self) -> None:
        now_s, lidar = time.monotonic(), AMR_SMALL.lidar
        self.x_m += self._velocity[0] * (now_s - self._stepped_s)
        self._stepped_s = now_s
        scan, odometry = self._kinds[0](), self._kinds[1]()
        stamp = self._node.get_clock().now().to_msg()
        odometry.header.stamp = scan.header.stamp = stamp
        odometry.header.frame_id = self._frame
        odometry.pose.pose.position.x, odometry.pose.pose.orientation.w = self.x_m, 1.0
        odometry.twist.twist.linear.x, odometry.twist.twist.angular.z = self._velocity
        angles = lidar.angle_min_rad + lidar.angle_step_rad * np.arange(lidar.rays)
        ahead = np.cos(angles)
        ranges = np.where(ahead > 1e-3, (WALL_M - self.x_m) / np.maximum(ahead, 1e-3), np.inf)
        ranges = np.where(ranges > lidar.range_max_m, np.inf, ranges)
        scan.angle_min, scan.angle_increment = lidar.angle_min_rad, lidar.angle_step_rad
        scan.range_min, scan.range_max = lidar.range_min_m, lidar.range_max_m
        scan.ranges = ranges.astype(np.float32).tolist()
        self._odom.publish(odometry)
        self._scan.publish(scan)

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._rclpy.shutdown(context=self._context)


def drive(name: str) -> None:
    """Somebody else's driver: asks for the same speed 20 times a second, until it is killed."""
    import rclpy
    from geometry_msgs.msg import TwistStamped

    rclpy.init()
    node = rclpy.create_node("driver", namespace=name)
    publisher = node.create_publisher(TwistStamped, "cmd_vel_in", 1)
    message = TwistStamped()
    message.twist.linear.x = ASKED_MPS
    while True:
        publisher.publish(message)
        time.sleep(0.05)


class Rig:
    """Base, filter and driver of one test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from edge_agent.ros.client import RobotClient

        self.name = f"robot_{os.getpid()}_{random.SystemRandom().randrange(10**6)}"
        self.state, self._stack = folder / "state", stack
        self.base = Base(self.name, "odom")
        stack.callback(self.base.close)
        self.client = stack.enter_context(RobotClient(self.name, WAIT_MAX_S))

    def command(self, *more: str) -> list[str]:
        """The filter's command line."""
        words = ["agent", "filter", "--robot", self.name, "--state", str(self.state), *more]
        return [sys.executable, "-m", "outrider.cli", *words]

    def start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """A process that ends with the test."""
        process = subprocess.Popen(command, cwd=ROOT)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Everything but the filter and the driver, in a DDS domain of its own."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def test_it_stops_for_a_wall_and_when_the_driver_dies(rig: Rig, tmp_path: Path, keys: Path) -> None:
    base, safety = rig.base, tmp_path / "safety.dsse.json"
    stop_field = SafetySettings(AMR_SMALL.name, fields=(ProtectiveField(0.0, FIELD_M),))
    safety.write_bytes(sign_safety(stop_field, [load_signer(keys)]))
    shutil.copytree(keys / "robots" / "robot_1", keys / "robots" / rig.name)
    running = rig.start(rig.command("--safety", str(safety), "--keys", str(keys)))
    driving = [sys.executable, "-m", "tests.agent.test_filter_live", rig.name]
    driver = rig.start(driving)
    wait_for(lambda: len(base.commands) > 20, "commands at the base")
    second = subprocess.run(rig.command(), capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert "already runs" in second.stderr
    assert {command[1:] for command in base.commands} == {(0.0, 0.0)}  # asked, and not armed

    wait_for(lambda: rig.client.arm("test").success, "arming")
    wait_for(lambda: base.commands[-1][1] > 0.5, "driving")
    driver.send_signal(signal.SIGKILL)
    killed_ns = time.monotonic_ns()
    stopped = wait_for(
        lambda: next((at for at, speed, _ in list(base.commands) if at > killed_ns and speed == 0.0), 0),
        "a stop",
    )
    assert (stopped - killed_ns) / 1e9 < STALE_S + 0.05 + SLACK_S
    assert base.x_m < WALL_M - 1.0

    rig.start(driving)
    wait_for(lambda: base.commands[-1][1] > 0.3, "another driver")
    wait_for(lambda: all(speed < 0.02 for _, speed, _ in base.commands[-40:]), "standing before the wall")
    gap_m = WALL_M - base.x_m - AMR_SMALL.footprint_radius_m
    assert FIELD_M - BRAKING_MAX_M < gap_m <= FIELD_M, gap_m
    assert all(0.0 <= speed <= ASKED_MPS and turn == 0.0 for _, speed, turn in list(base.commands))

    assert rig.client.stop("test", emergency=True).success
    wait_for(lambda: base.commands[-1][1:] == (0.0, 0.0), "the emergency stop")
    assert not rig.client.arm("test").success
    wait_for(lambda: rig.client.reset("test").success, "the reset")
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_MAX_S) == 0
    assert base.commands[-1][1:] == (0.0, 0.0)


@pytest.mark.parametrize(
    "given", ["rate_hz:=500", "rate_hz:=fast", "command_stale_max_s:=0.0", "robot_id:=other"]
)
def test_a_ros_parameter_that_cannot_be_is_refused_by_name(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTRIDER_ROS_ARGS", f"--ros-args\n-p\n{given}")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    command = [
        sys.executable,
        "-m",
        "outrider.cli",
        "agent",
        "filter",
        "--robot",
        "robot_1",
        "--state",
        str(tmp_path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert given.split(":=")[0] in ended.stderr


if __name__ == "__main__":
    drive(sys.argv[1])
