"""A warehouse floor: walls, shelves and stations, as a YAML file that validates with clear errors.

Frame: map, origin in the lower left inner corner, x right, y up, metres, headings in rad (REP 103).
"""

import enum
import math
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import yaml

from contracts.canonical import hash_of
from navigation.errors import WarehouseError

FILE_SIZE_MAX_BYTES = 1_000_000
SHELVES_MAX = 500
STATIONS_MAX = 200
SIDE_MIN_M, SIDE_MAX_M = 4.0, 200.0
STATION_CLEARANCE_MIN_M = 0.45
WALL_THICKNESS_M = 0.2


class StationKind(enum.Enum):
    """What a station is for."""

    PICK = "pick"
    DROP = "drop"
    CHARGE = "charge"


class Shelf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An axis-aligned box that reaches from the floor past the robot's lidar; x, y is its centre."""

    x_m: float
    y_m: float
    length_m: float
    depth_m: float


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named place a robot drives to."""

    name: str
    kind: StationKind
    x_m: float
    y_m: float
    heading_rad: float = 0.0


class Warehouse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A floor of ``width_m`` by ``height_m`` inside four walls."""

    name: str
    width_m: float
    height_m: float
    shelves: tuple[Shelf, ...]
    stations: tuple[Station, ...]
    people: int = 4

    def hash(self) -> str:
        """The floor's version: SHA-256 over its canonical JSON."""
        return hash_of(self)

    def boxes(self) -> npt.NDArray[np.float64]:
        """Walls and shelves as float64[n, 4]: x_min, y_min, x_max, y_max in m, map frame."""
        width, height, wall = self.width_m, self.height_m, WALL_THICKNESS_M
        rows = [
            (-wall, -wall, width + wall, 0.0),
            (-wall, height, width + wall, height + wall),
            (-wall, 0.0, 0.0, height),
            (width, 0.0, width + wall, height),
        ]
        rows += [
            (
                shelf.x_m - shelf.length_m / 2,
                shelf.y_m - shelf.depth_m / 2,
                shelf.x_m + shelf.length_m / 2,
                shelf.y_m + shelf.depth_m / 2,
            )
            for shelf in self.shelves
        ]
        return np.array(rows, dtype=np.float64)

    def stations_of(self, kind: StationKind) -> tuple[Station, ...]:
        """All stations of one kind, in file order."""
        return tuple(station for station in self.stations if station.kind is kind)


