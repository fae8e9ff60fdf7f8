"""Domain randomisation, faults on demand, background robots: each is felt, bounded, repeatable, and off by default."""

import math

import msgspec
import numpy as np
import pytest

from contracts.robot import AMR_SMALL
from navigation.action import decode_action
from navigation.warehouse import Station, StationKind, Warehouse
from safety.monitor import SafetyMonitor
from sim.disturb.sense import fill_invalid
from sim.disturb.state import PROPERTIES, Fault, fault_named
from sim.errors import SimConfigError
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome
from sim.tasks.randomise import NOMINAL, Crowd, Randomisation
from sim.world.generate import generate_warehouse

STATIONS = (Station("p", StationKind.PICK, 25.0, 25.0), Station("d", StationKind.DROP, 75.0, 75.0))
HALL = Warehouse("hall", 100.0, 100.0, (), STATIONS, people=0)
FLOOR = generate_warehouse(5)


def in_hall(randomise=None, **changes):
    config = SimulationConfig(
        worlds=1, robots=2, people=0, guarded=False, trip_max_s=1e6, randomise=randomise
    )
    simulation = Simulation([HALL], msgspec.structs.replace(config, **changes), seed=3)
    simulation.state.pose[0] = [(30.0, 50.0, 0.0), (70.0, 50.0, 1.0)]
    return simulation


def drive(simulation, steps, action=(0.5, 0.0)):
    wanted = np.tile(np.array(action, dtype=np.float32), (*simulation.reward.shape, 1))
    for _ in range(steps):
        simulation.step(wanted, decode_action(wanted, simulation.model))


def only(**ranges):
    return msgspec.structs.replace(NOMINAL, **ranges)


def test_nominal_randomisation_changes_nothing():
    plain, nominal = in_hall(), in_hall(NOMINAL)
    for simulation in (plain, nominal):
        drive(simulation, 40, (0.7, 0.3))
    assert np.abs(plain.state.pose - nominal.state.pose).max() < 1e-9
    assert np.abs(plain.observation - nominal.observation).max() < 1e-5


@pytest.mark.parametrize(
    ("ranges", "share"), [({"speed_scale": (0.9, 0.9)}, 0.9), ({"speed_scale": (1.1, 1.1)}, 1.1)]
)
def test_speed_scale_is_felt(ranges, share):
    simulation = in_hall(only(**ranges))
    drive(simulation, 60)
    assert simulation.state.velocity[0, 0, 0] == pytest.approx(0.6 * share, abs=1e-3)


def test_lag_makes_it_slower_to_turn():
    turned = []
    for lag_s in (0.0, 0.3):
        simulation = in_hall(only(drive_lag_s=(lag_s, lag_s)))
        drive(simulation, 8, (0.0, 0.6))
        turned.append(simulation.state.pose[0, 0, 2])
    assert 0.2 < turned[1] < turned[0] - 0.1


def test_delay_and_payload_make_it_slower_to_start():
    travelled = []
    for ranges in (
        {},
        {"action_delay_steps": (2, 2)},
        {"payload_kg": (60.0, 60.0)},
    ):
        simulation = in_hall(only(**ranges))
        start_m = simulation.state.pose[0, 0, 0]
        drive(simulation, 12, (1.0, 0.0))
        travelled.append(simulation.state.pose[0, 0, 0] - start_m)
    assert all(slower < travelled[0] - 0.05 for slower in travelled[1:]), travelled


def test_observation_delay_shows_the_past():
    late, now = in_hall(only(observation_delay_steps=(2, 2))), in_hall(NOMINAL)
    seen = []
    for _ in range(20):
        drive(late, 1)
        drive(now, 1)
        seen.append(now.observation.copy())
    assert np.abs(late.observation - seen[-3]).max() < 1e-5
    assert np.abs(late.observation - seen[-1]).max() > 0.01


def test_lidar_noise_has_the_deviation_asked_for():
    config = SimulationConfig(worlds=8, robots=4, people=0, randomise=only(lidar_noise_m=(0.02, 0.02)))
    noisy, clean = (
        Simulation([FLOOR], msgspec.structs.replace(config, randomise=r), seed=1)
        for r in (config.randomise, None)
    )
    apart = (noisy.ranges - clean.ranges)[clean.ranges < 7.9]
    assert apart.std() == pytest.approx(0.02, rel=0.1)
    assert abs(apart.mean()) < 0.002


def test_dropouts_are_filled_as_the_monitor_fills_them():
    monitor = SafetyMonitor(AMR_SMALL)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.3, 1.0):
        ranges = rng.uniform(0.05, 8.0, 180).astype(np.float32)
        ranges[rng.random(180) < share] = 0.0
        expected = monitor.clean_ranges(ranges).copy()
        fill_invalid(ranges, AMR_SMALL.lidar.range_min_m)
        assert np.array_equal(ranges, expected)


