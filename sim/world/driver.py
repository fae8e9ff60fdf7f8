"""Robots that drive by the rule-based controller, without ROS: for films and for a look at a floor."""

import numpy as np
import numpy.typing as npt

from navigation.controllers.dwa import DwaController
from navigation.encoder import ObservationEncoder
from navigation.route import Route, cell_costs
from sim.world.run import STEP_S, FloorRun

TICK_STEPS = 2
"""Steps of the floor for one decision: 10 Hz."""


class RuleBasedDriver:
    """Commands for all robots of a ``FloorRun``: encoder and DWA at 10 Hz, along the route to each goal.

    Attributes:
        routes: each robot's route.
    """

    def __init__(self, run: FloorRun) -> None:
        self._run = run
        self._costs = cell_costs(run.warehouse)
        self._encoders = [ObservationEncoder(run.model, TICK_STEPS * STEP_S) for _ in run.names]
        self._controllers = [DwaController(run.model) for _ in run.names]
        self._known: dict[str, Route] = {}
        self._command = np.zeros((len(run.names), 2))
        self._steps = 0
        self.routes = [self._route(k) for k in range(len(run.names))]

    def command(self) -> npt.NDArray[np.float64]:
        """What to drive in the next step, float64[R, 2]."""
        if self._steps % TICK_STEPS == 0:
            for k, encoder in enumerate(self._encoders):
                self.routes[k] = self._route(k)
                x, y, heading = self._run.told_pose(k).tolist()
                speed, turn_rate = self._run.told_velocity(k).tolist()
                observation = encoder.encode(
                    self._run.ranges[k], (x, y, heading), (speed, turn_rate), self.routes[k]
                )
                self._command[k] = self._controllers[k].command(observation)
        self._steps += 1
        return self._command

    def polylines(self) -> list[npt.NDArray[np.float64]]:
        """Each robot's way to its goal, float64[n, 2], for drawing."""
        pose = self._run.state.pose[0]
        return [route.polyline(*pose[k, :2].tolist()) for k, route in enumerate(self.routes)]

    def _route(self, robot: int) -> Route:
        goal = self._run.desks[robot].goal
        if goal.name not in self._known:
            self._known[goal.name] = Route(self._costs, goal.x_m, goal.y_m)
        return self._known[goal.name]
