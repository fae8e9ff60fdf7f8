"""The dynamic window approach over a batch of robots: the text of ``navigation.controllers.dwa``, compiled."""

import numba

from contracts.robot import RobotModel
from navigation.controllers import dwa, recovery
from navigation.controllers.dwa import DwaConfig, dwa_numbers
from trainer.baselines.compiled import CompiledBatch

recover = numba.njit(cache=True)(recovery.recover)
closing_speeds = numba.njit(cache=True)(dwa.closing_speeds)
choose = numba.njit(cache=True)(dwa.choose)


# Not cached: numba's cache does not see when what it calls changes in another file.
@numba.njit(nogil=True)
def _command_all(observations, numbers, recoveries, memory, out):  # type: ignore[no-untyped-def]
    stuck_after_s, recovery_s, speed, turn, tick_s = recoveries
    for robot in range(observations.shape[0]):
        observation = observations[robot]
        if not recover(
            observation, stuck_after_s, recovery_s, speed, turn, tick_s, memory[robot], out[robot]
        ):
            closing = closing_speeds(observation, numbers.cosines)
            choose(observation, closing, numbers, memory[robot], out[robot])


class DwaBatch(CompiledBatch):
    """``DwaController`` for many robots at once.

    Args:
        model: the robot.
        tick_s: time between two calls, s.
        config: settings.
        name: as it appears in results.
    """

    def __init__(self, model: RobotModel, tick_s: float, config: DwaConfig, name: str = "dwa") -> None:
        super().__init__(name, model, tick_s, _command_all, dwa_numbers(config, model, tick_s), config)
