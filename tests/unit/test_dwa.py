"""The rule-based controller reaches goals, minds what comes towards it and backs out when it is stuck."""

import numpy as np
import pytest

from contracts.observation import BEAMS, OBSERVATION_SIZE
from contracts.robot import AMR_SMALL
from navigation.action import encode_command
from navigation.controllers.dwa import (
    CLOSING_MAX_MPS,
    DwaConfig,
    DwaController,
    beam_directions,
    closing_speeds,
)
from navigation.warehouse import Station, StationKind, Warehouse
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome

STATIONS = (Station("p", StationKind.PICK, 2.0, 2.0), Station("d", StationKind.DROP, 10.0, 8.0))
OPEN = Warehouse("open", 12.0, 10.0, (), STATIONS)
COSINES, SINES = beam_directions(AMR_SMALL)
AHEAD = BEAMS // 2
"""The beam a degree off the nose; beams 17 and 18 lie on both sides of it."""


def seen(ahead_m=8.0, around_m=8.0, carrot_m=1.5, goal_m=5.0, speed=0.0, turn_rate=0.0):
    """An observation with a wall ``ahead_m`` ahead, the goal straight on."""
    out = np.zeros(OBSERVATION_SIZE, dtype=np.float32)
    with np.errstate(divide="ignore"):
        wall = np.where(COSINES > 0.02, ahead_m / np.maximum(COSINES, 1e-9), around_m)
    out[:BEAMS] = out[BEAMS : 2 * BEAMS] = np.minimum(wall, around_m)
    out[72], out[74], out[76], out[78] = 0.6, carrot_m, 3.0, goal_m
    out[80], out[81], out[82] = goal_m, speed, turn_rate
    return out


def approaching(now_m, before_m, speed=0.0):
    """An open floor, but for one thing straight ahead, seen twice."""
    out = seen(speed=speed)
    out[17:19], out[BEAMS + 17 : BEAMS + 19] = now_m, before_m
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


@pytest.mark.parametrize("turn_rate", [0.0, 0.8, -0.8])
def test_what_stands_still_does_not_count_as_closing(turn_rate):
    """A room's walls, seen before and after a tick of the robot's own motion."""
    speed, interval_s = 0.8, 0.1

    def beams(x_m, heading_rad):
        rays = np.arange(180) * np.radians(2.0) - np.pi + heading_rad
        with np.errstate(divide="ignore"):
            reach = np.minimum(
                np.where(np.cos(rays) > 0, 3.0 - x_m, 3.0 + x_m) / np.abs(np.cos(rays)),
                1.5 / np.abs(np.sin(rays)),
            )
        return np.minimum(reach, 8.0).reshape(BEAMS, 5).min(axis=1)

    observation = seen(speed=speed, turn_rate=turn_rate)
    observation[BEAMS : 2 * BEAMS] = beams(0.0, 0.0)
    observation[:BEAMS] = beams(speed * interval_s, turn_rate * interval_s)
    assert np.count_nonzero(closing_speeds(observation, COSINES)) <= 1


def test_what_comes_nearer_by_itself_is_seen_closing():
    assert closing_speeds(approaching(1.8, 2.0, speed=0.5), COSINES)[17] == pytest.approx(1.5, abs=0.02)
    assert closing_speeds(approaching(1.95, 2.0, speed=0.5), COSINES)[17] == 0.0
    assert closing_speeds(approaching(1.0, 2.0), COSINES)[17] == CLOSING_MAX_MPS
    assert closing_speeds(approaching(2.0, 1.8), COSINES).max() == 0.0


def test_it_keeps_right_of_what_approaches_and_for_a_while_after():
    def turn(observation, controller):
        return controller.command(observation)[1]

    meeting, standing = approaching(2.3, 2.45, speed=0.6), approaching(2.3, 2.36, speed=0.6)
    controller = DwaController(AMR_SMALL)
    assert turn(meeting, controller) < -0.2
    assert turn(standing, controller) < -0.2
    neutral = DwaConfig(keep_right_m=0.0)
    assert turn(meeting, controller) < turn(meeting, DwaController(AMR_SMALL, config=neutral)) - 0.1


def test_hemmed_in_it_faces_the_way_on_and_waits():
    hemmed_in = seen(ahead_m=0.305, around_m=0.305)
    assert DwaController(AMR_SMALL).command(hemmed_in)[0] <= 0.01
    hemmed_in[72:78] = [0.0, 0.6, 0.0, 1.5, 0.0, 3.0]
    speed, turn = DwaController(AMR_SMALL).command(hemmed_in)
    assert speed <= 0.01
    assert turn > 0.5


def first_recovery(controller, observation):
    """Ticks until it backs off."""
    return next(tick for tick in range(100) if controller.command(observation)[0] < 0.0)


def test_stuck_it_waits_backs_off_and_then_tries_again():
    config = DwaConfig()
    controller = DwaController(AMR_SMALL, 0.1, config)
    stuck = seen(ahead_m=0.32, around_m=0.35)
    wait_s = first_recovery(controller, stuck) * 0.1
    assert config.stuck_after_s - 0.11 <= wait_s <= 2.0 * config.stuck_after_s + 0.11
    commands = [controller.command(stuck) for _ in range(60)]
    recovery = (config.recovery_speed_mps, config.recovery_turn_radps)
    run = next(k for k, command in enumerate(commands) if command != recovery)
    assert (run + 1) * 0.1 == pytest.approx(config.recovery_s, abs=0.11)


def test_two_nose_to_nose_do_not_back_off_at_the_same_time():
    waits = []
    for left_m in (5.0, 6.3, 9.1, 12.85):
        stuck = seen(ahead_m=0.32, around_m=0.35)
        stuck[80] = left_m
        waits.append(first_recovery(DwaController(AMR_SMALL), stuck))
    assert len(set(waits)) >= 3


def test_standing_at_the_goal_is_not_being_stuck():
    controller = DwaController(AMR_SMALL)
    commands = [controller.command(seen(carrot_m=0.1, goal_m=0.1)) for _ in range(60)]
    assert all(speed >= 0.0 for speed, _ in commands)
