"""Pure pursuit over a batch of robots: the text of ``navigation.controllers.pure_pursuit``, compiled."""

import numba

from contracts.robot import RobotModel
from navigation.controllers import pure_pursuit, recovery
from navigation.controllers.pure_pursuit import PurePursuitConfig, pursuit_settings
from trainer.baselines.compiled import CompiledBatch

recover = numba.njit(cache=True)(recovery.recover)
pursue = numba.njit(cache=True)(pure_pursuit.pursue)


# Not cached: numba's cache does not see when what it calls changes in another file.
@numba.njit(nogil=True)
def _command_all(observations, settings, recoveries, memory, out):  # type: ignore[no-untyped-def]
    stuck_after_s, recovery_s, speed, turn, tick_s = recoveries
    for robot in range(observations.shape[0]):
        observation = observations[robot]
        if not recover(
            observation, stuck_after_s, recovery_s, speed, turn, tick_s, memory[robot], out[robot]
        ):
            pursue(observation, settings, out[robot])


class PurePursuitBatch(CompiledBatch):
    """``PurePursuitController`` for many robots at once.

    Args:
        model: the robot.
        tick_s: time between two calls, s.
        config: settings.
        name: as it appears in results.
    """

    def __init__(
        self, model: RobotModel, tick_s: float, config: PurePursuitConfig, name: str = "pure_pursuit"
    ) -> None:
        super().__init__(name, model, tick_s, _command_all, pursuit_settings(config, model), config)
