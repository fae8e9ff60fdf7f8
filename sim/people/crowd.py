"""Who is on the floor: number, pace, manners, company and hiding places of the people of a batch of worlds."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from navigation.warehouse import Warehouse, box_clearance
from sim.people.walk import HIDES, WALKS, walk
from sim.tasks.randomise import Crowd
from sim.world.floors import Floors
from sim.world.random import streams
from sim.world.state import PERSON_RADIUS_M, WorldState

PRESSING_GAP_M = 0.05
"""Somebody who does not yield halts only when about to touch."""
BEHIND_M, OUT_M, ASIDE_M = 0.45, 0.65, 0.42
"""A hiding place: so far back from the shelf's end, stepping out so far beyond it, so far off its side."""
POST_STATION_M = 1.3
"""Nobody hides so near a station that no robot gets to it."""
POST_CLEARANCE_M = PERSON_RADIUS_M + 0.05
GONE = -1000.0


class People(NamedTuple):
    """Arrays of ``E`` worlds with ``P`` people; compiled code works on them. Map frame, m, s."""

    xy: Any
    """float64[E, P, 2]; below -900 for somebody who is not there."""
    velocity: Any
    target: Any
    """int64[E, P] index of a station."""
    pace: Any
    pause: Any
    waited: Any
    gap: Any
    """float64[E, P], how far from a robot they halt."""
    leader: Any
    """int64[E, P], whom they walk beside; themselves where nobody."""
    lurks: Any
    """int8[E, P], WALKS or what somebody behind a shelf is about."""
    posts: Any
    """float64[E, P, 2, 2], hiding place and where they step out to."""
    walked_s: Any
    """Since their last stop; ``stop_after`` s of walking comes the next. Behind a shelf: until they step out again."""
    stop_after: Any
    random: Any
    """uint64[E * P], a stream for each person."""
    pause_max: Any
    stops_per_s: Any
    pallets: Any
    """float64[F, n, 4] boxes that the map does not know; pallet_count int64[F]."""
    pallet_count: Any


