"""Pure pursuit along a route (Coulter 1992): circle arcs to a point ahead, slower where the way is short.

``pursue`` runs in plain Python and compiles as it stands (numba), like ``navigation.encoder.pool_beams``.
"""

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.observation import BEAMS
from contracts.robot import RobotModel
from navigation.controllers.recovery import MEMORY, recover
from navigation.controllers.sight import over_blind_sectors


class PurePursuitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the controller."""

    ahead_min_m: float = 0.7
    ahead_s: float = 0.6
    """The point ahead lies this many seconds of driving farther than ``ahead_min_m``; 0.6 to 3 m in all."""
    spot_rad: float = 0.9
    """It turns on the spot while the point ahead lies farther off its nose."""
    turn_per_s: float = 2.0
    """Turn rate per radian to the point ahead, on the spot."""
    corridor_m: float = 0.08
    """Room beside the footprint that has to be free ahead."""
    standoff_m: float = 0.15
    speed_per_m: float = 1.2
    """Speed in m/s per metre of free way ahead."""
    slow_within_m: float = 1.0
    stuck_after_s: float = 2.0
    recovery_s: float = 1.5
    recovery_speed_mps: float = -0.25
    recovery_turn_radps: float = -0.7


def pursue(observation: Any, settings: Any, out: Any) -> None:
    """Write speed in m/s and turn rate in rad/s into ``out`` float64[2].

    Args:
        observation: float32[83] (``contracts.observation.ROUTING_LAYOUT``).
        settings: float64[12] from ``pursuit_settings``.
        out: float64[2].
    """
    look_m = min(max(settings[0] + settings[1] * observation[81], 0.6), 3.0)
    if look_m <= 1.5:
        share, near, far = (look_m - 0.6) / 0.9, 72, 74
    else:
        share, near, far = (look_m - 1.5) / 1.5, 74, 76
    x = observation[near] + share * (observation[far] - observation[near])
    y = observation[near + 1] + share * (observation[far + 1] - observation[near + 1])
    squared = max(x * x + y * y, 0.01)
    bearing = math.atan2(y, x)
    if abs(bearing) > settings[2]:
        out[0] = 0.0
        out[1] = min(max(settings[3] * bearing, -settings[9]), settings[9])
        return
    distance = math.sqrt(squared)
    along_x, along_y = x / distance, y / distance
    free_m = 8.0
    for beam in range(36):
        angle = settings[11] + beam * (math.pi / 18.0)
        px, py = observation[beam] * math.cos(angle), observation[beam] * math.sin(angle)
        along, across = px * along_x + py * along_y, py * along_x - px * along_y
        if along > 0.0 and abs(across) < settings[10] + settings[4]:
            free_m = min(free_m, along - settings[10] - settings[5])
    goal_m = math.sqrt(observation[78] * observation[78] + observation[79] * observation[79])
    curvature = 2.0 * y / squared
    speed = min(
        settings[8],
        settings[6] * max(free_m, 0.0),
        settings[8] * max(goal_m, 0.15) / settings[7],
        settings[9] / max(abs(curvature), 1e-3),
    )
    out[0] = speed
    # Slow, it still turns towards the point ahead: that is how it finds its way around what stands there.
    turn = speed * curvature if speed > 0.2 else settings[3] * bearing
    out[1] = min(max(turn, -settings[9]), settings[9])


def pursuit_settings(config: PurePursuitConfig, model: RobotModel) -> npt.NDArray[np.float64]:
    """The numbers of ``pursue`` as float64[12]."""
    first_rad = model.lidar.angle_min_rad + math.pi / BEAMS - 0.5 * model.lidar.angle_step_rad
    return np.array(
        [
            config.ahead_min_m,
            config.ahead_s,
            config.spot_rad,
            config.turn_per_s,
            config.corridor_m,
            config.standoff_m,
            config.speed_per_m,
            config.slow_within_m,
            model.speed_max_mps,
            model.turn_rate_max_radps,
            model.footprint_radius_m,
            first_rad,
        ]
    )


class PurePursuitController:
    """Follows one robot's route; remembers only how long it has been stuck.

    Args:
        model: the robot.
        tick_s: time between two calls of ``command``, s.
        config: settings.
    """

    def __init__(
        self, model: RobotModel, tick_s: float = 0.1, config: PurePursuitConfig | None = None
    ) -> None:
        self.config = config or PurePursuitConfig()
        self.tick_s = tick_s
        self._model = model
        self._settings = pursuit_settings(self.config, model).tolist()
        self._memory = [0.0] * MEMORY
        self._out = [0.0, 0.0]

    def command(self, observation: npt.NDArray[np.float32]) -> tuple[float, float]:
        """The command for one observation float32[83] (``contracts.observation.ROUTING_LAYOUT``).

        Returns:
            Speed in m/s and turn rate in rad/s, within the robot's limits.
        """
        config, out = self.config, self._out
        values = over_blind_sectors(observation, self._model).tolist()
        if not recover(
            values,
            config.stuck_after_s,
            config.recovery_s,
            config.recovery_speed_mps,
            config.recovery_turn_radps,
            self.tick_s,
            self._memory,
            out,
        ):
            pursue(values, self._settings, out)
        return out[0], out[1]