def parse_warehouse(text: str, where: str = "warehouse") -> Warehouse:
    """Read a floor from YAML text.

    Raises:
        WarehouseError: not YAML, an unknown or missing key, a wrong type, or a floor no robot can work on.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise WarehouseError(f"{where}: not valid YAML: {detail}") from None
    try:
        warehouse = msgspec.convert(document, Warehouse)
    except msgspec.ValidationError as error:
        raise WarehouseError(f"{where}: {error}") from None
    validate_warehouse(warehouse, where)
    return warehouse


def load_warehouse(path: Path) -> Warehouse:
    """Read and validate a floor's YAML file.

    Raises:
        WarehouseError: it cannot be read, or is no floor (the message names the key and what to do).
    """
    try:
        size = path.stat().st_size
        if size > FILE_SIZE_MAX_BYTES:
            raise WarehouseError(f"{path}: {size} bytes; a warehouse file has at most {FILE_SIZE_MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WarehouseError(f"{path}: cannot be read: {error}") from None
    return parse_warehouse(text, str(path))


def dump_warehouse(warehouse: Warehouse) -> str:
    """The floor as YAML text that ``parse_warehouse`` reads back to an equal value."""
    return yaml.safe_dump(msgspec.to_builtins(warehouse), sort_keys=False)


def validate_warehouse(warehouse: Warehouse, where: str) -> None:
    """Check sizes, overlaps and clearances (reachability is ``navigation.route.check_reachable``).

    Raises:
        WarehouseError: naming the first shelf or station that is wrong, and by how much.
    """
    _check_numbers(warehouse, where)
    boxes = warehouse.boxes()[4:]
    for index, (x_min, y_min, x_max, y_max) in enumerate(boxes):
        if x_min < 0 or y_min < 0 or x_max > warehouse.width_m or y_max > warehouse.height_m:
            raise WarehouseError(f"{where}: shelves[{index}] reaches outside the floor; move or shorten it")
        for other in range(index):
            ox_min, oy_min, ox_max, oy_max = boxes[other]
            overlap_x, overlap_y = (
                min(x_max, ox_max) - max(x_min, ox_min),
                min(y_max, oy_max) - max(y_min, oy_min),
            )
            if overlap_x > 1e-9 and overlap_y > 1e-9:
                raise WarehouseError(
                    f"{where}: shelves[{other}] and shelves[{index}] overlap; move one of them"
                )
    names: set[str] = set()
    all_boxes = warehouse.boxes()
    for index, station in enumerate(warehouse.stations):
        label = f"{where}: stations[{index}] ({station.name})"
        if station.name in names:
            raise WarehouseError(f"{label}: the name is taken; station names must be unique")
        names.add(station.name)
        clearance_m = box_clearance(all_boxes, station.x_m, station.y_m)
        inside = 0 <= station.x_m <= warehouse.width_m and 0 <= station.y_m <= warehouse.height_m
        if not inside or clearance_m < STATION_CLEARANCE_MIN_M:
            raise WarehouseError(
                f"{label}: {max(clearance_m, 0.0):.2f} m from a wall or shelf; a robot needs"
                f" {STATION_CLEARANCE_MIN_M} m; move the station"
            )
    for kind in (StationKind.PICK, StationKind.DROP):
        if not warehouse.stations_of(kind):
            raise WarehouseError(f"{where}: no station of kind '{kind.value}'; add at least one")


def _check_numbers(warehouse: Warehouse, where: str) -> None:
    for name, side_m in (("width_m", warehouse.width_m), ("height_m", warehouse.height_m)):
        if not SIDE_MIN_M <= side_m <= SIDE_MAX_M:
            raise WarehouseError(f"{where}: {name} is {side_m}; it must be {SIDE_MIN_M} to {SIDE_MAX_M}")
    if len(warehouse.shelves) > SHELVES_MAX or len(warehouse.stations) > STATIONS_MAX:
        raise WarehouseError(f"{where}: at most {SHELVES_MAX} shelves and {STATIONS_MAX} stations")
    if not 0 <= warehouse.people <= 100:
        raise WarehouseError(f"{where}: people is {warehouse.people}; it must be 0 to 100")
    for index, shelf in enumerate(warehouse.shelves):
        if not all(map(math.isfinite, (shelf.x_m, shelf.y_m))) or not (
            0.05 <= shelf.length_m <= SIDE_MAX_M and 0.05 <= shelf.depth_m <= SIDE_MAX_M
        ):
            raise WarehouseError(
                f"{where}: shelves[{index}] has a size or place that is not a number above 0.05"
            )
    for index, station in enumerate(warehouse.stations):
        if not all(map(math.isfinite, (station.x_m, station.y_m, station.heading_rad))):
            raise WarehouseError(
                f"{where}: stations[{index}] ({station.name}) has a place that is not finite"
            )


def box_clearance(boxes: npt.NDArray[np.float64], x_m: float, y_m: float) -> float:
    """Distance in m from a point to the nearest of ``boxes`` float64[n, 4]; 0 inside one."""
    dx = np.maximum(np.maximum(boxes[:, 0] - x_m, x_m - boxes[:, 2]), 0.0)
    dy = np.maximum(np.maximum(boxes[:, 1] - y_m, y_m - boxes[:, 3]), 0.0)
    return float(np.sqrt(dx * dx + dy * dy).min())
