"""What generated floors may look like: one frozen config for each family, and how difficulty changes it.

Pairs are the lowest and the highest value, both possible; lengths in m; shares from 0 to 1.
"""

import enum
import math
from typing import Any

import msgspec

from sim.errors import GenerateError

CLEARANCE_SLACK_M = 0.02
PICK_CLEARANCE_M = 0.75
"""From a pick station to the nearest shelf: room to stand in an aisle and turn."""


class Family(enum.StrEnum):
    """Kinds of floors, named for what is hard about them."""

    ROWS = "rows"
    NARROW_AISLES = "narrow_aisles"
    CROSS_AISLES = "cross_aisles"
    ONE_WAY = "one_way"
    DEAD_ENDS = "dead_ends"
    OPEN_FLOOR = "open_floor"
    DOCKS = "docks"
    DOORS = "doors"


FAMILY_ABOUT: dict[Family, str] = {
    Family.ROWS: "rows of shelves, wide aisles, a cross aisle or two",
    Family.NARROW_AISLES: "rows with aisles in which two robots cannot pass",
    Family.CROSS_AISLES: "short shelves, crossings everywhere",
    Family.ONE_WAY: "aisles are one-way lanes, in turn there and back",
    Family.DEAD_ENDS: "long aisles, many closed at one end",
    Family.OPEN_FLOOR: "stacks of pallets on a wide floor, shelves along one wall",
    Family.DOCKS: "drop stations in loading docks behind stub walls",
    Family.DOORS: "rooms one behind the other, doors of 1.4 to 1.8 m between them",
}


class GenerateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of shelves with aisles and cross aisles; the other families add to this.

    Raises:
        ValueError: a pair out of order, an aisle too narrow for its pick stations, a share outside its range.
    """

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
    pick_clearance_m: float = PICK_CLEARANCE_M
    pallets: int = 6
    """Left in the way at difficulty 1; none up to difficulty 0.5."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, tuple) and not 0 < value[0] <= value[1] < math.inf:
                raise ValueError(
                    f"{name} is {value}; it must be a lowest and a highest value above 0, in order"
                )
            if name.endswith("_share") and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}; it must be 0 to 1")
        if not 0.5 <= self.pick_clearance_m <= 2.0:
            raise ValueError(f"pick_clearance_m is {self.pick_clearance_m}; it must be 0.5 to 2")
        if self.aisle_m[0] < self.aisle_min_m:
            raise ValueError(
                f"aisle_m starts at {self.aisle_m[0]}; the narrowest aisle is {self.aisle_min_m} m"
            )
        if not 0.0 <= self.missing_share < 0.9:
            raise ValueError(f"missing_share is {self.missing_share}; it must be 0 to 0.9")
        if not 0 <= self.pallets <= 50:
            raise ValueError(f"pallets is {self.pallets}; it must be 0 to 50")

    @property
    def aisle_min_m(self) -> float:
        """The narrowest aisle that a pick station fits into."""
        return round(2 * (self.pick_clearance_m + CLEARANCE_SLACK_M), 6)


class OneWayConfig(GenerateConfig, frozen=True, forbid_unknown_fields=True):
    """Aisles between rows are lanes, in turn there and back; the ways around stay free."""

    lane_share: float = 0.7
    """Share of aisles that are lanes (one at least)."""


class DeadEndsConfig(GenerateConfig, frozen=True, forbid_unknown_fields=True):
    """Long aisles, many of which are closed at one end."""

    closed_share: float = 0.6


class OpenFloorConfig(GenerateConfig, frozen=True, forbid_unknown_fields=True):
    """Stacks of pallets in storage places, one wall with shelves."""

    pitch_m: tuple[float, float] = (3.8, 4.8)
    """From one storage place to the next."""
    fill_share: float = 0.7


class DocksConfig(GenerateConfig, frozen=True, forbid_unknown_fields=True):
    """Drop stations in loading docks: bays along a wall, stub walls between them."""

    bay_m: tuple[float, float] = (2.1, 2.8)
    bay_depth_m: tuple[float, float] = (1.8, 2.4)


class DoorsConfig(GenerateConfig, frozen=True, forbid_unknown_fields=True):
    """Rooms one behind the other, with a door or two in each wall between them."""

    room_m: tuple[float, float] = (7.0, 11.0)
    door_m: tuple[float, float] = (1.55, 1.68)
    second_door_share: float = 0.5


FAMILY_CONFIGS: dict[Family, GenerateConfig] = {
    Family.ROWS: GenerateConfig(),
    Family.NARROW_AISLES: GenerateConfig(
        aisle_m=(1.3, 1.6), cross_aisle_m=(1.5, 1.9), perimeter_m=(1.5, 1.8), pick_clearance_m=0.63
    ),
    Family.CROSS_AISLES: GenerateConfig(
        cross_aisle_m=(1.6, 2.2), block_length_m=(1.4, 2.2), missing_share=0.08
    ),
    Family.ONE_WAY: OneWayConfig(
        aisle_m=(1.7, 2.2), block_length_m=(4.0, 9.0), missing_share=0.05, pick_clearance_m=0.7
    ),
    Family.DEAD_ENDS: DeadEndsConfig(block_length_m=(5.0, 18.0), missing_share=0.05),
    Family.OPEN_FLOOR: OpenFloorConfig(),
    Family.DOCKS: DocksConfig(width_m=(20.0, 28.0), drop_stations=(4, 6)),
    Family.DOORS: DoorsConfig(
        width_m=(22.0, 28.0), end_band_m=(2.2, 2.6), block_length_m=(1.6, 4.5), missing_share=0.2
    ),
}

DIFFICULTY_TODAY = 0.5
"""Where a config holds as it is written."""
DIFFICULTY_EFFECTS: dict[str, float] = {
    "aisle_m": -0.25,
    "cross_aisle_m": -0.15,
    "perimeter_m": -0.08,
    "block_length_m": 0.4,  # longer blocks, fewer cross aisles to turn off into
    "missing_share": -1.0,
    "people": 0.5,
    "lane_share": 0.4,
    "closed_share": 0.5,
    "pitch_m": -0.12,
    "fill_share": 0.3,
    "bay_m": -0.15,
    "door_m": -0.08,
    "second_door_share": -1.0,
}
"""Relative change of a setting at difficulty 1; the opposite at difficulty 0, linear between."""


def at_difficulty(config: GenerateConfig, difficulty: float) -> GenerateConfig:
    """The config for a difficulty from 0 to 1: as it is written at 0.5, each setting linear in between.

    Raises:
        GenerateError: the difficulty is not from 0 to 1.
    """
    if not 0.0 <= difficulty <= 1.0:
        raise GenerateError(f"difficulty is {difficulty}; it must be 0 to 1")
    harder = 2 * difficulty - 1
    changed: dict[str, Any] = {"pallets": 0} if harder <= 0 else {}
    for name in config.__struct_fields__:
        if name not in DIFFICULTY_EFFECTS:
            continue
        value, scale = getattr(config, name), 1 + DIFFICULTY_EFFECTS[name] * harder
        if name == "people":
            changed[name] = tuple(max(1, round(count * scale)) for count in value)
        elif name == "aisle_m":
            changed[name] = tuple(max(config.aisle_min_m, width * scale) for width in value)
        elif isinstance(value, tuple):
            changed[name] = tuple(length * scale for length in value)
        else:
            changed[name] = min(1.0, value * scale)
    return msgspec.structs.replace(config, **changed)
