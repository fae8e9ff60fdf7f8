"""A floor from a ROS map: the YAML and image that ``map_server`` and ``map_saver`` of Nav2 read and write.

Pixels become occupied or free as in map_server: occupancy is ``(255 - pixel) / 255``, with ``negate`` it is
``pixel / 255``; free is what lies below ``free_thresh``. All else, unknown too, is occupied: a robot has no
business there. So is 205 in a trinary map, which map_saver writes for unknown, though map_server takes it for free
where ``free_thresh`` is above 0.196. Source: nav2_map_server, ``map_io.cpp``; http://wiki.ros.org/map_server.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import yaml

from contracts.errors import reason_of
from navigation.errors import MapImportError
from navigation.route import CELL_M, CLEARANCE_HARD_M, cell_clearance, check_reachable
from navigation.warehouse import (
    SHELVES_MAX,
    SIDE_MAX_M,
    SIDE_MIN_M,
    STATIONS_MAX,
    Shelf,
    Station,
    StationKind,
    Warehouse,
    dump_warehouse,
    validate_warehouse,
)

YAML_SIZE_MAX_BYTES = 100_000
IMAGE_SIZE_MAX_BYTES = 100_000_000
PIXELS_MAX = 20_000_000
PIXEL_UNKNOWN = 205
RESOLUTION_MIN_M, RESOLUTION_MAX_M = 0.01, 0.5
GRID_MIN_M, GRID_MAX_M = 0.05, CELL_M
"""Rectangles are made on a grid between these: the smallest shelf, and a cell of the route."""
STATION_FREE_M = 0.55
STATION_SPACING_M = 1.3
CANDIDATES_MAX = 2000
PICK, DROP, CHARGE = StationKind.PICK, StationKind.DROP, StationKind.CHARGE
AUTO_KINDS = (PICK, DROP, CHARGE, PICK, PICK, DROP, CHARGE, PICK, PICK, DROP, CHARGE, PICK, PICK, PICK)

Pixels = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Document = TypeVar("Document")


class MapDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in a map's YAML file; names are ROS's."""

    image: str
    resolution: float
    origin: tuple[float, float, float]
    negate: int = 0
    occupied_thresh: float = 0.65
    free_thresh: float = 0.196
    mode: str = "trinary"


class StationsDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stations file; places are in the ROS map's frame, where one reads them off in RViz."""

    stations: tuple[Station, ...]


class ImportedFloor(NamedTuple):
    """A floor made of a ROS map.

    Attributes:
        offset_m: what to add to a place on the floor to get it in the ROS map's frame, x and y.
        grid_m: the grid that its shelves lie on; above the map's resolution where that gave too many.
    """

    warehouse: Warehouse
    offset_m: tuple[float, float]
    grid_m: float

    def dump(self, source: str) -> str:
        """The floor as YAML text, with its origin in a comment."""
        x_m, y_m = self.offset_m
        head = f"# From ROS map {' '.join(source.split())}, on a grid of {self.grid_m:g} m.\n"
        return f"{head}# ROS map frame = this frame + ({x_m:.3f}, {y_m:.3f}) m.\n{dump_warehouse(self.warehouse)}"


