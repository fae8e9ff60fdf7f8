#!/usr/bin/env python3
"""Set up Outrider in a checkout: Python packages, ROS 2, the project's own interfaces.

    python3 tools/setup.py                          # everything, into .venv; repeat as often as you like
    python3 tools/setup.py --edge --venv /opt/or    # only what a robot's computer needs, no ROS build
    python3 tools/setup.py --edge --ros             # that, and ROS 2 with the project's interfaces
    python3 tools/setup.py --check                  # change nothing, say what is missing (exit 1)
    . /opt/ros/kilted/setup.sh; python3 tools/setup.py   # use that ROS, and its Python, instead of the wheels

Afterwards nothing has to be sourced: `.venv/bin/outrider` and `.venv/bin/python` find ROS 2 and
outrider_msgs by themselves (a venv made for a distribution needs that one sourced, as all of ROS does).
Needs Linux, Python 3.11 (fetched by apt-get where it can be; with a distribution sourced, the one that
imports its rclpy: 3.11 to 3.13) and a package index that pip is configured for. Full output of each step:
<venv>/setup.log.
Exit codes: 0 done, 1 a step failed (one line says which and what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import sys
import time
from pathlib import Path
from typing import NoReturn

from setup_base import ROOT, SetupError, Steps, digest, succeeds, version_of
from setup_ros import WHEELS_PYTHON, Distribution, RosSteps, find_distribution


class Setup(Steps):
    """The steps, in order."""

    def __init__(self, venv: Path, edge: bool, ros: bool, check: bool, tests: bool = False) -> None:
        super().__init__(venv, check)
        self.edge, self.ros, self.tests = edge, ros, tests
        self.python = venv / "bin" / "python"
        self.pip_install = [str(self.python), "-m", "pip", "install", "--progress-bar", "off"]
        self.use(None)

    def use(self, distribution: Distribution | None) -> None:
        """Take the sourced distribution's Python, or the one the wheels are for."""
        self.distribution = distribution
        self.version = distribution.version if distribution else WHEELS_PYTHON
        self.site = self.venv / "lib" / f"python{self.version}" / "site-packages"

    def find_python(self) -> str:
        """The path of a Python of the right version; installed where that can be done."""
        if self.distribution:
            return self.distribution.python

        def candidate() -> str | None:
            for name in (sys.executable, f"python{self.version}", "python3", "/usr/bin/python3"):
                path = shutil.which(name) if name else None
                if path and version_of(path, self.environment) == self.version:
                    return path
            return None

        found = candidate()
        offered = ["apt-cache", "show", f"python{self.version}"]
        if found is None and not self.check and succeeds(offered, self.environment):
            self.apt(
                [f"python{self.version}", f"python{self.version}-venv"], f"Python {self.version} is missing"
            )
            found = candidate()
        if found is None:
            raise SetupError(
                f"no Python {self.version} on PATH (the ROS wheels exist for no other version): install it, e.g. "
                f"'apt-get install python{self.version} python{self.version}-venv' or 'pyenv install "
                f"{self.version}', or source a ROS distribution"
            )
        return found

    def configured(self, key: str) -> str:
        """A value of the venv's pyvenv.cfg, read without starting its Python; empty when absent."""
        pairs = (line.partition("=") for line in (self.venv / "pyvenv.cfg").read_text().splitlines())
        return next((value.strip() for name, _, value in pairs if name.strip() == key), "")

    def make_venv(self) -> None:
        """The virtual environment, kept when it is whole."""
        configuration = self.venv / "pyvenv.cfg"
        if configuration.exists() and self.python.exists():
            version = self.configured("version")
            if not version.startswith(self.version + "."):
                wanted = f"ROS '{self.distribution.name}'" if self.distribution else "the ROS wheels"
                raise SetupError(
                    f"{self.venv} is of Python {version}, {wanted} of {self.version}: source the distribution it "
                    "was made for, or none, as it was then; or remove it, then this again"
                )
            self.read_stamps()
            self.log.step("venv", f"{self.venv} is there")
            return
        if self.venv.exists() and any(self.venv.iterdir()) and not configuration.exists():
            raise SetupError(f"{self.venv} exists and is no venv: choose another --venv or remove it")
        if self.would("venv", f"{self.venv}"):
            return
        python = self.find_python()
        if not succeeds([python, "-c", "import venv, ensurepip"], self.environment):
            self.apt([f"python{self.version}-venv"], f"{python} cannot make virtual environments")
        self.run([python, "-m", "venv", str(self.venv)], "making the venv", "see the lines below")
        self.read_stamps()
        self.log.step("venv", f"made {self.venv} with {python}")

    def pip(self, arguments: list[str], what: str, hint: str) -> None:
        """`pip install`, blind to a distribution's PYTHONPATH: what lies there is not in the venv."""
        self.run([*self.pip_install, *arguments], what, hint, PYTHONPATH="")

    def install(self, step: str, lock: Path, *evidence: Path) -> None:
        """Everything a lock names, at its versions."""
        if not lock.exists():
            raise SetupError(f"{lock} is missing: restore it, or run 'python{WHEELS_PYTHON} tools/lock.py'")
        stamp = digest([lock])
        if self.is_done(step, stamp, *evidence):
            self.log.step(step, f"{lock.name} is installed")
            return
        if self.would(step, lock.name):
            return
        count = sum(1 for line in lock.read_text().splitlines() if "==" in line)
        self.log.begin(step, f"installing {count} packages of {lock.name} (first time: minutes)")
        self.pip(
            ["--prefer-binary", "-c", str(ROOT / "requirements.lock"), "-r", str(lock)],
            f"pip install -r {lock.name}",
            "check the network and pip's index settings ('pip config list'), then this again",
        )
        self.done(step, stamp)
        self.log.step(step, f"installed {lock.name}")

    def install_project(self) -> None:
        """The project itself, editable, its dependencies being there already."""
        description = ROOT / "pyproject.toml"
        if not description.exists():
            self.log.step("project", "no pyproject.toml, left out")
            return
        stamp, command = digest([description]), self.venv / "bin" / "outrider"
        if self.is_done("project", stamp, command):
            self.log.step("project", "outrider is installed (editable)")
            return
        if self.would("project", "outrider itself"):
            return
        self.pip(
            ["--no-deps", "-e", str(ROOT)],
            "pip install --no-deps -e .",
            "see the lines below; pyproject.toml is the usual culprit",
        )
        self.done("project", stamp)
        self.log.step("project", "installed outrider (editable)")

    def install_colcon(self, ros: RosSteps) -> None:
        """colcon at the lock's version, where a distribution comes without it."""
        if ros.colcon() or self.would("colcon", "colcon-common-extensions"):
            return
        self.log.begin("colcon", "the distribution has none on PATH: installing it into the venv")
        locks = [f"-c{ROOT / name}" for name in ("requirements.lock", "requirements-ros.lock")]
        self.pip(
            ["--prefer-binary", *locks, "colcon-common-extensions"],
            "pip install colcon-common-extensions",
            "or 'apt-get install python3-colcon-common-extensions', then this again",
        )
        self.log.step("colcon", "installed colcon-common-extensions")

    def find_sodium(self) -> None:
        """libsodium, with which the emulated board checks firmware images; all but updates of it does without."""
        command = ["pkg-config", "--exists", "libsodium"]
        if succeeds(command, self.environment):
            self.log.step("firmware", "libsodium is there")
            return
        if not self.check:
            with contextlib.suppress(SetupError):
                self.apt(["libsodium-dev", "pkg-config"], "emulated boards check firmware images with it")
        if not succeeds(command, self.environment):
            self.log.step(
                "firmware",
                "no libsodium: emulated boards take no update ('apt-get install libsodium-dev pkg-config')",
            )

    def find_test_tools(self) -> None:
        """What some tests need besides: a software token for hardware keys; a linter and a cross compiler for C."""
        wanted = {
            "softhsm2": "softhsm2-util",
            "cppcheck": "cppcheck",
            "gcc-arm-none-eabi": "arm-none-eabi-gcc",
        }
        absent = [package for package, command in wanted.items() if not shutil.which(command)]
        absent += ["libnewlib-arm-none-eabi"] if "gcc-arm-none-eabi" in absent else []
        if absent and not self.check:
            with contextlib.suppress(SetupError):
                self.apt(absent, "tests of hardware keys and of the firmware")
        without = [package for package, command in wanted.items() if not shutil.which(command)]
        hint = f"their tests are skipped: 'apt-get install {' '.join(absent)}'"
        self.log.step("tests", f"no {', '.join(without)}: {hint}" if without else "their tools are there")

    def find_postgres(self) -> None:
        """PostgreSQL for tests of several hubs; not installed unasked, since Debian starts a server with it."""
        found = any(Path("/usr/lib/postgresql").glob("15/bin/initdb"))
        without = "no PostgreSQL 15: tests of several hubs are skipped ('apt-get install postgresql-15')"
        self.log.step("postgres", "PostgreSQL 15 is there" if found else without)

    def all_steps(self) -> None:
        """Do, or check, everything."""
        self.use(find_distribution(self.environment, self.venv, needed=self.ros))
        self.make_venv()
        if self.check and not self.python.exists():
            return
        if self.edge:
            self.install("edge", ROOT / "requirements-edge.lock", self.site / "onnxruntime")
        else:
            self.install("packages", ROOT / "requirements.lock", self.site / "torch")
        self.install_project()
        if not self.edge:
            self.find_sodium()
            self.find_postgres()
            if self.tests:
                self.find_test_tools()
        if not self.ros:
            return
        ros = RosSteps(self, self.python, self.site, self.distribution)
        if self.distribution:
            ros.refuse_mixture()
            self.log.step(
                "ros", f"using the sourced distribution '{self.distribution.name}' (Python {self.version})"
            )
            self.install_colcon(ros)
        else:
            self.install("ros", ROOT / "requirements-ros.lock", self.site / "rclpy")
        ros.need_tools()
        if not self.distribution:
            ros.mend_cmake_files(self.configured("home"))
        ros.build_interfaces()


