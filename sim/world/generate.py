"""New warehouses from a seed, in families and difficulties: shelves, stations where work would be, people, clutter.

A family plans a floor along ``u`` and ``v`` (``sim.world.families``); here it is turned and mirrored onto the map,
gets its pallets, and is checked.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from navigation.errors import WarehouseError
from navigation.route import check_reachable
from navigation.warehouse import Lane, Shelf, Station, StationKind, Warehouse, validate_warehouse
from sim.errors import GenerateError
from sim.world.families import PLANS
from sim.world.layout_config import (
    DIFFICULTY_TODAY,
    FAMILY_CONFIGS,
    PICK_CLEARANCE_M,
    Family,
    GenerateConfig,
    at_difficulty,
)
from sim.world.layout_plan import Block, NoRoomError, Plan, Site, Strip, count, metres
from sim.world.pallets import leave_pallets

__all__ = [
    "DIFFICULTY_TODAY", "PICK_CLEARANCE_M", "Family", "GenerateConfig", "generate_mixed", "generate_warehouse",
]  # fmt: skip

ATTEMPTS_MAX = 40
SEED_MAX = 2**63 - 1
MIXED_MAX = 10_000


def generate_warehouse(
    seed: int,
    config: GenerateConfig | None = None,
    family: Family = Family.ROWS,
    difficulty: float = DIFFICULTY_TODAY,
) -> Warehouse:
    """A valid floor on which every station reaches every other. Same arguments, same floor.

    Args:
        seed: 0 to ``SEED_MAX``.
        config: of the family, at difficulty 0.5; ``FAMILY_CONFIGS[family]`` without it.
        family: what kind of floor.
        difficulty: 0 to 1. Narrower aisles, fewer ways around, more people; above 0.5 pallets in the way.

    Raises:
        GenerateError: an argument out of range, a config of another family, or one that leaves no room.
    """
    if not 0 <= seed <= SEED_MAX:
        raise GenerateError(f"seed is {seed}; it must be 0 to {SEED_MAX}")
    wanted = type(FAMILY_CONFIGS[family])
    config = FAMILY_CONFIGS[family] if config is None else config
    if type(config) is not wanted:
        raise GenerateError(f"config is a {type(config).__name__}; family {family} takes a {wanted.__name__}")
    config = at_difficulty(config, difficulty)
    today = family is Family.ROWS and difficulty == DIFFICULTY_TODAY
    name = f"generated-{seed}" if today else f"{family}-{seed}-d{difficulty:.2f}"
    reason = ""
    for attempt in range(ATTEMPTS_MAX):
        rng = np.random.Generator(np.random.PCG64([seed, attempt]))
        try:
            warehouse = _lay_out(name, family, config, rng)
            if config.pallets:
                rng = np.random.Generator(np.random.PCG64([seed, attempt, 1]))
                mean = config.pallets * (2 * difficulty - 1)
                pallets = leave_pallets(warehouse, math.floor(mean + rng.random()), rng)
                warehouse = msgspec.structs.replace(warehouse, pallets=pallets)
            validate_warehouse(warehouse, name)
            check_reachable(warehouse)
        except (WarehouseError, NoRoomError) as error:
            reason = str(error)
            continue
        return warehouse
    raise GenerateError(f"no floor in {ATTEMPTS_MAX} attempts ({reason}); give the config more room")


def generate_mixed(
    number: int,
    seed: int,
    families: Sequence[Family] = tuple(Family),
    difficulty_range: tuple[float, float] = (0.0, 1.0),
) -> list[Warehouse]:
    """``number`` floors, the families in turn, seeds from ``seed`` on, each of its own difficulty in the range.

    Floor ``k`` does not depend on ``number``. Names say family, seed and difficulty.

    Raises:
        GenerateError: no family, a number, seed or difficulty out of range.
    """
    low, high = difficulty_range
    if not families or not 1 <= number <= MIXED_MAX:
        raise GenerateError(
            f"{number} floors of {len(families)} families; give 1 to {MIXED_MAX}, of at least one"
        )
    if not 0.0 <= low <= high <= 1.0:
        raise GenerateError(
            f"difficulty_range is {difficulty_range}; it must be two numbers from 0 to 1, in order"
        )
    floors = []
    for index in range(number):
        family, floor_seed = families[index % len(families)], seed + index
        if not 0 <= floor_seed <= SEED_MAX:
            raise GenerateError(f"seed is {floor_seed}; it must be 0 to {SEED_MAX}")
        # To two places, so that the name tells how to make the floor again.
        drawn = round(float(np.random.default_rng([floor_seed, 2]).uniform(low, high)), 2)
        floor = generate_warehouse(floor_seed, family=family, difficulty=min(max(drawn, low), high))
        floors.append(msgspec.structs.replace(floor, name=f"{family}-{floor_seed}-d{drawn:.2f}"))
    return floors


class _Placement:
    """Turns and mirrors a plan's ``u``, ``v`` onto the map's x, y."""

    def __init__(self, width: float, height: float, config: GenerateConfig, rng: np.random.Generator) -> None:
        self._width, self._height = width, height
        self.turned = config.turn and bool(rng.random() < 0.35)
        self._mirrored = tuple(config.turn and bool(rng.random() < 0.5) for _ in range(2))

    def point(self, u: float, v: float) -> tuple[float, float]:
        x, y = (v, u) if self.turned else (u, v)
        return (
            round(self._width - x if self._mirrored[0] else x, 3),
            round(self._height - y if self._mirrored[1] else y, 3),
        )

    def heading(self, heading: float) -> float:
        if self.turned:
            heading = math.pi / 2 - heading
        if self._mirrored[0]:
            heading = math.pi - heading
        if self._mirrored[1]:
            heading = -heading
        return round(math.remainder(heading, 2 * math.pi), 4)

    def shelf(self, block: Block) -> Shelf:
        return Shelf(*self.point(block.u, block.v), *self._sides(block))

    def lane(self, strip: Strip) -> Lane:
        return Lane(*self.point(strip.u, strip.v), *self._sides(strip), self.heading(strip.heading))

    def _sides(self, rectangle: Block | Strip) -> tuple[float, float]:
        length, depth = round(rectangle.length, 3), round(rectangle.depth, 3)
        return (depth, length) if self.turned else (length, depth)


def _lay_out(name: str, family: Family, config: GenerateConfig, rng: np.random.Generator) -> Warehouse:
    width, height = metres(rng, config.width_m), metres(rng, config.height_m)
    placement = _Placement(width, height, config, rng)
    along, across = (height, width) if placement.turned else (width, height)
    plan: Plan = PLANS[family](along, across, config, rng)
    return Warehouse(
        name=name,
        width_m=width,
        height_m=height,
        shelves=tuple(placement.shelf(block) for block in plan.shelves + plan.walls),
        stations=_stations(plan.sites, placement),
        people=count(rng, config.people),
        lanes=tuple(placement.lane(strip) for strip in plan.lanes),
    )


def _stations(sites: list[Site], placement: _Placement) -> tuple[Station, ...]:
    counts: dict[StationKind, int] = {}
    stations = []
    for site in sites:
        counts[site.kind] = counts.get(site.kind, 0) + 1
        name = f"{site.kind.value}_{counts[site.kind]}"
        stations.append(
            Station(name, site.kind, *placement.point(site.u, site.v), placement.heading(site.heading))
        )
    return tuple(stations)
