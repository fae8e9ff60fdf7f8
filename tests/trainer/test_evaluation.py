"""Comparisons are fair and repeatable: same seeds, same numbers; everyone gets the same orders."""

import msgspec
import numpy as np
import pytest

from contracts.robot import AMR_SMALL
from navigation.action import encode_command
from outrider.verbs.evaluate import app, table
from outrider.verbs.keys import init
from sim.errors import SimConfigError
from sim.physics.pybullet_physics import PyBulletPhysics
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import TRIP_MAX_S, Outcome
from sim.world.generate import generate_warehouse
from tests.support.tiny_run import TINY
from trainer.evaluation.controllers import RuleBased
from trainer.evaluation.evaluate import EvaluationConfig, evaluate, unseen_floors
from trainer.evaluation.plot import plot_evaluation
from trainer.export.bundle import ExportSettings, export_bundle
from trainer.release.keys import load_signer

CONFIG = EvaluationConfig(floors=1, robots=2, people=1, trips=1)
FLOORS = unseen_floors(1)


class Still:
    """Never moves: every trip times out."""

    name = "still"

    def begin(self, robots):
        del robots

    def commands(self, observations):
        return np.zeros((len(observations), 2))


@pytest.fixture(scope="module")
def result():
    return evaluate([RuleBased(AMR_SMALL, 0.1), Still()], CONFIG, FLOORS)


def test_same_seeds_same_result(result):
    again = evaluate([RuleBased(AMR_SMALL, 0.1), Still()], CONFIG, FLOORS)
    assert msgspec.json.encode(again) == msgspec.json.encode(result)
    other = evaluate([RuleBased(AMR_SMALL, 0.1)], msgspec.structs.replace(CONFIG, seed=1), FLOORS)
    assert other.results[0].trip_times_s != result.results[0].trip_times_s


def test_failed_trips_count_as_their_cap(result):
    driver, still = result.results
    assert still.trip_s == TRIP_MAX_S
    assert (still.success, still.timeouts) == (0.0, still.trips)
    assert driver.trips == still.trips == CONFIG.robots * CONFIG.trips
    assert driver.trip_s == pytest.approx(np.mean(driver.trip_times_s))
    assert result.gains[0] == 0.0
    assert result.gains[1] <= 0.0


def test_result_is_shown_and_drawn(result, tmp_path):
    text = table(result)
    assert "rule-based" in text
    assert "60 s" in text
    plot_evaluation(result, tmp_path / "evaluation.png")
    assert (tmp_path / "evaluation.png").stat().st_size > 5000


def orders(drive):
    """Goal of each trip of each robot, in order, and where people began."""
    settings = SimulationConfig(worlds=1, robots=3, people=2, trip_max_s=12.0)
    simulation = Simulation(FLOORS, settings, seed=5)
    simulation.use_physics(PyBulletPhysics(simulation.state, AMR_SMALL, "planar"))
    people = simulation.state.person_xy.tobytes()
    goals = [[int(goal)] for goal in simulation.goal[0]]
    for _ in range(500):
        command = drive(simulation.observation[0])[None]
        simulation.step(encode_command(command, AMR_SMALL), command)
        for robot in np.flatnonzero(simulation.outcome[0]):
            goals[robot].append(int(simulation.goal[0, robot]))
    simulation.close()
    return goals, people


def test_controllers_get_the_same_orders():
    driver = RuleBased(AMR_SMALL, 0.1)
    driver.begin(3)
    driven, people = orders(driver.commands)
    stood, same_people = orders(lambda seen: np.zeros((len(seen), 2)))
    assert people == same_people
    for first, second in zip(driven, stood, strict=True):
        count = min(len(first), len(second))
        assert count >= 3
        assert first[:count] == second[:count]


def test_no_floor_is_refused():
    with pytest.raises(SimConfigError, match="no floor given"):
        evaluate([Still()], CONFIG, [])


def test_empty_layouts_folder_is_refused(trained, tmp_path, capsys):
    keys, bundle = tmp_path / "keys", tmp_path / "v1.outrider"
    init(keys, "robot_1")
    bundle.write_bytes(export_bundle(trained, ExportSettings("p", "1.0.0", 1), [load_signer(keys)]))
    (tmp_path / "floors").mkdir()
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        app(
            [str(bundle), "--layouts", str(tmp_path / "floors"), "--keys", str(keys), "--out", str(out)],
            prog_name="outrider evaluate",
        )
    assert caught.value.code != 0
    assert "holds no .yaml file; give a folder of warehouse files" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not out.exists()


def test_training_never_sees_an_evaluation_floor():
    trained_on = {generate_warehouse(TINY.floor_seed + k).hash() for k in range(4)}
    assert not trained_on & {floor.hash() for floor in unseen_floors(4)}
    assert Outcome.ARRIVED == 1
