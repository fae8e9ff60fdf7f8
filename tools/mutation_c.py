"""Do the tests notice when the firmware is wrong? ``python -m tools.mutation_c [--sample N] [--seed N] [--only F,F]``.

Changes one thing at a time in a copy of the C core (a comparison, an operator, a number, a condition, a statement left
out), compiles that file, links it with the others, and runs the firmware's tests against the program. A mutant that no
test notices survives; one that does not compile is none. Lines are told from comments by the house's way of writing
them; no C is parsed here.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from firmware_interface.emulator.build import SOURCES, core_sources, signature_flags
from tools.mutation import in_child

ROOT = Path(__file__).resolve().parents[1]
FILES = ("framing.c", "dispatch.c", "motion.c", "core.c", "parameters.c", "trust.c", "update.c", "store.c")
TESTS = tuple(
    f"tests/firmware/test_{name}.py"
    for name in ("board_motion", "board_dialogue", "signature", "store", "board", "protocol")
)
"""The quick first."""
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--no-header", "--tb=no")
LEFT_OUT = "small_boards or cppcheck or cannot_be or what_is_generated or trial_finds or library_takes or ten_million"
"""Tests that do not run the program, or compile their own."""
SWAPS = (
    (" < ", " <= "), (" < ", " >= "), (" <= ", " < "), (" > ", " >= "), (" > ", " <= "), (" >= ", " > "),
    (" == ", " != "), (" != ", " == "), (" && ", " || "), (" || ", " && "), (" + ", " - "), (" - ", " + "),
    (" * ", " / "), (" / ", " * "), (" % ", " * "), (" & ", " | "), (" | ", " & "), (" += ", " = "),
    (" << ", " >> "), (" >> ", " << "), ("++", "--"), ("true", "false"), ("false", "true"), ("(!", "(!!"),
)  # fmt: skip
NUMBER = re.compile(r"(?<![\w.\[])(\d+)(\.\d+f|u)(?![\w.])")
STATEMENT = re.compile(
    r"^\s+(?!return|break|continue|const |case |default)[\w>.\-\[\]]+( [+|&-]?= .*|\(.*\));$"
)
SLOWER_MAX = 8.0
"""A mutant that takes so many times as long as the tests do without it hangs."""
UNCHANGED_MAX_S = 600.0
SAMPLE = 120


class Mutant(NamedTuple):
    """One line, changed."""

    file: str
    line: int
    before: str
    after: str


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every change that can be made in a file; declarations at its top are settings and left alone."""
    inside = comment = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        inside = (inside or line == "{") and line != "}"
        comment = comment or line.lstrip().startswith("/*")
        if inside and not comment:
            code, mark, rest = line.partition("/*")
            yield from (Mutant(path.name, number, line, after + mark + rest) for after in _changed(code))
        comment = comment and "*/" not in line


def _changed(code: str) -> Iterator[str]:
    for was, new in SWAPS:
        for found in re.finditer(re.escape(was), code):
            yield code[: found.start()] + new + code[found.end() :]
    for found in NUMBER.finditer(code):
        yield f"{code[: found.start()]}{int(found[1]) + 1}{found[2]}{code[found.end() :]}"
    if STATEMENT.match(code.rstrip()):
        yield "    ;"


class Bench:
    """The core compiled once; a mutant costs one file and the linker."""

    def __init__(self, folder: Path) -> None:
        self._tree = folder / "firmware"
        shutil.copytree(SOURCES, self._tree)
        self._objects: dict[str, Path] = {}
        for source in [*core_sources(), *sorted(SOURCES.glob("host/*.c"))]:
            copied = self._tree / source.relative_to(SOURCES)
            self._objects[str(source.relative_to(SOURCES))] = copied.with_suffix(".o")
            if not self._compile(copied):
                raise SystemExit(f"{source} does not compile")
        self.program = folder / "board"

    def _compile(self, source: Path) -> bool:
        command = [
            "gcc",
            "-std=c11",
            "-O1",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ]
        command += [*signature_flags()[:1], "-c", "-o", str(source.with_suffix(".o")), str(source)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    def build(self, mutant: Mutant | None) -> bool:
        """The program, with the change; False when that does not compile."""
        if mutant is not None:
            path = self._tree / mutant.file
            good = path.read_text()
            lines = good.splitlines()
            lines[mutant.line - 1] = mutant.after
            path.write_text("\n".join([*lines, ""]))
            compiled = self._compile(path)
            path.write_text(good)
            if not compiled:
                return False
        command = ["gcc", "-fsanitize=address,undefined", "-o", str(self.program)]
        command += [*map(str, self._objects.values()), *signature_flags()[1:], "-lm"]
        linked = subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        if mutant is not None:
            self._compile(self._tree / mutant.file)
        return linked

    def noticed(self, tests: tuple[str, ...], max_s: float) -> bool:
        """Whether a test fails, or takes too long. In a fork, which has imported already what is slow to."""

        def work() -> int:
            os.environ["OUTRIDER_FIRMWARE_PROGRAM"] = str(self.program)
            return int(pytest.main([*OPTIONS, "-k", f"not ({LEFT_OUT})", *tests]))

        return in_child(work, max_s) != 0


def main() -> int:
    """Change, compile, test; say who survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(FILES), help="files, comma-separated")
    arguments = parser.parse_args()
    every = [mutant for name in arguments.only.split(",") for mutant in mutants_of(SOURCES / name)]
    chosen = random.Random(arguments.seed).sample(every, min(arguments.sample or len(every), len(every)))
    os.chdir(ROOT)
    tried, survivors, began_s = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="outrider-mutation-") as folder:
        bench = Bench(Path(folder))
        if not bench.build(None) or bench.noticed(TESTS, UNCHANGED_MAX_S):
            raise SystemExit(f"the tests must pass before anything is changed; run pytest {' '.join(TESTS)}")
        max_s = SLOWER_MAX * (time.monotonic() - began_s)
        for mutant in sorted(chosen):
            if not bench.build(mutant):
                continue
            tried += 1
            if not bench.noticed(TESTS, max_s):
                survivors += 1
                print(
                    f"{mutant.file}:{mutant.line}: {mutant.before.strip()} -> {mutant.after.strip()}",
                    flush=True,
                )
            if tried % 20 == 0:
                print(
                    f"{tried}: {survivors} survive, {time.monotonic() - began_s:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    killed = tried - survivors
    print(f"{killed} of {tried} mutants killed ({killed / max(tried, 1):.1%}), {len(every)} could be made")
    return 0 if killed >= 0.9 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
