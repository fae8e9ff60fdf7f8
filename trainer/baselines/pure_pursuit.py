"""Pure pursuit over a batch of robots: the text of ``navigation.controllers.pure_pursuit``, compiled."""

import numba
import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from navigation.controllers import pure_pursuit, recovery
from navigation.controllers.pure_pursuit import PurePursuitConfig, pursuit_settings
from navigation.controllers.sight import over_blind_sectors

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


class PurePursuitBatch:
    """``PurePursuitController`` for many robots at once (a ``trainer.evaluation.controllers.Controller``).

    Args:
        model: the robot.
        tick_s: time between two calls, s.
        config: settings.
        name: as it appears in results.
    """

    def __init__(
        self, model: RobotModel, tick_s: float, config: PurePursuitConfig, name: str = "pure_pursuit"
    ) -> None:
        self.name = name
        self._model = model
        self._settings = pursuit_settings(config, model)
        self._recovery = (*recovery.recovery_numbers(config), tick_s)
        self.begin(0)

    def begin(self, robots: int) -> None:
        """Forget everything; ``robots`` robots from now on."""
        self._memory = np.zeros((robots, recovery.MEMORY))

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] for observations float32[n, 83]."""
        observations = over_blind_sectors(observations, self._model)
        out = np.zeros((len(observations), 2))
        _command_all(observations, self._settings, self._recovery, self._memory, out)
        return out
