"""ROS 2 for `tools/setup.py`: find a sourced distribution, mend the wheels where there is none, build ros_ws.

Standard library only. Never installs ROS itself: wheels are a lock like any other, a distribution is the user's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from setup_base import ROOT, SetupError, Steps, digest, version_of

ROS_WS = ROOT / "ros_ws"
WHEELS_PYTHON = "3.11"
SUPPORTED = ("3.11", "3.12", "3.13")
PACKAGES = ["outrider_msgs", "outrider_bringup", "outrider_agent", "outrider_sim"]
TRY_INTERFACES = "from outrider_msgs.msg import SafetyStatus as S; S.__class__.__import_type_support__()"
WITHOUT = "env -u ROS_DISTRO -u PYTHONPATH -u AMENT_PREFIX_PATH -u CMAKE_PREFIX_PATH -u LD_LIBRARY_PATH"
# The wheels' CMake files name the include directories of the machine that built them.
BAKED_PYTHON = re.compile(r'[^";]*/include/python3\.\d+(?=[";])')
BAKED_NUMPY = re.compile(r'[^";]*/numpy/(?:_core|core)/include(?=[";])')


@dataclass(frozen=True)
class Distribution:
    """A sourced ROS distribution: its name, and the Python it was built for."""

    name: str
    python: str
    version: str


def find_distribution(environment: dict[str, str], venv: Path, needed: bool) -> Distribution | None:
    """The sourced distribution; None: nothing is sourced, use the wheels.

    Args:
        environment: what its setup.sh left.
        venv: the one being set up; its Python, active or running this, is not the distribution's.
        needed: False: one that is no use (its rclpy is missing, or for another Python) counts as none.

    Raises:
        SetupError: one is sourced and needed, and no Python that Outrider runs on imports its rclpy.
    """
    name = environment.get("ROS_DISTRO")
    if not name:
        return None
    instead = f"run this where it is not sourced, to use the pip wheels: '{WITHOUT} python3 tools/setup.py'"
    for python in _candidates(environment):
        if venv in Path(python).parents or not _imports_rclpy(python, environment):
            continue
        version = version_of(python, environment)
        if version in SUPPORTED:
            return Distribution(name, python, version)
        if needed:
            raise SetupError(
                f"ROS '{name}' is for Python {version}, Outrider for {', '.join(SUPPORTED)}: source another "
                f"distribution, or {instead}"
            )
    if needed:
        raise SetupError(
            f"ROS '{name}' is sourced but no Python here imports its rclpy: install it (e.g. 'apt-get install "
            f"ros-{name}-rclpy'), or {instead}"
        )
    return None


def _candidates(environment: dict[str, str]) -> list[str]:
    """Pythons a distribution may be for, likeliest first: its paths name the version, `python3` may not be it."""
    named = re.findall(r"/python(3\.\d+)/(?:site|dist)-packages", environment.get("PYTHONPATH", ""))
    names = ["python3", *(f"python{version}" for version in named)]
    folders = [*environment.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]
    found = [shutil.which(name, path=folder) for name in names for folder in folders if folder]
    found.append(sys.executable)  # a venv that is active hides the distribution's Python, hence every folder
    return list(dict.fromkeys(path for path in found if path))


def _imports_rclpy(python: str, environment: dict[str, str]) -> bool:
    """Whether a Python finds rclpy and can load its library, outside the checkout."""
    command = [python, "-c", "from rclpy.impl.implementation_singleton import rclpy_implementation"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=60, env=environment, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


class RosSteps:
    """The steps from an installed rclpy to importable interfaces.

    Args:
        steps: runs and remembers.
        python: the venv's.
        site: its site-packages.
        distribution: the sourced one; None: wheels.
    """

    def __init__(self, steps: Steps, python: Path, site: Path, distribution: Distribution | None) -> None:
        self.steps, self.python, self.site, self.distribution = steps, python, site, distribution

    def refuse_mixture(self) -> None:
        """SetupError when the venv would load libraries of the distribution and of the wheels, or of neither."""
        assert self.distribution is not None
        name, venv = self.distribution.name, self.steps.venv
        if (self.site / "ros_wheels_bootstrapper").exists():
            raise SetupError(
                f"{venv} holds ROS wheels, and ROS '{name}' is sourced: together they load each other's libraries; "
                f"remove {venv} and run this again, or {WITHOUT} python3 tools/setup.py"
            )
        if not _imports_rclpy(str(self.python), self.steps.environment):
            raise SetupError(
                f"{self.distribution.python} imports the rclpy of ROS '{name}', {self.python} does not: it must be "
                "on PYTHONPATH (setup.sh puts it there), not in that Python's own site-packages"
            )

    def need_tools(self) -> None:
        """What CMake needs to build the interfaces, and colcon."""
        packages = {"cmake": "cmake", "make": "make", "gcc": "gcc", "g++": "g++"}
        absent = [package for tool, package in packages.items() if not shutil.which(tool)]
        if absent and not self.steps.would("debian", " ".join(absent)):
            self.steps.apt(absent, "building ros_ws needs a C++ tool chain")
        if not absent:
            self.steps.log.step("tools", "cmake, make, gcc, g++ are there")

    def colcon(self) -> str | None:
        """The colcon to build with: the distribution's, or the venv's own."""
        own = self.steps.venv / "bin" / "colcon"
        return str(own) if self.distribution is None or own.exists() else shutil.which("colcon")

    def mend_cmake_files(self, base_bin: str) -> None:
        """Point the wheels' CMake files at this machine's include directories.

        Args:
            base_bin: folder of the Python that the venv was made with.
        """
        files = sorted(self.steps.venv.glob("share/*/cmake/*.cmake"))
        suspects = [f for f in files if f.name.endswith("__rosidl_generator_pyExport.cmake")]
        python_include = Path(base_bin).parent / "include" / f"python{WHEELS_PYTHON}"
        numpy_include = self.site / "numpy" / "_core" / "include"
        if not self.steps.check and not (python_include / "Python.h").exists():
            self.steps.apt([f"python{WHEELS_PYTHON}-dev"], f"no Python.h in {python_include}")
        changed = 0
        for path in suspects:
            before = path.read_text()
            after = BAKED_NUMPY.sub(lambda _: str(numpy_include), before)
            after = BAKED_PYTHON.sub(lambda _: str(python_include), after)
            if after != before and not self.steps.check:
                path.write_text(after)
            changed += after != before
        if changed and self.steps.would("cmake", f"{changed} files with foreign include paths"):
            return
        self.steps.log.step("cmake", f"include paths mended in {changed} of {len(suspects)} files")

    def build_interfaces(self) -> None:
        """`colcon build` of ros_ws, when its sources or the ROS it is built against changed."""
        steps = self.steps
        sources = sorted(p for p in (ROS_WS / "src").rglob("*") if p.is_file() and p.suffix != ".pyc")
        if not sources:
            steps.log.step("ros_ws", "no sources, left out")
            return
        ros = self.distribution
        against = f"{ros.name} {ros.version} {ros.python}" if ros else "wheels"
        stamp = digest([*sources, ROOT / "requirements-ros.lock"], against, str(ROOT))
        install, link = ROS_WS / "install", self.site / "outrider_ros_ws.pth"
        version = ros.version if ros else WHEELS_PYTHON
        package_path = install / "outrider_msgs" / "lib" / f"python{version}" / "site-packages"
        if steps.is_done("ros_ws", stamp, package_path / "outrider_msgs", link):
            steps.log.step("ros_ws", f"{len(PACKAGES)} packages are built")
            return
        if steps.would("ros_ws", "colcon build"):
            return
        steps.log.begin("ros_ws", f"building {' '.join(PACKAGES)} (about half a minute)")
        # Start clean, for colcon keeps absolute paths and what a deleted message left; but a failed build
        # must leave the last good one in place.
        previous = ROS_WS / "log" / "install.previous"
        shutil.rmtree(ROS_WS / "build", ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)
        if install.exists():
            previous.parent.mkdir(exist_ok=True)
            install.rename(previous)
        try:
            self._run_colcon(install)
            if not (package_path / "outrider_msgs").is_dir():
                raise SetupError(f"colcon build left no {package_path}/outrider_msgs: see {steps.log.file}")
            link.write_text(f"{package_path}\n")
            steps.run(
                [str(self.python), "-c", TRY_INTERFACES],
                "importing outrider_msgs",
                "the build is not usable; remove ros_ws/build and run this again",
            )
        except BaseException:
            if previous.exists():
                shutil.rmtree(install, ignore_errors=True)
                previous.rename(install)
            raise
        shutil.rmtree(previous, ignore_errors=True)
        steps.done("ros_ws", stamp)
        steps.log.step("ros_ws", f"built {len(PACKAGES)} packages")

    def _run_colcon(self, install: Path) -> None:
        """Build all of ros_ws into `install`, against the distribution or the venv's wheels.

        A distribution's own Python runs its generators: they import what the distribution's packages depend
        on (catkin_pkg, empy, lark, numpy), in the versions it was tested with, and the venv has none of them.
        """
        steps, python = self.steps, str(self.python)
        extra = {"PATH": f"{steps.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        if self.distribution is None:
            extra.update(VIRTUAL_ENV=str(steps.venv), PYTHONPATH="")
            extra.update(AMENT_PREFIX_PATH=str(steps.venv), CMAKE_PREFIX_PATH=str(steps.venv))
        else:
            python = self.distribution.python
            extra["PATH"] = os.environ.get("PATH", os.defpath)
        steps.run(
            [str(self.colcon()), "--log-base", str(ROS_WS / "log"), "build",
             "--base-paths", str(ROS_WS / "src"), "--build-base", str(ROS_WS / "build"),
             "--install-base", str(install), "--packages-select", *PACKAGES,
             "--event-handlers", "console_cohesion+",
             "--cmake-args", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF", "-Wno-dev",
             f"-DPython3_EXECUTABLE={python}", f"-DPYTHON_EXECUTABLE={python}"],
            "colcon build", "see the lines below", **extra,
        )  # fmt: skip
