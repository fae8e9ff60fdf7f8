"""What the compiled baselines share: a controller's own step over a batch, recovery before it, one memory a robot."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from navigation.controllers.recovery import MEMORY, RecoveryConfig, recovery_numbers
from navigation.controllers.sight import over_blind_sectors

CommandAll = Callable[[npt.NDArray[np.float32], Any, tuple[float, ...], Any, Any], None]
"""Compiled: observations float32[n, 83], the controller's numbers, recovery's numbers and the tick in s, memory
float64[n, MEMORY], and what it writes, commands float64[n, 2]."""


class CompiledBatch:
    """A rule-based controller for many robots at once (a ``trainer.evaluation.controllers.Controller``).

    Args:
        name: as it appears in results.
        model: the robot.
        tick_s: time between two calls, s.
        command_all: the compiled step.
        numbers: what it computes with.
        recovery: when it backs off, and how.
    """

    def __init__(
        self,
        name: str,
        model: RobotModel,
        tick_s: float,
        command_all: CommandAll,
        numbers: Any,
        recovery: RecoveryConfig,
    ) -> None:
        self.name = name
        self._model, self._command_all, self._numbers = model, command_all, numbers
        self._recovery = (*recovery_numbers(recovery), tick_s)
        self.begin(0)

    def begin(self, robots: int) -> None:
        """Forget everything; ``robots`` robots from now on."""
        self._memory = np.zeros((robots, MEMORY))

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] (m/s, rad/s) for observations float32[n, 83]."""
        observations = over_blind_sectors(observations, self._model)
        out = np.zeros((len(observations), 2))
        self._command_all(observations, self._numbers, self._recovery, self._memory, out)
        return out
