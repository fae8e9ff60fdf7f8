"""People: errands, company, hiding places, stops, manners; and never inside a shelf or a pallet."""

import numpy as np
import pytest

from navigation.warehouse import box_clearance
from sim.people.crowd import PRESSING_GAP_M, hiding_places
from sim.people.walk import HIDES, STEPS_BACK, STEPS_OUT
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.randomise import Crowd, Randomisation
from sim.world.generate import generate_warehouse

FLOORS = [generate_warehouse(seed) for seed in (1, 2, 6)]


def crowded(crowd, people=12, worlds=6, robots=2):
    return Simulation(
        FLOORS, SimulationConfig(worlds=worlds, robots=robots, people=people, crowd=crowd), seed=0
    )


def still(simulation, steps):
    nothing = np.zeros((*simulation.reward.shape, 2), dtype=np.float32)
    for _ in range(steps):
        simulation.step(nothing, nothing.astype(np.float64))
        yield simulation.state.person_xy


def test_nobody_walks_through_a_box():
    simulation = crowded(Crowd())
    for places in still(simulation, 400):
        for world in range(6):
            boxes = simulation.state.warehouses[world].boxes()
            assert min(box_clearance(boxes, x, y) for x, y in places[world]) > 0.0


def test_people_get_about():
    simulation = crowded(Crowd(lurker_share=0.0, group_share=0.0))
    start = simulation.state.person_xy.copy()
    farthest = np.zeros(start.shape[:2])
    for places in still(simulation, 400):
        farthest = np.maximum(farthest, np.hypot(*(places - start).transpose(2, 0, 1)))
    assert (farthest > 2.0).mean() > 0.85


def test_groups_stay_together():
    simulation = crowded(Crowd(group_share=1.0, lurker_share=0.0))
    leader = simulation.walkers.arrays.leader
    followers = np.argwhere(leader != np.arange(leader.shape[1]))
    assert len(followers) > 40
    apart = []
    for places in still(simulation, 300):
        apart += [np.hypot(*(places[w, k] - places[w, leader[w, k]])) for w, k in followers]
    assert np.quantile(apart, 0.9) < 3.0


def test_somebody_behind_a_shelf_steps_out_when_a_robot_comes():
    simulation = crowded(Crowd(lurker_share=1.0), people=6)
    people = simulation.walkers.arrays
    world, person = np.argwhere(people.lurks == HIDES)[0]
    simulation.state.pose[world, :, :2] = 1.0
    before = simulation.state.person_xy[world, person].copy()
    for _ in still(simulation, 80):
        simulation.state.pose[world, :, :2] = 1.0
    if np.hypot(*(before - 1.0)) > 2.7:
        assert people.lurks[world, person] == HIDES
    out = people.posts[world, person, 1]
    away = (out - before) / np.hypot(*(out - before))
    for _ in still(simulation, 3):
        simulation.state.pose[world, 0, :2] = before + 2.0 * away
    assert people.lurks[world, person] == STEPS_OUT
    assert np.hypot(*(simulation.state.person_xy[world, person] - before)) > 0.05


def test_hiding_places_are_free_and_end_in_the_open():
    for floor in FLOORS:
        pairs = hiding_places(floor)
        assert len(pairs) > 4
        assert min(box_clearance(floor.boxes(), *place) for place in pairs.reshape(-1, 2)) > 0.29


def test_manners_and_numbers_are_drawn():
    crowd = Crowd(present=(0.2, 1.0), polite_share=0.5)
    simulation = Simulation(
        FLOORS, SimulationConfig(worlds=40, robots=1, people=10, randomise=Randomisation(crowd=crowd)), seed=0
    )
    gaps = np.unique(simulation.walkers.arrays.gap)
    assert gaps.tolist() == pytest.approx([PRESSING_GAP_M, crowd.late_gap_m, crowd.polite_gap_m])
    there = (simulation.state.person_xy[..., 0] > 0.0).sum(axis=1)
    assert there.min() < 5
    assert there.max() >= 9


def test_people_stop_for_no_reason():
    def moving(stops_per_s):
        simulation = crowded(
            Crowd(stops_per_s=stops_per_s, lurker_share=0.0, group_share=0.0, pause_max_s=2.0)
        )
        list(still(simulation, 50))
        shares = []
        for _ in still(simulation, 200):
            shares.append((np.abs(simulation.state.person_velocity).sum(axis=-1) > 0.0).mean())
        return np.mean(shares)

    assert moving(1.0) < moving(0.0) - 0.15


def test_nobody_waits_for_a_robot_for_ever():
    """A robot that stands on somebody's way back behind the shelf: they turn round after a while."""
    simulation = crowded(Crowd(lurker_share=1.0, polite_share=1.0), people=1, worlds=3, robots=1)
    people = simulation.walkers.arrays
    world = int(np.argwhere(people.lurks[:, 0] == HIDES)[0, 0])
    hidden, out = people.posts[world, 0]
    people.lurks[world, 0] = STEPS_OUT
    states = set()
    for _ in still(simulation, 120):
        simulation.state.pose[world, 0, :2] = (hidden + out) / 2 + (out - hidden) * 0.9
        states.add(int(people.lurks[world, 0]))
    assert {STEPS_OUT, STEPS_BACK} <= states
