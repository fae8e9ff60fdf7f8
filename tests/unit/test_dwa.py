"""The rule-based controller reaches goals, stops for walls and backs out when it is stuck."""

import numpy as np
import pytest

from contracts.observation import BEAMS, OBSERVATION_SIZE
from contracts.robot import AMR_SMALL
from navigation.action import encode_command
from navigation.controllers.dwa import DwaConfig, DwaController
from navigation.warehouse import Station, StationKind, Warehouse
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome

STATIONS = (Station("p", StationKind.PICK, 2.0, 2.0), Station("d", StationKind.DROP, 10.0, 8.0))
OPEN = Warehouse("open", 12.0, 10.0, (), STATIONS)


def seen(ahead_m=8.0, around_m=8.0, carrot_m=1.5, goal_m=5.0, speed=0.0, turn_rate=0.0):
    """An observation with a wall ``ahead_m`` ahead, the goal straight on."""
    out = np.zeros(OBSERVATION_SIZE, dtype=np.float32)
    angles = (np.arange(BEAMS) + 0.4) * (2 * np.pi / BEAMS) - np.pi
    with np.errstate(divide="ignore"):
        wall = np.where(np.cos(angles) > 0.02, ahead_m / np.maximum(np.cos(angles), 1e-9), around_m)
    out[:BEAMS] = out[BEAMS : 2 * BEAMS] = np.minimum(wall, around_m)
    out[72], out[74], out[76], out[78] = 0.6, carrot_m, 3.0, goal_m
    out[80], out[81], out[82] = goal_m, speed, turn_rate
    return out


def test_it_reaches_its_goals_on_an_empty_floor():
    simulation = Simulation([OPEN], SimulationConfig(worlds=1, robots=1, people=0, guarded=False), seed=2)
    controller = DwaController(AMR_SMALL)
    outcomes = []
    for _ in range(1200):
        command = np.array([[controller.command(simulation.observation[0, 0])]])
        simulation.step(encode_command(command, AMR_SMALL), command)
        if simulation.outcome[0, 0]:
            outcomes.append(int(simulation.outcome[0, 0]))
    assert len(outcomes) >= 6
    assert set(outcomes) == {Outcome.ARRIVED}


def test_it_speeds_up_where_the_way_is_free_and_heads_on():
    speed, turn = DwaController(AMR_SMALL).command(seen(speed=0.5))
    assert speed > 0.7
    assert abs(turn) < 0.3


@pytest.mark.parametrize("gap_m", [0.05, 0.2, 0.4])
def test_it_stops_for_a_wall(gap_m):
    x_m, speed, controller = 0.0, 0.0, DwaController(AMR_SMALL)
    wall_m = 3.0
    # Always ahead: the goal is behind the wall. What it may do at most is stand and turn.
    for _ in range(60):
        ahead_m = wall_m - x_m
        wanted, _ = controller.command(seen(ahead_m=ahead_m, speed=speed))
        speed = min(max(wanted, speed - 0.16), speed + 0.12)
        x_m += speed * 0.1
        assert wall_m - x_m > AMR_SMALL.footprint_radius_m
    assert DwaController(AMR_SMALL).command(seen(ahead_m=0.3 + gap_m))[0] <= gap_m


def test_hemmed_in_it_turns_on_the_spot():
    assert DwaController(AMR_SMALL).command(seen(ahead_m=0.32, around_m=0.35)) == (0.0, 0.8)


def test_stuck_it_backs_off_and_then_tries_again():
    config = DwaConfig()
    controller = DwaController(AMR_SMALL, 0.1, config)
    stuck = seen(ahead_m=0.32, around_m=0.35)
    commands = [controller.command(stuck) for _ in range(60)]
    recovery = (config.recovery_speed_mps, config.recovery_turn_radps)
    first = commands.index(recovery)
    assert first * 0.1 == pytest.approx(config.stuck_after_s, abs=0.11)
    run = next(k for k, command in enumerate(commands[first:]) if command != recovery)
    assert run * 0.1 == pytest.approx(config.recovery_s, abs=0.21)


def test_standing_at_the_goal_is_not_being_stuck():
    controller = DwaController(AMR_SMALL)
    commands = [controller.command(seen(carrot_m=0.1, goal_m=0.1)) for _ in range(60)]
    assert all(speed >= 0.0 for speed, _ in commands)
