"""Pictures open, have their size, and show what is on the floor; a film that fails leaves no file."""

import io

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from sim.errors import SimConfigError
from sim.render.chart import floor_png, station_label
from sim.render.painter import FloorPainter
from sim.render.recorder import FloorRecorder
from sim.render.snapshot import PERSON, robot_colour, take_snapshot
from sim.world.driver import RuleBasedDriver
from sim.world.generate import generate_warehouse
from sim.world.run import FloorRun

# numpy 2.4 about navigation.encoder.pool_beams; numba takes no other form of it.
pytestmark = pytest.mark.filterwarnings("ignore:Passing more than 2 positional:DeprecationWarning")


@pytest.fixture(scope="module")
def scene():
    run = FloorRun(generate_warehouse(7), 0, 2)
    driver = RuleBasedDriver(run)
    for _ in range(20):
        run.step(driver.command())
    goals = [(desk.goal.x_m, desk.goal.y_m) for desk in run.desks]
    yield run.warehouse, take_snapshot(run.state, 0, run.now_s, run.ranges, driver.polylines(), goals)
    run.close()


def test_chart_opens(scene):
    warehouse, snapshot = scene
    with Image.open(io.BytesIO(floor_png(warehouse, snapshot, width_px=700))) as picture:
        assert abs(picture.width - 700) <= 1
        assert np.asarray(picture).std() > 20


def test_painter_shows_robots_and_people(scene):
    warehouse, snapshot = scene
    frame = FloorPainter(warehouse, 640).frame(snapshot)
    assert frame.shape[0] % 2 == 0
    assert frame.shape[1] == 640
    for colour in (robot_colour(0), robot_colour(1), PERSON):
        assert (np.abs(frame.astype(int) - colour).sum(axis=2) < 30).sum() > 20


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_film_opens(scene, ending, tmp_path):
    warehouse, snapshot = scene
    path = tmp_path / f"floor{ending}"
    with FloorRecorder(path, warehouse, 10.0, 320) as recorder:
        for _ in range(4):
            recorder.take(snapshot)
        assert not path.exists()
    if ending == ".mp4":
        assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 4
    else:
        with Image.open(path) as film:
            assert film.format == "GIF"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_failed_film_leaves_nothing(scene, tmp_path):
    warehouse, snapshot = scene

    def fail_after_one_frame():
        with FloorRecorder(tmp_path / "floor.gif", warehouse, 10.0, 320) as recorder:
            recorder.take(snapshot)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_after_one_frame()
    assert list(tmp_path.iterdir()) == []


def test_wrong_ending_width_or_folder_is_refused(scene, tmp_path):
    warehouse, _ = scene
    with pytest.raises(SimConfigError, match="films end in"):
        FloorRecorder(tmp_path / "floor.avi", warehouse)
    with pytest.raises(SimConfigError, match="no such folder"):
        FloorRecorder(tmp_path / "none" / "floor.gif", warehouse)
    with pytest.raises(SimConfigError, match="pixels"):
        FloorPainter(warehouse, 10)


@pytest.mark.parametrize(
    ("name", "label"), [("pick_12", "P12"), ("drop_1", "D1"), ("charge_3", "C3"), ("dock", "dock")]
)
def test_station_labels_are_short(name, label):
    assert station_label(name) == label
