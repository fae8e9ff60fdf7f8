"""A robot for tests of the agent: publishes scan, odom and goal at 10 Hz, follows ``cmd_vel`` without walls.

``python -m tests.support.fake_robot ROBOT X Y GOAL_X GOAL_Y`` takes one-word orders on standard input
(``mute`` ends the scans, ``talk`` begins them again, ``bend`` sends scans of another geometry) and prints each
command it gets as ``monotonic_ns speed turn_rate``.

With ``FAKE_ROBOT_WATCHDOG_S`` its motor controller stops it when commands end, and prints that as a zero command; with
``FAKE_ROBOT_SHUTTLE`` it is sent back and forth between goal and start for ever.
"""

import array
import math
import os
import sys
import time
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.experimental.events_executor import EventsExecutor
from sensor_msgs.msg import LaserScan

from contracts.robot import AMR_SMALL
from edge_agent.ros.quality import LATCHED, NEWEST

PERIOD_S = 0.1
WATCHDOG_STEP_S = 0.002
ARRIVED_M = 1.0


class FakeRobot:
    """Free floor all around; moves exactly as it is told."""

    def __init__(self, name: str, x_m: float, y_m: float, goal_x_m: float, goal_y_m: float) -> None:
        rclpy.init()
        self.node = rclpy.create_node("fake_robot", namespace=name)
        self._scan = self.node.create_publisher(LaserScan, "scan", NEWEST)
        self._odom = self.node.create_publisher(Odometry, "odom", NEWEST)
        self._goal = self.node.create_publisher(PoseStamped, "goal", LATCHED)
        self.node.create_subscription(TwistStamped, "cmd_vel", self._on_command, NEWEST)
        self.pose, self.velocity, self.mode = [x_m, y_m, 0.0], (0.0, 0.0), "talk"
        self._watchdog_s = float(os.environ.get("FAKE_ROBOT_WATCHDOG_S", "inf"))
        self._heard_s = time.monotonic()
        self._ways = [(goal_x_m, goal_y_m)]
        if "FAKE_ROBOT_SHUTTLE" in os.environ:
            self._ways.append((x_m, y_m))
        self._send_goal()

    def _send_goal(self) -> None:
        goal = PoseStamped()
        goal.header.frame_id = "map"
        goal.pose.position.x, goal.pose.position.y = self._ways[0]
        goal.pose.orientation.w = 1.0
        self._goal.publish(goal)

    def watch(self) -> None:
        """What a motor controller does: stand when there has been no command for too long."""
        if time.monotonic() - self._heard_s > self._watchdog_s and self.velocity != (0.0, 0.0):
            self.velocity = 0.0, 0.0
            print(time.monotonic_ns(), *self.velocity, flush=True)

    def spin(self, executor: Any, left_s: float) -> None:
        """Hear commands for at most so long."""
        executor.spin_once(left_s if math.isinf(self._watchdog_s) else min(left_s, WATCHDOG_STEP_S))
        self.watch()

    def _on_command(self, message: Any) -> None:
        self._heard_s = time.monotonic()
        self.velocity = message.twist.linear.x, message.twist.angular.z
        print(time.monotonic_ns(), *self.velocity, flush=True)

    def step(self) -> None:
        """Move for one period and publish."""
        speed, turn_rate = self.velocity
        self.pose[2] += turn_rate * PERIOD_S
        self.pose[0] += speed * math.cos(self.pose[2]) * PERIOD_S
        self.pose[1] += speed * math.sin(self.pose[2]) * PERIOD_S
        if len(self._ways) > 1 and math.dist(self.pose[:2], self._ways[0]) < ARRIVED_M:
            self._ways.reverse()
            self._send_goal()
        stamp = self.node.get_clock().now().to_msg()
        odometry, pose = Odometry(), self.pose
        odometry.header.stamp, odometry.header.frame_id = stamp, "map"
        odometry.pose.pose.position.x, odometry.pose.pose.position.y = pose[0], pose[1]
        odometry.pose.pose.orientation.z = math.sin(pose[2] / 2)
        odometry.pose.pose.orientation.w = math.cos(pose[2] / 2)
        odometry.twist.twist.linear.x, odometry.twist.twist.angular.z = self.velocity
        self._odom.publish(odometry)
        if self.mode == "mute":
            return
        lidar, scan = AMR_SMALL.lidar, LaserScan()
        rays = lidar.rays if self.mode == "talk" else lidar.rays // 2
        scan.header.stamp = stamp
        scan.angle_min, scan.angle_increment = lidar.angle_min_rad, 2 * math.pi / rays
        scan.range_min, scan.range_max = lidar.range_min_m, lidar.range_max_m
        scan.ranges = array.array("f", [math.inf] * rays)
        self._scan.publish(scan)


def main() -> None:
    """Run until standard input closes."""
    name, *numbers = sys.argv[1:]
    robot = FakeRobot(name, *map(float, numbers))
    executor = EventsExecutor()
    executor.add_node(robot.node)
    os.set_blocking(sys.stdin.fileno(), False)
    deadline_s = time.monotonic()
    while (order := sys.stdin.buffer.raw.read(100)) != b"":
        robot.mode = order.decode().split()[-1] if order else robot.mode
        robot.step()
        deadline_s += PERIOD_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            robot.spin(executor, left_s)
    executor.shutdown()
    robot.node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
