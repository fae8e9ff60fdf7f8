"""``outrider sim``: what it prints, what it leaves, and one clear line for every mistake."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from navigation.warehouse import dump_warehouse, load_warehouse
from outrider.verbs.sim import app
from sim.world.generate import Family, generate_mixed, generate_warehouse

# numpy 2.4 about navigation.encoder.pool_beams; numba takes no other form of it.
pytestmark = pytest.mark.filterwarnings("ignore:Passing more than 2 positional:DeprecationWarning")


@pytest.fixture
def sim():
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words], prog_name="outrider sim")


@pytest.fixture
def floor(tmp_path):
    path = tmp_path / "floor.yaml"
    path.write_text(dump_warehouse(generate_warehouse(5)))
    return path


def test_generate_writes_what_check_takes(sim, tmp_path):
    path = tmp_path / "new.yaml"
    assert sim("generate", "--seed", 9, "--out", path).exit_code == 0
    result = sim("check", path, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["hash"] == generate_warehouse(9).hash()
    assert sim("generate", "--seed", 9).stdout == path.read_text()


def test_generate_takes_family_and_difficulty(sim):
    text = sim("generate", "--seed", 4, "--family", "docks", "--difficulty", 0.8).stdout
    assert text == dump_warehouse(generate_warehouse(4, family=Family.DOCKS, difficulty=0.8))


def test_generate_writes_many(sim, tmp_path):
    out = tmp_path / "floors"
    assert sim("generate", "--seed", 3, "--count", 9, "--out", out).exit_code == 0
    expected = {f"{floor.name}.yaml": floor.hash() for floor in generate_mixed(9, 3)}
    assert {path.name: load_warehouse(path).hash() for path in out.iterdir()} == expected
    assert len(expected) == 9
    one = tmp_path / "one"
    result = sim("generate", "--seed", 3, "--count", 2, "--family", "rows", "--difficulty", 1, "--out", one)
    assert result.exit_code == 0
    assert sorted(path.name for path in one.iterdir()) == ["rows-3-d1.00.yaml", "rows-4-d1.00.yaml"]


def test_families_are_named_and_drawn(sim, tmp_path):
    names = [line.split()[0] for line in sim("families").stdout.splitlines()]
    assert names == list(Family)
    path = tmp_path / "families.png"
    assert sim("families", "--out", path, "--width", 800).exit_code == 0
    with Image.open(path) as picture:
        assert picture.width == 800
        assert np.asarray(picture).std() > 20


def test_import_map_writes_what_check_takes(sim, tmp_path):
    pixels = np.full((120, 160), 205, dtype=np.uint8)
    pixels[10:110, 10:150] = 254
    pixels[50:60, 40:100] = 0
    Image.fromarray(pixels).save(tmp_path / "hall.png")
    (tmp_path / "hall.yaml").write_text(
        "image: hall.png\nresolution: 0.05\norigin: [-3.0, 2.0, 0.0]\nnegate: 0\n"
        "occupied_thresh: 0.65\nfree_thresh: 0.196\n"
    )
    out = tmp_path / "floor.yaml"
    result = sim("import-map", tmp_path / "hall.yaml", "--out", out, "--people", 2)
    assert result.exit_code == 0, result.output
    assert "(-2.500, 2.500) m" in result.stdout
    assert "# ROS map frame = this frame + (-2.500, 2.500) m." in out.read_text()
    assert "hall, 7 x 5 m, 1 shelves" in sim("check", out).stdout


def test_check_knows_the_library(sim):
    assert "small" in sim("check", "small").stdout


@pytest.mark.parametrize(
    "words", [("--out", "floor.png"), ("--out", "floor.png", "--3d"), ("--out", "floor.gif")]
)
def test_render_draws(sim, floor, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = sim("render", floor, *words, "--duration", 0.4, "--robots", 2, "--width", 320)
    assert result.exit_code == 0, result.output
    assert (tmp_path / words[1]).stat().st_size > 1000


def test_run_leaves_deliveries_trajectories_and_summary(sim, tmp_path):
    out = tmp_path / "run"
    result = sim("run", "--seed", 7, "--robots", 2, "--rate", 200, "--duration", 90, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    written = json.loads((out / "summary.json").read_text())
    assert written == {**summary, "trajectory_rows_dropped": 0}
    lines = [json.loads(line) for line in (out / "deliveries.jsonl").read_text().splitlines()]
    assert (
        sum(line["record"] == "delivery" and line["delivered"] for line in lines) == summary["deliveries"] > 0
    )
    with np.load(out / "trajectory.npz") as trajectory:
        assert trajectory["pose"].shape == (450, 2, 3)
        assert trajectory["people"].shape[0] == 450
        assert np.allclose(np.diff(trajectory["time_s"]), 0.2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "none.yaml"), "none.yaml"),
        (("render", "small", "--out", "floor.avi"), ".png, .gif or .mp4"),
        (("render", "small", "--out", "none/floor.png"), "make it first"),
        (("render", "small", "--out", "floor.gif", "--3d"), "stills only"),
        (("render", "small", "--out", "floor.png", "--width", "5"), "pixels"),
        (("run",), "--layout FILE or --seed N"),
        (("run", "--seed", "1", "--physics", "hover", "--duration", "1"), "planar or wheeled"),
        (("run", "--seed", "1", "--rate", "0", "--duration", "1"), "rate is 0"),
        (("run", "--layout", "none.yaml"), "none.yaml"),
        (("run", "--seed", "1", "--robots", "0"), "robots"),
        (("run", "--seed", "1", "--speed", "3"), "--speed"),
        (("generate", "--seed", "-4"), "seed"),
        (("generate", "--seed", "1", "--out", "none/floor.yaml"), "none"),
        (("generate", "--seed", "1", "--family", "maze"), "use one of rows, narrow_aisles"),
        (("generate", "--seed", "1", "--difficulty", "1.5"), "difficulty is 1.5"),
        (("generate", "--seed", "1", "--count", "2"), "give a folder"),
        (("generate", "--seed", "1", "--count", "20000", "--out", "floors"), "give 1 to 10000"),
        (("families", "--out", "families.gif"), ".png"),
        (("families", "--out", "families.png", "--width", "300"), "too few"),
        (("import-map", "none.yaml", "--out", "floor.yaml"), "none.yaml: cannot be read"),
    ],
)
def test_mistakes_are_one_clear_line(sim, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = sim(*words)
    assert result.exit_code not in (0, None)
    assert message in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_broken_layout_is_refused(sim, tmp_path):
    path = tmp_path / "floor.yaml"
    path.write_text("name: [")
    result = sim("check", path)
    assert result.exit_code == 1
    assert "not valid YAML" in result.output
    assert len(result.output.strip().splitlines()) == 1
