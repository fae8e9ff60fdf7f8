"""New warehouses from a seed: rows of shelves with aisles and cross aisles, stations where work would be.

A floor is laid out along ``u`` (the way shelves run) and ``v`` (across them), then turned and mirrored onto
the map. Drop stations stand along the wall at one end of ``u``, charging bays along the other.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from navigation.errors import WarehouseError
from navigation.route import check_reachable
from navigation.warehouse import Shelf, Station, StationKind, Warehouse, box_clearance, validate_warehouse
from sim.errors import GenerateError

ATTEMPTS_MAX = 40
PICK_CLEARANCE_M = 0.75
"""From a pick station to the nearest shelf: room to stand in an aisle and turn."""
STATION_SPACING_M = 1.3
SITE_CLEARANCE_M = 0.62
"""From a drop station or charging bay to the nearest box."""
SEED_MAX = 2**63 - 1
AISLE_MIN_M = 2 * (PICK_CLEARANCE_M + 0.02)


class GenerateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What floors may look like. Pairs are the lowest and highest value, both possible; lengths in m."""

    width_m: tuple[float, float] = (18.0, 26.0)
    height_m: tuple[float, float] = (12.0, 18.0)
    aisle_m: tuple[float, float] = (1.7, 2.6)
    cross_aisle_m: tuple[float, float] = (2.0, 2.8)
    perimeter_m: tuple[float, float] = (1.8, 2.4)
    end_band_m: tuple[float, float] = (2.6, 3.4)
    """Free floor in front of the drop stations and in front of the charging bays."""
    shelf_depth_m: tuple[float, float] = (0.8, 1.2)
    block_length_m: tuple[float, float] = (2.4, 5.0)
    missing_share: float = 0.14
    """Share of shelf blocks that are left out; half of those leave a single pallet."""
    pick_stations: tuple[int, int] = (6, 10)
    drop_stations: tuple[int, int] = (3, 4)
    charging_bays: tuple[int, int] = (4, 5)
    people: tuple[int, int] = (3, 6)
    turn: bool = True
    """Also make floors whose shelves run along y, and mirrored ones."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, tuple) and not 0 < value[0] <= value[1] < math.inf:
                raise ValueError(
                    f"{name} is {value}; it must be a lowest and a highest value above 0, in order"
                )
        if self.aisle_m[0] < AISLE_MIN_M:
            raise ValueError(f"aisle_m starts at {self.aisle_m[0]}; the narrowest aisle is {AISLE_MIN_M} m")
        if not 0.0 <= self.missing_share < 0.9:
            raise ValueError(f"missing_share is {self.missing_share}; it must be 0 to 0.9")


DEFAULT_CONFIG = GenerateConfig()


class _Block(NamedTuple):
    """A place for shelves: centre and size along u and v, and the free widths below and above it."""

    u: float
    v: float
    length: float
    depth: float
    below: float
    above: float


class _Site(NamedTuple):
    """A station before it is put on the map; heading in the u, v frame."""

    kind: StationKind
    u: float
    v: float
    heading: float


def generate_warehouse(seed: int, config: GenerateConfig = DEFAULT_CONFIG) -> Warehouse:
    """A valid floor on which every station reaches every other. Same seed and config, same floor.

    Raises:
        GenerateError: the seed is out of range, or the config leaves no room for a floor.
    """
    if not 0 <= seed <= SEED_MAX:
        raise GenerateError(f"seed is {seed}; it must be 0 to {SEED_MAX}")
    reason = ""
    for attempt in range(ATTEMPTS_MAX):
        rng = np.random.Generator(np.random.PCG64([seed, attempt]))
        try:
            warehouse = _lay_out(seed, config, rng)
            validate_warehouse(warehouse, warehouse.name)
            check_reachable(warehouse)
        except (WarehouseError, _NoRoomError) as error:
            reason = str(error)
            continue
        return warehouse
    raise GenerateError(f"no floor in {ATTEMPTS_MAX} attempts ({reason}); give the config more room")


class _NoRoomError(Exception):
    """This attempt has too few places for its stations."""


def _lay_out(seed: int, config: GenerateConfig, rng: np.random.Generator) -> Warehouse:
    width, height = _metres(rng, config.width_m), _metres(rng, config.height_m)
    turned = config.turn and bool(rng.random() < 0.35)
    mirrored = (config.turn and bool(rng.random() < 0.5), config.turn and bool(rng.random() < 0.5))
    along, across = (height, width) if turned else (width, height)
    blocks = _place_blocks(along, across, config, rng)
    shelves: list[_Block] = []
    sites: list[_Site] = []
    for block in blocks:
        if rng.random() >= config.missing_share:
            shelves.append(block)
        elif rng.random() < 0.5:
            shelves.append(_pallet_in(block, rng))
    sites += _pick_sites(shelves, along, across, config, rng)
    sites += _wall_sites(StationKind.DROP, 0.75, math.pi, across, _count(rng, config.drop_stations), rng)
    sites += _wall_sites(
        StationKind.CHARGE, along - 0.75, 0.0, across, _count(rng, config.charging_bays), rng
    )

    def on_map(u: float, v: float) -> tuple[float, float]:
        x, y = (v, u) if turned else (u, v)
        return round(width - x if mirrored[0] else x, 3), round(height - y if mirrored[1] else y, 3)

    return Warehouse(
        name=f"generated-{seed}",
        width_m=width,
        height_m=height,
        shelves=tuple(
            Shelf(*on_map(b.u, b.v), *((b.depth, b.length) if turned else (b.length, b.depth)))
            for b in shelves
        ),
        stations=tuple(_stations(sites, on_map, turned, mirrored)),
        people=_count(rng, config.people),
    )


def _place_blocks(
    along: float, across: float, config: GenerateConfig, rng: np.random.Generator
) -> list[_Block]:
    """Rows across ``v``, blocks along ``u``; the space that is left over widens the aisles evenly."""
    start, stop = _metres(rng, config.end_band_m), along - _metres(rng, config.end_band_m)
    columns = _fill(stop - start, config.block_length_m, config.cross_aisle_m, rng)
    edge = _metres(rng, config.perimeter_m)
    rows = _fill(across - 2 * edge, config.shelf_depth_m, config.aisle_m, rng)
    blocks = []
    for r, (low, depth) in enumerate(rows):
        below = low - (rows[r - 1][0] + rows[r - 1][1] if r else -edge)
        above = (rows[r + 1][0] if r + 1 < len(rows) else across - edge) - (low + depth)
        for left, length in columns:
            blocks.append(
                _Block(
                    round(start + left + length / 2, 3),
                    round(edge + low + depth / 2, 3),
                    length,
                    depth,
                    below,
                    above,
                )
            )
    return blocks


def _fill(
    room: float, size: tuple[float, float], gap: tuple[float, float], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Pieces (start, size) that fill ``room`` from end to end with gaps between them."""
    count_max = int((room + gap[0]) / (size[0] + gap[0]))
    count_min = math.ceil((room + gap[1]) / (size[1] + gap[1]))
    if count_max < 1:
        raise _NoRoomError("the floor is too small for one row of shelves")
    count = int(rng.integers(min(count_min, count_max), count_max + 1))
    gaps = rng.uniform(*gap, size=count - 1)
    sizes = rng.uniform(*size, size=count)
    spare = room - gaps.sum() - sizes.sum()
    # Sizes take up what is over or missing, then the gaps, each only within its own limits.
    sizes, spare = _absorb(sizes, spare, size)
    gaps, spare = _absorb(gaps, spare, gap)
    if spare < -1e-9:
        raise _NoRoomError("shelves and aisles do not fit")
    pieces, at = [], spare / 2
    for k in range(count):
        piece = float(np.floor(sizes[k] * 100) / 100)
        pieces.append((float(at), piece))
        at += sizes[k] + (gaps[k] if k + 1 < count else 0.0)
    return pieces


