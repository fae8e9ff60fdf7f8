"""What is measured on a trip, step by step, over all worlds at once."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from navigation.route import CELL_M, entry_cell
from sim.physics.pybullet_physics import PyBulletPhysics
from sim.simulation import Simulation
from sim.tasks import kernels
from sim.tasks.delivery import ARRIVE_RADIUS_M, CONTACT_SPEED_MPS, Outcome
from sim.world.state import PERSON_RADIUS_M, Physics, WorldState

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

NEAR_MISS_M, NEAR_MISS_OVER_M = 0.15, 0.25
"""A near miss begins below the first gap and is over above the second, so that one passing counts once."""
NEAR_MISS_SPEED_MPS = 0.1
REDUCED_MIN = 0.01
ROLLING_RESISTANCE = 0.015
"""Of polyurethane wheels on concrete, a share of the weight."""
GRAVITY_MPS2 = 9.81
FREE_M = 100.0
"""Gap where there is nobody."""
WAIT_SPEED_MPS, STATION_M = 0.1, 1.0
HEAT_CELL_M = 0.5

TRIP = np.dtype(
    [
        *((name, np.int32) for name in ("controller", "floor", "episode", "robot", "trip")),
        ("outcome", np.int8),
        ("contact", np.int8),
        ("moving", np.bool_),
        *((name, np.int32) for name in ("near_person", "near_robot", "touched")),
        *((name, np.float64) for name in ("time_s", "lasted_s", "route_m", "driven_m", "gap_min_m")),
        *((name, np.float64) for name in ("change_per_s", "reduced", "reduced_share", "energy_j")),
    ]
)
"""A trip. ``time_s`` is capped (a failed trip counts as the cap), ``lasted_s`` is not; ``contact`` and ``moving`` are
those of its last moment (``sim.world.state.Contact``); ``near_*`` count near misses, ``touched`` contacts that did not
end it: somebody ran into the standing robot. ``change_per_s`` is the change of the admitted command, each part as a
share of its maximum; ``reduced`` the mean share of speed the monitor took, ``reduced_share`` that of the ticks on which
it took more than ``REDUCED_MIN``. ``energy_j`` is the work of speeding up and of braking (nothing is won back) and of
rolling: sum of m |dv| |v| + c m g |v| dt."""
TALLY = ("near_person", "near_robot", "touched", "driven_m", "change", "reduced", "reduced_ticks", "energy_j")


class WatchedPhysics:
    """Physics that keeps what was true right after the motion, before a robot whose trip has failed is put elsewhere.

    Attributes:
        pose: float64[E, R, 3]; velocity: float64[E, R, 2]; contact: int8[E, R].
    """

    def __init__(self, simulation: Simulation, kind: Literal["twin", "planar", "wheeled"]) -> None:
        state = simulation.state
        self._inner: Physics | None = None
        if kind != "twin":
            self._inner = PyBulletPhysics(state, simulation.model, kind)
        self._simulation = simulation
        self.pose, self.velocity = state.pose.copy(), state.velocity.copy()
        self.contact = state.contact.copy()

    def place(self, state: WorldState, world: int, robot: int) -> None:
        """See ``sim.world.state.Physics``."""
        if self._inner is not None:
            self._inner.place(state, world, robot)

    def advance(self, state: WorldState, command: Floats, step_s: float) -> None:
        """See ``sim.world.state.Physics``; without PyBullet the twin's compiled motion, same bits as its own."""
        if self._inner is None:
            kernels.twin_physics(self._simulation._arrays, 0, len(state.pose))
        else:
            self._inner.advance(state, command, step_s)
        self.pose[:], self.velocity[:], self.contact[:] = state.pose, state.velocity, state.contact

    def close(self) -> None:
        """Let go of PyBullet."""
        if self._inner is not None:
            self._inner.close()


