"""The edge agent's recovery on top of a policy is the simulator's."""

import numpy as np
import pytest

from contracts.decision import Source
from edge_agent.infer.ladder import Ladder
from navigation.controllers.dwa import DwaController
from navigation.controllers.recovery import Recovery
from navigation.warehouse import load_warehouse
from sim.simulation import Simulation, SimulationConfig
from tests.support.agent import LAYOUT, FakePolicy

NS = 1_000_000_000


@pytest.mark.timeout(400)  # it may be the first to compile the simulator
def test_a_stuck_policy_backs_off_as_it_does_in_the_simulator() -> None:
    config = SimulationConfig(worlds=1, robots=3, people=2, guarded=False, recovery=Recovery())
    simulation = Simulation([load_warehouse(LAYOUT)], config, seed=3)
    rules = DwaController(simulation.model, simulation.step_s)
    ladders = [Ladder(rules, NS, simulation.step_s) for _ in range(config.robots)]
    draw, seen = np.random.default_rng(5), 0
    wanted = np.zeros((1, config.robots, 2))
    for step in range(600):
        if step % 70 == 0:  # standing still for a while, then driving
            wanted[:] = draw.uniform((0.0, -1.0), (0.8, 1.0), wanted.shape) * (step % 140 > 0)
        came = np.zeros_like(wanted)
        for robot, ladder in enumerate(ladders):
            ladder.policy = ladder.policy or FakePolicy()
            ladder.policy.answer = tuple(wanted[0, robot].tolist())  # type: ignore[attr-defined]
            came[0, robot], source = ladder.propose(simulation.observation[0, robot])
            seen += source is Source.RECOVERY
        simulation.step(np.zeros(wanted.shape, dtype=np.float32), wanted)
        np.testing.assert_array_equal(came, simulation.command)
        for robot in np.flatnonzero(simulation.outcome[0]):
            ladders[robot].rest()  # a new trip begins
    assert seen > 50
