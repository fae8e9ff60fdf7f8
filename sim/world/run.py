"""A warehouse at work: physics, people, orders, step by step. What the ROS bridge drives; knows no ROS."""

import math
import re
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.robot import AMR_SMALL, RobotModel
from navigation.warehouse import StationKind, Warehouse
from sim.disturb.drive import actuate, measure
from sim.disturb.sense import begin_disturbance, corrupt_scan, delay_senses, localise
from sim.disturb.state import Disturbance, Fault, fault_named
from sim.errors import SimConfigError
from sim.people.crowd import Walkers
from sim.physics.pybullet_physics import Kind, PyBulletPhysics
from sim.sensors.lidar import scan_state
from sim.tasks.randomise import Randomisation
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


class FaultAt(msgspec.Struct, frozen=True):
    """A fault that one robot has for a while; times in s of simulation."""

    robot: str
    fault: Fault
    from_s: float
    until_s: float = math.inf


def parse_fault(text: str) -> FaultAt:
    """Read ``ROBOT:FAULT@FROM[-UNTIL]``, such as ``robot_1:dead_lidar@10-20``.

    Raises:
        SimConfigError: it reads otherwise, or there is no such fault.
    """
    found = re.fullmatch(r"(\w+):([a-z_+]+)@(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", text)
    if found is None:
        raise SimConfigError(
            f"fault is '{text}'; write ROBOT:FAULT@FROM-UNTIL, as in robot_1:dead_lidar@10-20"
        )
    robot, name, start, end = found.groups()
    try:
        fault = fault_named(name)
    except KeyError as error:
        raise SimConfigError(str(error.args[0])) from None
    return FaultAt(robot, fault, float(start), math.inf if end is None else float(end))


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
        randomise: draw each robot's properties from these ranges; None leaves them as the model says.
        faults: what breaks, and when.

    Attributes:
        now_ns: simulation time.
        disturbance: what robots are told where something is randomised or broken; see ``told_pose``.
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
        randomise: Randomisation | None = None,
        faults: tuple[FaultAt, ...] = (),
    ) -> None:
        if not 1 <= robots <= ROBOTS_MAX:
            raise SimConfigError(f"robots is {robots}; it must be 1 to {ROBOTS_MAX}")
        if seed < 0:
            raise SimConfigError(f"seed is {seed}; it must not be negative")
        self.warehouse, self.model = warehouse, model
        self.now_ns = 0
        self.names = [f"robot_{number}" for number in range(1, robots + 1)]
        for each in faults:
            if each.robot not in self.names:
                raise SimConfigError(f"a fault for {each.robot}; the robots are {', '.join(self.names)}")
        self._faults = faults
        self.disturbance = Disturbance((1, robots), model, STEP_S, randomise, seed)
        for k in range(robots if randomise is not None else 0):
            begin_disturbance(self.disturbance.arrays, 0, k, 0)
        self.state = WorldState([warehouse], model, robots, warehouse.people)
        floors = Floors([warehouse], seed)
        self.state.pose[0] = starting_poses(warehouse, floors.spawn_xy[0], robots)
        crowd = None if randomise is None else randomise.crowd
        self._walkers = Walkers(self.state, floors, np.zeros(1, dtype=np.int64), seed, crowd)
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
        self._break_and_heal()
        self._move_people(STEP_S)
        self.physics.advance(self.state, self._actuated(command)[None], STEP_S)
        self.now_ns += STEP_NS
        self.ranges = self._scan(self.state)[0]
        self._disturb_senses()
        state, records = self.state, []
        for k, desk in enumerate(self.desks):
            contact = Contact(int(state.contact[0, k]))
            records += desk.update(self.now_s, state.pose[0, k], state.velocity[0, k], contact)
        return records

    def told_pose(self, robot: int) -> npt.NDArray[np.float64]:
        """Where localisation believes the robot to be, float64[3]."""
        pose: npt.NDArray[np.float64] = (
            self.disturbance.estimated[0] if self._disturbed else self.state.pose[0]
        )[robot]
        return pose

    def told_velocity(self, robot: int) -> npt.NDArray[np.float64]:
        """What odometry measures, float64[2]."""
        velocity: npt.NDArray[np.float64] = (
            self.disturbance.measured[0] if self._disturbed else self.state.velocity[0]
        )[robot]
        return velocity

    @property
    def _disturbed(self) -> bool:
        return bool(self.disturbance.active[0]) and bool(self.disturbance.clock.any())

    def _break_and_heal(self) -> None:
        if not self._faults:
            return
        for k, name in enumerate(self.names):
            fault = Fault.NONE
            for each in self._faults:
                if each.robot == name and each.from_s <= self.now_s < each.until_s:
                    fault |= each.fault
            if fault != self.disturbance.fault[0, k]:
                self.disturbance.set_fault(0, k, fault)

    def _actuated(self, command: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not self.disturbance.active[0]:
            return command
        arrays = self.disturbance.arrays
        for k in range(len(self.names)):
            actuate(arrays, 0, k, command[k], self.state.velocity[0, k])
        actuated: npt.NDArray[np.float64] = self.disturbance.actuated[0]
        return actuated

    def _disturb_senses(self) -> None:
        if not self.disturbance.active[0]:
            return
        arrays, angle_min = self.disturbance.arrays, self.model.lidar.angle_min_rad
        for k in range(len(self.names)):
            measure(arrays, 0, k, self.state.velocity[0, k])
            localise(arrays, 0, k, self.state.pose[0, k])
            corrupt_scan(arrays, 0, k, self.ranges[k], angle_min)
            delay_senses(arrays, 0, k, self.ranges[k])
            self.disturbance.clock[0, k] += 1

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
