"""The action decoder: a policy's two numbers in [-1, 1] as speed and turn rate of the robot.

Ahead, the first number runs to the robot's top speed; behind, to its top reverse speed. Exported networks
carry the same mapping inside; robots never decode by hand.
"""

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel


def decode_action(action: npt.NDArray[np.float32], model: RobotModel) -> npt.NDArray[np.float64]:
    """Actions float32[..., 2], clipped to [-1, 1], as commands float64[..., 2] in m/s and rad/s."""
    clipped = np.clip(action.astype(np.float64), -1.0, 1.0)
    speed = clipped[..., 0]
    speed = np.where(speed > 0.0, speed * model.speed_max_mps, speed * model.reverse_max_mps)
    return np.stack([speed, clipped[..., 1] * model.turn_rate_max_radps], axis=-1)


def encode_command(command: npt.NDArray[np.float64], model: RobotModel) -> npt.NDArray[np.float32]:
    """The inverse of ``decode_action`` for commands float64[..., 2] within the robot's limits."""
    speed = command[..., 0]
    first = np.where(speed > 0.0, speed / model.speed_max_mps, speed / model.reverse_max_mps)
    return np.stack([first, command[..., 1] / model.turn_rate_max_radps], axis=-1).astype(np.float32)
