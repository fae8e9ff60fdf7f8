"""Drives one family of policies behind one guard, and counts what it touched."""

from collections import deque
from typing import NamedTuple, Protocol

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from benchmarks._adversary.guards import Flags, Floats, Guard, Senses
from benchmarks._adversary.unavoidable import Moment, unavoidable
from contracts.robot import AMR_SMALL, RobotModel
from sim.disturb.state import OBSERVATION_DELAY, RING
from sim.people.walk import HURRY
from sim.sensors.lidar import cast_circle, ray_table, scan_robot
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import CONTACT_SPEED_MPS, Outcome
from sim.tasks.randomise import Crowd, Randomisation
from sim.world.floors import Floors
from sim.world.generate import Family, generate_mixed
from sim.world.state import PERSON_RADIUS_M, Contact
from trainer.evaluation.metrics import WatchedPhysics

NS = 1_000_000_000
IN_VIEW_S = 0.5
VIEW_M = 3.0
"""Nobody farther away reaches a robot within ``IN_VIEW_S``."""
MOMENTS = 40
"""Past moments that are kept: braking from full speed takes 15 ticks of 20 Hz, and having stood 10."""
TRIP_MAX_S = 30.0
"""Then a robot is put elsewhere: it shall meet many places and people."""
WALK_MAX_MPS = 1.6
FLOORS_SEED = 2_000_000
"""Neither training nor evaluation takes floors from here."""
CROWDS = {
    "polite": Crowd(pace_mps=(0.6, WALK_MAX_MPS / HURRY), polite_share=1.0),
    "rude": Crowd(pace_mps=(1.0, WALK_MAX_MPS), polite_share=0.0, group_share=0.0, lurker_share=0.2),
}
"""Nobody is faster than ``WALK_MAX_MPS``; of the rude, half halt at the last moment and half when about to touch."""


class View(NamedTuple):
    """What a policy may know: all of the world, as an adversary would wish. ``n`` robots.

    Attributes:
        tick: since the beginning; step_s between two.
        observation: float32[n, 83]; ranges float32[n, rays] clean, m.
        pose: float64[n, 3]; velocity float64[n, 2]: true ones.
        person_xy, person_velocity: float64[n, P, 2], map frame.
        fresh: bool[n], the robot was just put there.
    """

    tick: int
    step_s: float
    observation: npt.NDArray[np.float32]
    ranges: npt.NDArray[np.float32]
    pose: Floats
    velocity: Floats
    person_xy: Floats
    person_velocity: Floats
    fresh: Flags


class Policy(Protocol):
    """Commands robots; may give any number."""

    def commands(self, view: View) -> Floats:
        """float64[n, 2] m/s and rad/s."""


class Course(msgspec.Struct, frozen=True):
    """Where and among whom is driven. Same course, same worlds, whatever drives."""

    crowd: Crowd
    worlds: int = 32
    ticks: int = 500
    """Of each world."""
    robots: int = 1
    people: int = 8
    seed: int = 0
    control_hz: int = 20
    """As the agent drives by default."""
    trip_max_s: float = TRIP_MAX_S


class Event(NamedTuple):
    """A contact that counts: enough to see it again. Gap and speeds are those of its moment."""

    kind: str
    seed: int
    tick: int
    robot: int
    speed_mps: float
    bearing_rad: float
    person_mps: float
    closing_mps: float
    """Part of the person's speed that leads to the robot."""
    in_view_s: float
    unavoidable: bool = False
    """No braking could have helped (``benchmarks._adversary.unavoidable``)."""


class Past(NamedTuple):
    """The truth of all robots at one time, and which of them were just put there."""

    pose: Floats
    velocity: Floats
    person_xy: Floats
    person_velocity: Floats
    seen: Flags
    fresh: Flags


class Tally(msgspec.Struct):
    """What happened. ``ticks`` are those of single robots.

    ``moving_contacts`` began while the robot was moving, or it moved towards whom it touched; those ``avoidable`` are
    those of them that braking could have helped; ``escapes`` are moves away from somebody who had run into the standing
    robot; ``robot_contacts`` are with other robots while moving.
    """

    ticks: int = 0
    static_contacts: int = 0
    moving_contacts: int = 0
    moving_contacts_in_view: int = 0
    moving_contacts_avoidable: int = 0
    escapes: int = 0
    robot_contacts: int = 0
    arrivals: int = 0
    driven_m: float = 0.0
    nearness: float = 0.0
    """Mean over robots of how near a person came while the robot moved, 1 for touching: what the search maximises."""
    events: list[Event] = []

    def add(self, other: "Tally") -> None:
        """Add all counts of ``other``."""
        for name in self.__struct_fields__:
            if name != "nearness":
                setattr(self, name, getattr(self, name) + getattr(other, name))


def campaign_floors(count: int) -> Floors:
    """Generated floors of all families that nobody trained on."""
    return Floors(generate_mixed(count, FLOORS_SEED, tuple(Family), (0.0, 0.6)))