def _absorb(
    values: np.typing.NDArray[np.float64], spare: float, limits: tuple[float, float]
) -> tuple[np.typing.NDArray[np.float64], float]:
    """Move all values towards one limit, in the same proportion, until ``spare`` is used up."""
    room = (limits[1] - values) if spare > 0 else (values - limits[0])
    total = float(room.sum())
    if total <= 0:
        return values, spare
    share = min(1.0, abs(spare) / total)
    return values + math.copysign(share, spare) * room, spare - math.copysign(share * total, spare)


def _pallet_in(block: _Block, rng: np.random.Generator) -> _Block:
    """A single pallet somewhere in the place of a block that is left out."""
    length, depth = min(1.2, block.length), min(0.8, block.depth)
    reach = (block.length - length) / 2
    u = block.u + rng.uniform(-reach, reach)
    widened = (block.depth - depth) / 2
    return _Block(round(u, 3), block.v, length, depth, block.below + widened, block.above + widened)


def _pick_sites(
    shelves: list[_Block], along: float, across: float, config: GenerateConfig, rng: np.random.Generator
) -> list[_Site]:
    """Pick stations in the middle of an aisle (in a wide one 0.9 m before the shelf), facing their shelf."""
    boxes = np.array(
        [(s.u - s.length / 2, s.v - s.depth / 2, s.u + s.length / 2, s.v + s.depth / 2) for s in shelves]
        + [(-1.0, -1.0, along + 1, 0.0), (-1.0, across, along + 1, across + 1)]
    )
    candidates = []
    for shelf in shelves:
        for side, free in ((-1, shelf.below), (1, shelf.above)):
            off = max(PICK_CLEARANCE_M + 0.01, min(0.9, free / 2))
            spots = max(1, int(shelf.length / STATION_SPACING_M))
            for k in range(spots):
                u = shelf.u + ((k + 0.5) / spots - 0.5) * shelf.length
                v = shelf.v + side * (shelf.depth / 2 + off)
                candidates.append(_Site(StationKind.PICK, round(u, 3), round(v, 3), -side * math.pi / 2))
    wanted = _count(rng, config.pick_stations)
    chosen: list[_Site] = []
    for index in rng.permutation(len(candidates)):
        site = candidates[index]
        apart = all(math.hypot(site.u - o.u, site.v - o.v) >= STATION_SPACING_M for o in chosen)
        if apart and box_clearance(boxes, site.u, site.v) >= PICK_CLEARANCE_M:
            chosen.append(site)
        if len(chosen) == wanted:
            break
    if len(chosen) < config.pick_stations[0]:
        raise _NoRoomError(f"room for {len(chosen)} pick stations only")
    return sorted(chosen, key=lambda site: (site.v, site.u))


