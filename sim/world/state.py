"""The state of a batch of worlds, as arrays. Physics back ends, task and sensors all work on this one."""

import enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from navigation.warehouse import Warehouse

PERSON_RADIUS_M = 0.25


class Contact(enum.IntEnum):
    """What a robot touches."""

    NONE = 0
    STATIC = 1
    PERSON = 2
    ROBOT = 3


class WorldState:
    """``E`` worlds with ``R`` robots and ``P`` people each. Map frame, m, rad, s; arrays are written in place.

    Attributes:
        pose: float64[E, R, 3], x, y, heading.
        velocity: float64[E, R, 2], measured speed and turn rate.
        contact: int8[E, R], a ``Contact`` that began or goes on in the last advance.
        person_xy: float64[E, P, 2].
        person_velocity: float64[E, P, 2].
    """

    def __init__(self, warehouses: list[Warehouse], model: RobotModel, robots: int, people: int) -> None:
        count = len(warehouses)
        self.warehouses = warehouses
        self.model = model
        self.pose: npt.NDArray[np.float64] = np.zeros((count, robots, 3))
        self.velocity: npt.NDArray[np.float64] = np.zeros((count, robots, 2))
        self.contact: npt.NDArray[np.int8] = np.zeros((count, robots), dtype=np.int8)
        self.person_xy: npt.NDArray[np.float64] = np.zeros((count, people, 2))
        self.person_velocity: npt.NDArray[np.float64] = np.zeros((count, people, 2))


class Physics(Protocol):
    """Moves robots. The twin's is compiled; PyBullet's has bodies and contacts."""

    def place(self, state: WorldState, world: int, robot: int) -> None:
        """Put the robot's body where ``state.pose`` says, at rest."""

    def advance(self, state: WorldState, command: npt.NDArray[np.float64], step_s: float) -> None:
        """Drive for ``step_s`` with ``command`` float64[E, R, 2]; write pose, velocity and contact.

        People have already been moved in ``state``; bodies that stand for them follow.
        """

    def close(self) -> None:
        """Let go of everything held outside Python."""
