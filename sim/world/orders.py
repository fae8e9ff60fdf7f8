"""Delivery orders, from a pick to a drop station: a seeded stream for each robot, and how they went."""

import enum
import math

import msgspec
import numpy as np
import numpy.typing as npt

from navigation.warehouse import Station, StationKind, Warehouse
from sim.errors import SimConfigError
from sim.tasks.delivery import ARRIVE_RADIUS_M, ARRIVE_SPEED_MPS, CONTACT_SPEED_MPS
from sim.world.state import Contact

NS = 1_000_000_000
LEG_MAX_S = 120.0
"""A robot that takes longer gives the order back and gets the next one."""
CONTACT_PAUSE_S = 1.0
"""A contact that comes back sooner is the same contact."""


class OrderStream:
    """The orders of one robot: same warehouse, seed and robot, same orders, whatever else happens.

    Args:
        warehouse: has at least one pick and one drop station.
        seed: of the run, not negative.
        robot_index: from 0.

    Raises:
        SimConfigError: a negative seed, or a floor without pick or drop stations.
    """

    def __init__(self, warehouse: Warehouse, seed: int, robot_index: int) -> None:
        if seed < 0 or robot_index < 0:
            raise SimConfigError(f"seed {seed}, robot {robot_index}: neither may be negative")
        self._picks = warehouse.stations_of(StationKind.PICK)
        self._drops = warehouse.stations_of(StationKind.DROP)
        if not self._picks or not self._drops:
            raise SimConfigError(f"{warehouse.name}: orders need a pick and a drop station; add them")
        self._rng = np.random.Generator(np.random.PCG64([seed, robot_index, 0x0DE2]))
        self._last_pick = -1

    def next_order(self) -> tuple[Station, Station]:
        """Where to fetch and where to bring; where there are two, never the same pick twice in a row."""
        count = len(self._picks)
        if count > 1 and self._last_pick >= 0:
            pick = (self._last_pick + 1 + int(self._rng.integers(count - 1))) % count
        else:
            pick = int(self._rng.integers(count))
        self._last_pick = pick
        return self._picks[pick], self._drops[int(self._rng.integers(len(self._drops)))]


class LegEnd(enum.Enum):
    """How a leg ended."""

    REACHED = "reached"
    GIVEN_UP = "given_up"


class ContactCount(msgspec.Struct):
    """Contacts that began, by what was touched; ``moving`` ones are the robot's own doing."""

    static_moving: int = 0
    person_moving: int = 0
    robot_moving: int = 0
    static_standing: int = 0
    person_standing: int = 0
    robot_standing: int = 0

    def count(self, kind: Contact, moving: bool) -> None:
        """One more contact of ``kind``."""
        name = f"{kind.name.lower()}_{'moving' if moving else 'standing'}"
        setattr(self, name, getattr(self, name) + 1)

    def add(self, other: "ContactCount") -> None:
        """All of another count as well."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class LegRecord(msgspec.Struct, frozen=True, tag="leg", tag_field="record"):
    """One drive to one station; times are simulation time in s."""

    robot: str
    order: int
    station: str
    start_s: float
    end_s: float
    end: LegEnd
    distance_m: float
    contacts: ContactCount


class DeliveryRecord(msgspec.Struct, frozen=True, tag="delivery", tag_field="record"):
    """One order; ``delivered`` when both its stations were reached."""

    robot: str
    order: int
    pick: str
    drop: str
    start_s: float
    end_s: float
    delivered: bool
    contacts: ContactCount


Record = LegRecord | DeliveryRecord


class RobotDesk:
    """Hands one robot its goals and keeps the record of how it went.

    Args:
        name: of the robot.
        stream: its orders.
        now_s: when it starts, simulation time.
    """

    def __init__(self, name: str, stream: OrderStream, now_s: float, leg_max_s: float = LEG_MAX_S) -> None:
        self.name = name
        self.delivered = 0
        self.contacts = ContactCount()
        self._stream = stream
        self._leg_max_s = leg_max_s
        self._order = 0
        self._touched_s = -math.inf
        self._last_xy: tuple[float, float] | None = None
        self._speed_before = 0.0
        self._begin_order(now_s)

    @property
    def order(self) -> int:
        """Number of the order being worked on, from 1."""
        return self._order

    @property
    def leg(self) -> int:
        """0 on the way to the pick station, 1 on the way to the drop station."""
        return self._leg

    @property
    def goal(self) -> Station:
        """Where the robot is to drive now."""
        return self._pair[self._leg]

    def update(
        self, now_s: float, pose: npt.NDArray[np.float64], velocity: npt.NDArray[np.float64], contact: Contact
    ) -> list[Record]:
        """One control step: pose float64[3], velocity float64[2]; returns what ended."""
        x, y = float(pose[0]), float(pose[1])
        if self._last_xy is not None:
            self._distance_m += math.hypot(x - self._last_xy[0], y - self._last_xy[1])
        self._last_xy = (x, y)
        self._note_contact(now_s, contact)
        speed = abs(float(velocity[0]))
        self._speed_before = speed
        away_m = math.hypot(self.goal.x_m - x, self.goal.y_m - y)
        if away_m <= ARRIVE_RADIUS_M and speed < ARRIVE_SPEED_MPS:
            return self._end_leg(now_s, LegEnd.REACHED)
        if now_s - self._leg_start_s >= self._leg_max_s:
            return self._end_leg(now_s, LegEnd.GIVEN_UP)
        return []

    def _note_contact(self, now_s: float, contact: Contact) -> None:
        if contact is Contact.NONE:
            return
        if now_s - self._touched_s > CONTACT_PAUSE_S:
            # The contact itself takes the speed away: the speed just before it counts.
            moving = self._speed_before > CONTACT_SPEED_MPS
            self._leg_contacts.count(contact, moving)
            self.contacts.count(contact, moving)
        self._touched_s = now_s

    def _begin_order(self, now_s: float) -> None:
        self._order += 1
        self._pair = self._stream.next_order()
        self._order_start_s = now_s
        self._order_contacts = ContactCount()
        self._leg = 0
        self._begin_leg(now_s)

    def _begin_leg(self, now_s: float) -> None:
        self._leg_start_s = now_s
        self._leg_contacts = ContactCount()
        self._distance_m = 0.0

    def _end_leg(self, now_s: float, end: LegEnd) -> list[Record]:
        start_s, end_s = round(self._leg_start_s, 3), round(now_s, 3)
        records: list[Record] = [
            LegRecord(
                self.name, self._order, self.goal.name, start_s, end_s, end, round(self._distance_m, 3),
                self._leg_contacts,
            )
        ]  # fmt: skip
        self._order_contacts.add(self._leg_contacts)
        if end is LegEnd.REACHED and self._leg == 0:
            self._leg = 1
            self._begin_leg(now_s)
            return records
        delivered = end is LegEnd.REACHED
        self.delivered += delivered
        pick, drop = self._pair
        records.append(
            DeliveryRecord(
                self.name, self._order, pick.name, drop.name, round(self._order_start_s, 3), end_s, delivered,
                self._order_contacts,
            )
        )  # fmt: skip
        self._begin_order(now_s)
        return records
