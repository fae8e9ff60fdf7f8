"""A batch of warehouses with robots and people: one task, any physics. The Gymnasium and the vector
environments, evaluation and the ROS bridge all drive this one."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.observation import BEAMS, CARROT_DISTANCES_M, OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.robot import AMR_SMALL, RobotModel
from navigation.controllers.pure_pursuit import PurePursuitConfig, pursuit_settings
from navigation.controllers.recovery import MEMORY, Recovery, recovery_numbers
from navigation.warehouse import Warehouse
from safety.config import MonitorConfig
from safety.movers import mover_numbers
from sim.disturb.state import Disturbance, Fault
from sim.errors import CommandError, SimConfigError
from sim.people.crowd import Walkers
from sim.sensors.lidar import ray_table
from sim.tasks import kernels
from sim.tasks.delivery import SPAWN_GAP_M, TRIP_MAX_S, RewardConfig
from sim.tasks.randomise import Crowd, Randomisation
from sim.twin.guard import guard_settings
from sim.twin.movers import mover_arrays
from sim.world.floors import Floors
from sim.world.parking import parking_places
from sim.world.random import streams
from sim.world.state import Physics, WorldState

STILL = {
    *("floor_of", "boxes", "box_count", "rows", "columns", "station_xy", "station_kind", "station_count"),
    *("route_at", "field", "pointers", "spawn_xy", "park_xy", "pursuit", "recovery", "cosines", "sines"),
    *("settings", "guard", "mover_numbers", "weights", "carrots_m", "discs"),
}
"""Arrays that no step writes."""


class SimulationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many worlds, robots and people, and how they are stepped.

    The last ``robots_rule_based + robots_broken`` robots of each world belong to its background: pure pursuit
    drives the former behind the same monitor, the latter stand where they broke down. ``randomise`` None leaves
    every robot as its model says and the crowd as ``crowd`` says; otherwise both are drawn from its ranges. With
    ``recovery`` a robot under test that stands too long backs off, as the edge agent lets it when a policy drives;
    rule-based controllers bring a recovery of their own.
    """

    worlds: int = 64
    robots: int = 4
    robots_rule_based: int = 0
    robots_broken: int = 0
    people: int = 5
    control_hz: int = 10
    guarded: bool = True
    recovery: Recovery | None = None
    reward: RewardConfig = RewardConfig()
    monitor: MonitorConfig = MonitorConfig()
    trip_max_s: float = TRIP_MAX_S
    randomise: Randomisation | None = None
    crowd: Crowd = Crowd()


