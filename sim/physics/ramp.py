"""How a base follows its commands: limited acceleration, limited braking; the same in every back end."""

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel

RAMP_STEP_S = 0.05
"""Commands and velocities change at this interval, in every back end."""


def ramp_velocity(
    velocity: npt.NDArray[np.float64], command: npt.NDArray[np.float64], model: RobotModel
) -> npt.NDArray[np.float64]:
    """Velocity one ``RAMP_STEP_S`` later.

    Speed moves towards its command by at most the acceleration where it grows, by at most the braking
    where it shrinks or changes sign; the turn rate by at most the turn acceleration. What a base cannot do
    is clipped, and a command that is not finite means standstill.

    Args:
        velocity: float64[..., 2], speed in m/s and turn rate in rad/s.
        command: float64[..., 2].
        model: the robot's limits.
    """
    wanted = np.where(np.isfinite(command), command, 0.0)
    speed, speed_wanted = (
        velocity[..., 0],
        np.clip(wanted[..., 0], -model.reverse_max_mps, model.speed_max_mps),
    )
    turn_wanted = np.clip(wanted[..., 1], -model.turn_rate_max_radps, model.turn_rate_max_radps)
    grows = (np.abs(speed_wanted) > np.abs(speed)) & (speed_wanted * speed >= 0.0)
    change_max = np.where(grows, model.acceleration_max_mps2, model.braking_mps2) * RAMP_STEP_S
    turn_max = model.turn_acceleration_max_radps2 * RAMP_STEP_S
    result = np.empty_like(velocity)
    result[..., 0] = speed + np.clip(speed_wanted - speed, -change_max, change_max)
    result[..., 1] = velocity[..., 1] + np.clip(turn_wanted - velocity[..., 1], -turn_max, turn_max)
    return result
