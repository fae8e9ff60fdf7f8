"""What the monitor would have taken away from a command that does not drive."""

import math

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from edge_agent.infer.proposer import Command
from safety.admission import Admission
from safety.monitor import SafetyMonitor


class WouldBe:
    """The monitor's admission alone, as in training: without ramps, and without a memory that could go astray.

    Args:
        model: as of the monitor.
        monitor: the one that rules; what it knows of what moves counts here too.
    """

    def __init__(self, model: RobotModel, monitor: SafetyMonitor) -> None:
        self._admission, self._monitor = Admission(monitor.config, model), monitor
        self.reduction = math.nan
        """Share in [0, 1] of the last command's speed that it would have taken away; NaN: not asked."""

    def step(
        self, ranges_m: npt.NDArray[np.float32], velocity: Command, scan_age_s: float, command: Command
    ) -> None:
        """Judge a finite ``command``; ``ranges_m`` float32[rays] are clean."""
        self._admission.see(ranges_m)
        age_s, wanted = max(0.0, scan_age_s), abs(command[0])
        speed, turn_rate, _ = self._admission.admit(command, velocity, age_s)
        admitted = abs(speed) * self._monitor.share_beside_movers((speed, turn_rate), age_s)
        self.reduction = 1.0 - admitted / wanted if wanted > 0.0 else 0.0
