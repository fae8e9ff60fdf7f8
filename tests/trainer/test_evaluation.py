"""Comparisons are fair and repeatable: same seeds, same numbers, in however many processes; the same trips for all."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from contracts.robot import AMR_SMALL, TUGGER
from navigation.action import encode_command
from navigation.controllers.pure_pursuit import PurePursuitConfig
from navigation.warehouse import Shelf, Station, StationKind, Warehouse, dump_warehouse
from outrider.verbs.evaluate import app, table
from outrider.verbs.keys import init
from sim.errors import SimConfigError
from sim.physics.pybullet_physics import PyBulletPhysics
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import ARRIVE_RADIUS_M, TRIP_MAX_S, Outcome
from sim.world.generate import generate_warehouse
from sim.world.state import Contact, WorldState
from tests.support.tiny_run import TINY
from trainer.baselines.catalogue import build
from trainer.errors import TrainConfigError
from trainer.evaluation.config import UNSEEN_FLOOR_SEED, EvaluationConfig, load_floors, unseen_floors
from trainer.evaluation.drive import Contender, drive_all
from trainer.evaluation.evaluate import summarise, trip_columns
from trainer.evaluation.fidelity import (
    Driven,
    FidelityReport,
    markdown,
    motion_error,
    ray_error,
    smooth_commands,
)
from trainer.evaluation.gates import missed, parse_gates
from trainer.evaluation.metrics import (
    FREE_M,
    Heat,
    TripMeter,
    WatchedPhysics,
    gaps,
    route_length_m,
)
from trainer.evaluation.plot import plot_evaluation, plot_heat
from trainer.export.bundle import ExportSettings, export_bundle
from trainer.release.keys import load_signer

CONFIG = EvaluationConfig(floors=2, robots=2, people=1, trips=2)
FLOORS = unseen_floors(2)
HALL = Warehouse(
    "hall",
    20.0,
    20.0,
    (),
    (Station("p", StationKind.PICK, 4.0, 10.0), Station("d", StationKind.DROP, 16.0, 10.0)),
)


class Fixed:
    """Always the same command."""

    def __init__(self, speed_mps, turn_radps, model, tick_s, seed):
        del model, tick_s, seed
        self.name, self._command = "fixed", (speed_mps, turn_radps)

    def begin(self, robots):
        del robots

    def commands(self, observations):
        return np.tile(self._command, (len(observations), 1))


def fixed(name, speed_mps, turn_radps=0.0, group=""):
    return Contender(name, partial(Fixed, speed_mps, turn_radps), group or name)


STILL = fixed("still", 0.0)
PURSUIT = Contender("pursuit", partial(build, "pure_pursuit", PurePursuitConfig()), "pursuit", policy=False)


@pytest.fixture(scope="module")
def drives():
    return drive_all([PURSUIT, STILL], CONFIG, FLOORS)


@pytest.fixture(scope="module")
def result(drives):
    return summarise(drives, CONFIG)


def test_same_seeds_same_trips_however_many_processes(drives):
    alone = drive_all([PURSUIT], CONFIG, FLOORS)
    shared = drive_all([PURSUIT], CONFIG, FLOORS, jobs=2)
    of_pursuit = drives.trips[drives.trips["controller"] == 0]
    assert alone.trips.tobytes() == shared.trips.tobytes() == of_pursuit.tobytes()
    for key, heat in alone.heat.items():
        assert heat.wait_s.tobytes() == shared.heat[key].wait_s.tobytes() == drives.heat[key].wait_s.tobytes()
    other = drive_all([PURSUIT], msgspec.structs.replace(CONFIG, seed=1), FLOORS)
    assert other.trips["time_s"].tolist() != alone.trips["time_s"].tolist()


def test_failed_trips_count_as_their_cap(drives, result):
    driver, still = result.results
    assert still.trip_s == still.trip_s_interval.low == TRIP_MAX_S
    assert (still.success, still.timeouts, still.success_trip_s) == (0.0, still.trips, None)
    assert driver.trips == still.trips == CONFIG.floors * CONFIG.learners * CONFIG.trips
    times = drives.trips["time_s"][drives.trips["controller"] == 0]
    assert driver.trip_s == pytest.approx(times.mean())
    assert (driver.common_s, still.common_s) == (None, None)
    assert result.reference == "pursuit"
    assert [row.name for row in result.comparisons] == ["still"]
    assert result.gain_of("still").value == pytest.approx(1 - TRIP_MAX_S / driver.trip_s)
    assert result.gain_of("pursuit").value == 0.0
    assert any("only 2 floors to resample" in note for note in result.notes)


def test_best_is_the_fastest_baseline_and_seeds_are_pooled():
    contenders = [
        PURSUIT,
        fixed("a/seed-0", 0.0, group="a"),
        fixed("a/seed-1", 0.3, group="a"),
    ]
    config = msgspec.structs.replace(CONFIG, physics="twin", trips=1)
    found = drive_all(contenders, config, FLOORS)
    pooled = summarise(found, config)
    assert pooled.reference == "pursuit"
    (row,) = pooled.comparisons
    assert (row.name, row.seeds, row.trips) == ("a", 2, 2 * 4)
    singles = [gain.value for gain in row.gain_of_seed.values()]
    assert row.gain.value == pytest.approx(np.mean(singles))
    against = summarise(found, config, reference="a/seed-1")
    assert [row.seeds for row in against.comparisons] == [1, 1]
    with pytest.raises(TrainConfigError, match="no controller is called 'b'; choose best or one of pursuit"):
        summarise(found, config, reference="b")


def test_result_is_shown_drawn_and_kept(drives, result, tmp_path):
    text = table(result)
    assert "pursuit" in text
    assert "60 s" in text
    assert "time saved against pursuit" in text
    plot_evaluation(result, drives, tmp_path / "evaluation.png")
    assert (tmp_path / "evaluation.png").stat().st_size > 5000
    files = plot_heat(drives, tmp_path, 1)
    assert [path.name for path in files] == [
        f"heat-{FLOORS[0].name}-{name}.png" for name in ("pursuit", "still")
    ]
    assert all(path.stat().st_size > 5000 for path in files)
    stream = io.BytesIO()
    np.savez(stream, **trip_columns(drives))
    stored = np.load(io.BytesIO(stream.getvalue()), allow_pickle=False)
    assert stored["controllers"].tolist() == ["pursuit", "still"]
    assert stored["time_s"].shape == stored["outcome"].shape == (16,)
    assert msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result


def test_gates(result):
    assert missed(result, parse_gates("gain>=-20, contact_excess<=0")) == []
    assert missed(result, parse_gates("success>=0.99")) == ["still: success is 0, asked for >= 0.99"]
    for wrong in ("gain=0.1", "speed>=1", "gain>=", ""):
        with pytest.raises(TrainConfigError, match="is no demand; write METRIC>=NUMBER"):
            parse_gates(wrong)


def metered(command, poses, trips=1, people=(), steps=600, guarded=False, physics="twin", **settings):
    """One world in the hall where robots get ``command``; what the meter wrote."""
    config = SimulationConfig(worlds=1, robots=len(poses), people=len(people), guarded=guarded, **settings)
    simulation = Simulation([HALL], config, seed=2)
    watched = WatchedPhysics(simulation, physics)
    simulation.state.pose[0] = poses
    if people:
        simulation.state.person_xy[0] = people
        simulation.walkers.arrays.pause[:] = 1e6
        simulation.walkers.arrays.lurks[:] = 0
    simulation.use_physics(watched)
    heat = Heat(HALL.width_m, HALL.height_m, simulation.floors.station_xy[0])
    meter = TripMeter(simulation, watched, trips, heat)
    for _ in range(steps):
        if meter.done:
            break
        commands = np.array(command, dtype=np.float64).reshape(1, -1, 2)
        meter.before()
        simulation.step(encode_command(commands, AMR_SMALL), commands)
        meter.after()
    simulation.close()
    return meter, heat


@pytest.mark.parametrize("physics", ["twin", "planar"])
def test_contact_and_motion_are_those_of_the_trips_last_moment(physics):
    """At full speed into the wall 3.7 m away: the robot is put elsewhere in the same step, the record knows better."""
    meter, _ = metered([(1.2, 0.0)], [(16.0, 4.0, 0.0)], physics=physics)
    (trip,) = meter.records.reshape(-1)
    assert (trip["outcome"], trip["contact"]) == (Outcome.CONTACT, Contact.STATIC)
    assert trip["moving"]
    assert trip["time_s"] == TRIP_MAX_S
    assert trip["driven_m"] == pytest.approx(3.7, abs=0.13)
    # Speeding up from standstill takes v/a, over v^2/2a.
    assert trip["lasted_s"] == pytest.approx(3.7 / 1.2 + 0.5, abs=0.11)
    rolled_j = 0.015 * AMR_SMALL.mass_kg * 9.81 * trip["driven_m"]
    sped_up_j = AMR_SMALL.mass_kg * 1.2**2 / 2
    assert trip["energy_j"] >= rolled_j + sped_up_j - 0.5
    assert trip["change_per_s"] == pytest.approx(1.0 / trip["lasted_s"])
    assert trip["gap_min_m"] == FREE_M


def test_a_near_miss_counts_once_and_only_for_who_moves():
    """Past a standing robot with 0.1 m between: one near miss for who drives, none for who stands."""
    radius = AMR_SMALL.footprint_radius_m
    poses = [(4.0, 4.0, 0.0), (8.0, 4.0 + 2 * radius + 0.1, 0.0)]
    meter, _ = metered([(0.8, 0.0), (0.0, 0.0)], poses, trip_max_s=9.0)
    driver, stander = meter.records.reshape(-1)
    assert (driver["near_robot"], driver["near_person"], stander["near_robot"]) == (1, 0, 0)
    assert driver["gap_min_m"] == pytest.approx(0.1, abs=0.01)
    assert driver["gap_min_m"] == stander["gap_min_m"]
    apart = [(4.0, 4.0, 0.0), (8.0, 4.0 + 2 * radius + 0.2, 0.0)]
    assert metered([(0.8, 0.0), (0.0, 0.0)], apart, trip_max_s=9.0)[0].records["near_robot"].sum() == 0


def test_gaps_are_between_footprints():
    state = WorldState([HALL], TUGGER, 2, 1)
    state.pose[0] = [(5.0, 5.0, 0.0), (5.0, 7.0, 0.0)]
    state.person_xy[0] = [(7.0, 5.0)]
    person_m, robot_m = gaps(state.pose, state, 2)
    assert person_m[0, 0] == pytest.approx(2.0 - 0.3 - 0.3 - 0.25)
    assert robot_m[0].tolist() == pytest.approx([2.0 - 0.6] * 2)
    state.person_xy[0] = -1000.0
    assert gaps(state.pose, state, 2)[0].tolist() == [[FREE_M, FREE_M]]
    alone = WorldState([HALL], TUGGER, 1, 0)
    assert [gap.tolist() for gap in gaps(alone.pose, alone, 1)] == [[[FREE_M]], [[FREE_M]]]


def test_waiting_is_seen_where_it_happens():
    """A robot that stands for 3 s, and one that stands at a station, which is no waiting."""
    _, heat = metered([(0.0, 0.0), (0.0, 0.0)], [(10.2, 15.3, 0.0), (16.2, 10.2, 0.0)], trip_max_s=3.0)
    assert np.argwhere(heat.wait_s > 0).tolist() == [[30, 20]]
    assert heat.wait_s.sum() == pytest.approx(3.0)
    assert heat.driven_s == pytest.approx(6.0)
    assert heat.reduced_s.sum() == 0.0


def test_monitor_stepping_in_is_seen():
    meter, heat = metered([(1.2, 0.0)], [(16.0, 4.0, 0.0)], guarded=True, trip_max_s=6.0)
    (trip,) = meter.records.reshape(-1)
    assert trip["outcome"] == Outcome.TIMEOUT
    assert 0.0 < trip["reduced"] <= trip["reduced_share"] < 1.0
    assert heat.reduced_s.sum() == pytest.approx(trip["reduced_share"] * trip["lasted_s"])


def test_route_length_on_a_free_floor():
    simulation = Simulation([HALL], SimulationConfig(worlds=1, robots=1, people=0), seed=0)
    goal = simulation.floors.station_xy[0, simulation.goal[0, 0]]
    simulation.state.pose[0, 0] = goal[0] + 5.0 * (1 if goal[0] < 10 else -1), goal[1], 0.0
    assert route_length_m(simulation, 0, 0) == pytest.approx(5.0 - ARRIVE_RADIUS_M, abs=0.3)
    simulation.state.pose[0, 0, :2] = goal
    assert route_length_m(simulation, 0, 0) == 0.0


def test_watched_twin_is_the_twin():
    """The observer costs nothing in fidelity: same bits as the twin's own step."""
    ends = []
    for watch in (False, True):
        simulation = Simulation(FLOORS[:1], SimulationConfig(worlds=2, robots=3, people=4), seed=3)
        if watch:
            simulation.use_physics(WatchedPhysics(simulation, "twin"))
        controller = PURSUIT.make(AMR_SMALL, 0.1, 0)
        controller.begin(6)
        for _ in range(300):
            command = controller.commands(simulation.observation.reshape(6, -1)).reshape(2, 3, 2)
            simulation.step(encode_command(command, AMR_SMALL), command)
        assert simulation.trips.sum() > 6
        ends.append((simulation.state.pose.tobytes(), simulation.observation.tobytes()))
    assert ends[0] == ends[1]


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
    driver = PURSUIT.make(AMR_SMALL, 0.1, 0)
    driver.begin(3)
    driven, people = orders(driver.commands)
    stood, same_people = orders(lambda seen: np.zeros((len(seen), 2)))
    assert people == same_people
    for first, second in zip(driven, stood, strict=True):
        count = min(len(first), len(second))
        assert count >= 3
        assert first[:count] == second[:count]


