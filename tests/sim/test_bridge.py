"""The bridge as another process sees it: scans, odometry, goals; commands drive, silence and NaN do not."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import LaserScan

from contracts.robot import AMR_SMALL
from sim.ros.commands import COMMAND_AGE_MAX_S, CommandSlots, Refusal
from tests.support.domain import domain_id

NS = 1_000_000_000
WAIT_MAX_S = 60.0
STOP_MAX_S = COMMAND_AGE_MAX_S + 0.3 / 1.6 + 0.3
TRIES_MAX = 10
_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def seconds(stamp):
    return stamp.sec + stamp.nanosec / NS


class Client:
    """A robot's side of the topics of ``robot_1``."""

    def __init__(self, domain):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self.context)
        self.executor = EventsExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.scan = self.odom = self.clock = None
        self.scan_times_s = []
        self.node.create_subscription(LaserScan, "/robot_1/scan", self._on_scan, _BEST_EFFORT)
        self.node.create_subscription(Odometry, "/robot_1/odom", lambda m: setattr(self, "odom", m), 5)
        self.node.create_subscription(Clock, "/clock", lambda m: setattr(self, "clock", m), _BEST_EFFORT)
        self.commands = self.node.create_publisher(TwistStamped, "/robot_1/cmd_vel", 5)

    def _on_scan(self, message):
        self.scan = message
        self.scan_times_s.append(seconds(message.header.stamp))

    def wait(self, condition, what):
        end = time.monotonic() + WAIT_MAX_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            self.executor.spin_once(0.05)

    def send(self, speed, turn_rate=0.0, stamp=None):
        message = TwistStamped()
        message.header.stamp = stamp or self.clock.clock
        message.twist.linear.x, message.twist.angular.z = speed, turn_rate
        self.commands.publish(message)

    def drive(self, count, *command):
        """So many commands, at about 20 Hz."""
        for _ in range(count):
            self.send(*command)
            until = time.monotonic() + 0.05
            while time.monotonic() < until:
                self.executor.spin_once(0.02)

    def speed(self):
        return self.odom.twist.twist.linear.x

    def place(self):
        return self.odom.pose.pose.position.x, self.odom.pose.pose.position.y

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    domain = domain_id()
    before = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    words = ["sim", "run", "--layout", "small", "--robots", "2", "--ros", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "outrider.cli", *words],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = Client(domain)
    try:
        client.wait(lambda: client.scan and client.odom and client.clock, "the first messages")
        yield SimpleNamespace(client=client, process=process, out=out, domain=domain)
    finally:
        client.close()
        if process.poll() is None:
            process.kill()
        process.communicate()
        if before is None:
            del os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"]
        else:
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = before


def test_scan_has_the_models_shape_and_simulation_time(bridge):
    scan, lidar = bridge.client.scan, AMR_SMALL.lidar
    assert len(scan.ranges) == lidar.rays
    assert scan.angle_min == pytest.approx(lidar.angle_min_rad)
    assert scan.angle_increment == pytest.approx(lidar.angle_step_rad)
    assert scan.header.frame_id == "robot_1/base_scan"
    assert scan.header.stamp.sec < 120
    assert not any(math.isnan(value) for value in scan.ranges)
    assert all(value < lidar.range_max_m or math.isinf(value) for value in scan.ranges)
    assert any(math.isinf(value) for value in scan.ranges)


