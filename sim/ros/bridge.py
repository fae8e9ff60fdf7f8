"""The warehouse as ROS 2 sees it: clock, scans, localisation and goals out, velocity commands in.

For each robot ``/robot_i``: ``scan`` (LaserScan, best effort, inf where nothing is seen), ``odom`` (Odometry
from ``map`` to ``robot_i/base_link``: ground truth, where a real robot would publish its localisation),
``goal`` (PoseStamped, latched) and ``cmd_vel`` (TwistStamped, best effort so that any publisher
matches). Stamps are simulation time. A robot without a fresh, finite command stands still. Robots that motor
controllers drive (``sim.physics.boards``) take no ``cmd_vel``.
"""

import array
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import LaserScan

from navigation.warehouse import Station
from sim.errors import SimConfigError
from sim.physics.boards import BoardDrive
from sim.ros.commands import CommandSlots, Refusal
from sim.world.journal import Journal, run_summary
from sim.world.run import NS, STEP_NS, STEP_S, FloorRun

RATE_MIN, RATE_MAX = 0.05, 50.0
LATE_MAX_S = 0.5
"""Further behind than this the schedule starts anew: simulation time then lags, it never jumps."""
SPIN_MIN_S = 0.0005

_BEST_EFFORT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class FloorBridge:
    """Publishes and subscribes for a ``FloorRun``; ``run`` keeps time.

    Args:
        run: the floor; closed by ``close``.
        rate: simulation seconds per second.
        out: folder for the journal, or None for none.
        boards: what turns the wheels instead of ``cmd_vel``, or None.

    Raises:
        SimConfigError: a rate out of range, or an ``out`` that cannot be written.
    """

    def __init__(
        self, run: FloorRun, rate: float = 1.0, out: Path | None = None, boards: BoardDrive | None = None
    ) -> None:
        if not RATE_MIN <= rate <= RATE_MAX:
            raise SimConfigError(f"rate is {rate}; it must be {RATE_MIN} to {RATE_MAX}")
        self._run, self._rate, self._boards = run, rate, boards
        self._journal = Journal(out, run.warehouse) if out is not None else None
        self._slots = CommandSlots(len(run.names))
        self._told: set[tuple[int, Refusal]] = set()
        self._late_steps = 0
        self._steps = 0
        self._started_s = time.monotonic()
        self._goals: list[tuple[int, int, str]] = [(-1, -1, "")] * len(run.names)
        self._open_ros()

    def _open_ros(self) -> None:
        # The process has its own idea of Ctrl-C: everything is closed whole.
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("outrider_sim", context=self._context)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self._node)
        node, names = self._node, self._run.names
        self._clock = node.create_publisher(Clock, "/clock", _BEST_EFFORT)
        self._scans = [node.create_publisher(LaserScan, f"/{name}/scan", _BEST_EFFORT) for name in names]
        self._odoms = [node.create_publisher(Odometry, f"/{name}/odom", _RELIABLE) for name in names]
        self._goal_publishers = [
            node.create_publisher(PoseStamped, f"/{name}/goal", _LATCHED) for name in names
        ]
        for robot, name in enumerate(names if self._boards is None else ()):
            node.create_subscription(
                TwistStamped, f"/{name}/cmd_vel", partial(self._take, robot), _BEST_EFFORT
            )
        self._scan_messages = [self._scan_message(name) for name in names]
        self._odom_messages = [self._odom_message(name) for name in names]

    def run(self, stopped: Callable[[], bool], duration_s: float | None = None) -> None:
        """Step and publish at the set rate until ``stopped()`` or ``duration_s`` (simulated) are over."""
        period_s = STEP_S / self._rate
        deadline_s = time.monotonic() + period_s
        self._publish()
        while not stopped() and (duration_s is None or self._run.now_s < duration_s - STEP_S / 2):
            self._spin_until(deadline_s, stopped)
            self.step()
            deadline_s += period_s
            behind_s = time.monotonic() - deadline_s
            if behind_s > 0.0:
                self._late_steps += 1
            if behind_s > LATE_MAX_S:
                deadline_s = time.monotonic() + period_s

    def step(self) -> None:
        """One control step and everything that is published after it."""
        if self._boards is not None:
            self._boards.before_step()
        records = self._run.step(self._slots.current(self._run.now_ns))
        if self._boards is not None:
            self._boards.after_step()
        self._steps += 1
        if self._journal is not None:
            self._journal.records(records)
            self._journal.pose(self._run.now_ns, self._run.state)
        self._publish()

    def close(self) -> dict[str, Any]:
        """Write the journal, leave ROS, let go of PyBullet; returns the summary."""
        summary = self.summary()
        try:
            if self._journal is not None:
                self._journal.close(summary)
        finally:
            self._executor.shutdown()
            self._node.destroy_node()
            rclpy.shutdown(context=self._context)
            self._run.close()
        return summary

    def summary(self) -> dict[str, Any]:
        """Figures of the run so far."""
        summary = run_summary(self._run, time.monotonic() - self._started_s)
        slots = self._slots
        for k, name in enumerate(self._run.names):
            summary["robots"][name] |= {
                "commands_received": int(slots.received[k]),
                "commands_refused": int(slots.refused[k]),
                "watchdog_stops": int(slots.expired[k]),
            }
        if self._boards is not None:
            for name, counts in self._boards.counts().items():
                summary["robots"][name]["board"] = counts
        return {**summary, "steps": self._steps, "late_steps": self._late_steps}

    def _spin_until(self, deadline_s: float, stopped: Callable[[], bool]) -> None:
        # At least once, so that a floor that runs late still hears its robots.
        left_s = deadline_s - time.monotonic()
        while True:
            self._executor.spin_once(min(max(left_s, SPIN_MIN_S), 0.1))
            left_s = deadline_s - time.monotonic()
            if left_s <= SPIN_MIN_S or stopped():
                return

    def _take(self, robot: int, message: TwistStamped) -> None:
        stamp = message.header.stamp
        refusal = self._slots.store(
            robot,
            message.twist.linear.x,
            message.twist.angular.z,
            stamp.sec * NS + stamp.nanosec,
            self._run.now_ns,
        )
        if refusal is not None and (robot, refusal) not in self._told:
            self._told.add((robot, refusal))
            self._node.get_logger().warning(
                f"{self._run.names[robot]}: command ignored: {refusal.value} (said once)"
            )

    def _publish(self) -> None:
        run = self._run
        stamp = Time(sec=run.now_ns // NS, nanosec=run.now_ns % NS)
        self._clock.publish(Clock(clock=stamp))
        for k, desk in enumerate(run.desks):
            self._publish_scan(k, stamp)
            self._publish_odom(k, stamp)
            goal = (desk.order, desk.leg, desk.goal.name)
            if goal != self._goals[k]:
                self._goals[k] = goal
                self._goal_publishers[k].publish(_goal_message(desk.goal, stamp))

    def _publish_scan(self, robot: int, stamp: Time) -> None:
        message = self._scan_messages[robot]
        message.header.stamp = stamp
        ranges = self._run.ranges[robot]
        seen = np.where(ranges < np.float32(self._run.model.lidar.range_max_m), ranges, np.float32(np.inf))
        message.ranges = array.array("f", seen.astype(np.float32).tobytes())
        self._scans[robot].publish(message)

    def _publish_odom(self, robot: int, stamp: Time) -> None:
        message = self._odom_messages[robot]
        x, y, heading = self._run.told_pose(robot).tolist()
        speed, turn_rate = self._run.told_velocity(robot).tolist()
        message.header.stamp = stamp
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        message.pose.pose.orientation.z, message.pose.pose.orientation.w = (
            math.sin(heading / 2),
            math.cos(heading / 2),
        )
        message.twist.twist.linear.x, message.twist.twist.angular.z = speed, turn_rate
        self._odoms[robot].publish(message)

    def _scan_message(self, name: str) -> LaserScan:
        lidar = self._run.model.lidar
        message = LaserScan()
        message.header.frame_id = f"{name}/base_scan"
        message.angle_min = lidar.angle_min_rad
        message.angle_increment = lidar.angle_step_rad
        message.angle_max = lidar.angle_min_rad + lidar.angle_step_rad * (lidar.rays - 1)
        message.scan_time = STEP_NS / NS
        message.range_min, message.range_max = lidar.range_min_m, lidar.range_max_m
        return message

    def _odom_message(self, name: str) -> Odometry:
        message = Odometry()
        message.header.frame_id = "map"
        message.child_frame_id = f"{name}/base_link"
        return message


def _goal_message(station: Station, stamp: Time) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = "map"
    message.header.stamp = stamp
    message.pose.position.x, message.pose.position.y = station.x_m, station.y_m
    message.pose.orientation.z = math.sin(station.heading_rad / 2)
    message.pose.orientation.w = math.cos(station.heading_rad / 2)
    return message
