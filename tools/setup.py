#!/usr/bin/env python3
"""Set up Outrider in a checkout: Python packages, ROS 2, the project's own interfaces.

    python3 tools/setup.py                          # everything, into .venv; repeat as often as you like
    python3 tools/setup.py --edge --venv /opt/or    # only what a robot's computer needs, no ROS build
    python3 tools/setup.py --edge --ros             # that, and ROS 2 with the project's interfaces
    python3 tools/setup.py --check                  # change nothing, say what is missing (exit 1)
    . /opt/ros/kilted/setup.sh; python3 tools/setup.py   # use that ROS instead of the pip wheels

Afterwards nothing has to be sourced: `.venv/bin/outrider` and `.venv/bin/python` find ROS 2 and
outrider_msgs by themselves. Needs Linux, Python 3.11 (fetched by apt-get where it can be) and a package
index that pip is configured for. Full output of each step: <venv>/setup.log.
Exit codes: 0 done, 1 a step failed (one line says which and what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
ROS_WS = ROOT / "ros_ws"
PYTHON = "3.11"
GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
PACKAGES = ["outrider_msgs", "outrider_bringup", "outrider_agent", "outrider_sim"]
STAMP_VERSION = 1
COMMAND_TIMEOUT_S = 3600
TAIL_LINES = 12
NOISE = ("it is neither a file nor a directory", "Requirement already satisfied", "[notice]")
TRY_INTERFACES = "from outrider_msgs.msg import SafetyStatus as S; S.__class__.__import_type_support__()"
# The wheels' CMake files name the include directories of the machine that built them.
BAKED_PYTHON = re.compile(r'[^";]*/include/python3\.\d+(?=[";])')
BAKED_NUMPY = re.compile(r'[^";]*/numpy/(?:_core|core)/include(?=[";])')


class SetupError(Exception):
    """A step failed; the message says what and what to do."""


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """`environment` without what a ROS wheel of another venv left in it.

    Those wheels re-execute Python once with LD_LIBRARY_PATH set and mark that in a variable that children
    inherit: another venv's Python would believe itself set up, and load the first venv's libraries.
    """
    cleaned = dict(environment)
    if cleaned.pop(GUARD, None):
        entries = [e for e in cleaned.pop("LD_LIBRARY_PATH", "").split(os.pathsep) if e]
        bundled = re.compile(r"/site-packages/ros_\w+\.libs/?$")
        kept = [e for e in entries if not (Path(e).parent / "pyvenv.cfg").exists() and not bundled.search(e)]
        if kept:
            cleaned["LD_LIBRARY_PATH"] = os.pathsep.join(kept)
    for name in ("PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
        cleaned.pop(name, None)
    cleaned["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return cleaned


class Log:
    """One line a step on the terminal; everything the tools print in a file."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.started_s = time.monotonic()
        self.live = sys.stdout.isatty()

    def step(self, name: str, text: str) -> None:
        """A finished or skipped step."""
        elapsed_s = time.monotonic() - self.started_s
        print(f"{self.wipe()}setup: {name:<9} {text} [{elapsed_s:.1f} s]", flush=True)
        self.started_s = time.monotonic()

    def begin(self, name: str, text: str) -> None:
        """A step that takes a while."""
        print(f"setup: {name:<9} {text} ...", flush=True)

    def progress(self, line: str) -> None:
        """The newest line of a running tool, on a terminal only."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"{self.wipe()}       {line.strip()}"[: width + 4], end="", flush=True)

    def wipe(self) -> str:
        """What clears the progress line."""
        return "\r\x1b[K" if self.live else ""


class Setup:
    """The steps, in order, and what they share."""

    def __init__(self, venv: Path, edge: bool, ros: bool, check: bool) -> None:
        self.venv, self.edge, self.ros, self.check = venv, edge, ros, check
        self.python = venv / "bin" / "python"
        self.pip_install = [str(self.python), "-m", "pip", "install", "--progress-bar", "off"]
        self.site = venv / "lib" / f"python{PYTHON}" / "site-packages"
        self.stamp_file = venv / ".outrider-setup.json"
        self.environment = clean_environment(dict(os.environ))
        self.log = Log()
        self.stamps: dict[str, str] = {}
        self.missing: list[str] = []

    # -- helpers ----------------------------------------------------------------------------------

    def run(self, command: list[str], what: str, hint: str, **extra: str) -> None:
        """Run `command`, its output to the log; on failure say `what`, its last lines and `hint`."""
        tail: list[str] = []
        self.log.file = self.venv / "setup.log" if self.venv.exists() else None
        try:
            with (self.log.file or Path(os.devnull)).open("a", encoding="utf-8") as log_file:
                print("$", " ".join(command), file=log_file, flush=True)
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    errors="replace", cwd=ROOT, env={**self.environment, **extra},
                )  # fmt: skip
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        log_file.write(line)
                        if line.strip() and not any(noise in line for noise in NOISE):
                            tail = [*tail[-TAIL_LINES:], line.rstrip()]
                            self.log.progress(line)
                    code = process.wait(timeout=COMMAND_TIMEOUT_S)
                finally:
                    if process.poll() is None:
                        process.kill()
        except OSError as error:
            raise SetupError(f"{what}: {error}; {hint}") from error
        if code != 0:
            last = "".join(f"\n    | {line}" for line in tail)
            where = f" (all of it: {self.log.file})" if self.log.file else ""
            raise SetupError(f"{what} failed with exit code {code}: {hint}{where}{last}")

    def is_done(self, step: str, stamp: str, *evidence: Path) -> bool:
        """Whether `step` was done for exactly this input and its results are still there."""
        return self.stamps.get(step) == stamp and all(path.exists() for path in evidence)

    def done(self, step: str, stamp: str) -> None:
        """Remember that `step` is done; atomically, so that an interruption leaves the old truth."""
        self.stamps[step] = stamp
        scratch = self.stamp_file.with_suffix(".new")
        scratch.write_text(json.dumps(self.stamps, indent=1))
        scratch.replace(self.stamp_file)

    def would(self, step: str, what: str) -> bool:
        """In --check: note that `step` is outstanding and return True, so that it is not done."""
        if self.check:
            self.missing.append(step)
            self.log.step(step, f"MISSING: {what}")
        return self.check

    def apt(self, packages: list[str], why: str) -> None:
        """Install Debian packages, or say exactly what to type."""
        command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        by_hand = f"{why}: run 'sudo apt-get update && sudo {' '.join(command)}', then this again"
        if not shutil.which("apt-get"):
            raise SetupError(f"{why}: install {', '.join(packages)} with your system's package manager")
        if os.geteuid() == 0:
            prefix: list[str] = []
        elif shutil.which("sudo") and succeeds(["sudo", "-n", "true"], self.environment):
            prefix = ["sudo", "-n"]
        else:
            raise SetupError(by_hand)
        self.log.begin("debian", f"installing {' '.join(packages)}")
        no_prompt = {"DEBIAN_FRONTEND": "noninteractive"}
        self.run([*prefix, "apt-get", "update"], "apt-get update", by_hand, **no_prompt)
        self.run([*prefix, *command], "apt-get install", by_hand, **no_prompt)
        self.log.step("debian", f"installed {' '.join(packages)}")

    # -- steps ------------------------------------------------------------------------------------

    def find_python(self) -> str:
        """The path of a Python of the right version; installed where that can be done."""

        def candidate() -> str | None:
            for name in (sys.executable, f"python{PYTHON}", "python3", "/usr/bin/python3"):
                path = shutil.which(name) if name else None
                if path and self.version_of(path) == PYTHON:
                    return path
            return None

        found = candidate()
        offered = ["apt-cache", "show", f"python{PYTHON}"]
        if found is None and not self.check and succeeds(offered, self.environment):
            self.apt([f"python{PYTHON}", f"python{PYTHON}-venv"], f"Python {PYTHON} is missing")
            found = candidate()
        if found is None:
            raise SetupError(
                f"no Python {PYTHON} on PATH (the ROS wheels exist for no other version): install it, e.g. "
                f"'apt-get install python{PYTHON} python{PYTHON}-venv' or 'pyenv install {PYTHON}'"
            )
        return found

    def version_of(self, python: str) -> str:
        """The major.minor version of a Python; empty when it does not run."""
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            answer = subprocess.run(
                [python, "-c", code], capture_output=True, text=True, timeout=30, env=self.environment
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return answer.stdout.strip() if answer.returncode == 0 else ""

    def configured(self, key: str) -> str:
        """A value of the venv's pyvenv.cfg, read without starting its Python; empty when absent."""
        pairs = (line.partition("=") for line in (self.venv / "pyvenv.cfg").read_text().splitlines())
        return next((value.strip() for name, _, value in pairs if name.strip() == key), "")

    def make_venv(self) -> None:
        """The virtual environment, kept when it is whole."""
        configuration = self.venv / "pyvenv.cfg"
        if configuration.exists() and self.python.exists():
            version = self.configured("version")
            if not version.startswith(PYTHON + "."):
                raise SetupError(f"{self.venv} is of Python {version}, not {PYTHON}: remove it, then again")
            self.stamps = json.loads(self.stamp_file.read_text()) if self.stamp_file.exists() else {}
            if self.stamps.get("version") != str(STAMP_VERSION) or self.stamps.get("venv") != str(self.venv):
                self.stamps = {"version": str(STAMP_VERSION), "venv": str(self.venv)}  # older, or moved
            self.log.step("venv", f"{self.venv} is there")
            return
        if self.venv.exists() and any(self.venv.iterdir()) and not configuration.exists():
            raise SetupError(f"{self.venv} exists and is no venv: choose another --venv or remove it")
        if self.would("venv", f"{self.venv}"):
            return
        python = self.find_python()
        if not succeeds([python, "-c", "import venv, ensurepip"], self.environment):
            self.apt([f"python{PYTHON}-venv"], f"{python} cannot make virtual environments")
        self.run([python, "-m", "venv", str(self.venv)], "making the venv", "see the lines below")
        self.stamps = {"version": str(STAMP_VERSION), "venv": str(self.venv)}
        self.log.step("venv", f"made {self.venv} with {python}")

    def install(self, step: str, lock: Path, *evidence: Path) -> None:
        """Everything a lock names, at its versions."""
        if not lock.exists():
            raise SetupError(f"{lock} is missing: restore it, or run 'python{PYTHON} tools/lock.py'")
        stamp = digest([lock])
        if self.is_done(step, stamp, *evidence):
            self.log.step(step, f"{lock.name} is installed")
            return
        if self.would(step, lock.name):
            return
        count = sum(1 for line in lock.read_text().splitlines() if "==" in line)
        self.log.begin(step, f"installing {count} packages of {lock.name} (first time: minutes)")
        self.run(
            [*self.pip_install, "--prefer-binary", "-c", str(ROOT / "requirements.lock"), "-r", str(lock)],
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
        self.run(
            [*self.pip_install, "--no-deps", "-e", str(ROOT)],
            "pip install --no-deps -e .",
            "see the lines below; pyproject.toml is the usual culprit",
        )
        self.done("project", stamp)
        self.log.step("project", "installed outrider (editable)")

    def distribution(self) -> str | None:
        """Name of the sourced ROS distribution to use; None: use the wheels.

        Raises:
            SetupError: one is sourced whose rclpy this Python cannot import; mixed with the wheels, the
                two would load each other's libraries.
        """
        name = os.environ.get("ROS_DISTRO")
        if not name:
            return None
        if not self.python.exists():
            return name
        code = "import sys, rclpy; sys.exit(rclpy.__file__.startswith(sys.prefix))"
        if succeeds([str(self.python), "-c", code], self.environment):
            return name
        raise SetupError(
            f"ROS '{name}' is sourced but Python {PYTHON} cannot import its rclpy: run this in a shell where "
            "it is not sourced, to use the pip wheels instead ('env -u ROS_DISTRO -u PYTHONPATH "
            "-u AMENT_PREFIX_PATH -u LD_LIBRARY_PATH python3 tools/setup.py')"
        )

    def need_tools(self, with_colcon: bool) -> None:
        """What CMake needs to build the interfaces."""
        packages = {"cmake": "cmake", "make": "make", "gcc": "gcc", "g++": "g++"}
        absent = [package for tool, package in packages.items() if not shutil.which(tool)]
        if with_colcon and not shutil.which("colcon"):
            raise SetupError("colcon is not on PATH: 'apt-get install python3-colcon-common-extensions'")
        if absent and not self.would("debian", " ".join(absent)):
            self.apt(absent, "building ros_ws needs a C++ tool chain")
        if not absent:
            self.log.step("tools", "cmake, make, gcc, g++ are there")

    def mend_cmake_files(self) -> None:
        """Point the wheels' CMake files at this machine's include directories."""
        files = sorted(self.venv.glob("share/*/cmake/*.cmake"))
        suspects = [f for f in files if f.name.endswith("__rosidl_generator_pyExport.cmake")]
        python_include = Path(self.configured("home")).parent / "include" / f"python{PYTHON}"
        numpy_include = self.site / "numpy" / "_core" / "include"
        if not self.check and not (python_include / "Python.h").exists():
            self.apt([f"python{PYTHON}-dev"], f"no Python.h in {python_include}")
        changed = 0
        for path in suspects:
            before = path.read_text()
            after = BAKED_NUMPY.sub(lambda _: str(numpy_include), before)
            after = BAKED_PYTHON.sub(lambda _: str(python_include), after)
            if after != before and not self.check:
                path.write_text(after)
            changed += after != before
        if changed and self.would("cmake", f"{changed} files with foreign include paths"):
            return
        self.log.step("cmake", f"include paths mended in {changed} of {len(suspects)} files")

    def build_interfaces(self, distribution: str | None) -> None:
        """`colcon build` of ros_ws, when its sources changed."""
        sources = sorted(p for p in (ROS_WS / "src").rglob("*") if p.is_file())
        if not sources:
            self.log.step("ros_ws", "no sources, left out")
            return
        stamp = digest([*sources, ROOT / "requirements-ros.lock"], distribution or "wheels", str(ROOT))
        install = ROS_WS / "install"
        package_path = install / "outrider_msgs" / "lib" / f"python{PYTHON}" / "site-packages"
        if self.is_done("ros_ws", stamp, package_path / "outrider_msgs", self.site / "outrider_ros_ws.pth"):
            self.log.step("ros_ws", f"{len(PACKAGES)} packages are built")
            return
        if self.would("ros_ws", "colcon build"):
            return
        self.log.begin("ros_ws", f"building {' '.join(PACKAGES)} (about half a minute)")
        # Start clean, for colcon keeps absolute paths and what a deleted message left; but a failed build
        # must leave the last good one in place.
        previous = ROS_WS / "log" / "install.previous"
        shutil.rmtree(ROS_WS / "build", ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)
        if install.exists():
            previous.parent.mkdir(exist_ok=True)
            install.rename(previous)
        try:
            self.run_colcon(install, distribution)
            if not (package_path / "outrider_msgs").is_dir():
                raise SetupError(f"colcon build left no {package_path}/outrider_msgs: see {self.log.file}")
            (self.site / "outrider_ros_ws.pth").write_text(f"{package_path}\n")
            self.run(
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
        self.done("ros_ws", stamp)
        self.log.step("ros_ws", f"built {len(PACKAGES)} packages")

    def run_colcon(self, install: Path, distribution: str | None) -> None:
        """Build all of ros_ws into `install`, against the distribution or the venv's wheels."""
        path = f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        extra = {"VIRTUAL_ENV": str(self.venv), "PATH": path}
        if distribution is None:
            extra.update(AMENT_PREFIX_PATH=str(self.venv), CMAKE_PREFIX_PATH=str(self.venv), PYTHONPATH="")
        colcon = shutil.which("colcon") if distribution else str(self.venv / "bin" / "colcon")
        self.run(
            [str(colcon), "--log-base", str(ROS_WS / "log"), "build",
             "--base-paths", str(ROS_WS / "src"), "--build-base", str(ROS_WS / "build"),
             "--install-base", str(install), "--packages-select", *PACKAGES,
             "--event-handlers", "console_cohesion+",
             "--cmake-args", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF", "-Wno-dev",
             f"-DPython3_EXECUTABLE={self.python}", f"-DPYTHON_EXECUTABLE={self.python}"],
            "colcon build", "see the lines below", **extra,
        )  # fmt: skip

    def all_steps(self) -> None:
        """Do, or check, everything."""
        self.make_venv()
        if self.check and not self.python.exists():
            return
        if self.edge:
            self.install("edge", ROOT / "requirements-edge.lock", self.site / "onnxruntime")
        else:
            self.install("packages", ROOT / "requirements.lock", self.site / "torch")
        self.install_project()
        if not self.ros:
            return
        distribution = self.distribution()
        if distribution:
            self.log.step("ros", f"using the sourced distribution '{distribution}'")
        else:
            self.install("ros", ROOT / "requirements-ros.lock", self.site / "rclpy")
        self.need_tools(with_colcon=distribution is not None)
        if not distribution:
            self.mend_cmake_files()
        self.build_interfaces(distribution)


def succeeds(command: list[str], environment: dict[str, str]) -> bool:
    """Whether a command exists and exits with 0."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60, env=environment).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def digest(paths: list[Path], *more: str) -> str:
    """SHA-256 over the names and contents of files, and more."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    for text in more:
        total.update(f"{text}\0".encode())
    return total.hexdigest()


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
    arguments = parser.parse_args()
    if sys.platform != "linux":
        fail(f"Outrider runs on Linux, this is {sys.platform}: use a container or a virtual machine")
    started_s = time.monotonic()
    ros = arguments.ros or not arguments.edge
    setup = Setup(arguments.venv.absolute(), arguments.edge, ros, arguments.check)
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