def test_localisation_wanders_within_its_deviation():
    simulation = in_hall(only(localisation_m=(0.1, 0.1), localisation_rad=(0.03, 0.03)))
    errors = []
    for _ in range(1500):
        drive(simulation, 1, (0.0, 0.0))
        errors.append((simulation.disturbance.estimated - simulation.state.pose)[0].copy())
    deviation = np.array(errors).std(axis=(0, 1))
    assert deviation == pytest.approx([0.1, 0.1, 0.03], rel=0.4)


def test_reward_counts_true_progress_not_believed():
    lost, found = in_hall(only(localisation_m=(0.3, 0.3))), in_hall(NOMINAL)
    for simulation in (lost, found):
        drive(simulation, 1)
    assert lost.reward == pytest.approx(found.reward, abs=1e-6)
    assert np.abs(lost.observation - found.observation).max() > 0.05


def test_properties_are_drawn_within_their_ranges_and_again_for_each_trip():
    config = SimulationConfig(worlds=64, robots=4, people=0, randomise=Randomisation(), trip_max_s=0.5)
    simulation = Simulation([FLOOR], config, seed=0)
    first = simulation.disturbance.properties.copy()
    for index, name in enumerate(PROPERTIES):
        low, high = getattr(Randomisation(), name)
        assert first[..., index].min() >= low
        assert first[..., index].max() <= high
        assert first[..., index].std() > 0.0
    drive(simulation, 5)
    assert (simulation.trips == 2).all()
    assert (simulation.disturbance.properties != first)[..., 0].all()


def test_a_trip_is_the_same_whatever_happened_before():
    """Pairing: goal and disturbances of trip three do not depend on how trips one and two went."""
    config = SimulationConfig(worlds=16, robots=3, people=3, randomise=Randomisation(), trip_max_s=1.0)
    kept = []
    for action in ((1.0, 0.0), (0.2, 0.8)):
        simulation = Simulation([FLOOR], config, seed=4)
        while simulation.trips.min() < 3:
            drive(simulation, 1, action)
        third = simulation.trips == 3
        kept.append((third, simulation.goal.copy(), simulation.disturbance.properties.copy()))
    both = kept[0][0] & kept[1][0]
    assert both.sum() > 20
    assert np.array_equal(kept[0][1][both], kept[1][1][both])
    assert np.array_equal(kept[0][2][both], kept[1][2][both])


def test_dead_lidar_stops_the_robot_behind_the_monitor():
    simulation = in_hall(guarded=True)
    drive(simulation, 20)
    assert simulation.state.velocity[0, 0, 0] > 0.5
    simulation.set_fault(0, 0, Fault.DEAD_LIDAR)
    drive(simulation, 20)
    assert simulation.state.velocity[0, 0, 0] == 0.0
    assert simulation.state.velocity[0, 1, 0] > 0.5, "the other one drives on"
    simulation.set_fault(0, 0, Fault.NONE)
    drive(simulation, 20)
    assert simulation.state.velocity[0, 0, 0] > 0.5


def test_frozen_scan_stays():
    simulation = Simulation([FLOOR], SimulationConfig(worlds=1, robots=2, people=0), seed=0)
    simulation.set_fault(0, 0, Fault.FROZEN_SCAN)
    drive(simulation, 2, (0.0, 1.0))
    before = simulation.ranges.copy()
    drive(simulation, 10, (0.0, 1.0))
    assert np.array_equal(simulation.ranges[0, 0], before[0, 0])
    assert not np.array_equal(simulation.ranges[0, 1], before[0, 1])


@pytest.mark.parametrize("fault", [Fault.SLIPPING_WHEEL, Fault.STUCK_MOTOR])
def test_a_bad_wheel_makes_it_veer_left(fault):
    simulation = in_hall()
    simulation.set_fault(0, 0, fault)
    drive(simulation, 8)
    assert simulation.state.pose[0, 0, 2] > 0.2
    assert simulation.state.pose[0, 1, 2] == pytest.approx(1.0)
    notices = abs(simulation.disturbance.measured[0, 0, 1]) > 0.1
    assert notices == (fault is Fault.STUCK_MOTOR), "odometry does not see a slipping wheel"


def test_lost_localisation_moves_the_goal_not_the_robot():
    simulation = in_hall()
    drive(simulation, 5)
    goal = simulation.observation[0, :, 78:80].copy()
    simulation.set_fault(0, 0, Fault.LOST_LOCALISATION)
    drive(simulation, 1, (0.0, 0.0))
    moved = np.abs(simulation.observation[0, :, 78:80] - goal).max(axis=1)
    assert moved[0] > 1.0
    assert moved[1] < 0.2