def fail(text: str, code: int = 1) -> NoReturn:
    """Print one clear line (and the lines of evidence under it) and leave."""
    print(f"setup: error: {text}", file=sys.stderr)
    sys.exit(code)


def main() -> int:
    """Read the command line, do the steps."""
    parser = argparse.ArgumentParser(
        prog="tools/setup.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR", help="default: .venv")
    parser.add_argument("--edge", action="store_true", help="the edge extra alone, no ROS build")
    parser.add_argument("--ros", action="store_true", help="with --edge: ROS 2 and ros_ws, too")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if not set up")
    parser.add_argument("--tests", action="store_true", help="and the Debian packages that some tests need")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        fail(f"Outrider runs on Linux, this is {sys.platform}: use a container or a virtual machine")
    started_s = time.monotonic()
    ros = arguments.ros or not arguments.edge
    setup = Setup(arguments.venv.absolute(), arguments.edge, ros, arguments.check, arguments.tests)
    try:
        with Path(__file__).open() as this_file:  # two at once would build into the same directories
            fcntl.flock(this_file, fcntl.LOCK_EX)
            setup.all_steps()
    except SetupError as error:
        fail(f"{setup.log.wipe()}{error}")
    except KeyboardInterrupt:
        fail("interrupted; run it again to go on where it stopped", 130)
    if setup.missing:
        fail(f"missing: {', '.join(setup.missing)}; run 'python3 tools/setup.py'")
    print(f"setup: ready in {time.monotonic() - started_s:.1f} s: {setup.venv}/bin/outrider --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