def _wall_sites(
    kind: StationKind, u: float, heading: float, across: float, count: int, rng: np.random.Generator
) -> list[_Site]:
    """``count`` places spread along a wall at ``u``, with a little disorder, facing it."""
    margin = 1.2
    pitch = (across - 2 * margin) / count
    if pitch < STATION_SPACING_M:
        raise _NoRoomError(f"a wall of {across} m is too short for {count} stations")
    slack = (pitch - STATION_SPACING_M) / 2
    return [
        _Site(kind, u, round(margin + (k + 0.5) * pitch + rng.uniform(-slack, slack), 3), heading)
        for k in range(count)
    ]


def _stations(sites: list[_Site], on_map, turned: bool, mirrored: tuple[bool, bool]) -> list[Station]:  # type: ignore[no-untyped-def]
    counts: dict[StationKind, int] = {}
    stations = []
    for site in sites:
        counts[site.kind] = counts.get(site.kind, 0) + 1
        heading = site.heading
        if turned:
            heading = math.pi / 2 - heading
        if mirrored[0]:
            heading = math.pi - heading
        if mirrored[1]:
            heading = -heading
        heading = round(math.remainder(heading, 2 * math.pi), 4)
        x, y = on_map(site.u, site.v)
        stations.append(Station(f"{site.kind.value}_{counts[site.kind]}", site.kind, x, y, heading))
    return stations


def _metres(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return round(float(rng.uniform(*limits)), 2)


def _count(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))