def test_faults_have_names():
    assert fault_named("dead_lidar+slipping_wheel") == Fault.DEAD_LIDAR | Fault.SLIPPING_WHEEL
    with pytest.raises(KeyError, match=r"no fault 'flat_tyre'; there are: .*stuck_motor"):
        fault_named("flat_tyre")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lidar_noise_m": (0.2, 0.1)}, "lidar_noise_m is .*in order"),
        ({"drive_lag_s": (math.nan, 1.0)}, "drive_lag_s"),
        ({"speed_scale": (0.0, 1.0)}, "speed_scale is .*within 0.1 and 2"),
        ({"blind_rad": (-0.1, 0.1)}, "blind_rad is .*negative"),
        ({"crowd": Crowd(present=(0.5, 1.5))}, "crowd.present"),
    ],
)
def test_wrong_ranges_are_named(changes, message):
    with pytest.raises(SimConfigError, match=message):
        in_hall(msgspec.structs.replace(Randomisation(), **changes))


def test_scaled_randomisation_shrinks_towards_nominal():
    half = Randomisation().scaled(0.5)
    assert half.speed_scale == pytest.approx((0.975, 1.015))
    assert half.lidar_noise_m == pytest.approx((0.0, 0.01))
    assert Randomisation().scaled(1.0) == Randomisation()


def test_background_robots_drive_and_broken_ones_stand():
    config = SimulationConfig(worlds=8, robots=4, robots_rule_based=1, robots_broken=1, people=2)
    simulation = Simulation([generate_warehouse(k) for k in range(8)], config, seed=0)
    assert simulation.learners == 2
    start = simulation.state.pose.copy()
    arrived = np.zeros(4, dtype=int)
    for _ in range(300):
        drive(simulation, 1, (0.0, 0.0))
        arrived += (simulation.outcome == Outcome.ARRIVED).sum(axis=0)
    moved = np.hypot(*(simulation.state.pose - start)[..., :2].transpose(2, 0, 1))
    assert moved[:, 3].max() < 1e-9, "broken"
    assert moved[:, :2].max() < 1e-9, "nobody drives the learners"
    assert arrived[2] >= 6, "rule-based ones work"


def test_no_two_robots_are_sent_to_one_station():
    config = SimulationConfig(worlds=8, robots=3, people=0, trip_max_s=0.3)
    simulation = Simulation([generate_warehouse(k) for k in range(8)], config, seed=0)
    for _ in range(100):
        drive(simulation, 1)
        for goals in simulation.goal:
            assert len(set(goals.tolist())) == 3


def test_broken_robots_leave_room_to_pass():
    config = SimulationConfig(worlds=24, robots=2, robots_broken=1, people=0)
    floors = [generate_warehouse(k) for k in range(24)]
    simulation = Simulation(floors, config, seed=0)
    for world in range(24):
        x, y = simulation.state.pose[world, 1, :2]
        boxes = floors[world].boxes()
        gap_x = np.maximum(np.maximum(boxes[:, 0] - x, x - boxes[:, 2]), 0.0)
        gap_y = np.maximum(np.maximum(boxes[:, 1] - y, y - boxes[:, 3]), 0.0)
        assert 0.3 < np.hypot(gap_x, gap_y).min() < 0.55


def test_no_robot_left_to_drive_is_named():
    with pytest.raises(SimConfigError, match="at least one must be left to drive"):
        Simulation([FLOOR], SimulationConfig(worlds=1, robots=2, robots_rule_based=1, robots_broken=1))


def test_snapshot_goes_on_with_the_same_bits():
    config = SimulationConfig(worlds=4, robots=3, people=4, randomise=Randomisation(), trip_max_s=3.0)
    simulation = Simulation([FLOOR], config, seed=2)
    drive(simulation, 40, (0.8, 0.2))
    kept = simulation.snapshot()
    drive(simulation, 60, (0.6, -0.3))
    expected = simulation.observation.copy(), simulation.state.person_xy.copy(), simulation.trips.copy()
    fresh = Simulation([FLOOR], config, seed=2)
    fresh.reset(99)
    fresh.restore(kept)
    drive(fresh, 60, (0.6, -0.3))
    for came, wanted in zip((fresh.observation, fresh.state.person_xy, fresh.trips), expected, strict=True):
        assert np.array_equal(came, wanted)


def test_a_snapshot_of_another_simulation_is_refused():
    small = Simulation([FLOOR], SimulationConfig(worlds=1, robots=2, people=0), seed=0)
    large = Simulation([FLOOR], SimulationConfig(worlds=2, robots=2, people=0), seed=0)
    before = small.snapshot()
    with pytest.raises(SimConfigError, match="does not fit this simulation"):
        small.restore(large.snapshot())
    assert all(np.array_equal(before[name], array) for name, array in small.snapshot().items())
