"""People on the floor: they walk from station to station, stop for a while, and halt before they run into a robot.

They look only where they go: a robot that comes from the side or from behind has to mind them.
"""

import math

import numba
import numpy as np
import numpy.typing as npt

from sim.world.floors import Floors
from sim.world.random import streams, uniform
from sim.world.state import PERSON_RADIUS_M, WorldState

PACE_MIN_MPS, PACE_MAX_MPS = 0.6, 1.4
PAUSE_MAX_S = 6.0
POLITE_SHARE = 0.7
POLITE_GAP_M, RUDE_GAP_M = 0.6, 0.2
PATIENCE_S = 2.5


@numba.njit(cache=True)
def walk(  # type: ignore[no-untyped-def]
    xy,
    velocity,
    target,
    pace,
    pause_s,
    waited_s,
    gap_m,
    random,
    world,
    pose,
    robot_radius,
    station_xy,
    station_count,
    route_at,
    pointers,
    columns,
    step_s,
):
    """Move the people of one world by ``step_s``. Arrays are those of ``Walkers`` and ``Floors`` for that world."""
    for person in range(xy.shape[0]):
        velocity[person, 0] = 0.0
        velocity[person, 1] = 0.0
        if pause_s[person] > 0.0:
            pause_s[person] -= step_s
            continue
        x, y = xy[person, 0], xy[person, 1]
        start = route_at[target[person]]
        cell = (int(y / 0.2) + 1) * columns + int(x / 0.2) + 1
        for _ in range(3):
            cell = pointers[start + cell]
        to_x, to_y = (cell % columns - 0.5) * 0.2, (cell // columns - 0.5) * 0.2
        dx, dy = to_x - x, to_y - y
        length = math.sqrt(dx * dx + dy * dy)
        goal_x, goal_y = station_xy[target[person], 0] - x, station_xy[target[person], 1] - y
        if goal_x * goal_x + goal_y * goal_y < 0.64 or length < 1e-6:
            target[person] = int(uniform(random, world) * station_count)
            pause_s[person] = uniform(random, world) * PAUSE_MAX_S
            continue
        dx, dy = dx / length, dy / length
        blocked = False
        for robot in range(pose.shape[0]):
            rx, ry = pose[robot, 0] - x, pose[robot, 1] - y
            apart = math.sqrt(rx * rx + ry * ry)
            if apart < robot_radius + PERSON_RADIUS_M + gap_m[person] and rx * dx + ry * dy > 0.3 * apart:
                blocked = True
        if blocked:
            waited_s[person] += step_s
            if waited_s[person] > PATIENCE_S:
                waited_s[person] = 0.0
                target[person] = int(uniform(random, world) * station_count)
            continue
        waited_s[person] = 0.0
        velocity[person, 0] = dx * pace[person]
        velocity[person, 1] = dy * pace[person]
        xy[person, 0] = x + velocity[person, 0] * step_s
        xy[person, 1] = y + velocity[person, 1] * step_s


class Walkers:
    """The people of all worlds of a state.

    Args:
        state: its ``person_xy`` and ``person_velocity`` are written.
        floors: the floors.
        floor_of: int64[E], which floor each world is on.
        seed: same seed, same people, whatever the robots do until they meet.
    """

    def __init__(self, state: WorldState, floors: Floors, floor_of: npt.NDArray[np.int64], seed: int) -> None:
        self._state, self._floors, self._floor_of = state, floors, floor_of
        worlds, people, _ = state.person_xy.shape
        self.random = streams(seed, worlds)
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        shape = (worlds, people)
        self.pace = rng.uniform(PACE_MIN_MPS, PACE_MAX_MPS, shape)
        self.gap = np.where(rng.random(shape) < POLITE_SHARE, POLITE_GAP_M, RUDE_GAP_M)
        self.pause = rng.uniform(0.0, PAUSE_MAX_S, shape)
        self.waited = np.zeros(shape)
        self.target = (rng.random(shape) * floors.station_count[floor_of][:, None]).astype(np.int64)
        spawn = floors.spawn_xy[floor_of]
        picks = rng.integers(spawn.shape[1], size=shape)
        state.person_xy[:] = np.take_along_axis(spawn, picks[:, :, None], axis=1)

    def step(self, step_s: float, first: int = 0, last: int | None = None) -> None:
        """Move the people of worlds ``first`` to ``last`` (all by default) by ``step_s``."""
        worlds = range(first, len(self._floor_of) if last is None else last)
        for world in worlds:
            self._walk(world, step_s)

    def _walk(self, world: int, step_s: float) -> None:
        state, floors, floor = self._state, self._floors, self._floor_of[world]
        walk(
            state.person_xy[world],
            state.person_velocity[world],
            self.target[world],
            self.pace[world],
            self.pause[world],
            self.waited[world],
            self.gap[world],
            self.random,
            world,
            state.pose[world],
            state.model.footprint_radius_m,
            floors.station_xy[floor],
            floors.station_count[floor],
            floors.route_at[floor],
            floors.pointers,
            floors.columns[floor],
            step_s,
        )
