"""The base's own watchdog: what a wheel controller does with velocity commands, good, bad, late or none."""

import enum
import math

import numpy as np
import numpy.typing as npt

COMMAND_AGE_MAX_S = 0.3
COMMAND_AHEAD_MAX_S = 0.1
"""How far a stamp may lie in the future: scheduling, not another clock."""
NS = 1_000_000_000


class Refusal(enum.Enum):
    """Why a command was ignored."""

    NOT_FINITE = "not finite"
    STALE = "stamped too long ago"
    FUTURE = "stamped in the future; stamp commands with simulation time from /clock"


class CommandSlots:
    """The newest good command of each robot, and what is left of it now. Times are simulation ns.

    Commands beyond what the base can do are followed as far as it can: its physics clips them.

    Attributes:
        received, refused: int64[R], since the start.
        expired: int64[R], how often a robot was stopped because no fresh command was there.
    """

    def __init__(self, robots: int) -> None:
        self._command = np.zeros((robots, 2))
        self._arrived_ns = np.full(robots, -1, dtype=np.int64)
        self._live = np.zeros(robots, dtype=bool)
        self.received = np.zeros(robots, dtype=np.int64)
        self.refused = np.zeros(robots, dtype=np.int64)
        self.expired = np.zeros(robots, dtype=np.int64)

    def store(self, robot: int, speed: float, turn_rate: float, stamp_ns: int, now_ns: int) -> Refusal | None:
        """Take a command in m/s and rad/s, or say why not. ``stamp_ns`` 0 means: not stamped."""
        self.received[robot] += 1
        refusal = self._refusal(speed, turn_rate, stamp_ns, now_ns)
        if refusal is not None:
            self.refused[robot] += 1
            return refusal
        self._command[robot] = speed, turn_rate
        self._arrived_ns[robot] = min(stamp_ns, now_ns) if stamp_ns > 0 else now_ns
        return None

    def current(self, now_ns: int) -> npt.NDArray[np.float64]:
        """Commands to follow now, float64[R, 2]; zero where the newest is older than 0.3 s or never came."""
        live = (self._arrived_ns >= 0) & (now_ns - self._arrived_ns <= COMMAND_AGE_MAX_S * NS)
        self.expired += self._live & ~live
        self._live = live
        return np.where(live[:, None], self._command, 0.0)

    @staticmethod
    def _refusal(speed: float, turn_rate: float, stamp_ns: int, now_ns: int) -> Refusal | None:
        if not (math.isfinite(speed) and math.isfinite(turn_rate)):
            return Refusal.NOT_FINITE
        if stamp_ns > 0:
            if now_ns - stamp_ns > COMMAND_AGE_MAX_S * NS:
                return Refusal.STALE
            if stamp_ns - now_ns > COMMAND_AHEAD_MAX_S * NS:
                return Refusal.FUTURE
        return None
