"""A warehouse floor: walls, shelves, stations, one-way lanes, left pallets, as a YAML file with clear errors.

Frame: map, origin in the lower left inner corner, x right, y up, metres, headings in rad (REP 103).
"""

import enum
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import yaml

from contracts.canonical import canonical_json, digest_hex
from contracts.errors import reason_of
from navigation.errors import WarehouseError

FILE_SIZE_MAX_BYTES = 1_000_000
SHELVES_MAX = 2000
STATIONS_MAX = 200
PALLETS_MAX = 200
LANES_MAX = 200
ZONES_MAX = 50
SIDE_MIN_M, SIDE_MAX_M = 4.0, 200.0
STATION_CLEARANCE_MIN_M = 0.45
WALL_THICKNESS_M = 0.2
ROUNDING_M = 1e-9


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


class Lane(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An axis-aligned rectangle in which one drives within 90 degrees of ``heading_rad``; x, y is its centre."""

    x_m: float
    y_m: float
    length_m: float
    depth_m: float
    heading_rad: float


class SpeedZone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An axis-aligned rectangle in which nobody drives faster than ``speed_mps``; x, y is its centre."""

    x_m: float
    y_m: float
    length_m: float
    depth_m: float
    speed_mps: float


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named place a robot drives to."""

    name: str
    kind: StationKind
    x_m: float
    y_m: float
    heading_rad: float = 0.0


Rectangle = Shelf | Lane | SpeedZone


class Warehouse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A floor of ``width_m`` by ``height_m`` inside four walls.

    ``pallets`` stand on the floor but not on the map: physics and lidar meet them, routes do not know them. Nothing
    stands in ``keep_out`` rectangles; routes lead round them, and the safety monitor lets no robot in.
    """

    name: str
    width_m: float
    height_m: float
    shelves: tuple[Shelf, ...]
    stations: tuple[Station, ...]
    people: int = 4
    pallets: tuple[Shelf, ...] = ()
    lanes: tuple[Lane, ...] = ()
    keep_out: tuple[Shelf, ...] = ()
    speed_zones: tuple[SpeedZone, ...] = ()

    def hash(self) -> str:
        """The floor's version: SHA-256 over its canonical JSON."""
        # Floors from before there were pallets and lanes, or zones, keep their hash.
        text = canonical_json(self).replace(b',"keep_out":[],"speed_zones":[]}', b"}")
        return digest_hex(text.replace(b',"pallets":[],"lanes":[]}', b"}"))

    def mapped_boxes(self) -> npt.NDArray[np.float64]:
        """What the map knows, walls and shelves, as float64[n, 4]: x_min, y_min, x_max, y_max in m, map frame."""
        width, height, wall = self.width_m, self.height_m, WALL_THICKNESS_M
        walls = [
            (-wall, -wall, width + wall, 0.0),
            (-wall, height, width + wall, height + wall),
            (-wall, 0.0, 0.0, height),
            (width, 0.0, width + wall, height),
        ]
        return np.concatenate([np.array(walls), boxes_of(self.shelves)])

    def boxes_to_avoid(self, pallets: bool = False) -> npt.NDArray[np.float64]:
        """What routes lead round: walls, shelves, keep-out rectangles, with ``pallets`` those too: float64[n, 4]."""
        boxes = self.boxes() if pallets else self.mapped_boxes()
        return np.concatenate([boxes, boxes_of(self.keep_out)])

    def boxes(self) -> npt.NDArray[np.float64]:
        """All that stands in the way as float64[n, 4], map frame: four walls, the shelves, then the pallets."""
        return np.concatenate([self.mapped_boxes(), boxes_of(self.pallets)])

    def stations_of(self, kind: StationKind) -> tuple[Station, ...]:
        """All stations of one kind, in file order."""
        return tuple(station for station in self.stations if station.kind is kind)


def boxes_of(rectangles: Sequence[Rectangle]) -> npt.NDArray[np.float64]:
    """Rectangles as float64[n, 4]: x_min, y_min, x_max, y_max in m."""
    rows = [
        (r.x_m - r.length_m / 2, r.y_m - r.depth_m / 2, r.x_m + r.length_m / 2, r.y_m + r.depth_m / 2)
        for r in rectangles
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


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
        raise WarehouseError(f"{path}: cannot be read: {reason_of(error)}") from None
    return parse_warehouse(text, str(path))


def dump_warehouse(warehouse: Warehouse) -> str:
    """The floor as YAML text that ``parse_warehouse`` reads back to an equal value."""
    values = msgspec.to_builtins(warehouse)
    for name in ("pallets", "lanes", "keep_out", "speed_zones"):
        if not values[name]:
            del values[name]
    return yaml.safe_dump(values, sort_keys=False)


def validate_warehouse(warehouse: Warehouse, where: str) -> None:
    """Check sizes, overlaps and clearances (reachability is ``navigation.route.check_reachable``).

    Raises:
        WarehouseError: naming the first shelf, pallet, lane or station that is wrong, and by how much.
    """
    _check_numbers(warehouse, where)
    _check_overlaps(warehouse, where)
    _check_stations(warehouse, where)


def _check_numbers(warehouse: Warehouse, where: str) -> None:
    for name, side_m in (("width_m", warehouse.width_m), ("height_m", warehouse.height_m)):
        if not SIDE_MIN_M <= side_m <= SIDE_MAX_M:
            raise WarehouseError(f"{where}: {name} is {side_m}; it must be {SIDE_MIN_M} to {SIDE_MAX_M}")
    if len(warehouse.shelves) > SHELVES_MAX or len(warehouse.stations) > STATIONS_MAX:
        raise WarehouseError(f"{where}: at most {SHELVES_MAX} shelves and {STATIONS_MAX} stations")
    if len(warehouse.pallets) > PALLETS_MAX or len(warehouse.lanes) > LANES_MAX:
        raise WarehouseError(f"{where}: at most {PALLETS_MAX} pallets and {LANES_MAX} lanes")
    if len(warehouse.keep_out) + len(warehouse.speed_zones) > ZONES_MAX:
        raise WarehouseError(f"{where}: at most {ZONES_MAX} keep_out rectangles and speed_zones together")
    if not 0 <= warehouse.people <= 100:
        raise WarehouseError(f"{where}: people is {warehouse.people}; it must be 0 to 100")
    for label, box in _rectangles(warehouse):
        if not all(map(math.isfinite, (box.x_m, box.y_m))) or not (
            0.05 <= box.length_m <= SIDE_MAX_M and 0.05 <= box.depth_m <= SIDE_MAX_M
        ):
            raise WarehouseError(f"{where}: {label} has a size or place that is not a number above 0.05")
    for index, lane in enumerate(warehouse.lanes):
        if not math.isfinite(lane.heading_rad):
            raise WarehouseError(f"{where}: lanes[{index}] has a heading_rad that is not finite")
    for index, zone in enumerate(warehouse.speed_zones):
        if not (math.isfinite(zone.speed_mps) and zone.speed_mps > 0.0):
            raise WarehouseError(
                f"{where}: speed_zones[{index}] has speed_mps {zone.speed_mps}; it must be above zero"
            )
    for index, station in enumerate(warehouse.stations):
        if not all(map(math.isfinite, (station.x_m, station.y_m, station.heading_rad))):
            raise WarehouseError(
                f"{where}: stations[{index}] ({station.name}) has a place that is not finite"
            )


def _rectangles(warehouse: Warehouse) -> list[tuple[str, Rectangle]]:
    """Shelves, pallets, lanes and zones with the label that the file's reader finds them by."""
    kinds: tuple[tuple[str, Sequence[Rectangle]], ...] = (
        ("shelves", warehouse.shelves),
        ("pallets", warehouse.pallets),
        ("lanes", warehouse.lanes),
        ("keep_out", warehouse.keep_out),
        ("speed_zones", warehouse.speed_zones),
    )
    return [(f"{kind}[{index}]", box) for kind, boxes in kinds for index, box in enumerate(boxes)]


def _check_overlaps(warehouse: Warehouse, where: str) -> None:
    """All inside the floor; shelves and pallets apart (lanes may cross: both their headings then hold)."""
    rectangles = _rectangles(warehouse)
    boxes = boxes_of([box for _, box in rectangles])
    solid = len(warehouse.shelves) + len(warehouse.pallets)
    for index, (label, _) in enumerate(rectangles):
        x_min, y_min, x_max, y_max = boxes[index].tolist()
        beyond_m = max(-x_min, -y_min, x_max - warehouse.width_m, y_max - warehouse.height_m)
        if beyond_m > ROUNDING_M:
            raise WarehouseError(f"{where}: {label} reaches outside the floor; move or shorten it")
        if index >= solid:
            continue
        before = boxes[:index]
        overlap_x = np.minimum(before[:, 2], x_max) - np.maximum(before[:, 0], x_min)
        overlap_y = np.minimum(before[:, 3], y_max) - np.maximum(before[:, 1], y_min)
        hits = np.flatnonzero((overlap_x > ROUNDING_M) & (overlap_y > ROUNDING_M))
        if hits.size:
            other = rectangles[int(hits[0])][0]
            raise WarehouseError(f"{where}: {other} and {label} overlap; move one of them")


def _check_stations(warehouse: Warehouse, where: str) -> None:
    names: set[str] = set()
    boxes = warehouse.boxes_to_avoid(pallets=True)
    for index, station in enumerate(warehouse.stations):
        label = f"{where}: stations[{index}] ({station.name})"
        if station.name in names:
            raise WarehouseError(f"{label}: the name is taken; station names must be unique")
        names.add(station.name)
        clearance_m = box_clearance(boxes, station.x_m, station.y_m)
        inside = 0 <= station.x_m <= warehouse.width_m and 0 <= station.y_m <= warehouse.height_m
        if not inside or clearance_m < STATION_CLEARANCE_MIN_M:
            raise WarehouseError(
                f"{label}: {max(clearance_m, 0.0):.2f} m from a wall, shelf, pallet or keep_out area; a robot needs"
                f" {STATION_CLEARANCE_MIN_M} m; move the station"
            )
    for kind in (StationKind.PICK, StationKind.DROP):
        if not warehouse.stations_of(kind):
            raise WarehouseError(f"{where}: no station of kind '{kind.value}'; add at least one")


def box_clearance(boxes: npt.NDArray[np.float64], x_m: float, y_m: float) -> float:
    """Distance in m from a point to the nearest of ``boxes`` float64[n, 4]; 0 inside one."""
    dx = np.maximum(np.maximum(boxes[:, 0] - x_m, x_m - boxes[:, 2]), 0.0)
    dy = np.maximum(np.maximum(boxes[:, 1] - y_m, y_m - boxes[:, 3]), 0.0)
    return float(np.sqrt(dx * dx + dy * dy).min())
