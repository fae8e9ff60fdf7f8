"""What is compared: policies from bundles and the rule-based controller, behind one small interface."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT
from contracts.robot import RobotModel
from navigation.controllers.dwa import DwaController


class Controller(Protocol):
    """Drives a batch of robots, the same ones in the same order at each call."""

    name: str

    def begin(self, robots: int) -> None:
        """Forget everything; ``robots`` robots from now on."""

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] (m/s, rad/s) for observations float32[n, 83]."""


class RuleBased:
    """The dynamic window approach along the route, as the robots fall back to it."""

    def __init__(self, model: RobotModel, tick_s: float, name: str = "rule-based") -> None:
        self.name = name
        self._model, self._tick_s = model, tick_s
        self._robots: list[DwaController] = []

    def begin(self, robots: int) -> None:
        """One controller a robot: each remembers how long it has been stuck."""
        self._robots = [DwaController(self._model, self._tick_s) for _ in range(robots)]

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2]."""
        pairs = zip(self._robots, observations, strict=True)
        return np.array([robot.command(observation) for robot, observation in pairs])


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