def test_background_robots_are_not_judged():
    config = msgspec.structs.replace(
        CONFIG, floors=1, robots=4, robots_rule_based=1, robots_broken=1, trips=1
    )
    trips = drive_all(
        [STILL], msgspec.structs.replace(config, physics="twin", randomise=True), FLOORS[:1]
    ).trips
    assert trips["robot"].tolist() == [0, 1]
    with pytest.raises(TrainConfigError, match="at least one must be left to judge"):
        msgspec.structs.replace(config, robots_broken=3).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "mule"}, "no robot model 'mule'; choose one of amr_small, tugger"),
        ({"difficulty": (0.8, 0.2)}, r"difficulty is \[0.8, 0.2\]; expected \[low, high\]"),
        ({"families": ()}, "families is empty"),
        ({"control_hz": 15}, "control_hz is 15; it must be a multiple of 10"),
    ],
)
def test_what_cannot_be_driven_is_named(change, message):
    with pytest.raises(TrainConfigError, match=message):
        drive_all([STILL], msgspec.structs.replace(CONFIG, **change), FLOORS)


def test_no_floor_and_twice_the_same_name_are_refused():
    with pytest.raises(SimConfigError, match="no floor given"):
        drive_all([STILL], CONFIG, [])
    with pytest.raises(TrainConfigError, match="each with a name of its own"):
        drive_all([STILL, STILL], CONFIG, FLOORS)


