"""Pure pursuit: arcs to the point ahead, slower where the way is short, out of where it is stuck."""

import math

import numba
import numpy as np
import pytest

from contracts.observation import OBSERVATION_SIZE
from contracts.robot import AMR_SMALL
from navigation.controllers import pure_pursuit
from navigation.controllers.pure_pursuit import (
    PurePursuitConfig,
    PurePursuitController,
    pursue,
    pursuit_settings,
)

CONFIG = PurePursuitConfig()
SETTINGS = pursuit_settings(CONFIG, AMR_SMALL)


def seen(bearing_rad=0.0, goal_m=6.0, speed=0.0, beams_m=8.0):
    """A straight route in direction ``bearing_rad``."""
    out = np.zeros(OBSERVATION_SIZE, dtype=np.float32)
    out[:72] = beams_m
    for at, distance in ((72, 0.6), (74, 1.5), (76, 3.0), (78, goal_m)):
        distance = min(distance, goal_m)
        out[at : at + 2] = distance * math.cos(bearing_rad), distance * math.sin(bearing_rad)
    out[80], out[81] = goal_m, speed
    return out


def command(observation, settings=SETTINGS):
    out = np.zeros(2)
    pursue(observation, settings, out)
    return out


def test_on_a_free_straight_it_drives_at_top_speed():
    assert command(seen()) == pytest.approx([AMR_SMALL.speed_max_mps, 0.0], abs=1e-6)


@pytest.mark.parametrize("bearing_rad", [0.2, -0.5])
def test_it_drives_the_arc_through_the_point_ahead(bearing_rad):
    speed, turn = command(seen(bearing_rad, speed=0.5))
    look_m = CONFIG.ahead_min_m + CONFIG.ahead_s * 0.5
    assert turn / speed == pytest.approx(2.0 * math.sin(bearing_rad) / look_m, rel=1e-5)
    assert abs(turn) <= AMR_SMALL.turn_rate_max_radps


def test_it_looks_farther_ahead_the_faster_it_drives():
    bend = seen()
    bend[74:78] = 1.2, 0.6, 1.5, 2.0
    slow = command(bend)
    bend[81] = 1.2
    fast = command(bend)
    assert slow[1] / slow[0] < fast[1] / fast[0]


@pytest.mark.parametrize(("bearing_rad", "sign"), [(1.2, 1.0), (-2.8, -1.0), (3.1, 1.0)])
def test_what_lies_behind_it_turns_to_on_the_spot(bearing_rad, sign):
    speed, turn = command(seen(bearing_rad))
    assert speed == 0.0
    assert turn * sign > 1.0


def test_it_slows_for_what_stands_on_its_way_and_not_beside_it():
    speeds = []
    for ahead_m in (2.0, 1.2, 0.8, 0.45, 0.3):
        observation = seen()
        observation[17:19] = ahead_m
        speeds.append(command(observation)[0])
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] == AMR_SMALL.speed_max_mps
    assert speeds[1] < AMR_SMALL.speed_max_mps
    assert speeds[-2:] == [0.0, 0.0]
    beside = seen()
    beside[26:28] = 0.5
    assert command(beside)[0] == AMR_SMALL.speed_max_mps


def test_it_is_slow_enough_to_arrive_at_the_goal():
    assert command(seen(goal_m=0.35))[0] < 0.45


def test_the_same_text_compiles():
    compiled = numba.njit(pure_pursuit.pursue)
    rng = np.random.default_rng(3)
    for _ in range(200):
        observation = rng.uniform(-3.0, 3.0, OBSERVATION_SIZE).astype(np.float32)
        observation[:72] = rng.uniform(0.0, 8.0, 72)
        out = np.zeros(2)
        compiled(observation, SETTINGS, out)
        assert out == pytest.approx(command(observation), abs=1e-6)


def test_stuck_it_backs_off():
    controller = PurePursuitController(AMR_SMALL)
    walled_in = seen(beams_m=0.35)
    commands = [controller.command(walled_in) for _ in range(60)]
    assert commands[0][0] == 0.0
    assert (CONFIG.recovery_speed_mps, CONFIG.recovery_turn_radps) in commands