class Drive:
    """One policy behind one guard on one course; ``run`` it once."""

    def __init__(self, course: Course, floors: Floors, guard: Guard, model: RobotModel = AMR_SMALL) -> None:
        self.course, self.guard, self.model = course, guard, model
        config = SimulationConfig(
            worlds=course.worlds,
            robots=course.robots,
            people=course.people,
            control_hz=course.control_hz,
            guarded=False,
            trip_max_s=course.trip_max_s,
            randomise=Randomisation(crowd=course.crowd),
        )
        self.simulation = Simulation(floors.warehouses, config, course.seed, model, floors=floors)
        self.physics = WatchedPhysics(self.simulation, "twin")
        self.simulation.use_physics(self.physics)
        shape = (course.worlds, course.robots)
        self.in_view_s = np.zeros((*shape, course.people))
        self.touched = np.zeros(shape, dtype=bool)
        self.fresh = np.ones(shape, dtype=bool)
        self.nearest_m = np.full(shape, VIEW_M)
        self.past: deque[Past] = deque(maxlen=MOMENTS)
        self.tally = Tally(events=[])
        self._rays = ray_table(model.lidar)

    def run(self, policy: Policy) -> Tally:
        """Drive all ticks; the tally."""
        for tick in range(self.course.ticks):
            self._tick(tick, policy)
        self.tally.ticks = self.course.ticks * self.touched.size
        self.tally.nearness = float(np.exp(-np.maximum(self.nearest_m, 0.0) / 0.1).mean())
        self.simulation.close()
        return self.tally

    def _tick(self, tick: int, policy: Policy) -> None:
        simulation, robots = self.simulation, self.touched.size
        self._look()
        self._remember(self.fresh)
        with np.errstate(all="ignore"):
            wanted = np.asarray(policy.commands(self.view(tick)), dtype=np.float64)
        fresh = self.fresh.reshape(robots)
        if fresh.any():
            self.guard.begin(fresh)
        command = self.guard.admit(self.senses(tick), wanted).reshape(*self.touched.shape, 2)
        simulation.step(np.zeros(command.shape, dtype=np.float32), command)
        self._count(tick)
        self.fresh = simulation.outcome > Outcome.ARRIVED
        self.in_view_s[self.fresh] = 0.0
        self.touched = (self.physics.contact == Contact.PERSON) & ~self.fresh

    def view(self, tick: int) -> View:
        """What the policy is shown."""
        simulation, robots = self.simulation, self.touched.size
        state = simulation.state
        return View(
            tick,
            simulation.step_s,
            simulation.observation.reshape(robots, -1),
            simulation.ranges.reshape(robots, -1),
            state.pose.reshape(robots, 3),
            state.velocity.reshape(robots, 2),
            np.repeat(state.person_xy, self.course.robots, axis=0),
            np.repeat(state.person_velocity, self.course.robots, axis=0),
            self.fresh.reshape(robots),
        )

    def senses(self, tick: int) -> Senses:
        """What the guard is told: the raw scan of the delay line, noise, gaps and all, with its true stamp."""
        simulation = self.simulation
        arrays = simulation.disturbance.arrays
        clock = arrays.clock - 1
        delay = np.minimum(arrays.properties[..., OBSERVATION_DELAY].astype(np.int64), clock)
        worlds, robots = np.indices(clock.shape)
        ranges = arrays.scans[worlds, robots, (clock - delay) % RING].reshape(clock.size, -1)
        ranges = np.where(ranges >= self.model.lidar.range_max_m, np.float32(np.inf), ranges)
        step_ns = round(simulation.step_s * NS)
        now_ns = (tick + 100) * step_ns
        taken_ns = now_ns - delay.reshape(-1) * step_ns
        return Senses(now_ns, ranges, taken_ns, arrays.measured.reshape(-1, 2).copy())

    def _look(self) -> None:
        """Count for how long each person has been in view."""
        simulation, state, floors = self.simulation, self.simulation.state, self.simulation.floors
        seen = np.zeros(self.in_view_s.shape, dtype=np.bool_)
        people_in_view(
            simulation.floor_of, floors.boxes, floors.box_count, state.person_xy, state.pose,
            np.array(self.model.footprint_offsets_m), self.model.footprint_radius_m, *self._rays,
            self.model.lidar.angle_min_rad, self.model.lidar.range_max_m, seen,
        )  # fmt: skip
        self.in_view_s = np.where(seen, self.in_view_s + simulation.step_s, 0.0)

    def _remember(self, fresh: Flags) -> None:
        """Keep the truth of this moment."""
        state, seen = self.simulation.state, self.in_view_s > 0.0
        self.past.append(
            Past(
                state.pose.copy(), state.velocity.copy(), state.person_xy.copy(), state.person_velocity.copy(),
                seen, fresh.copy(),
            )
        )  # fmt: skip

    def _moments(self, world: int, robot: int, person: int) -> list[Moment]:
        """What was true of one robot and one person, from when the robot was put there until the contact just now."""
        physics, state, found = self.physics, self.simulation.state, []
        for past in reversed(self.past):
            found.append(
                Moment(
                    tuple(past.pose[world, robot]),
                    tuple(past.velocity[world, robot]),
                    tuple(past.person_xy[world, person]),
                    float(np.hypot(*past.person_velocity[world, person])),
                    bool(past.seen[world, robot, person]),
                )
            )
            if past.fresh[world, robot]:
                break
        now = Moment(
            tuple(physics.pose[world, robot]),
            tuple(physics.velocity[world, robot]),
            tuple(state.person_xy[world, person]),
            float(np.hypot(*state.person_velocity[world, person])),
            True,
        )
        return [*reversed(found), now]

    def _count(self, tick: int) -> None:
        tally, physics, simulation = self.tally, self.physics, self.simulation
        speed = np.abs(physics.velocity[..., 0])
        moving = speed > CONTACT_SPEED_MPS
        tally.driven_m += float(speed.sum()) * simulation.step_s
        tally.arrivals += int((simulation.outcome == Outcome.ARRIVED).sum())
        tally.static_contacts += int((physics.contact == Contact.STATIC).sum())
        tally.robot_contacts += int(((physics.contact == Contact.ROBOT) & moving).sum())
        offset = simulation.state.person_xy[:, None] - physics.pose[:, :, None, :2]
        gap_m = np.linalg.norm(offset, axis=-1) - PERSON_RADIUS_M - self.model.footprint_radius_m
        if self.course.people:
            near_m = np.where(moving & ~self.touched, gap_m.min(-1), VIEW_M)
            self.nearest_m = np.minimum(self.nearest_m, near_m)
        for world, robot in np.argwhere((physics.contact == Contact.STATIC) & moving):
            self._event("static", tick, world, robot, -1)
        for world, robot in np.argwhere((physics.contact == Contact.PERSON) & moving):
            person = int(gap_m[world, robot].argmin())
            heading = physics.pose[world, robot, 2]
            way = np.array([np.cos(heading), np.sin(heading)]) * physics.velocity[world, robot, 0]
            towards = float(way @ offset[world, robot, person]) / np.linalg.norm(offset[world, robot, person])
            if self.touched[world, robot] and towards < CONTACT_SPEED_MPS:
                tally.escapes += 1
                continue
            tally.moving_contacts += 1
            in_view = self.in_view_s[world, robot, person] >= IN_VIEW_S - 1e-9
            tally.moving_contacts_in_view += int(in_view)
            self._event("person", tick, world, robot, person)
            tally.moving_contacts_avoidable += int(not tally.events[-1].unavoidable)

    def _event(self, kind: str, tick: int, world: int, robot: int, person: int) -> None:
        physics, state = self.physics, self.simulation.state
        velocity, bearing, pace, closing, seen_s = physics.velocity[world, robot, 0], 0.0, 0.0, 0.0, 0.0
        helpless = False
        if person >= 0:
            offset = state.person_xy[world, person] - physics.pose[world, robot, :2]
            bearing = float(np.arctan2(offset[1], offset[0]) - physics.pose[world, robot, 2])
            bearing = float(np.angle(np.exp(1j * bearing)))
            walk = state.person_velocity[world, person]
            pace, closing = float(np.hypot(*walk)), float(-walk @ offset / np.linalg.norm(offset))
            seen_s = float(self.in_view_s[world, robot, person])
            moments = self._moments(world, robot, person)
            helpless = unavoidable(moments, self.simulation.step_s, self.model)
        index = int(world) * self.course.robots + int(robot)
        self.tally.events.append(
            Event(
                kind, self.course.seed, tick, index, float(velocity), bearing, pace, closing, seen_s, helpless
            )
        )