class Heat:
    """Where robots wait and where the monitor steps in, on a grid of ``HEAT_CELL_M`` over one floor.

    Attributes:
        wait_s: float64[rows, columns], time below ``WAIT_SPEED_MPS`` farther than ``STATION_M`` from every station.
        reduced_s: float64[rows, columns], time during which the monitor took speed away.
        driven_s: float64, time of all robots together.
    """

    def __init__(self, width_m: float, height_m: float, station_xy: Floats) -> None:
        shape = (math.ceil(height_m / HEAT_CELL_M), math.ceil(width_m / HEAT_CELL_M))
        self.wait_s, self.reduced_s, self.driven_s = np.zeros(shape), np.zeros(shape), 0.0
        self._station_xy = station_xy

    def add(self, xy: Floats, speed: Floats, reduced: Floats, counted: Flags, step_s: float) -> None:
        """One step of all robots: xy float64[E, R, 2], the others [E, R]; those not ``counted`` are left out."""
        self.driven_s += step_s * int(counted.sum())
        waits = counted & (np.abs(speed) < WAIT_SPEED_MPS)
        if waits.any():
            at = xy[waits]
            far = (((at[:, None] - self._station_xy) ** 2).sum(-1) > STATION_M**2).all(-1)
            np.add.at(self.wait_s, self._cells(at[far]), step_s)
        held = counted & (reduced > REDUCED_MIN)
        if held.any():
            np.add.at(self.reduced_s, self._cells(xy[held]), step_s)

    def _cells(self, xy: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        rows, columns = self.wait_s.shape
        cell = (xy / HEAT_CELL_M).astype(np.intp)
        return np.clip(cell[:, 1], 0, rows - 1), np.clip(cell[:, 0], 0, columns - 1)


class TripMeter:
    """Measures the trips of the robots under test; call ``before`` and ``after`` around each ``Simulation.step``.

    Args:
        simulation: whose physics is ``physics``, before its first step.
        physics: see ``WatchedPhysics``.
        trips: of each robot; what it drives after them is not measured.
        heat: filled along.
    """

    def __init__(self, simulation: Simulation, physics: WatchedPhysics, trips: int, heat: Heat) -> None:
        self._simulation, self._physics, self._heat = simulation, physics, heat
        self._learners = simulation.learners
        shape = (simulation.config.worlds, self._learners)
        self.records = np.zeros((*shape, trips), dtype=TRIP)
        for name, axis in (("episode", 0), ("robot", 1), ("trip", 2)):
            self.records[name] = np.indices(self.records.shape)[axis]
        self.ended = np.zeros(shape, dtype=np.int64)
        self._tally = {name: np.zeros(shape) for name in TALLY}
        self._gap_min_m = np.full(shape, FREE_M)
        self._near = {"person": np.zeros(shape, dtype=bool), "robot": np.zeros(shape, dtype=bool)}
        self._touching = np.zeros(shape, dtype=bool)
        self._admitted = np.zeros((*shape, 2))
        self._route_m = np.zeros(shape)
        for world, robot in np.ndindex(shape):
            self._route_m[world, robot] = route_length_m(simulation, world, robot)

    @property
    def done(self) -> bool:
        """Whether all trips have ended."""
        return bool((self.ended >= self.records.shape[2]).all())

    def before(self) -> None:
        """Remember where everybody is."""
        mine = np.s_[:, : self._learners]
        self._xy = self._simulation.state.pose[mine][..., :2].copy()
        self._speed = self._simulation.state.velocity[mine][..., 0].copy()
        self._steps = self._simulation.trip_steps[mine] + 1

    def after(self) -> None:
        """Add the step, and write down the trips that ended with it."""
        simulation, physics = self._simulation, self._physics
        mine = np.s_[:, : self._learners]
        step_s, model = simulation.step_s, simulation.model
        xy, speed, contact = (
            physics.pose[mine][..., :2],
            physics.velocity[mine][..., 0],
            physics.contact[mine],
        )
        reduced, admitted = simulation.reduced[mine], simulation.command[mine]
        tally = self._tally
        way_m = np.hypot(*np.moveaxis(xy - self._xy, -1, 0))
        tally["driven_m"] += way_m
        most = (model.speed_max_mps, model.turn_rate_max_radps)
        tally["change"] += (np.abs(admitted - self._admitted) / most).sum(-1)
        tally["reduced"] += reduced
        tally["reduced_ticks"] += reduced > REDUCED_MIN
        mean_speed = np.abs(speed + self._speed) / 2
        tally["energy_j"] += model.mass_kg * (
            np.abs(speed - self._speed) * mean_speed + ROLLING_RESISTANCE * GRAVITY_MPS2 * way_m
        )
        self._admitted[:] = admitted
        self._count_gaps(np.abs(speed) > NEAR_MISS_SPEED_MPS)
        touching = contact != 0
        standing = np.abs(speed) <= CONTACT_SPEED_MPS
        tally["touched"] += (
            touching & ~self._touching & standing & (simulation.outcome[mine] != Outcome.CONTACT)
        )
        self._touching = touching
        self._heat.add(xy, speed, reduced, self.ended < self.records.shape[2], step_s)
        for world, robot in np.argwhere(simulation.outcome[mine] != Outcome.RUNNING):
            self._write(int(world), int(robot))

    def _count_gaps(self, moving: Flags) -> None:
        person_m, robot_m = gaps(self._physics.pose, self._simulation.state, self._learners)
        np.minimum(self._gap_min_m, np.minimum(person_m, robot_m), out=self._gap_min_m)
        for kind, gap_m in (("person", person_m), ("robot", robot_m)):
            before = self._near[kind]
            now = (before & (gap_m < NEAR_MISS_OVER_M)) | (moving & (gap_m < NEAR_MISS_M))
            self._tally[f"near_{kind}"] += now & ~before
            self._near[kind] = now

    def _write(self, world: int, robot: int) -> None:
        simulation, physics = self._simulation, self._physics
        at = (world, robot)
        outcome, number = int(simulation.outcome[at]), self.ended[at]
        if number < self.records.shape[2]:
            record = self.records[world, robot, number]
            steps = int(self._steps[at])
            tally = {name: float(values[at]) for name, values in self._tally.items()}
            record["outcome"], record["contact"] = outcome, physics.contact[at]
            record["moving"] = abs(physics.velocity[world, robot, 0]) > CONTACT_SPEED_MPS
            record["lasted_s"] = steps * simulation.step_s
            arrived = outcome == Outcome.ARRIVED
            record["time_s"] = record["lasted_s"] if arrived else simulation.config.trip_max_s
            record["route_m"], record["gap_min_m"] = self._route_m[at], self._gap_min_m[at]
            for name in ("near_person", "near_robot", "touched", "driven_m", "energy_j"):
                record[name] = tally[name]
            record["change_per_s"] = tally["change"] / record["lasted_s"]
            record["reduced"], record["reduced_share"] = (
                tally["reduced"] / steps,
                tally["reduced_ticks"] / steps,
            )
        self.ended[at] += 1
        for values in self._tally.values():
            values[at] = 0.0
        self._gap_min_m[at] = FREE_M
        self._route_m[at] = route_length_m(simulation, world, robot)
        if outcome != Outcome.ARRIVED:
            self._admitted[at] = 0.0
            self._near["person"][at] = self._near["robot"][at] = self._touching[at] = False


def gaps(pose: Floats, state: WorldState, learners: int) -> tuple[Floats, Floats]:
    """True gap in m from each of the first ``learners`` robots' footprints to the nearest person and other robot.

    Args:
        pose: float64[E, R, 3].
        state: its people, and its robot's footprint.
        learners: L.

    Returns:
        float64[E, L] each; below 0 where bodies overlap, ``FREE_M`` where there is nobody.
    """
    radius_m, offsets = state.model.footprint_radius_m, np.array(state.model.footprint_offsets_m)
    heading = pose[..., 2, None]
    x = pose[..., 0, None] + offsets * np.cos(heading)
    y = pose[..., 1, None] + offsets * np.sin(heading)
    mine_x, mine_y = x[:, :learners, :, None], y[:, :learners, :, None]
    person_m = robot_m = np.full((len(pose), learners), FREE_M)
    if state.person_xy.shape[1]:
        people = state.person_xy[:, None, None]
        squared = (mine_x - people[..., 0]) ** 2 + (mine_y - people[..., 1]) ** 2
        person_m = np.minimum(np.sqrt(squared.min(axis=(2, 3))) - radius_m - PERSON_RADIUS_M, FREE_M)
    if pose.shape[1] > 1:
        others_x, others_y = x[:, None, None], y[:, None, None]
        squared = (mine_x[..., None] - others_x) ** 2 + (mine_y[..., None] - others_y) ** 2
        squared = squared.min(axis=(2, 4))
        squared[:, np.arange(learners), np.arange(learners)] = np.inf
        robot_m = np.minimum(np.sqrt(squared.min(axis=2)) - 2 * radius_m, FREE_M)
    return person_m, robot_m


def route_length_m(simulation: Simulation, world: int, robot: int) -> float:
    """Length in m of the planned route to the robot's goal, up to where it counts as arrived; at least 0.

    It goes from cell to cell of the route grid in steps of 45 degrees, up to 8 % longer than a line across.
    """
    floors = simulation.floors
    floor, station = simulation.floor_of[world], simulation.goal[world, robot]
    rows, columns = int(floors.rows[floor]), int(floors.columns[floor])
    start = int(floors.route_at[floor, station])
    pointers = floors.pointers[start : start + rows * columns]
    x, y, _ = simulation.state.pose[world, robot].tolist()
    cell, left_m = entry_cell(floors.field[start : start + rows * columns], rows, columns, x, y)
    if not math.isfinite(left_m):
        return 0.0
    length_m = math.hypot((cell % columns - 0.5) * CELL_M - x, (cell // columns - 0.5) * CELL_M - y)
    while (after := int(pointers[cell])) != cell:
        straight = abs(after - cell) in (1, columns)
        length_m += CELL_M if straight else CELL_M * math.sqrt(2.0)
        cell = after
    return max(0.0, length_m - ARRIVE_RADIUS_M)