class Walkers:
    """The people of all worlds of a state.

    Args:
        state: its ``person_xy`` and ``person_velocity`` are written.
        floors: the floors.
        floor_of: int64[E], which floor each world is on.
        seed: same seed, same people; each has its own stream, whatever the robots do.
        crowd: number, pace and manners.
    """

    def __init__(
        self,
        state: WorldState,
        floors: Floors,
        floor_of: npt.NDArray[np.int64],
        seed: int,
        crowd: Crowd | None = None,
    ) -> None:
        crowd = crowd or Crowd()
        self._state, self._floors, self._floor_of = state, floors, floor_of
        worlds, people = shape = state.person_xy.shape[:2]
        pallets = [_pallet_boxes(warehouse) for warehouse in floors.warehouses]
        most = max(1, *map(len, pallets))
        self.arrays = People(
            xy=state.person_xy,
            velocity=state.person_velocity,
            target=np.zeros(shape, dtype=np.int64),
            pace=np.zeros(shape),
            pause=np.zeros(shape),
            waited=np.zeros(shape),
            gap=np.zeros(shape),
            leader=np.tile(np.arange(people), (worlds, 1)),
            lurks=np.full(shape, WALKS, dtype=np.int8),
            posts=np.zeros((*shape, 2, 2)),
            walked_s=np.zeros(shape),
            stop_after=np.full(shape, np.inf),
            random=streams(seed, worlds * people),
            pause_max=np.full(worlds, crowd.pause_max_s),
            stops_per_s=np.full(worlds, crowd.stops_per_s),
            pallets=np.stack([np.vstack([each, np.zeros((most - len(each), 4))]) for each in pallets]),
            pallet_count=np.array([len(each) for each in pallets], dtype=np.int64),
        )
        hiding = [hiding_places(warehouse) for warehouse in floors.warehouses]
        for world in range(worlds):
            self._fill(world, np.random.default_rng([seed, world]), crowd, hiding[floor_of[world]])

    def _fill(
        self, world: int, rng: np.random.Generator, crowd: Crowd, hiding: npt.NDArray[np.float64]
    ) -> None:
        p, floor = self.arrays, self._floor_of[world]
        people = p.xy.shape[1]
        draws = rng.random((people, 6))
        p.pace[world] = crowd.pace_mps[0] + draws[:, 0] * (crowd.pace_mps[1] - crowd.pace_mps[0])
        rude = np.where(draws[:, 2] < 0.5, crowd.late_gap_m, PRESSING_GAP_M)
        p.gap[world] = np.where(draws[:, 1] < crowd.polite_share, crowd.polite_gap_m, rude)
        p.pause[world] = draws[:, 3] * crowd.pause_max_s
        if crowd.stops_per_s > 0.0:
            p.stop_after[world] = rng.exponential(1.0 / crowd.stops_per_s, people)
        p.target[world] = rng.integers(self._floors.station_count[floor], size=people)
        spawn = self._floors.spawn_xy[floor]
        p.xy[world] = spawn[rng.integers(len(spawn), size=people)]
        hidden = rng.permutation(len(hiding))
        for person in range(people):
            if draws[person, 4] < crowd.lurker_share and person < len(hiding):
                p.posts[world, person] = hiding[hidden[person]]
                p.xy[world, person] = p.posts[world, person, 0]
                p.lurks[world, person] = HIDES
            elif person and draws[person, 5] < crowd.group_share and p.lurks[world, person - 1] == WALKS:
                p.leader[world, person] = p.leader[world, person - 1]
                p.xy[world, person] = p.xy[world, person - 1]
                p.pace[world, person] = p.pace[world, person - 1]
        share = rng.uniform(*crowd.present)
        p.xy[world, math.ceil(share * people) :] = GONE

    def step(self, step_s: float, first: int = 0, last: int | None = None) -> None:
        """Move the people of worlds ``first`` to ``last`` (all by default) by ``step_s``."""
        for world in range(first, len(self._floor_of) if last is None else last):
            state, floors, floor = self._state, self._floors, self._floor_of[world]
            walk(
                self.arrays,
                world,
                state.pose[world],
                state.model.reach_m,
                floor,
                floors.pointers,
                floors.columns[floor],
                floors.station_xy[floor],
                floors.station_count[floor],
                floors.route_at[floor],
                floors.boxes[floor],
                floors.box_count[floor],
                step_s,
            )


def hiding_places(warehouse: Warehouse) -> npt.NDArray[np.float64]:
    """Places beside the end of a shelf, and where somebody steps out to from there: float64[n, 2, 2]."""
    boxes = warehouse.boxes()
    pairs = []
    for shelf in warehouse.shelves:
        for end in (-1, 1):
            for side in (-1, 1):
                if shelf.length_m >= shelf.depth_m:
                    edge = (shelf.x_m + end * shelf.length_m / 2, shelf.y_m + side * shelf.depth_m / 2)
                    hidden = (edge[0] - end * BEHIND_M, edge[1] + side * ASIDE_M)
                    out = (edge[0] + end * OUT_M, hidden[1])
                else:
                    edge = (shelf.x_m + side * shelf.length_m / 2, shelf.y_m + end * shelf.depth_m / 2)
                    hidden = (edge[0] + side * ASIDE_M, edge[1] - end * BEHIND_M)
                    out = (hidden[0], edge[1] + end * OUT_M)
                middle = ((hidden[0] + out[0]) / 2, (hidden[1] + out[1]) / 2)
                near = min(math.hypot(s.x_m - hidden[0], s.y_m - hidden[1]) for s in warehouse.stations)
                clear = all(
                    box_clearance(boxes, *place) >= POST_CLEARANCE_M for place in (hidden, middle, out)
                )
                if clear and near >= POST_STATION_M:
                    pairs.append((hidden, out))
    return np.array(pairs, dtype=np.float64).reshape(-1, 2, 2)


def _pallet_boxes(warehouse: Warehouse) -> npt.NDArray[np.float64]:
    """The boxes that the map does not know; they come last. float64[n, 4]."""
    count = len(warehouse.pallets)
    boxes = warehouse.boxes()
    return boxes[len(boxes) - count :]