@numba.njit(cache=True)
def people_in_view(  # type: ignore[no-untyped-def]
    floor_of, boxes, box_count, person_xy, pose, discs, radius, cosines, sines, angle_min, range_max, seen
):
    """Write into ``seen`` bool[E, R, P] whom each robot's undisturbed lidar hits within ``VIEW_M``."""
    scan = np.empty(cosines.shape[0], dtype=np.float32)
    alone = np.empty(cosines.shape[0], dtype=np.float32)
    for e in range(pose.shape[0]):
        f = floor_of[e]
        for r in range(pose.shape[1]):
            scanned = False
            for p in range(person_xy.shape[1]):
                dx, dy = person_xy[e, p, 0] - pose[e, r, 0], person_xy[e, p, 1] - pose[e, r, 1]
                if dx * dx + dy * dy > VIEW_M * VIEW_M:
                    continue
                if not scanned:
                    scan_robot(
                        boxes[f], box_count[f], person_xy[e], PERSON_RADIUS_M, pose[e], r, radius, discs,
                        cosines, sines, angle_min, range_max, scan,
                    )  # fmt: skip
                    scanned = True
                alone[:] = range_max
                cast_circle(
                    person_xy[e, p, 0], person_xy[e, p, 1], PERSON_RADIUS_M, pose[e, r, 0], pose[e, r, 1],
                    pose[e, r, 2], angle_min, alone,
                )  # fmt: skip
                for ray in range(alone.shape[0]):
                    if alone[ray] < range_max and alone[ray] <= scan[ray] + 1e-4:
                        seen[e, r, p] = True
                        break