class Simulation:
    """``E`` worlds with ``R`` robots each, stepped together.

    Args:
        warehouses: the floors; world ``e`` is on floor ``e % len(warehouses)``.
        config: sizes and settings.
        seed: same seed and same commands, same bits.
        model: the robot.
        physics: None for the compiled twin; PyBullet's otherwise (made from ``self.state``, see ``use_physics``).
        threads: worker threads for the twin.

    Attributes:
        observation: float32[E, R, 83] after ``reset`` and each ``step``.
        terminal_observation: float32[E, R, 83], valid where ``outcome`` is not RUNNING.
        reward: float64[E, R]; outcome: int8[E, R] (``Outcome``) of the last step.
        ranges: float32[E, R, rays] clean ranges in m.
        reduced: float64[E, R], share of the commanded speed the monitor took away.
        learners: how many robots of each world, from the first on, are driven by ``step``'s commands.
        disturbance: properties and faults of all robots; ``set_fault`` breaks one on demand.
        trip_steps, trips, goal: int64[E, R].
    """

    def __init__(
        self,
        warehouses: list[Warehouse],
        config: SimulationConfig | None = None,
        seed: int = 0,
        model: RobotModel = AMR_SMALL,
        threads: int = 1,
        floors: Floors | None = None,
    ) -> None:
        self.config = config = config or SimulationConfig()
        self.model = model
        worlds, robots = config.worlds, config.robots
        if min(worlds, robots) < 1 or config.people < 0:
            raise SimConfigError(
                f"{worlds} worlds, {robots} robots, {config.people} people: need 1, 1 and 0 at least"
            )
        self.learners = robots - config.robots_rule_based - config.robots_broken
        if self.learners < 1 or min(config.robots_rule_based, config.robots_broken) < 0:
            raise SimConfigError(
                f"{robots} robots, of which {config.robots_rule_based} rule-based and {config.robots_broken} broken:"
                " at least one must be left to drive"
            )
        self.step_s = 1.0 / config.control_hz
        history = ROUTING_LAYOUT.history_interval_s / self.step_s
        if abs(history - round(history)) > 1e-6 or round(history) < 1:
            raise SimConfigError(f"control_hz is {config.control_hz}; it must be a multiple of 10")
        self.floors = floors or Floors(warehouses, seed)
        self.floor_of = np.arange(worlds, dtype=np.int64) % len(warehouses)
        self.state = WorldState([warehouses[f] for f in self.floor_of], model, robots, config.people)
        self._history = round(history)
        self._physics: Physics | None = None
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._threads = threads
        cosines, sines = ray_table(model.lidar)
        shape = (worlds, robots)
        self.observation = np.zeros((*shape, OBSERVATION_SIZE), dtype=np.float32)
        self.terminal_observation = np.zeros_like(self.observation)
        self.reward = np.zeros(shape)
        self.outcome = np.zeros(shape, dtype=np.int8)
        self.command = np.zeros((*shape, 2))
        self.reduced = np.zeros(shape)
        self.ranges = np.full((*shape, model.lidar.rays), model.lidar.range_max_m, dtype=np.float32)
        self.goal = np.zeros(shape, dtype=np.int64)
        self.trip_steps = np.zeros(shape, dtype=np.int64)
        self.trips = np.zeros(shape, dtype=np.int64)
        self.left_m = np.zeros(shape)
        self.nearest_m = np.zeros(shape)
        self._park_xy = self._parking()
        self._cosines, self._sines = cosines, sines
        self.reset(seed)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Start all worlds anew; returns ``self.observation``."""
        config = self.config
        crowd = config.crowd if config.randomise is None else config.randomise.crowd
        self.walkers = Walkers(self.state, self.floors, self.floor_of, seed, crowd)
        self.disturbance = Disturbance(self.reward.shape, self.model, self.step_s, config.randomise, seed)
        self.trips[:] = 0
        self.goal[:] = -1
        self._arrays = self._collect(streams(seed + 7919, 2 * self.reward.size))
        kernels.begin_all(self._arrays, 0, self.config.worlds)
        self.outcome[:] = 0
        if self._physics is not None:
            self._place(np.ones_like(self.outcome, dtype=bool))
        return self.observation

    def use_physics(self, physics: Physics) -> None:
        """Let ``physics`` (made from ``self.state``) move the robots from now on, instead of the twin."""
        self._physics = physics
        self._place(np.ones_like(self.outcome, dtype=bool))

    def step(self, action: npt.NDArray[np.float32], command: npt.NDArray[np.float64]) -> None:
        """Advance all worlds by one control step.

        Args:
            action: float32[E, R, 2] in [-1, 1], what the reward's ``change`` term is computed from.
            command: float64[E, R, 2] m/s and rad/s, before the monitor.

        Raises:
            CommandError: a value that is not finite; no world has moved.
        """
        if not (np.isfinite(command).all() and np.isfinite(action).all()):
            raise CommandError("actions and commands must be finite; no world has moved")
        self.command[:] = command
        if self._physics is None:
            self._in_chunks(action)
            return
        kernels.guard_and_walk(self._arrays, 0, self.config.worlds)
        self._physics.advance(self.state, self.disturbance.actuated, self.step_s)
        kernels.judge_and_observe(self._arrays, action, 0, self.config.worlds)
        self._place(self.outcome > 1)

    def set_fault(self, world: int, robot: int, fault: Fault) -> None:
        """Let ``fault`` hold for one robot from the next step on; ``Fault.NONE`` heals it."""
        self.disturbance.set_fault(world, robot, fault)

    def snapshot(self) -> dict[str, npt.NDArray[np.generic]]:
        """The complete state as copies, by name; the twin's only.

        Raises:
            SimConfigError: PyBullet moves the robots; its inner state cannot be copied.
        """
        if self._physics is not None:
            raise SimConfigError("a snapshot needs the twin's physics; PyBullet's state cannot be copied")
        return {name: array.copy() for name, array in self._changing().items()}

    def restore(self, snapshot: dict[str, npt.NDArray[np.generic]]) -> None:
        """Go on exactly where ``snapshot`` was taken.

        Raises:
            SimConfigError: it is of another simulation: names, shapes or types differ. Nothing has changed.
        """
        arrays = self._changing()
        for name, array in arrays.items():
            came = snapshot.get(name)
            if came is None or came.shape != array.shape or came.dtype != array.dtype:
                raise SimConfigError(
                    f"the snapshot's {name} does not fit this simulation; use the config it was taken with"
                )
        for name, array in arrays.items():
            array[...] = snapshot[name]

    def _changing(self) -> dict[str, npt.NDArray[np.generic]]:
        """All arrays that a step may write, by name."""
        arrays = self._arrays
        nested = {"people": arrays.people, "disturb": arrays.disturb, "movers": arrays.movers}
        found = {
            f"{group}.{name}": array for group, of in nested.items() for name, array in of._asdict().items()
        }
        found.update(
            {name: array for name, array in arrays._asdict().items() if name not in STILL | set(nested)}
        )
        return found

    def _parking(self) -> npt.NDArray[np.float64]:
        """Where broken robots stand on each floor, float64[F, n, 3]; places anywhere where there are none."""
        most = self.floors.spawn_xy.shape[1]
        rows = []
        for index, warehouse in enumerate(self.floors.warehouses):
            places = parking_places(warehouse, self.model) if self.config.robots_broken else np.zeros((0, 3))
            if not len(places):
                places = np.column_stack([self.floors.spawn_xy[index], np.zeros(most)])
            rows.append(
                places[
                    np.arange(most) * len(places) // most
                    if len(places) > most
                    else np.arange(most) % len(places)
                ]
            )
        return np.stack(rows)

    def close(self) -> None:
        """Stop worker threads and physics."""
        if self._pool is not None:
            self._pool.shutdown()
        if self._physics is not None:
            self._physics.close()

    def _twin_step(self, action: npt.NDArray[np.float32], first: int, last: int) -> None:
        kernels.guard_and_walk(self._arrays, first, last)
        kernels.twin_physics(self._arrays, first, last)
        kernels.judge_and_observe(self._arrays, action, first, last)

    def _in_chunks(self, action: npt.NDArray[np.float32]) -> None:
        worlds = self.config.worlds
        if self._pool is None:
            self._twin_step(action, 0, worlds)
            return
        edges = [worlds * part // self._threads for part in range(self._threads + 1)]
        futures = [self._pool.submit(self._twin_step, action, first, last) for first, last in pairwise(edges)]
        for future in futures:
            future.result()

    def _place(self, which: npt.NDArray[np.bool_]) -> None:
        assert self._physics is not None
        for world, robot in np.argwhere(which):
            self._physics.place(self.state, int(world), int(robot))

    def _collect(self, robot_random: npt.NDArray[np.uint64]) -> kernels.Arrays:
        state, floors, walkers, model, config = self.state, self.floors, self.walkers, self.model, self.config
        shape, pursuit = self.reward.shape, PurePursuitConfig()
        settings = kernels.float_settings(
            {
                kernels.STEP_S: self.step_s,
                kernels.RADIUS: model.footprint_radius_m,
                kernels.SPEED_MAX: model.speed_max_mps,
                kernels.REVERSE_MAX: model.reverse_max_mps,
                kernels.TURN_MAX: model.turn_rate_max_radps,
                kernels.ACCELERATION: model.acceleration_max_mps2,
                kernels.BRAKING: model.braking_mps2,
                kernels.TURN_ACCELERATION: model.turn_acceleration_max_radps2,
                kernels.ANGLE_MIN: model.lidar.angle_min_rad,
                kernels.RANGE_MAX: model.lidar.range_max_m,
                kernels.TRIP_STEPS_MAX: round(config.trip_max_s * config.control_hz),
                kernels.GUARDED: float(config.guarded),
                kernels.LEARNERS: float(self.learners),
                kernels.BROKEN: float(config.robots_broken),
                kernels.SPAWN_GAP: max(SPAWN_GAP_M, 2.0 * model.reach_m + 0.2),
                kernels.REACH: model.reach_m,
                kernels.RANGE_MIN: model.lidar.range_min_m,
                kernels.RECOVERS: float(config.recovery is not None),
            }
        )
        return kernels.Arrays(
            floor_of=self.floor_of,
            boxes=floors.boxes,
            box_count=floors.box_count,
            rows=floors.rows,
            columns=floors.columns,
            station_xy=floors.station_xy,
            station_kind=floors.station_kind,
            station_count=floors.station_count,
            route_at=floors.route_at,
            field=floors.field,
            pointers=floors.pointers,
            spawn_xy=floors.spawn_xy,
            pose=state.pose,
            velocity=state.velocity,
            contact=state.contact,
            park_xy=self._park_xy,
            people=walkers.arrays,
            disturb=self.disturbance.arrays,
            pursuit=np.append(pursuit_settings(pursuit, model), recovery_numbers(pursuit)),
            recovery=np.array(recovery_numbers(config.recovery or Recovery())),
            memory=np.zeros((*shape, MEMORY)),
            robot_base=robot_random.copy(),
            robot_random=robot_random,
            goal=self.goal,
            goal_kind=np.ones(shape, dtype=np.int8),
            trip_steps=self.trip_steps,
            trips=self.trips,
            left_m=self.left_m,
            nearest_m=self.nearest_m,
            action_before=np.zeros((*shape, 2), dtype=np.float32),
            command=self.command,
            reduced=self.reduced,
            ranges=self.ranges,
            history=np.zeros((*shape, self._history, BEAMS), dtype=np.float32),
            ticks=np.zeros(shape, dtype=np.int64),
            observation=self.observation,
            terminal_observation=self.terminal_observation,
            reward=self.reward,
            outcome=self.outcome,
            route_points=np.zeros((*shape, 2 * len(CARROT_DISTANCES_M))),
            cosines=self._cosines,
            sines=self._sines,
            settings=settings,
            guard=guard_settings(config.monitor, model),
            movers=mover_arrays(shape, model.lidar.rays),
            mover_numbers=mover_numbers(config.monitor, model),
            weights=config.reward.weights(),
            carrots_m=np.array(CARROT_DISTANCES_M),
            discs=np.array(model.footprint_offsets_m),
        )
