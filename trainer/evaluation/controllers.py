"""What is compared: policies from bundles and rule-based controllers, behind one small interface."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT
from contracts.robot import RobotModel
from navigation.controllers.dwa import DwaConfig
from trainer.baselines.catalogue import BASELINES, build, tuned_config
from trainer.baselines.dwa import DwaBatch

__all__ = ["BASELINES", "Controller", "OnnxPolicy", "RuleBased", "make_controller"]


class Controller(Protocol):
    """Drives a batch of robots, the same ones in the same order at each call."""

    name: str

    def begin(self, robots: int) -> None:
        """Forget everything; ``robots`` robots from now on."""

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] (m/s, rad/s) for observations float32[n, 83]."""


class RuleBased(DwaBatch):
    """The dynamic window approach with its default settings, as the robots fall back to it."""

    def __init__(self, model: RobotModel, tick_s: float, name: str = "rule-based") -> None:
        super().__init__(model, tick_s, DwaConfig(), name)


def make_controller(name: str, model: RobotModel, tick_s: float, seed: int = 0) -> Controller:
    """One of ``BASELINES`` with its tuned settings.

    Args:
        name: which one.
        model: the robot.
        tick_s: time between two calls, s.
        seed: of its noise, where it draws any; same seed, same commands.

    Raises:
        TrainConfigError: no such baseline, or its settings are missing or damaged.
    """
    return build(name, tuned_config(name), model, tick_s, seed)


class OnnxPolicy:
    """An exported network: what is released is what is judged."""

    def __init__(self, network: bytes, name: str) -> None:
        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def begin(self, robots: int) -> None:
        """Nothing to forget: the policy has no memory of its own."""
        del robots

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2]."""
        answer: npt.NDArray[np.float32] = self._session.run([ONNX_OUTPUT], {ONNX_INPUT: observations})[0]
        return answer.astype(np.float64)
