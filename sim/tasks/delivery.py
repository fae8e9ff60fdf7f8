"""The one task: drive to pick station and drop station in turn. Shared by the twin, PyBullet and the ROS bridge."""

import enum

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.canonical import hash_of

ARRIVE_RADIUS_M = 0.35
ARRIVE_SPEED_MPS = 0.4
TRIP_MAX_S = 60.0
CONTACT_SPEED_MPS = 0.05
"""A contact counts against a robot that moves faster than this; one that stands has been walked into."""
SPAWN_GAP_M = 1.2


class Outcome(enum.IntEnum):
    """How a trip ended."""

    RUNNING = 0
    ARRIVED = 1
    CONTACT = 2
    TIMEOUT = 3


class RewardConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Terms of the reward of one step. Progress is measured along the route, in m of free floor."""

    progress: float = 1.0
    step_s: float = -0.3
    """Per second of the trip."""
    change: float = -0.05
    """Per unit of change of the action, both parts in [-1, 1]."""
    near: float = -0.1
    """Per step right at an obstacle, fading out at ``near_m``."""
    near_m: float = 0.65
    reduced: float = -0.05
    """Per share of the commanded speed that the monitor took away."""
    arrived: float = 10.0
    contact: float = -10.0

    def hash(self) -> str:
        """The reward's version: SHA-256 over its canonical JSON."""
        return hash_of(self)

    def weights(self) -> npt.NDArray[np.float64]:
        """All terms as float64[8], in the order of the fields."""
        return np.array([getattr(self, name) for name in self.__struct_fields__], dtype=np.float64)