def import_map(
    path: Path,
    stations_path: Path | None = None,
    seed: int = 0,
    people: int = 4,
    read_image: Callable[[Path], Pixels] | None = None,
) -> ImportedFloor:
    """Make a floor of a ROS map: its largest connected free area, cut out, all else as shelves.

    Args:
        path: the map's YAML file.
        stations_path: a stations file; without it free places far from each other are picked.
        seed: of the places that are picked.
        people: on the floor.
        read_image: reads images other than PGM into float64[rows, columns], 0 to 255, NaN where unknown.

    Raises:
        MapImportError: the map cannot be read, is too large, turned, or too rich in detail.
        WarehouseError: no robot can work on the floor that came out.
    """
    document = _read_yaml(path, MapDocument)
    _check_document(document, path)
    image_path = path.parent / document.image
    pixels = _read_pixels(image_path, read_image)
    occupancy = (pixels if document.negate else 255.0 - pixels) / 255.0
    # A NaN is not below anything.
    free = np.flipud(occupancy < document.free_thresh)
    if document.mode == "trinary" and not document.negate:
        free &= np.flipud(pixels != PIXEL_UNKNOWN)
    shelves, (row, column), (rows, columns), grid_m = _shelves_of(free, document.resolution, path)
    offset = (document.origin[0] + column * grid_m, document.origin[1] + row * grid_m)
    bare = Warehouse(
        name=path.stem or "map",
        width_m=round(columns * grid_m, 6),
        height_m=round(rows * grid_m, 6),
        shelves=shelves,
        stations=(),
        people=people,
    )
    for side_m in (bare.width_m, bare.height_m):
        if not SIDE_MIN_M <= side_m <= SIDE_MAX_M:
            raise MapImportError(
                f"{path}: free area is {bare.width_m:g} x {bare.height_m:g} m; a floor's sides are"
                f" {SIDE_MIN_M:g} to {SIDE_MAX_M:g} m; crop the map or check its resolution"
            )
    if stations_path is None:
        stations = _pick_stations(bare, seed, path)
    else:
        stations = tuple(
            msgspec.structs.replace(s, x_m=round(s.x_m - offset[0], 6), y_m=round(s.y_m - offset[1], 6))
            for s in _read_yaml(stations_path, StationsDocument).stations[: STATIONS_MAX + 1]
        )
    warehouse = msgspec.structs.replace(bare, stations=stations)
    validate_warehouse(warehouse, str(path))
    check_reachable(warehouse, str(path))
    return ImportedFloor(warehouse, offset, grid_m)


def _read_yaml(path: Path, kind: type[Document]) -> Document:
    try:
        size = path.stat().st_size
        if size > YAML_SIZE_MAX_BYTES:
            raise MapImportError(f"{path}: {size} bytes; at most {YAML_SIZE_MAX_BYTES} are read")
        return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), kind)
    except (OSError, UnicodeDecodeError) as error:
        raise MapImportError(f"{path}: cannot be read: {reason_of(error)}") from None
    except yaml.YAMLError as error:
        raise MapImportError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise MapImportError(f"{path}: {error}") from None


def _check_document(document: MapDocument, path: Path) -> None:
    if not RESOLUTION_MIN_M <= document.resolution <= RESOLUTION_MAX_M:
        raise MapImportError(
            f"{path}: resolution is {document.resolution} m; it must be {RESOLUTION_MIN_M} to {RESOLUTION_MAX_M}"
        )
    if not all(map(math.isfinite, document.origin)):
        raise MapImportError(f"{path}: origin is {list(document.origin)}; it must be three finite numbers")
    if document.origin[2] != 0.0:
        raise MapImportError(
            f"{path}: origin has yaw {document.origin[2]}; only 0 can be imported, turn the map"
        )
    if not 0.0 < document.free_thresh <= document.occupied_thresh <= 1.0:
        raise MapImportError(
            f"{path}: free_thresh {document.free_thresh} and occupied_thresh {document.occupied_thresh} must be in"
            " order, above 0, at most 1"
        )
    if document.negate not in (0, 1):
        raise MapImportError(f"{path}: negate is {document.negate}; it must be 0 or 1")
    if document.mode not in ("trinary", "scale"):
        raise MapImportError(f"{path}: mode is '{document.mode}'; it must be trinary or scale")


def _read_pixels(path: Path, read_image: Callable[[Path], Pixels] | None) -> Pixels:
    if path.suffix.lower() == ".pgm":
        return read_pgm(path)
    if read_image is None:
        raise MapImportError(f"{path}: only .pgm can be read here; convert the image")
    return read_image(path)


