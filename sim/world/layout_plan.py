"""The pieces that floors are planned from, along ``u`` (the way shelves run) and ``v`` (across them), in m.

Drop stations stand along the wall at ``u = 0``, charging bays along the wall at the other end.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from navigation.warehouse import StationKind, box_clearance
from sim.world.layout_config import GenerateConfig

STATION_SPACING_M = 1.3
STATION_WALL_M = 0.75


class NoRoomError(Exception):
    """This attempt has too few places for its shelves or stations."""


class Block(NamedTuple):
    """A shelf or wall: centre and size along u and v, and the free widths below and above it."""

    u: float
    v: float
    length: float
    depth: float
    below: float = 0.0
    above: float = 0.0


class Site(NamedTuple):
    """A station before it is put on the map; heading in the u, v frame."""

    kind: StationKind
    u: float
    v: float
    heading: float


class Strip(NamedTuple):
    """A one-way lane before it is put on the map; heading in the u, v frame."""

    u: float
    v: float
    length: float
    depth: float
    heading: float


@dataclass
class Plan:
    """A floor before it is turned and mirrored onto the map."""

    shelves: list[Block]
    sites: list[Site]
    walls: list[Block] = field(default_factory=list)
    lanes: list[Strip] = field(default_factory=list)


def place_blocks(
    along: float,
    across: float,
    config: GenerateConfig,
    rng: np.random.Generator,
    bands: tuple[float, float] | None = None,
) -> list[Block]:
    """Rows across ``v``, blocks along ``u``; the space that is left over widens the aisles evenly.

    Args:
        along, across: of the floor or room, m.
        config: the sizes.
        rng: drawn from.
        bands: free floor at both ends of ``u``, m; drawn from ``config.end_band_m`` without it.
    """
    low_band, high_band = bands or (metres(rng, config.end_band_m), metres(rng, config.end_band_m))
    start, stop = low_band, along - high_band
    columns = fill(stop - start, config.block_length_m, config.cross_aisle_m, rng)
    edge = metres(rng, config.perimeter_m)
    rows = fill(across - 2 * edge, config.shelf_depth_m, config.aisle_m, rng)
    blocks = []
    for r, (low, depth) in enumerate(rows):
        below = low - (rows[r - 1][0] + rows[r - 1][1] if r else -edge)
        above = (rows[r + 1][0] if r + 1 < len(rows) else across - edge) - (low + depth)
        for left, length in columns:
            u, v = round(start + left + length / 2, 3), round(edge + low + depth / 2, 3)
            blocks.append(Block(u, v, length, depth, below, above))
    return blocks


def fill(
    room: float, size: tuple[float, float], gap: tuple[float, float], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Pieces (start, size) that fill ``room`` from end to end with gaps between them.

    Raises:
        NoRoomError: not one piece fits.
    """
    count_max = int((room + gap[0]) / (size[0] + gap[0]))
    count_min = math.ceil((room + gap[1]) / (size[1] + gap[1]))
    if count_max < 1:
        raise NoRoomError("the floor is too small for one row of shelves")
    count = int(rng.integers(min(count_min, count_max), count_max + 1))
    gaps = rng.uniform(*gap, size=count - 1)
    sizes = rng.uniform(*size, size=count)
    spare = room - gaps.sum() - sizes.sum()
    # Sizes take up what is over or missing, then the gaps, each only within its own limits.
    sizes, spare = _absorb(sizes, spare, size)
    gaps, spare = _absorb(gaps, spare, gap)
    if spare < -1e-9:
        raise NoRoomError("shelves and aisles do not fit")
    pieces, at = [], spare / 2
    for k in range(count):
        piece = float(np.floor(sizes[k] * 100) / 100)
        pieces.append((float(at), piece))
        at += sizes[k] + (gaps[k] if k + 1 < count else 0.0)
    return pieces


def _absorb(
    values: npt.NDArray[np.float64], spare: float, limits: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], float]:
    """Move all values towards one limit, in the same proportion, until ``spare`` is used up."""
    room = (limits[1] - values) if spare > 0 else (values - limits[0])
    total = float(room.sum())
    if total <= 0:
        return values, spare
    share = min(1.0, abs(spare) / total)
    return values + math.copysign(share, spare) * room, spare - math.copysign(share * total, spare)


