"""What was erased and must not come back: read out of the audit log, the one place that cannot be lost unnoticed."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.replay import WALL_MAX_NS
from fleet_hub.rollout.events import ErasureBegan, decode_entry
from fleet_hub.store.audit import read_entries
from fleet_hub.store.folder import DATABASE_FILE, DATABASE_URL_FILE


class Tombstone(msgspec.Struct, frozen=True):
    """Records of a robot from ``since_ns`` to ``until_ns`` (both count; the robot's clock)."""

    robot: str
    since_ns: int = 0
    until_ns: int = WALL_MAX_NS

    def touches(self, robot: str, first_ns: int, last_ns: int) -> bool:
        """Whether something of a robot that lasted from first to last reaches into it."""
        return robot == self.robot and first_ns <= self.until_ns and last_ns >= self.since_ns


def tombstones(data: Path) -> list[Tombstone]:
    """All of a hub's data folder; none where no hub has been yet. Raises DataFolderError."""
    if not any((data / name).is_file() for name in (DATABASE_FILE, DATABASE_URL_FILE)):
        return []
    bodies = (entry.body for entry in read_entries(data) if ErasureBegan.__name__ in entry.body)
    began = [decode_entry(body) for body in bodies]
    return [
        Tombstone(one.robot, one.since_ns, one.until_ns) for one in began if isinstance(one, ErasureBegan)
    ]


def may_stay(stones: Iterable[Tombstone], robot: str, walls: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which records of a robot, by their wall times int64[n], are in no tombstone: bool[n]."""
    keep = np.ones(len(walls), dtype=np.bool_)
    for stone in stones:
        if stone.robot == robot:
            keep &= (walls < stone.since_ns) | (walls > stone.until_ns)
    return keep


def touched(stones: Sequence[Tombstone], robot: str, first_ns: int, last_ns: int) -> bool:
    """Whether any of them reaches into that time."""
    return any(stone.touches(robot, first_ns, last_ns) for stone in stones)
