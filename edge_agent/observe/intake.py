"""Checks on arrival: what comes in becomes a value in a slot, a named fault, or both. Never an exception."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from contracts.robot import RobotModel
from edge_agent.observe.slots import UNSTAMPED, Goal, Odometry, Scan, Slots, Stamp

MAP_FRAMES = ("map", "")
RANGE_SLACK_M = 1e-3
GEOMETRY_SLACK = 0.25
"""How far the last ray may lie beside where the robot's model has it, in ray widths."""
PLACE_MAX_M = 1e4
_NAN = math.nan
_EMPTY = np.empty(0, dtype=np.float32)


class Intake:
    """Fills ``slots``; ``want_route`` is told of every new goal. Called by one thread, the executor's."""

    def __init__(self, slots: Slots, model: RobotModel, want_route: Callable[[Goal], None]) -> None:
        self._slots, self._lidar, self._want_route = slots, model.lidar, want_route
        self._trips = 0

    def scan(
        self,
        ranges: Any,
        angle_min_rad: float,
        angle_step_rad: float,
        range_max_m: float,
        stamp: Stamp,
        now_ns: int,
    ) -> None:
        """Take a scan. ``ranges`` is a float32 buffer; the message that owns it must not be reused."""
        if not self._fits(len(ranges), angle_min_rad, angle_step_rad, range_max_m):
            self._slots.count("scan_wrong_geometry")
            self._slots.scan = Scan(_EMPTY, now_ns, stamp)
            return
        self._slots.scan = Scan(np.frombuffer(ranges, dtype=np.float32), now_ns, stamp)

    def odometry(
        self,
        frame: str,
        place: tuple[float, float],
        rotation: tuple[float, float, float, float],
        velocity: tuple[float, float],
        now_ns: int,
        stamp: Stamp = UNSTAMPED,
    ) -> None:
        """Take a pose and a velocity. ``rotation`` is a quaternion x, y, z, w."""
        if frame.lstrip("/") not in MAP_FRAMES:
            self._slots.count("odometry_wrong_frame")
            self._slots.odometry = Odometry((_NAN, _NAN, _NAN), (_NAN, _NAN), now_ns, False, stamp)
            return
        x, y, z, w = rotation
        heading = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        unit = abs(x * x + y * y + z * z + w * w - 1.0) < 0.1
        numbers = (*place, heading, *velocity)
        if not unit or not all(abs(number) <= PLACE_MAX_M for number in numbers):
            self._slots.count("odometry_not_finite")
            self._slots.odometry = Odometry((_NAN, _NAN, _NAN), (_NAN, _NAN), now_ns, False, stamp)
            return
        self._slots.odometry = Odometry((*place, heading), velocity, now_ns, True, stamp)

    def goal(self, frame: str, x_m: float, y_m: float) -> None:
        """Take a goal; a bad one means no goal: the robot stops."""
        fault = ""
        if frame.lstrip("/") not in MAP_FRAMES:
            fault = "goal_wrong_frame"
        elif not (abs(x_m) <= PLACE_MAX_M and abs(y_m) <= PLACE_MAX_M):
            fault = "goal_not_finite"
        if fault:
            self._slots.count(fault)
            self._slots.goal = None
            return
        self._trips += 1
        goal = Goal(x_m, y_m, self._trips)
        self._slots.goal = goal
        self._want_route(goal)

    def _fits(self, rays: int, angle_min_rad: float, angle_step_rad: float, range_max_m: float) -> bool:
        lidar = self._lidar
        if rays != lidar.rays:
            return False
        slack_rad = GEOMETRY_SLACK * lidar.angle_step_rad
        last_rad = (angle_min_rad - lidar.angle_min_rad) + (angle_step_rad - lidar.angle_step_rad) * (
            rays - 1
        )
        return (
            abs(angle_min_rad - lidar.angle_min_rad) < slack_rad
            and abs(last_rad) < slack_rad
            and range_max_m >= lidar.range_max_m - RANGE_SLACK_M
        )