def thin_out(blocks: list[Block], config: GenerateConfig, rng: np.random.Generator) -> list[Block]:
    """The blocks without ``missing_share`` of them; half of those leave a single pallet."""
    shelves: list[Block] = []
    for block in blocks:
        if rng.random() >= config.missing_share:
            shelves.append(block)
        elif rng.random() < 0.5:
            shelves.append(_pallet_in(block, rng))
    return shelves


def _pallet_in(block: Block, rng: np.random.Generator) -> Block:
    """A single pallet somewhere in the place of a block that is left out."""
    length, depth = min(1.2, block.length), min(0.8, block.depth)
    reach = (block.length - length) / 2
    u = block.u + rng.uniform(-reach, reach)
    widened = (block.depth - depth) / 2
    return Block(round(u, 3), block.v, length, depth, block.below + widened, block.above + widened)


def place_sites(
    shelves: list[Block],
    walls: list[Block],
    along: float,
    across: float,
    config: GenerateConfig,
    rng: np.random.Generator,
) -> list[Site]:
    """Pick stations in the aisles, drop stations along one wall, charging bays along the other."""
    sites = pick_sites(shelves, walls, along, across, config, rng)
    drops = count(rng, config.drop_stations)
    sites += wall_sites(StationKind.DROP, STATION_WALL_M, math.pi, across, drops, rng)
    return sites + charge_sites(along, across, config, rng)


def charge_sites(along: float, across: float, config: GenerateConfig, rng: np.random.Generator) -> list[Site]:
    """The charging bays."""
    bays = count(rng, config.charging_bays)
    return wall_sites(StationKind.CHARGE, along - STATION_WALL_M, 0.0, across, bays, rng)


def pick_sites(
    shelves: list[Block],
    walls: list[Block],
    along: float,
    across: float,
    config: GenerateConfig,
    rng: np.random.Generator,
) -> list[Site]:
    """Pick stations in the middle of an aisle (in a wide one 0.9 m before the shelf), facing their shelf.

    Raises:
        NoRoomError: fewer places than ``config.pick_stations`` asks for.
    """
    boxes = np.array(
        [
            (s.u - s.length / 2, s.v - s.depth / 2, s.u + s.length / 2, s.v + s.depth / 2)
            for s in shelves + walls
        ]
        + [(-1.0, -1.0, along + 1, 0.0), (-1.0, across, along + 1, across + 1)]
    )
    candidates = []
    for shelf in shelves:
        for side, free in ((-1, shelf.below), (1, shelf.above)):
            off = max(config.pick_clearance_m + 0.01, min(0.9, free / 2))
            spots = max(1, int(shelf.length / STATION_SPACING_M))
            for k in range(spots):
                u = shelf.u + ((k + 0.5) / spots - 0.5) * shelf.length
                v = shelf.v + side * (shelf.depth / 2 + off)
                candidates.append(Site(StationKind.PICK, round(u, 3), round(v, 3), -side * math.pi / 2))
    wanted = count(rng, config.pick_stations)
    chosen: list[Site] = []
    for index in rng.permutation(len(candidates)):
        site = candidates[index]
        apart = all(math.hypot(site.u - o.u, site.v - o.v) >= STATION_SPACING_M for o in chosen)
        if apart and box_clearance(boxes, site.u, site.v) >= config.pick_clearance_m:
            chosen.append(site)
        if len(chosen) == wanted:
            break
    if len(chosen) < config.pick_stations[0]:
        raise NoRoomError(f"room for {len(chosen)} pick stations only")
    return sorted(chosen, key=lambda site: (site.v, site.u))


def wall_sites(
    kind: StationKind, u: float, heading: float, across: float, number: int, rng: np.random.Generator
) -> list[Site]:
    """``number`` places spread along a wall at ``u``, with a little disorder, facing it.

    Raises:
        NoRoomError: the wall is too short for them.
    """
    margin = 1.2
    pitch = (across - 2 * margin) / number
    if pitch < STATION_SPACING_M:
        raise NoRoomError(f"a wall of {across} m is too short for {number} stations")
    slack = (pitch - STATION_SPACING_M) / 2
    return [
        Site(kind, u, round(margin + (k + 0.5) * pitch + rng.uniform(-slack, slack), 3), heading)
        for k in range(number)
    ]


def metres(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A length between ``limits``, to the centimetre."""
    return round(float(rng.uniform(*limits)), 2)


def count(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    """A whole number between ``limits``, both possible."""
    return int(rng.integers(limits[0], limits[1] + 1))
