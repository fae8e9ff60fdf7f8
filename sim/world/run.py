"""A warehouse at work: physics, people, orders, step by step. What the ROS bridge drives; knows no ROS."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from contracts.robot import AMR_SMALL, RobotModel
from navigation.warehouse import StationKind, Warehouse
from sim.errors import SimConfigError
from sim.people.walk import Walkers
from sim.physics.pybullet_physics import Kind, PyBulletPhysics
from sim.sensors.lidar import scan_state
from sim.world.floors import Floors
from sim.world.orders import OrderStream, Record, RobotDesk
from sim.world.state import Contact, WorldState

ROBOTS_MAX = 32
STEP_NS = 50_000_000
STEP_S = 0.05
NS = 1_000_000_000
START_GAP_M = 1.2
PERSON_GAP_M = 1.5

MovePeople = Callable[[float], None]
Scan = Callable[[WorldState], npt.NDArray[np.float32]]


class FloorRun:
    """One floor with robots that have orders, in steps of 0.05 s.

    Args:
        warehouse: the floor.
        seed: of orders, people and starting places.
        robots: how many, named ``robot_1`` and so on; they start in the charging bays.
        kind: PyBullet's ``planar`` or ``wheeled``.
        gui: open PyBullet's window.
        model: the robot.
        move_people: moves the people by a time in s; default: ``sim.people.walk``.
        scan: float32[E, R, rays] from a state; default: ``sim.sensors.lidar.scan_state``.

    Attributes:
        now_ns: simulation time.
        names: of the robots.
        desks: each robot's orders.
        ranges: float32[R, rays] in m, ``range_max_m`` where nothing is seen.

    Raises:
        SimConfigError: too many robots, no room for them, or physics that does not start.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        seed: int,
        robots: int,
        kind: Kind = "planar",
        gui: bool = False,
        model: RobotModel = AMR_SMALL,
        move_people: MovePeople | None = None,
        scan: Scan = scan_state,
    ) -> None:
        if not 1 <= robots <= ROBOTS_MAX:
            raise SimConfigError(f"robots is {robots}; it must be 1 to {ROBOTS_MAX}")
        if seed < 0:
            raise SimConfigError(f"seed is {seed}; it must not be negative")
        self.warehouse, self.model = warehouse, model
        self.now_ns = 0
        self.names = [f"robot_{number}" for number in range(1, robots + 1)]
        self.state = WorldState([warehouse], model, robots, warehouse.people)
        floors = Floors([warehouse], seed)
        self.state.pose[0] = starting_poses(warehouse, floors.spawn_xy[0], robots)
        self._walkers = Walkers(self.state, floors, np.zeros(1, dtype=np.int64), seed)
        self._keep_people_off(floors.spawn_xy[0])
        self._move_people = move_people or self._walkers.step
        self._scan = scan
        self.desks = [
            RobotDesk(name, OrderStream(warehouse, seed, k), 0.0) for k, name in enumerate(self.names)
        ]
        self.physics = PyBulletPhysics(self.state, model, kind, gui)
        self.ranges = scan(self.state)[0]

    @property
    def now_s(self) -> float:
        """Simulation time in s."""
        return self.now_ns / NS

    def step(self, command: npt.NDArray[np.float64]) -> list[Record]:
        """Advance by 0.05 s with ``command`` float64[R, 2]; returns the legs and deliveries that ended."""
        self._move_people(STEP_S)
        self.physics.advance(self.state, command[None], STEP_S)
        self.now_ns += STEP_NS
        self.ranges = self._scan(self.state)[0]
        state, records = self.state, []
        for k, desk in enumerate(self.desks):
            contact = Contact(int(state.contact[0, k]))
            records += desk.update(self.now_s, state.pose[0, k], state.velocity[0, k], contact)
        return records

    def close(self) -> None:
        """Let go of PyBullet."""
        self.physics.close()

    def _keep_people_off(self, spawn_xy: npt.NDArray[np.float64]) -> None:
        robots = self.state.pose[0, :, :2]
        free = spawn_xy[
            np.hypot(*(spawn_xy[:, None] - robots[None]).transpose(2, 0, 1)).min(axis=1) > PERSON_GAP_M
        ]
        for person in range(self.state.person_xy.shape[1]):
            away = np.hypot(*(robots - self.state.person_xy[0, person]).T).min()
            if away < PERSON_GAP_M and len(free):
                self.state.person_xy[0, person] = free[person % len(free)]


def starting_poses(
    warehouse: Warehouse, spawn_xy: npt.NDArray[np.float64], robots: int
) -> npt.NDArray[np.float64]:
    """Backed into the charging bays; where those run out, anywhere free. float64[robots, 3].

    Raises:
        SimConfigError: the floor has no room for so many.
    """
    poses = [
        (bay.x_m, bay.y_m, math.remainder(bay.heading_rad + math.pi, 2 * math.pi))
        for bay in warehouse.stations_of(StationKind.CHARGE)
    ][:robots]
    for x, y in spawn_xy.tolist():
        if len(poses) == robots:
            break
        if all(math.hypot(x - other[0], y - other[1]) >= START_GAP_M for other in poses):
            poses.append((x, y, 0.0))
    if len(poses) < robots:
        raise SimConfigError(
            f"{warehouse.name} has room for {len(poses)} robots, not {robots}; ask for fewer"
        )
    return np.array(poses)