def read_pgm(path: Path) -> Pixels:
    """A PGM image (P2 or P5, netpbm's pgm(5)) as float64[rows, columns], 0 to 255, top row first.

    Raises:
        MapImportError: not such an image, too large, or cut short.
    """
    try:
        size = path.stat().st_size
        if size > IMAGE_SIZE_MAX_BYTES:
            raise MapImportError(f"{path}: {size} bytes; at most {IMAGE_SIZE_MAX_BYTES} are read")
        data = path.read_bytes()
    except OSError as error:
        raise MapImportError(f"{path}: cannot be read: {reason_of(error)}") from None
    magic, columns, rows, largest, start = _pgm_header(data, path)
    check_size(path, rows, columns)
    if magic == b"P5":
        pixel = np.dtype(np.uint8 if largest < 256 else ">u2")
        whole = (len(data) - start) // pixel.itemsize
        values = np.frombuffer(data[start:], dtype=pixel, count=max(0, min(whole, rows * columns)))
    else:
        try:
            values = np.array(data[start:].split(), dtype=np.int64)
        except (ValueError, OverflowError):
            raise MapImportError(f"{path}: a pixel is no whole number; save the map again") from None
    if len(values) < rows * columns:
        raise MapImportError(f"{path}: {len(values)} pixels of {rows * columns}; the file is cut short")
    values = values[: rows * columns]
    if values.min() < 0 or values.max() > largest:
        raise MapImportError(f"{path}: a pixel is outside 0 to {largest}; save the map again")
    return values.reshape(rows, columns).astype(np.float64) * (255.0 / largest)


def check_size(path: Path, rows: int, columns: int) -> None:
    """Refuse an image by its size, before its pixels are read.

    Raises:
        MapImportError: no pixels, or more than ``PIXELS_MAX``.
    """
    if rows < 1 or columns < 1 or rows * columns > PIXELS_MAX:
        raise MapImportError(f"{path}: {columns} x {rows} pixels; a map has 1 to {PIXELS_MAX}; crop it")


def _pgm_header(data: bytes, path: Path) -> tuple[bytes, int, int, int, int]:
    """Magic, columns, rows, largest value, and where the pixels start."""
    words: list[bytes] = []
    at = 0
    while len(words) < 4 and at < len(data):
        if data[at : at + 1] == b"#":
            at = data.find(b"\n", at) % (len(data) + 1)
        elif data[at : at + 1].isspace():
            at += 1
        else:
            end = at
            while end < len(data) and not data[end : end + 1].isspace() and end - at < 20:
                end += 1
            words.append(data[at:end])
            at = end
    numbers = [int(word) for word in words[1:] if word.isdigit()]
    if len(numbers) != 3 or words[0] not in (b"P2", b"P5") or not 1 <= numbers[2] <= 65535:
        raise MapImportError(f"{path}: no PGM image (P2 or P5) by its header; save the map again")
    return words[0], numbers[0], numbers[1], numbers[2], at + 1


