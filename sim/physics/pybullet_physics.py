"""PyBullet as the physics of the warehouse: a client for each world, robots as planar bodies or on wheels."""

import math
import os
import sys
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pybullet

from contracts.robot import RobotModel
from sim.errors import SimConfigError
from sim.physics.bodies import (
    PERSON_HEIGHT_M,
    body_z_m,
    build_floor,
    build_people,
    build_planar_robot,
    build_statics,
    load_wheeled_robot,
)
from sim.physics.ramp import RAMP_STEP_S, ramp_velocity
from sim.world.state import Contact, WorldState

Kind = Literal["planar", "wheeled"]
PLANAR_SUBSTEP_S = 0.05
WHEELED_SUBSTEP_S = 0.025
TOUCH_M = 0.001
"""Bodies nearer than this touch."""
LEVEL_TOLERANCE_M = 0.001
LIDAR_HEIGHT_M = 0.2
LIFT_M = 3.0
WHEEL_TORQUE_MAX_NM = 20.0
SELF_GROUP = 64
"""Collision group of a robot while its own lidar looks past it."""

MOTOR_TORQUE_MAX_NM = 8.0
"""Of a wheel that a motor controller turns: its driver stage limits the current."""
BUMPER_FRONT, BUMPER_LEFT, BUMPER_RIGHT, BUMPER_REAR = 1, 2, 4, 8

_CONTACT_BODY_A, _CONTACT_BODY_B, _CONTACT_DISTANCE, _CONTACT_FORCE = 1, 2, 8, 9
_CONTACT_ON_A, _CONTACT_ON_B = 5, 6


class WheelReading(NamedTuple):
    """What the sensors of one world's wheeled robots see.

    Attributes:
        wheels_radps: float64[R, 2], left and right.
        torque_nm: float64[R, 2], of the motors.
        velocity: float64[R, 3], forward and sideways in m/s, turn rate in rad/s; base frame.
        bumpers: uint8[R], bits ``BUMPER_FRONT`` and so on, for the last advance.
    """

    wheels_radps: npt.NDArray[np.float64]
    torque_nm: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]
    bumpers: npt.NDArray[np.uint8]