@pytest.mark.parametrize(
    ("shelves", "message"),
    [
        (
            (Shelf(10.0, 10.0, 4.0, 2.0), Shelf(11.0, 10.0, 4.0, 2.0)),
            "floor.yaml: shelves.* overlap; move one",
        ),
        ((Shelf(10.0, 10.0, 1.0, 20.0),), "floor.yaml: station d cannot be reached from p; widen"),
    ],
)
def test_layouts_nobody_can_work_on_are_refused(shelves, message, tmp_path):
    (tmp_path / "floor.yaml").write_text(dump_warehouse(msgspec.structs.replace(HALL, shelves=shelves)))
    with pytest.raises(Exception, match=message):
        load_floors(tmp_path)


def test_training_never_sees_an_evaluation_floor():
    """Seeds far apart; and the name aside, which tells of the seed, the floors differ."""
    assert TINY.floor_seed + 100_000 < UNSEEN_FLOOR_SEED
    trained_on = {generate_warehouse(TINY.floor_seed + k).shelves for k in range(4)}
    unseen = unseen_floors(4)
    assert not trained_on & {floor.shelves for floor in unseen}
    assert unseen[0].shelves == generate_warehouse(UNSEEN_FLOOR_SEED).shelves
    assert Outcome.ARRIVED == 1


