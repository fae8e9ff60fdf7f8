"""The encoder on the robot gives what the simulation's compiled one gives; actions and commands map both ways."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ObservationContractError
from contracts.observation import BEAMS, OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.robot import AMR_SMALL, LidarModel, RobotModel
from navigation.action import decode_action, encode_command
from navigation.encoder import ObservationEncoder, pool_beams
from navigation.route import Route, cell_costs
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome
from sim.world.generate import generate_warehouse


@pytest.mark.parametrize("control_hz", [10, 20])
def test_encoder_is_the_compiled_one(control_hz):
    floor = generate_warehouse(5)
    costs = cell_costs(floor)
    routes = {}
    config = SimulationConfig(worlds=1, robots=3, people=3, control_hz=control_hz, guarded=False)
    simulation = Simulation([floor], config, seed=4)
    encoders = [ObservationEncoder(AMR_SMALL, simulation.step_s) for _ in range(3)]
    rng = np.random.default_rng(0)
    restarts = 0
    for step in range(250):
        for robot, encoder in enumerate(encoders):
            if simulation.outcome[0, robot] in (Outcome.CONTACT, Outcome.TIMEOUT):
                encoder.reset()
                restarts += 1
            goal = int(simulation.goal[0, robot])
            if goal not in routes:
                routes[goal] = Route(costs, floor.stations[goal].x_m, floor.stations[goal].y_m)
            pose, velocity = simulation.state.pose[0, robot], simulation.state.velocity[0, robot]
            mine = encoder.encode(
                simulation.ranges[0, robot], tuple(pose.tolist()), tuple(velocity.tolist()), routes[goal]
            )
            theirs = simulation.observation[0, robot]
            assert mine[:72].tobytes() == theirs[:72].tobytes()
            # Sine and cosine of the two maths libraries may differ in the last bit of a float64.
            assert mine[72:] == pytest.approx(theirs[72:], abs=2e-6)
        if step % 10 == 0:
            action = rng.uniform(-0.2, 1.0, (1, 3, 2)).astype(np.float32)
        simulation.step(action, decode_action(action, AMR_SMALL))
    assert restarts > 0


def test_observation_stays_in_its_ranges():
    floor = generate_warehouse(5)
    simulation = Simulation([floor], SimulationConfig(worlds=4, robots=4, people=5, guarded=False), seed=4)
    low = np.concatenate([np.full(field.size, field.low) for field in ROUTING_LAYOUT.observation])
    high = np.concatenate([np.full(field.size, field.high) for field in ROUTING_LAYOUT.observation])
    rng = np.random.default_rng(1)
    for _ in range(100):
        action = rng.uniform(-1.0, 1.0, (4, 4, 2)).astype(np.float32)
        simulation.step(action, decode_action(action, AMR_SMALL))
        for seen in (simulation.observation, simulation.terminal_observation):
            assert np.isfinite(seen).all()
            assert (seen >= low.astype(np.float32)).all()
            assert (seen <= high.astype(np.float32)).all()


def test_beams_are_the_nearest_of_their_sector():
    ranges = np.arange(180, dtype=np.float32)[::-1].copy()
    beams = np.empty(BEAMS, dtype=np.float32)
    pool_beams(ranges, 5, beams)
    assert beams.tolist() == ranges.reshape(BEAMS, 5).min(axis=1).tolist()


def test_history_is_one_interval_old():
    floor = generate_warehouse(5)
    route = Route(cell_costs(floor), floor.stations[0].x_m, floor.stations[0].y_m)
    encoder = ObservationEncoder(AMR_SMALL, 0.025)
    before = []
    for tick in range(12):
        seen = encoder.encode(np.full(180, float(tick), dtype=np.float32), (2.0, 2.0, 0.0), (0.0, 0.0), route)
        before.append(float(seen[BEAMS]))
        assert seen.shape == (OBSERVATION_SIZE,)
    assert before == [0.0, 0.0, 0.0, 0.0, *(float(tick - 4) for tick in range(4, 12))]
    encoder.reset()
    seen = encoder.encode(np.full(180, 7.0, dtype=np.float32), (2.0, 2.0, 0.0), (0.0, 0.0), route)
    assert seen[BEAMS] == 7.0


@pytest.mark.parametrize("tick_s", [0.03, 0.2, 0.07])
def test_tick_that_does_not_fit_is_refused(tick_s):
    with pytest.raises(ObservationContractError, match="multiple of 10 Hz"):
        ObservationEncoder(AMR_SMALL, tick_s)


def test_lidar_that_does_not_fit_is_refused():
    with pytest.raises(ObservationContractError, match="resample the scan"):
        ObservationEncoder(RobotModel(lidar=LidarModel(rays=100)), 0.1)


unit = st.floats(-1.0, 1.0, width=32)


@given(unit, unit)
def test_command_of_an_action_is_that_action(first, second):
    action = np.array([first, second], dtype=np.float32)
    again = encode_command(decode_action(action, AMR_SMALL), AMR_SMALL)
    assert again == pytest.approx(action, abs=1e-6)


@given(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32))
def test_command_never_leaves_the_limits(first, second):
    speed, turn = decode_action(np.array([first, second], dtype=np.float32), AMR_SMALL)
    assert -AMR_SMALL.reverse_max_mps <= speed <= AMR_SMALL.speed_max_mps
    assert abs(turn) <= AMR_SMALL.turn_rate_max_radps