class PyBulletPhysics:
    """Moves the robots of a ``WorldState`` in PyBullet; see ``sim.world.state.Physics``.

    ``planar`` robots are cylinders without friction whose velocity is set at each ramp step: without contact
    an exact unicycle. ``wheeled`` ones stand on the driven wheels and casters of a URDF and slip a little.

    Args:
        state: worlds, with every pose already set.
        model: the robot.
        kind: ``planar`` or ``wheeled``.
        gui: open PyBullet's window on the first world.
        substep_s: Bullet's own step, s; divides ``RAMP_STEP_S``. Default: 0.05 planar, 0.025 wheeled.

    Raises:
        SimConfigError: unknown kind, a sub-step that does not fit, no URDF, or no display for the window.

    Attributes:
        shaft_radps: float64[R, 2], wheel speeds, left and right, that somebody else's motors have; then commands and
            their ramp are left alone. For one world of wheeled robots; None: commands drive.
    """

    def __init__(
        self,
        state: WorldState,
        model: RobotModel,
        kind: Kind = "planar",
        gui: bool = False,
        substep_s: float | None = None,
    ) -> None:
        if kind not in get_args(Kind):
            raise SimConfigError(f"physics is '{kind}'; use one of: {', '.join(get_args(Kind))}")
        if substep_s is None:
            substep_s = PLANAR_SUBSTEP_S if kind == "planar" else WHEELED_SUBSTEP_S
        self._substeps = round(RAMP_STEP_S / substep_s) if substep_s > 0 else 0
        if self._substeps < 1 or abs(self._substeps * substep_s - RAMP_STEP_S) > 1e-9:
            raise SimConfigError(f"a sub-step of {substep_s} s does not divide {RAMP_STEP_S} s")
        self.kind: Kind = kind
        self._model = model
        self._ramped = np.zeros_like(state.velocity)
        self.shaft_radps: npt.NDArray[np.float64] | None = None
        self._worlds: list[_World] = []
        try:
            for index in range(len(state.warehouses)):
                self._worlds.append(_World(state, index, model, kind, gui and index == 0, substep_s))
        except Exception:
            self.close()
            raise

    def place(self, state: WorldState, world: int, robot: int) -> None:
        """Put the robot's body where ``state.pose`` says, at rest."""
        self._ramped[world, robot] = 0.0
        state.velocity[world, robot] = 0.0
        state.contact[world, robot] = Contact.NONE
        self._worlds[world].place(robot, *state.pose[world, robot].tolist())

    def advance(self, state: WorldState, command: npt.NDArray[np.float64], step_s: float) -> None:
        """Drive for ``step_s``, a multiple of 0.05 s, with ``command`` float64[E, R, 2].

        Writes pose, velocity and contact.
        """
        ramp_steps = round(step_s / RAMP_STEP_S)
        assert ramp_steps >= 1, "a step is at least one ramp step"
        assert abs(ramp_steps * RAMP_STEP_S - step_s) < 1e-9, "a step is a whole number of ramp steps"
        assert command.shape == self._ramped.shape, f"command has shape {command.shape}"
        state.contact[:] = Contact.NONE
        for index, world in enumerate(self._worlds):
            world.begin(state.person_xy[index])
            for _ in range(ramp_steps):
                if self.shaft_radps is not None:
                    world.turn_wheels(self.shaft_radps, self._substeps, state.contact[index])
                    continue
                velocity = ramp_velocity(self._ramped[index], command[index], self._model)
                world.drive(velocity, self._substeps, state.contact[index])
                self._ramped[index] = velocity
            world.read(state.pose[index], state.velocity[index])
            world.flag_contacts_now(state.contact[index])
            touching = state.contact[index] != Contact.NONE
            # Held back by what it touches, a base has to speed up again from what it really does.
            if touching.any():
                self._ramped[index][touching] = state.velocity[index][touching]

    def read_wheels(self, world: int) -> WheelReading:
        """What the sensors of wheeled robots see now."""
        return self._worlds[world].read_wheels()

    def close(self) -> None:
        """Disconnect all clients; may be called twice."""
        for world in self._worlds:
            world.close()
        self._worlds.clear()

    def ray_ends(self, world: int, robot: int, start: list[float], ends: list[list[float]]) -> list[float]:
        """Free fraction of the way from ``start`` to each of ``ends`` (map frame, m); 1 where all is."""
        return self._worlds[world].ray_ends(robot, start, ends)

    def camera_image(
        self,
        width: int = 960,
        height: int = 640,
        world: int = 0,
        eye_m: tuple[float, float, float] | None = None,
        target_m: tuple[float, float, float] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """A 3D look at the floor from TinyRenderer (no GPU, no display): uint8[height, width, 3]."""
        return self._worlds[world].camera_image(width, height, eye_m, target_m)


def ray_test(physics: PyBulletPhysics, state: WorldState, world: int, robot: int) -> npt.NDArray[np.float32]:
    """Lidar ranges by ``rayTestBatch``, float32[rays], ``range_max_m`` where nothing is hit.

    The slow reference that analytic lidars are tested against. Rays start at the robot's centre and pass
    its own body; ray ``i`` points at heading + ``angle_min_rad`` + ``i`` * ``angle_step_rad``.
    """
    lidar = physics._model.lidar
    x, y, heading = state.pose[world, robot].tolist()
    angles = heading + lidar.angle_min_rad + lidar.angle_step_rad * np.arange(lidar.rays)
    ends = np.empty((lidar.rays, 3))
    ends[:, 0] = x + lidar.range_max_m * np.cos(angles)
    ends[:, 1] = y + lidar.range_max_m * np.sin(angles)
    ends[:, 2] = LIDAR_HEIGHT_M
    fractions = physics.ray_ends(world, robot, [x, y, LIDAR_HEIGHT_M], ends.tolist())
    return np.asarray(fractions, dtype=np.float32) * np.float32(lidar.range_max_m)


class _World:
    """One client: bodies, and the way between their state and arrays."""

    def __init__(
        self, state: WorldState, index: int, model: RobotModel, kind: Kind, gui: bool, substep_s: float
    ) -> None:
        self._model = model
        self._planar = kind == "planar"
        self._substep_s = substep_s
        self._z_m = body_z_m(model) if self._planar else 0.0
        self._warehouse = state.warehouses[index]
        self._client = _connect(gui)
        client = self._client
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=substep_s,
            numSolverIterations=10 if self._planar else 24,
            deterministicOverlappingPairs=1,
            enableFileCaching=0,
            physicsClientId=client,
        )
        if gui:
            pybullet.configureDebugVisualizer(pybullet.COV_ENABLE_GUI, 0, physicsClientId=client)
            pybullet.configureDebugVisualizer(pybullet.COV_ENABLE_RENDERING, 0, physicsClientId=client)
        if not self._planar:
            pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
        self._ground = build_floor(client, self._warehouse, solid=not self._planar)
        build_statics(client, self._warehouse)
        self._people = build_people(client, state.person_xy[index])
        build = build_planar_robot if self._planar else load_wheeled_robot
        self._robots = [build(client, model, robot) for robot in range(state.pose.shape[1])]
        self._wheels = [] if self._planar else [_wheel_joints(client, self._robots[0])] * len(self._robots)
        self._robot_index = {body: robot for robot, body in enumerate(self._robots)}
        self._people_set = frozenset(self._people)
        # Where Bullet puts a body is its centre of mass, not the URDF's origin.
        self._com_z_m = (
            0.0
            if self._planar
            else float(pybullet.getDynamicsInfo(self._robots[0], -1, physicsClientId=client)[3][2])
        )
        self._bumpers = np.zeros(len(self._robots), dtype=np.uint8)
        self._heading = state.pose[index, :, 2].copy()
        self._speed = np.zeros((len(self._robots), 2))
        for robot in range(len(self._robots)):
            self.place(robot, *state.pose[index, robot].tolist())
        if gui:
            pybullet.configureDebugVisualizer(pybullet.COV_ENABLE_RENDERING, 1, physicsClientId=client)
            pybullet.resetDebugVisualizerCamera(
                0.8 * self._warehouse.width_m, 0.0, -60.0,
                [self._warehouse.width_m / 2, self._warehouse.height_m / 2, 0.0], physicsClientId=client,
            )  # fmt: skip

    def place(self, robot: int, x_m: float, y_m: float, heading: float) -> None:
        body, client = self._robots[robot], self._client
        half = heading / 2
        orientation = (0.0, 0.0, math.sin(half), math.cos(half))
        z_m = self._z_m + self._com_z_m
        if not self._planar:
            # Lifted off the floor, it forgets the contact forces of its last place: same start, same bits.
            lifted = (x_m, y_m, z_m + LIFT_M)
            pybullet.resetBasePositionAndOrientation(body, lifted, orientation, physicsClientId=client)
            pybullet.performCollisionDetection(client)
        pybullet.resetBasePositionAndOrientation(body, (x_m, y_m, z_m), orientation, physicsClientId=client)
        pybullet.resetBaseVelocity(body, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), physicsClientId=client)
        self._heading[robot] = heading
        self._speed[robot] = 0.0
        if not self._planar:
            for joint in self._wheels[robot]:
                pybullet.resetJointState(body, joint, 0.0, 0.0, physicsClientId=client)
                pybullet.setJointMotorControl2(
                    body, joint, pybullet.VELOCITY_CONTROL, targetVelocity=0.0, force=WHEEL_TORQUE_MAX_NM,
                    physicsClientId=client,
                )  # fmt: skip

    def begin(self, xy_m: npt.NDArray[np.float64]) -> None:
        """A new advance: people stand at ``xy_m`` float64[P, 2]."""
        self._bumpers[:] = 0
        upright = (0.0, 0.0, 0.0, 1.0)
        for body, (x, y) in zip(self._people, xy_m.tolist(), strict=True):
            pybullet.resetBasePositionAndOrientation(
                body, (x, y, PERSON_HEIGHT_M / 2), upright, physicsClientId=self._client
            )

    def drive(self, velocity: npt.NDArray[np.float64], substeps: int, contact: npt.NDArray[np.int8]) -> None:
        """One ramp step at ``velocity`` float64[R, 2]; raises flags in ``contact`` int8[R]."""
        if self._planar:
            self._drive_planar(velocity, substeps)
        else:
            self._drive_wheels(velocity, substeps)
        self._flag_contacts(contact)

    def _drive_planar(self, velocity: npt.NDArray[np.float64], substeps: int) -> None:
        client, substep_s = self._client, self._substep_s
        for _ in range(substeps):
            middle = self._heading + velocity[:, 1] * (substep_s / 2)
            vx, vy = (velocity[:, 0] * np.cos(middle)).tolist(), (velocity[:, 0] * np.sin(middle)).tolist()
            turn = velocity[:, 1].tolist()
            for k, body in enumerate(self._robots):
                pybullet.resetBaseVelocity(body, (vx[k], vy[k], 0.0), (0.0, 0.0, turn[k]), client)
            pybullet.stepSimulation(client)
            self._heading += velocity[:, 1] * substep_s
        self._speed[:] = velocity

    def _drive_wheels(self, velocity: npt.NDArray[np.float64], substeps: int) -> None:
        offset = velocity[:, 1] * (self._model.wheel_track_m / 2)
        left = (velocity[:, 0] - offset) / self._model.wheel_radius_m
        right = (velocity[:, 0] + offset) / self._model.wheel_radius_m
        self._turn(left, right, WHEEL_TORQUE_MAX_NM, substeps)

    def turn_wheels(
        self, radps: npt.NDArray[np.float64], substeps: int, contact: npt.NDArray[np.int8]
    ) -> None:
        """One ramp step with the wheels at ``radps`` float64[R, 2]; raises flags in ``contact`` int8[R]."""
        assert not self._planar, "planar robots have no wheels"
        self._turn(radps[:, 0], radps[:, 1], MOTOR_TORQUE_MAX_NM, substeps)
        self._flag_contacts(contact)

    def _turn(
        self,
        left_radps: npt.NDArray[np.float64],
        right_radps: npt.NDArray[np.float64],
        torque_max_nm: float,
        substeps: int,
    ) -> None:
        client = self._client
        left, right = left_radps.tolist(), right_radps.tolist()
        force = (torque_max_nm, torque_max_nm)
        for k, body in enumerate(self._robots):
            pybullet.setJointMotorControlArray(
                body, self._wheels[k], pybullet.VELOCITY_CONTROL,
                targetVelocities=(left[k], right[k]), forces=force,
                physicsClientId=client,
            )  # fmt: skip
        for _ in range(substeps):
            pybullet.stepSimulation(client)

    def flag_contacts_now(self, contact: npt.NDArray[np.int8]) -> None:
        """Contacts of the bodies as they stand now; a step only knows those it began with."""
        pybullet.performCollisionDetection(self._client)
        self._flag_contacts(contact)

    def _flag_contacts(self, contact: npt.NDArray[np.int8]) -> None:
        index, people = self._robot_index, self._people_set
        for point in pybullet.getContactPoints(physicsClientId=self._client):
            if point[_CONTACT_DISTANCE] > TOUCH_M and point[_CONTACT_FORCE] <= 0.0:
                continue
            a, b = point[_CONTACT_BODY_A], point[_CONTACT_BODY_B]
            if self._ground in (a, b):
                continue
            for body, other in ((a, b), (b, a)):
                robot = index.get(body)
                if robot is None:
                    continue
                self._bumpers[robot] |= self._bumper(
                    robot, point[_CONTACT_ON_A if body == a else _CONTACT_ON_B]
                )
                kind = (
                    Contact.ROBOT if other in index else Contact.PERSON if other in people else Contact.STATIC
                )
                # A person outranks a robot, a robot outranks a shelf.
                contact[robot] = max(Contact(int(contact[robot])), kind, key=lambda touched: _RANK[touched])

    def _bumper(self, robot: int, where_m: tuple[float, float, float]) -> int:
        """The bit of the quarter of a robot's outside that a point of the map is in."""
        (x, y, _), (_, _, qz, qw) = pybullet.getBasePositionAndOrientation(self._robots[robot], self._client)
        bearing = math.remainder(
            math.atan2(where_m[1] - y, where_m[0] - x) - 2.0 * math.atan2(qz, qw), 2.0 * math.pi
        )
        if abs(bearing) <= math.pi / 4:
            return BUMPER_FRONT
        if abs(bearing) >= 3.0 * math.pi / 4:
            return BUMPER_REAR
        return BUMPER_LEFT if bearing > 0.0 else BUMPER_RIGHT

    def read_wheels(self) -> WheelReading:
        client = self._client
        speeds, torques, velocities = [], [], []
        for body, joints in zip(self._robots, self._wheels, strict=True):
            states = pybullet.getJointStates(body, joints, physicsClientId=client)
            speeds.append([state[1] for state in states])
            torques.append([state[3] for state in states])
            _, (_, _, qz, qw) = pybullet.getBasePositionAndOrientation(body, client)
            (vx, vy, _), (_, _, turn) = pybullet.getBaseVelocity(body, client)
            heading = 2.0 * math.atan2(qz, qw)
            cosine, sine = math.cos(heading), math.sin(heading)
            velocities.append([vx * cosine + vy * sine, vy * cosine - vx * sine, turn])
        return WheelReading(np.array(speeds), np.array(torques), np.array(velocities), self._bumpers.copy())

    def read(self, pose: npt.NDArray[np.float64], velocity: npt.NDArray[np.float64]) -> None:
        """Write ``pose`` float64[R, 3] and ``velocity`` float64[R, 2] as measured."""
        client = self._client
        rows = []
        for body in self._robots:
            (x, y, z), (_, _, qz, qw) = pybullet.getBasePositionAndOrientation(body, client)
            (vx, vy, _), (_, _, turn) = pybullet.getBaseVelocity(body, client)
            rows.append((x, y, z, qz, qw, vx, vy, turn))
        values = np.array(rows)
        heading = 2.0 * np.arctan2(values[:, 3], values[:, 4])
        pose[:, :2] = values[:, :2]
        pose[:, 2] = np.remainder(heading + np.pi, 2.0 * np.pi) - np.pi
        # A planar body's velocity points along the heading in the middle of its last sub-step.
        along = pose[:, 2] - (values[:, 7] * (self._substep_s / 2) if self._planar else 0.0)
        velocity[:, 0] = values[:, 5] * np.cos(along) + values[:, 6] * np.sin(along)
        velocity[:, 1] = values[:, 7]
        self._heading[:] = pose[:, 2]
        if self._planar:
            self._level(values, pose)

    def _level(self, values: npt.NDArray[np.float64], pose: npt.NDArray[np.float64]) -> None:
        """Put back what a contact has pushed up or down."""
        for robot in np.flatnonzero(np.abs(values[:, 2] - self._z_m) > LEVEL_TOLERANCE_M):
            self.place(int(robot), *pose[robot].tolist())

    def ray_ends(self, robot: int, start: list[float], ends: list[list[float]]) -> list[float]:
        body, client = self._robots[robot], self._client
        links = range(-1, pybullet.getNumJoints(body, physicsClientId=client))
        for link in links:
            pybullet.setCollisionFilterGroupMask(body, link, SELF_GROUP, -1, physicsClientId=client)
        try:
            hits = pybullet.rayTestBatch(
                [start] * len(ends), ends, collisionFilterMask=~SELF_GROUP, physicsClientId=client
            )
        finally:
            for link in links:
                pybullet.setCollisionFilterGroupMask(body, link, 1, -1, physicsClientId=client)
        return [hit[2] for hit in hits]

    def camera_image(
        self,
        width: int,
        height: int,
        eye_m: tuple[float, float, float] | None,
        target_m: tuple[float, float, float] | None,
    ) -> npt.NDArray[np.uint8]:
        floor = self._warehouse
        centre = (floor.width_m / 2, floor.height_m / 2 - 0.4, 0.0)
        reach = max(floor.width_m, floor.height_m * width / height)
        eye = eye_m or (centre[0] - 0.05 * reach, centre[1] - 0.42 * reach, 0.74 * reach)
        view = pybullet.computeViewMatrix(eye, target_m or centre, (0.0, 0.0, 1.0))
        projection = pybullet.computeProjectionMatrixFOV(52.0, width / height, 0.1, 200.0)
        _, _, pixels, _, _ = pybullet.getCameraImage(
            width,
            height,
            view,
            projection,
            shadow=0,
            lightDirection=(-0.4 * reach, -0.7 * reach, reach),
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        return np.asarray(pixels, dtype=np.uint8).reshape(height, width, 4)[:, :, :3].copy()

    def close(self) -> None:
        if pybullet.isConnected(self._client):
            pybullet.disconnect(self._client)


_RANK = {Contact.NONE: 0, Contact.STATIC: 1, Contact.ROBOT: 2, Contact.PERSON: 3}


def _connect(gui: bool) -> int:
    if gui and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        # PyBullet would end the whole process.
        raise SimConfigError("PyBullet did not start: no display for its window; leave out --gui or 'human'")
    try:
        client = pybullet.connect(pybullet.GUI if gui else pybullet.DIRECT)
    except pybullet.error:
        client = -1
    if client < 0:
        raise SimConfigError(
            "PyBullet did not start" + (": no display for --gui; leave it out" if gui else "")
        )
    return int(client)


def _wheel_joints(client: int, body: int) -> tuple[int, int]:
    names = {
        pybullet.getJointInfo(body, joint, physicsClientId=client)[1].decode(): joint
        for joint in range(pybullet.getNumJoints(body, physicsClientId=client))
    }
    try:
        return names["wheel_left_joint"], names["wheel_right_joint"]
    except KeyError as error:
        raise SimConfigError(
            f"the URDF has no joint {error}; it needs a left and a right wheel joint"
        ) from None