def run(arguments, capsys):
    """Exit code, standard output, standard error in one line."""
    with pytest.raises(SystemExit) as caught:
        app([str(argument) for argument in arguments], prog_name="outrider evaluate")
    came = capsys.readouterr()
    return caught.value.code, came.out, " ".join(came.err.split())


SMALL = ("--floors", 1, "--trips", 1, "--robots", 2, "--people", 1, "--physics", "twin", "--jobs", 1)


def test_command_line_judges_runs_and_bundles(trained, tmp_path, capsys):
    keys, bundle, runs, out = (tmp_path / name for name in ("keys", "v1.outrider", "runs", "out"))
    init(keys, "robot_1")
    capsys.readouterr()
    bundle.write_bytes(export_bundle(trained, ExportSettings("p", "1.0.0", 1), [load_signer(keys)]))
    for number in (0, 1):
        shutil.copytree(trained.path, runs / f"seed-{number}")
    arguments = [bundle, runs, "--keys", keys, "--baselines", "orca", *SMALL]
    code, text, _ = run([*arguments, "--json", "--heat", 1, "--out", out], capsys)
    assert code == 0
    came = json.loads(text)
    assert [row["name"] for row in came["results"]] == ["orca", "1.0.0", "runs/seed-0", "runs/seed-1"]
    assert [(row["name"], row["seeds"]) for row in came["comparisons"]] == [("1.0.0", 1), ("runs", 2)]
    # The run twice, and its export: three times the same policy.
    assert len({row["trip_s"] for row in came["results"][1:]}) == 1
    files = {path.name for path in out.iterdir()}
    assert {"evaluation.json", "trips.npz", "evaluation.png"} < files
    assert len([name for name in files if name.startswith("heat-")]) == 4
    code, text, errors = run([*arguments, "--require", "success>=1.01"], capsys)
    assert code == 3
    assert "runs: success is" in errors
    assert "time saved against orca" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("nowhere.outrider",),
            "nowhere.outrider is not there; give a bundle, a run folder or a folder of runs",
        ),
        (
            ("{runs}", "--baselines", "magic"),
            "there is no baseline 'magic'; choose all, none, or of pure_pursuit",
        ),
        (("{runs}", "--reference", "magic"), "no controller is called 'magic'"),
        (("{runs}", "--families", "magic"), "'magic' is not a list of families; there are: rows"),
        (("{runs}", "--require", "magic"), "'magic' is no demand"),
        (("{runs}", "--physics", "magic"), "Invalid enum value 'magic'"),
        (("{runs}", "--layouts", "{empty}"), "holds no .yaml file; give a folder of warehouse files"),
        (("{empty}",), "holds neither a run"),
        (("{broken}",), "has no checkpoint yet"),
        (("{runs}", "{runs}"), "two policies are called 'runs/seed-0'"),
        (("{bundle}", "--keys", "{empty}"), "trusted"),
        (
            ("{bundle}", "--keys", "{keys}", "--model", "tugger"),
            "v1.outrider is for amr_small, not for this version's",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(arguments, message, trained, tmp_path, capsys):
    places = {name: tmp_path / name for name in ("runs", "empty", "broken", "keys")}
    places["bundle"] = tmp_path / "v1.outrider"
    places["empty"].mkdir()
    shutil.copytree(trained.path, places["runs"] / "seed-0")
    shutil.copytree(trained.path, places["broken"] / "seed-0")
    (places["broken"] / "seed-0" / "checkpoint.zip").unlink()
    if any("{bundle}" in argument for argument in arguments):
        init(places["keys"], "robot_1")
        bundle = export_bundle(trained, ExportSettings("p", "1.0.0", 1), [load_signer(places["keys"])])
        places["bundle"].write_bytes(bundle)
    given = [argument.format(**places) for argument in arguments]
    extra = [] if "--baselines" in given else ["--baselines", "none"]
    given += [*extra, "--out", tmp_path / "out"]
    given += [part for part in SMALL if "--physics" not in given or part not in ("--physics", "twin")]
    code, _, errors = run(given, capsys)
    assert code in (1, 2)
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_after_an_end_in_the_middle(way, tmp_path):
    """Ctrl-C, and a parent that is killed and can tell nobody."""
    network = Path(__file__).resolve().parents[1] / "support" / "policy.onnx"
    command = [sys.executable, "-m", "outrider.cli", "evaluate", str(network), "--baselines", "none"]
    command += ["--floors", "400", "--trips", "50", "--jobs", "2", "--out", str(tmp_path / "out")]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        family = psutil.Process(parent.pid)
        deadline = time.monotonic() + 200.0
        while (
            len(workers := [each for each in family.children() if "spawn_main" in " ".join(each.cmdline())])
            < 2
        ):
            assert time.monotonic() < deadline
            assert parent.poll() is None, parent.communicate()[1]
            time.sleep(0.1)
        children = family.children()
        parent.send_signal(way)
        _, errors = parent.communicate(timeout=100.0)
        _, alive = psutil.wait_procs(children, timeout=100.0)
        assert alive == []
        assert len(workers) == 2
    finally:
        parent.kill()
        parent.wait()
    if way is signal.SIGINT:
        assert parent.returncode == 130
        assert "interrupted; nothing was written, and nothing runs on" in errors
    assert not (tmp_path / "out").exists()


def test_fidelity_compares_motion_and_rays():
    """On planar bodies the twin's motion is PyBullet's; on wheels it is a little off, and the report says so."""
    exact = motion_error(AMR_SMALL, "planar", 4)
    slipping = motion_error(AMR_SMALL, "wheeled", 4)
    assert 1.0 < exact.way_m < 1.2 * 10.0
    assert exact.way_m == slipping.way_m
    assert exact.place_max_m < 1e-3 < slipping.place_max_m < 0.1
    rays = ray_error(AMR_SMALL, 1)
    assert rays.rays == 6 * AMR_SMALL.lidar.rays
    assert rays.median_m < 1e-3
    assert rays.apart_share < 0.01
    row = Driven("amr_small", "p", "wheeled", 4, 0.75, 1, 21.5, 2.0)
    text = markdown(FidelityReport("p", 1, [row], [exact, slipping], [rays]))
    assert "| amr_small | p | wheeled | 4 | 75.0% | 1 | 21.50 | 2 |" in text


def test_smooth_commands_stay_within_the_robots_limits():
    commands = smooth_commands(TUGGER, 50, np.random.default_rng(0))
    assert commands.shape == (100, 50, 2)
    assert (
        -TUGGER.reverse_max_mps
        <= commands[..., 0].min()
        < 0.0
        < commands[..., 0].max()
        <= TUGGER.speed_max_mps
    )
    assert np.abs(commands[..., 1]).max() <= TUGGER.turn_rate_max_radps
    assert np.abs(np.diff(commands, axis=0)).max() < 0.8