def test_scans_come_at_twenty_hertz(bridge):
    client = bridge.client
    client.wait(lambda: len(client.scan_times_s) >= 40, "forty scans")
    apart_s = sorted(late - early for early, late in pairwise(client.scan_times_s))
    assert apart_s[0] >= 0.049
    assert apart_s[len(apart_s) // 2] == pytest.approx(0.05, abs=0.001), "some are lost on a busy machine"


def test_goal_is_latched_for_who_comes_late(bridge):
    goals = []
    bridge.client.node.create_subscription(PoseStamped, "/robot_1/goal", goals.append, _LATCHED)
    bridge.client.wait(lambda: goals, "the goal")
    assert goals[0].header.frame_id == "map"
    assert 0.0 < goals[0].pose.position.x < 12.0


def test_commands_drive_and_silence_stops(bridge):
    client = bridge.client
    start = client.place()
    assert client.odom.header.frame_id == "map"
    assert client.odom.child_frame_id == "robot_1/base_link"
    client.wait(lambda: client.commands.get_subscription_count() == 1, "the bridge's subscription")

    def driven():
        client.drive(1, 0.3)
        return client.speed() == pytest.approx(0.3, abs=0.05) and math.dist(start, client.place()) > 0.1

    def stopped_after_s():
        """In simulation time, as this client gets to know of it."""
        client.wait(driven, "0.3 m/s")
        last_s = seconds(client.clock.clock)
        client.wait(lambda: abs(client.speed()) < 0.01, "the watchdog")
        return seconds(client.clock.clock) - last_s

    times_s = []
    while not times_s or (
        times_s[-1] > STOP_MAX_S and len(times_s) < TRIES_MAX
    ):  # it may have stood still itself
        times_s.append(stopped_after_s())
    assert times_s[-1] <= STOP_MAX_S, times_s


@pytest.mark.parametrize(
    "command", [(math.nan,), (math.inf,), (0.3, math.nan)], ids=["nan speed", "infinite speed", "nan turn"]
)
def test_command_that_is_not_finite_moves_nothing(bridge, command):
    client = bridge.client
    client.wait(lambda: abs(client.speed()) < 0.01, "standstill")
    start = client.place()
    client.drive(8, *command)
    assert math.dist(start, client.place()) < 0.01


def test_interrupt_closes_whole(bridge):
    bridge.process.send_signal(signal.SIGINT)
    output, _ = bridge.process.communicate(timeout=100)
    assert bridge.process.returncode == 0, output
    assert "Traceback" not in output
    assert output.count("command ignored: not finite") == 1
    summary = json.loads((bridge.out / "summary.json").read_text())
    robot = summary["robots"]["robot_1"]
    assert robot["commands_refused"] >= 10
    assert robot["commands_received"] > robot["commands_refused"]
    assert robot["watchdog_stops"] >= 1
    assert summary["robots"]["robot_2"]["commands_received"] == 0
    assert (bridge.out / "trajectory.npz").is_file()


def _slots():
    slots = CommandSlots(2)
    assert slots.store(0, 0.5, 0.1, 0, 10 * NS) is None
    return slots


def test_slot_holds_up_to_its_age_and_not_longer():
    slots = _slots()
    last_ns = 10 * NS + round(COMMAND_AGE_MAX_S * NS)
    assert slots.current(last_ns).tolist() == [[0.5, 0.1], [0.0, 0.0]]
    assert slots.current(last_ns + 1).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert slots.current(last_ns + 2).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert slots.expired.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("speed", "turn_rate", "stamp_s", "refusal"),
    [
        (math.nan, 0.0, 0.0, Refusal.NOT_FINITE),
        (0.0, -math.inf, 0.0, Refusal.NOT_FINITE),
        (0.1, 0.0, 9.65, Refusal.STALE),
        (0.1, 0.0, 10.15, Refusal.FUTURE),
        (0.1, 0.0, 1.7e9, Refusal.FUTURE),
    ],
)
def test_bad_command_leaves_the_last_good_one(speed, turn_rate, stamp_s, refusal):
    slots = _slots()
    assert slots.store(0, speed, turn_rate, round(stamp_s * NS), 10 * NS) is refusal
    assert slots.current(10 * NS)[0].tolist() == [0.5, 0.1]
    assert slots.refused.tolist() == [1, 0]


@pytest.mark.parametrize("stamp_s", [9.7, 10.0, 10.1])
def test_stamp_within_bounds_is_taken(stamp_s):
    slots = _slots()
    assert slots.store(0, 0.2, 0.0, round(stamp_s * NS), 10 * NS) is None
    assert slots.current(10 * NS)[0].tolist() == [0.2, 0.0]
