"""What stands between a command and the robot: nothing, or the real safety monitor; a batch of robots at once."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.config import MonitorConfig
from safety.monitor import Inputs, SafetyMonitor

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Senses(NamedTuple):
    """What ``n`` robots know in one tick.

    Attributes:
        now_ns: monotonic.
        ranges_m: float32[n, rays] as a lidar sends them: inf = nothing in range, 0 = invalid.
        taken_ns: int64[n], when scan and odometry were taken.
        velocity: float64[n, 2] m/s and rad/s by odometry.
    """

    now_ns: int
    ranges_m: npt.NDArray[np.float32]
    taken_ns: npt.NDArray[np.int64]
    velocity: Floats


class Guard(Protocol):
    """Has the last word over the commands of a batch of robots."""

    name: str

    def begin(self, which: Flags) -> None:
        """Robots ``which`` bool[n] were put elsewhere: forget what is known of them."""

    def admit(self, senses: Senses, command: Floats) -> Floats:
        """What of ``command`` float64[n, 2] may pass; finite whatever came."""


class Unguarded:
    """Lets every finite command pass."""

    name = "nothing"

    def begin(self, which: Flags) -> None:
        """Nothing to forget."""
        del which

    def admit(self, senses: Senses, command: Floats) -> Floats:
        """See ``Guard``."""
        del senses
        return np.nan_to_num(command, nan=0.0, posinf=0.0, neginf=0.0)


class Monitors:
    """A ``SafetyMonitor`` for each robot, and an operator who arms it again as soon as it lets him."""

    def __init__(self, model: RobotModel, config: MonitorConfig | None = None, name: str = "monitor") -> None:
        self.name = name
        self._model, self._config = model, config or MonitorConfig()
        self._monitors: list[SafetyMonitor] = []

    def begin(self, which: Flags) -> None:
        """See ``Guard``."""
        fresh = [self._fresh() if new else None for new in which]
        kept = self._monitors or [self._fresh() for _ in which]
        self._monitors = [new or old for new, old in zip(fresh, kept, strict=True)]

    def admit(self, senses: Senses, command: Floats) -> Floats:
        """See ``Guard``."""
        admitted = np.empty_like(command)
        for index, monitor in enumerate(self._monitors):
            if monitor.emergency:
                monitor.reset_emergency()
            if not monitor.armed:
                monitor.arm()
            taken_ns = int(senses.taken_ns[index])
            inputs = Inputs(
                now_ns=senses.now_ns,
                ranges_m=senses.ranges_m[index],
                scan_ns=taken_ns,
                velocity=(float(senses.velocity[index, 0]), float(senses.velocity[index, 1])),
                odometry_ns=taken_ns,
                command=(float(command[index, 0]), float(command[index, 1])),
            )
            admitted[index] = monitor.step(inputs).command
        return admitted

    def _fresh(self) -> SafetyMonitor:
        monitor = SafetyMonitor(self._model, self._config)
        monitor.arm()
        return monitor
