"""The families of floors: for each a function that plans one along ``u`` and ``v``."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from navigation.warehouse import StationKind
from sim.world.layout_config import (
    DeadEndsConfig,
    DocksConfig,
    DoorsConfig,
    Family,
    GenerateConfig,
    OneWayConfig,
    OpenFloorConfig,
)
from sim.world.layout_plan import (
    Block,
    NoRoomError,
    Plan,
    Site,
    Strip,
    charge_sites,
    count,
    metres,
    pick_sites,
    place_blocks,
    place_sites,
    thin_out,
)

WALL_M = 0.2
CLOSER_M = 0.6
"""Depth of the shelf across the end of a closed aisle."""
DOOR_CORNER_M = 0.9
DOOR_BAND_M = 1.8
"""Free floor on both sides of a wall with doors."""
PALLET_M = (1.2, 0.8)
"""Of a EUR pallet, ISO 6780 size 1200 mm x 800 mm."""


def plan_rows(along: float, across: float, config: GenerateConfig, rng: np.random.Generator) -> Plan:
    """Rows of shelves; what sets ``narrow_aisles`` and ``cross_aisles`` apart is in their configs."""
    shelves = thin_out(place_blocks(along, across, config, rng), config, rng)
    return Plan(shelves, place_sites(shelves, [], along, across, config, rng))


def plan_one_way(along: float, across: float, config: OneWayConfig, rng: np.random.Generator) -> Plan:
    """Rows of shelves whose aisles are lanes, in turn there and back."""
    blocks = place_blocks(along, across, config, rng)
    shelves = thin_out(blocks, config, rng)
    left, right = blocks[0].u - blocks[0].length / 2, blocks[-1].u + blocks[-1].length / 2
    rows = [row[0] for row in _rows(blocks)]
    aisles = list(itertools.pairwise(rows))
    if not aisles:
        raise NoRoomError("one row of shelves only; lanes need an aisle between two")
    chosen = rng.random(len(aisles)) < config.lane_share
    chosen[rng.integers(len(aisles))] = True
    lanes: list[Strip] = []
    for k in np.flatnonzero(chosen).tolist():
        low, high = _between(*aisles[k])
        heading = math.pi * (len(lanes) % 2)
        lanes.append(Strip((left + right) / 2, (low + high) / 2, right - left, high - low, heading))
    return Plan(shelves, place_sites(shelves, [], along, across, config, rng), lanes=lanes)


def plan_dead_ends(along: float, across: float, config: DeadEndsConfig, rng: np.random.Generator) -> Plan:
    """Rows of long shelves; a shelf stands across one end of many aisles."""
    blocks = place_blocks(along, across, config, rng)
    shelves = thin_out(blocks, config, rng)
    closers = []
    for below, above in itertools.pairwise(_rows(blocks)):
        for low, high in zip(below, above, strict=True):
            closed, far = rng.random() < config.closed_share, rng.random() < 0.5
            # Beside a gap in the rows the aisle would stay open.
            if closed and low in shelves and high in shelves:
                floor_v, ceiling_v = _between(low, high)
                reach = (low.length - CLOSER_M) / 2
                u = low.u + (reach if far else -reach)
                middle = (floor_v + ceiling_v) / 2
                closers.append(Block(u, middle, CLOSER_M, ceiling_v - floor_v - 0.01))
    return Plan(shelves, place_sites(shelves, closers, along, across, config, rng), closers)


def plan_open_floor(along: float, across: float, config: OpenFloorConfig, rng: np.random.Generator) -> Plan:
    """Stacks of pallets in storage places on a grid, one wall with shelves, wide free floor."""
    start, stop = metres(rng, config.end_band_m), along - metres(rng, config.end_band_m)
    edge, depth = metres(rng, config.perimeter_m), metres(rng, config.shelf_depth_m)
    racks = [
        Block(round(start + u, 3), round(across - depth / 2 - 0.02, 3), length, depth, 1.8)
        for u, length in _split(stop - start, config.block_length_m[1])
    ]
    top = across - depth - edge
    columns, rows = (
        int((stop - start) / metres(rng, config.pitch_m)),
        int((top - edge) / metres(rng, config.pitch_m)),
    )
    if min(columns, rows) < 1:
        raise NoRoomError("the floor is too small for one storage place")
    pitch_u, pitch_v = (stop - start) / columns, (top - edge) / rows
    stacks = []
    for column, row in itertools.product(range(columns), range(rows)):
        if rng.random() < config.fill_share:
            stack = _stack(pitch_u, pitch_v, config.aisle_m[0], rng)
            stacks.append(
                stack._replace(
                    u=round(start + (column + 0.5) * pitch_u + stack.u, 3),
                    v=round(edge + (row + 0.5) * pitch_v + stack.v, 3),
                )
            )
    shelves = racks + stacks
    return Plan(shelves, place_sites(shelves, [], along, across, config, rng))


def plan_docks(along: float, across: float, config: DocksConfig, rng: np.random.Generator) -> Plan:
    """Rows of shelves in front of a wall of loading docks, each with its drop station."""
    depth, bay = metres(rng, config.bay_depth_m), metres(rng, config.bay_m)
    bays = min(count(rng, config.drop_stations), int((across - 1.0) / bay))
    if bays < config.drop_stations[0]:
        raise NoRoomError(f"a wall of {across} m is too short for {config.drop_stations[0]} docks")
    slack = across - bays * bay
    first = round(slack / 2 + float(rng.uniform(-0.4, 0.4)) * (slack - 0.8), 3)
    stubs = [Block(round(depth / 2, 3), round(first + k * bay, 3), depth, WALL_M) for k in range(bays + 1)]
    blocks = [b._replace(u=round(b.u + depth, 3)) for b in place_blocks(along - depth, across, config, rng)]
    shelves = thin_out(blocks, config, rng)
    drops = [
        Site(StationKind.DROP, round(depth / 2, 3), round(first + (k + 0.5) * bay, 3), math.pi)
        for k in range(bays)
    ]
    picks = pick_sites(shelves, stubs, along, across, config, rng)
    return Plan(shelves, picks + drops + charge_sites(along, across, config, rng), stubs)


def plan_doors(along: float, across: float, config: DoorsConfig, rng: np.random.Generator) -> Plan:
    """Rooms one behind the other, each with rows of shelves; all ways between them lead through doors."""
    rooms = max(2, int(along / metres(rng, config.room_m)))
    shares = 1 + rng.uniform(-0.1, 0.1, size=rooms)
    ends = [0.0, *(round(float(u), 2) for u in np.cumsum(shares / shares.sum())[:-1] * along), along]
    shelves: list[Block] = []
    for k, (start, stop) in enumerate(itertools.pairwise(ends)):
        bands = (
            metres(rng, config.end_band_m) if k == 0 else DOOR_BAND_M,
            metres(rng, config.end_band_m) if k == rooms - 1 else DOOR_BAND_M,
        )
        blocks = place_blocks(stop - start, across, config, rng, bands)
        shelves += [block._replace(u=round(block.u + start, 3)) for block in thin_out(blocks, config, rng)]
    walls = [piece for u in ends[1:-1] for piece in _wall_with_doors(u, across, config, rng)]
    return Plan(shelves, place_sites(shelves, walls, along, across, config, rng), walls)


def _rows(blocks: list[Block]) -> list[list[Block]]:
    """Blocks by row, in order along ``v``."""
    return [list(row) for _, row in itertools.groupby(blocks, key=lambda block: block.v)]


def _between(low: Block, high: Block) -> tuple[float, float]:
    """Where along ``v`` the aisle between two rows begins and ends."""
    return low.v + low.depth / 2, high.v - high.depth / 2


def _split(room: float, length_max: float) -> Iterator[tuple[float, float]]:
    """Pieces (centre, length) side by side that fill ``room``, each at most ``length_max``."""
    pieces = math.ceil(room / length_max)
    length = math.floor(100 * room / pieces) / 100
    for k in range(pieces):
        yield (k + 0.5) * room / pieces, length


def _stack(pitch_u: float, pitch_v: float, gap: float, rng: np.random.Generator) -> Block:
    """Whole pallets side by side, off the middle of their place by ``u``, ``v``; ``gap`` to the next stays free."""
    sides = []
    for pitch, side in ((pitch_u, PALLET_M[0]), (pitch_v, PALLET_M[1])):
        most = max(1, int((pitch - gap) / side))
        sides.append(round(side * int(rng.integers(1, most + 1)), 3))
    reach_u, reach_v = (max(0.0, (p - gap - s) / 2) for p, s in zip((pitch_u, pitch_v), sides, strict=True))
    u, v = float(rng.uniform(-reach_u, reach_u)), float(rng.uniform(-reach_v, reach_v))
    return Block(u, v, sides[0], sides[1], gap, gap)


def _wall_with_doors(
    u: float, across: float, config: DoorsConfig, rng: np.random.Generator
) -> Iterator[Block]:
    """Pieces of a wall at ``u`` with one door, or one in each half."""
    two = rng.random() < config.second_door_share
    parts = [(0.0, across / 2), (across / 2, across)] if two else [(0.0, across)]
    end = 0.0
    for low, high in parts:
        door = metres(rng, config.door_m)
        start = round(float(rng.uniform(low + DOOR_CORNER_M, high - DOOR_CORNER_M - door)), 2)
        yield Block(u, (end + start) / 2, WALL_M, start - end)
        end = start + door
    yield Block(u, (end + across) / 2, WALL_M, across - end)


PLANS: dict[Family, Callable[[float, float, Any, np.random.Generator], Plan]] = {
    Family.ROWS: plan_rows,
    Family.NARROW_AISLES: plan_rows,
    Family.CROSS_AISLES: plan_rows,
    Family.ONE_WAY: plan_one_way,
    Family.DEAD_ENDS: plan_dead_ends,
    Family.OPEN_FLOOR: plan_open_floor,
    Family.DOCKS: plan_docks,
    Family.DOORS: plan_doors,
}
