"""Latest-value slots: callbacks replace whole values, the tick reads them. One reference each: no locks."""

import msgspec
import numpy as np
import numpy.typing as npt

from navigation.route import Route

Stamp = tuple[int, int]
"""Seconds and nanoseconds as in a ROS header; (0, 0) is not stamped."""
UNSTAMPED: Stamp = (0, 0)


class Scan(msgspec.Struct, frozen=True):
    """A scan as it came. Of another geometry than the robot's lidar: ``ranges_m`` is empty."""

    ranges_m: npt.NDArray[np.float32]
    arrived_ns: int
    stamp: Stamp = UNSTAMPED


class Odometry(msgspec.Struct, frozen=True):
    """Pose (x, y in m, heading in rad, map frame) and velocity (m/s, rad/s); not finite: all NaN."""

    pose: tuple[float, float, float]
    velocity: tuple[float, float]
    arrived_ns: int
    finite: bool = True
    stamp: Stamp = UNSTAMPED


class Goal(msgspec.Struct, frozen=True):
    """Where to go, map frame; ``trip`` counts the goals this process has been given."""

    x_m: float
    y_m: float
    trip: int


class Way(msgspec.Struct, frozen=True):
    """A goal and the route to it."""

    goal: Goal
    route: Route


class Slots:
    """What the robot knows. ``way`` counts only while ``way.goal is goal``."""

    def __init__(self) -> None:
        self.scan: Scan | None = None
        self.odometry: Odometry | None = None
        self.goal: Goal | None = None
        self.way: Way | None = None
        self.faults: dict[str, int] = {}
        """How many bad messages came, by name."""

    def count(self, fault: str) -> None:
        """Count a bad message; the names are the callers' literals, so they stay few."""
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def route(self) -> Route | None:
        """The route to the present goal; None while there is no goal or it is still being worked out."""
        goal, way = self.goal, self.way
        return way.route if way is not None and way.goal is goal else None
