"""What a robot's computer gets: no simulator, no trainer, no ROS wheel; and the edge tests pass with that alone.

A fresh venv is made as the README says, by processes that know nothing of this one's venv.
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import run
from tools.setup_base import clean_environment

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = ("torch", "pybullet", "stable_baselines3", "ray", "gymnasium", "numba", "matplotlib", "rclpy")
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis", "sqlalchemy")
"""The last for the hubs that tests of the uplink and of updates talk to."""
EDGE_TESTS = (
    "tests/contract", "tests/recorder", "tests/agent", "tests/unit", "tests/property",
)  # fmt: skip
NOT_FOR_THE_EDGE = {
    "tests/unit/test_dwa.py": "drives the simulator",
    "tests/unit/test_encoder.py": "compares with the simulator's compiled encoder",
    "tests/unit/test_route.py": "compares with the simulator's compiled distance field",
    "tests/unit/test_pure_pursuit.py": "compares with the text as the simulator compiles it",
    "tests/unit/test_ros_map.py": "reads pictures as the simulator does",
    "tests/unit/test_demo_watch.py": "about the demonstration, which reads metrics with the hub's parser",
    "tests/unit/test_verbs.py": "about all verbs, those of simulator and trainer among them",
    "tests/unit/test_help.py": "the same",
    "tests/unit/test_benchmarks.py": "about the benchmarks, which no robot has",
    "tests/property/test_safety.py": "compares with the simulator's motion, lidar and compiled guard",
    "tests/recorder/test_tech.py": "about what a field tech's computer has: textual, pyarrow, rosbags",
    "tests/agent/test_live.py": "needs rclpy, which a robot has from its ROS distribution",
    "tests/agent/test_filter_live.py": "the same",
    "tests/agent/test_rivals.py": "the same",
    "tests/agent/test_ros_citizen.py": "the same",
    "tests/agent/test_beside_nav2.py": "the same",
    "tests/recorder/test_fleet_erasure.py": "asks the hub's store, which needs pyarrow and DuckDB",
}
SETUP_MAX_S = 300.0
EDGE_TESTS_MAX_S = 600.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def outside() -> dict[str, str]:
    """The environment of a shell in which nothing of this venv, nor of a ROS distribution, is to be found."""
    environment = clean_environment(dict(os.environ))
    for name in list(environment):
        if name.startswith(("PYTEST_", "COV_", "OUTRIDER_", "ROS_", "AMENT_", "COLCON_")):
            del environment[name]
    environment.pop("PYTHONPATH", None)
    return environment


@pytest.fixture(scope="module")
def edge_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv that ``tools/setup.py --edge`` has just made."""
    venv = tmp_path_factory.mktemp("edge") / "venv"
    command = [sys.executable, str(ROOT / "tools" / "setup.py"), "--edge", "--venv", str(venv)]
    # A sourced distribution stays visible here, and here alone: it decides which Python the venv is of.
    done = run(command, SETUP_MAX_S, ROOT, clean_environment(dict(os.environ)))
    assert done.returncode == 0, done.stdout + done.stderr
    return venv / "bin" / "python"


def installed(python: Path) -> set[str]:
    """Normal names of all distributions in a venv."""
    done = run([str(python), "-m", "pip", "list", "--format", "json"], 100.0, python.parent, outside())
    assert done.returncode == 0, done.stderr
    return {normal(row["name"]) for row in json.loads(done.stdout)}


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def forbidden_in(names: set[str]) -> list[str]:
    """Those of ``names`` that have no place on a robot's computer."""
    banned = {normal(name) for name in FORBIDDEN}
    return sorted(name for name in names if name in banned or name.startswith(("ros-", "nvidia-")))


def test_the_lock_brings_no_simulator_trainer_or_ros(edge_python: Path) -> None:
    names = installed(edge_python)
    assert {"outrider", "onnxruntime", "numpy"} <= names
    assert forbidden_in(names) == []
    code = f"from importlib.util import find_spec; print([n for n in {FORBIDDEN} if find_spec(n)])"
    done = run([str(edge_python), "-c", code], 100.0, edge_python.parent, outside())
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_extra_brings_none_of_it_either(edge_python: Path, tmp_path: Path) -> None:
    """``pip install .[edge]`` without the lock, as pip resolves it for an empty venv: nothing is installed."""
    report = tmp_path / "report.json"
    command = [str(edge_python), "-m", "pip", "install", "--dry-run", "--ignore-installed", "--prefer-binary"]
    done = run([*command, "-qq", "--report", str(report), f"{ROOT}[edge]"], 200.0, tmp_path, outside())
    assert done.returncode == 0, done.stderr
    names = {normal(item["metadata"]["name"]) for item in json.loads(report.read_bytes())["install"]}
    assert {"outrider", "onnxruntime", "numpy"} <= names
    assert forbidden_in(names) == []


def test_the_command_is_there_and_says_what_is_missing(edge_python: Path, tmp_path: Path) -> None:
    outrider = str(edge_python.parent / "outrider")
    assert run([outrider, "--version"], 100.0, tmp_path, outside()).stdout.startswith("outrider ")
    done = run([outrider, "demo", "--out", str(tmp_path / "demo")], 100.0, tmp_path, outside())
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ROS 2 is not set up here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_edge_tests_pass_there(edge_python: Path, tmp_path: Path) -> None:
    for path in NOT_FOR_THE_EDGE:
        assert (ROOT / path).exists(), f"{path} is gone: strike it from the list"
    pip = [str(edge_python), "-m", "pip", "install", "-q", "-c", str(ROOT / "requirements.lock")]
    done = run([*pip, *TEST_TOOLS], 300.0, tmp_path, outside())
    assert done.returncode == 0, done.stderr
    assert forbidden_in(installed(edge_python)) == []
    command = [str(edge_python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *EDGE_TESTS]
    command += [f"--basetemp={tmp_path / 'base'}", *(f"--ignore={path}" for path in NOT_FOR_THE_EDGE)]
    environment = {**outside(), "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")}
    done = run(command, EDGE_TESTS_MAX_S, ROOT, environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    count = re.search(r"(\d+) passed", done.stdout)
    assert count is not None
    assert int(count.group(1)) > 150
    assert "skipped" not in done.stdout.splitlines()[-1]
