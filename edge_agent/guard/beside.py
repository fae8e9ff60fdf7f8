"""What the monitor would have taken away from a command that does not drive."""

import math

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from edge_agent.infer.proposer import Command
from safety.admission import Admission
from safety.config import MonitorConfig


class WouldBe:
    """The monitor's admission alone, as in training: without ramps, and without a memory that could go astray.

    Args:
        model, config: as of the monitor that rules.
    """

    def __init__(self, model: RobotModel, config: MonitorConfig) -> None:
        self._admission = Admission(config, model)
        self.reduction = math.nan
        """Share in [0, 1] of the last command's speed that it would have taken away; NaN: not asked."""

    def step(
        self, ranges_m: npt.NDArray[np.float32], velocity: Command, scan_age_s: float, command: Command
    ) -> None:
        """Judge a finite ``command``; ``ranges_m`` float32[rays] are clean."""
        self._admission.see(ranges_m)
        admitted = self._admission.admit(command, velocity, max(0.0, scan_age_s))
        wanted = abs(command[0])
        self.reduction = 1.0 - abs(admitted[0]) / wanted if wanted > 0.0 else 0.0