def _shelves_of(
    free: Mask, resolution_m: float, path: Path
) -> tuple[tuple[Shelf, ...], tuple[int, int], tuple[int, int], float]:
    """Shelves for all that is not free, lower left cell and size of the free area, and the grid of both in m."""
    factor = math.ceil(GRID_MIN_M / resolution_m - 1e-9)
    while True:
        grid_m = resolution_m * factor
        area = _largest_area(_coarser(free, factor))
        if not area.any():
            raise MapImportError(f"{path}: no free place in the map; check negate and free_thresh")
        rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
        inside = area[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        rectangles = merge_rectangles(~inside)
        if len(rectangles) <= SHELVES_MAX:
            break
        factor += 1
        if resolution_m * factor > GRID_MAX_M + 1e-9:
            raise MapImportError(
                f"{path}: {len(rectangles)} rectangles on a grid of {grid_m:g} m; a floor has at most"
                f" {SHELVES_MAX} shelves; clean the map of speckles or cut it in parts"
            )
    shelves = tuple(
        Shelf(*(round(side * grid_m, 6) for side in (c + wide / 2, r + high / 2, wide, high)))
        for r, c, high, wide in rectangles
    )
    return shelves, (int(rows[0]), int(columns[0])), (inside.shape[0], inside.shape[1]), grid_m


def _coarser(free: Mask, factor: int) -> Mask:
    """Cells of ``factor`` by ``factor`` pixels, free where all their pixels are."""
    rows, columns = (-(-side // factor) for side in free.shape)
    padded = np.zeros((rows * factor, columns * factor), dtype=np.bool_)
    padded[: free.shape[0], : free.shape[1]] = free
    cells = padded.reshape(rows, factor, columns, factor).all(axis=(1, 3))
    return np.asarray(cells)


def _largest_area(free: Mask) -> Mask:
    """The largest part of ``free`` that hangs together by edges: bool[rows, columns]."""
    columns = free.shape[1] + 2
    left = np.pad(free, 1).ravel()
    remaining = int(left.sum())
    best = np.empty(0, dtype=np.int64)
    while remaining > best.size:
        frontier = np.array([left.argmax()])
        left[frontier] = False
        parts = [frontier]
        while frontier.size:
            found = []
            for step in (-columns, -1, 1, columns):
                cells = frontier + step
                cells = cells[left[cells]]
                left[cells] = False
                found.append(cells)
            frontier = np.concatenate(found)
            parts.append(frontier)
        area = np.concatenate(parts)
        remaining -= area.size
        best = area if area.size > best.size else best
    mask = np.zeros(left.size, dtype=np.bool_)
    mask[best] = True
    return mask.reshape(-1, columns)[1:-1, 1:-1]


def merge_rectangles(occupied: Mask) -> list[tuple[int, int, int, int]]:
    """Rectangles that cover each occupied cell once: runs in a row, joined with equal ones in the rows before.

    Returns:
        For each its first row and column, and how many rows and columns it has.
    """
    edges = np.diff(np.pad(occupied, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    done: list[tuple[int, int, int, int]] = []
    open_runs: dict[tuple[int, int], int] = {}
    for row in range(occupied.shape[0]):
        starts, stops = np.flatnonzero(edges[row] == 1), np.flatnonzero(edges[row] == -1)
        runs = list(zip(starts.tolist(), stops.tolist(), strict=True))
        for run in open_runs.keys() - set(runs):
            first = open_runs.pop(run)
            done.append((first, run[0], row - first, run[1] - run[0]))
        for run in runs:
            open_runs.setdefault(run, row)
    last = occupied.shape[0]
    done += [(first, run[0], last - first, run[1] - run[0]) for run, first in open_runs.items()]
    return sorted(done)


def _pick_stations(bare: Warehouse, seed: int, path: Path) -> tuple[Station, ...]:
    """Free places that a robot gets to, each as far as can be from those before (Gonzalez 1985), kinds in turn."""
    clearance = cell_clearance(bare, bare.boxes())
    clearance[0, :] = clearance[-1, :] = clearance[:, 0] = clearance[:, -1] = 0.0
    places = np.argwhere(_largest_area(clearance >= CLEARANCE_HARD_M) & (clearance >= STATION_FREE_M))
    rng = np.random.default_rng(seed)
    places = places[np.sort(rng.permutation(len(places))[:CANDIDATES_MAX])]
    points = (places[:, ::-1] - 0.5) * CELL_M
    chosen: list[int] = []
    apart: Pixels = np.full(len(points), np.inf)
    while len(chosen) < len(AUTO_KINDS) and apart.max(initial=0.0) >= STATION_SPACING_M:
        index = int(apart.argmax()) if chosen else int(rng.integers(len(points)))
        chosen.append(index)
        apart = np.minimum(apart, np.hypot(*(points - points[index]).T))
    if len(chosen) < 2:
        raise MapImportError(
            f"{path}: room for {len(chosen)} stations only; a floor needs a pick and a drop station"
        )
    numbers = dict.fromkeys(StationKind, 0)
    stations = []
    for index, kind in zip(chosen, AUTO_KINDS, strict=False):
        numbers[kind] += 1
        x_m, y_m = (round(float(side), 3) for side in points[index])
        stations.append(Station(f"{kind.value}_{numbers[kind]}", kind, x_m, y_m))
    return tuple(stations)
