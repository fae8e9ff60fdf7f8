"""From one driver's command to the next one's, within what the robot can accelerate."""

from contracts.robot import RobotModel
from edge_agent.infer.proposer import Command


class Blend:
    """Active from ``begin`` until the command meets what is wanted.

    Args:
        model: speeding up, slowing down and turning limits.
        tick_s: robot time between two ticks, s.
    """

    def __init__(self, model: RobotModel, tick_s: float) -> None:
        self._model = model
        self._faster = model.acceleration_max_mps2 * tick_s
        self._slower = model.braking_mps2 * tick_s
        self._turn = model.turn_acceleration_max_radps2 * tick_s
        self.active = False

    def begin(self) -> None:
        """Another one drives from now on."""
        self.active = True

    def step(self, wanted: Command, last: Command) -> Command:
        """The command between ``last``, which went out in the tick before, and ``wanted`` (finite)."""
        model = self._model
        speed_wanted = min(max(wanted[0], -model.reverse_max_mps), model.speed_max_mps)
        turn_wanted = min(max(wanted[1], -model.turn_rate_max_radps), model.turn_rate_max_radps)
        speed = towards(speed_wanted, last[0], self._faster, self._slower)
        turn = towards(turn_wanted, last[1], self._turn, self._turn)
        if speed == speed_wanted and turn == turn_wanted:
            self.active = False
            return wanted
        return speed, turn


def towards(wanted: float, last: float, faster: float, slower: float) -> float:
    """``wanted``, or as near as a step allows: ``faster`` away from zero, ``slower`` towards it, never across."""
    if last < 0.0:
        return -towards(-wanted, -last, faster, slower)
    low = -faster if last == 0.0 else max(last - slower, 0.0)
    return min(max(wanted, low), last + faster)
