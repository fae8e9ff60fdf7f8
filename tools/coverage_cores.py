#!/usr/bin/env python3
"""Line and branch coverage of both protocol cores by their own tests: gcov for C, coverage.py for Python.

    python -m tools.coverage_cores            # a few minutes; exit code 1 when a line or branch of a core is missed

The cores are what reads and acts on frames. Lines of theirs that cannot be reached are not excused by a list: they are
taken out, or a test is added. Of the firmware's other files, what was missed is shown.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "firmware"
TESTS = [
    f"tests/firmware/test_{name}.py"
    for name in (
        "protocol",
        "board",
        "board_dialogue",
        "board_motion",
        "link",
        "signature",
        "machine",
        "clock",
    )
]
PYTHON_CORES = (
    "firmware_interface/protocol/*",
    "firmware_interface/link/machine.py",
    "firmware_interface/link/clock.py",
)
C_CORES = ("framing.c", "dispatch.c", "outrider_protocol.c", "trust.c", "sha256.c")
RUN_MAX_S = 1800


class Covered(NamedTuple):
    """One file. ``missed``: lines, and lines with a branch never taken, in words."""

    name: str
    lines: int
    lines_hit: int
    branches: int
    branches_hit: int
    missed: list[str]


def run_tests(report: Path) -> None:
    """The tests once, against the counting firmware, under coverage.py."""
    for old in OUT.glob("*.gcda"):
        old.unlink()
    environment = {
        **os.environ,
        "OUTRIDER_FIRMWARE_KIND": "COVERED",
        "COVERAGE_FILE": str(OUT / "coverage.sqlite"),
    }
    command = [sys.executable, "-m", "coverage"]
    test = ["run", "--branch", f"--include={','.join(PYTHON_CORES)}", "-m", "pytest", "-q", *TESTS]
    subprocess.run([*command, *test], cwd=ROOT, env=environment, timeout=RUN_MAX_S, check=True)
    subprocess.run([*command, "json", "-q", "-o", str(report)], cwd=ROOT, env=environment, check=True)


def c_files() -> list[Covered]:
    """What goes onto a board, by gcov."""
    scratch = OUT / "gcov"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    counted = sorted(map(str, OUT.glob("*.gcda")))
    subprocess.run(
        ["gcov", "--json-format", "--branch-probabilities", *counted],
        cwd=scratch, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    found = []
    for path in sorted(scratch.glob("*.gcov.json.gz")):
        for file in json.loads(gzip.decompress(path.read_bytes()))["files"]:
            source = Path(file["file"])
            if source.suffix == ".c" and source.parent.name in ("firmware", "generated"):
                found.append(_c_file(source.name, file["lines"]))
    return found


def _c_file(name: str, lines: list[dict]) -> Covered:  # type: ignore[type-arg]
    missed = [f"line {line['line_number']}" for line in lines if not line["count"]]
    branches = [(line["line_number"], branch["count"]) for line in lines for branch in line["branches"]]
    reached = {line["line_number"] for line in lines if line["count"]}
    missed += [f"branch in line {number}" for number, count in branches if not count and number in reached]
    hit = sum(1 for line in lines if line["count"])
    return Covered(name, len(lines), hit, len(branches), sum(1 for _, count in branches if count), missed)


def python_files(report: Path) -> list[Covered]:
    """The Python core, by coverage.py."""
    found = []
    for name, file in sorted(json.loads(report.read_text())["files"].items()):
        summary = file["summary"]
        missed = [f"line {number}" for number in file["missing_lines"]]
        missed += [f"branch {a} to {b}" for a, b in file["missing_branches"]]
        found.append(
            Covered(
                name,
                summary["num_statements"],
                summary["covered_lines"],
                summary["num_branches"],
                summary["covered_branches"],
                missed,
            )
        )
    return found


def main() -> int:
    """Run, print a table, say what was missed."""
    OUT.mkdir(parents=True, exist_ok=True)
    report = OUT / "coverage.json"
    run_tests(report)
    files = c_files() + python_files(report)
    for file in files:
        line = (
            f"{file.lines_hit:4} of {file.lines:4} lines, {file.branches_hit:4} of {file.branches:4} branches"
        )
        print(f"{file.name:44}{line}  {'; '.join(file.missed)}")
    return 1 if any(file.missed for file in files if file.name in C_CORES or file.name.endswith(".py")) else 0


if __name__ == "__main__":
    sys.exit(main())
