"""Do the tests notice when the firmware is wrong? ``python -m tools.mutation_c [--sample N] [--seed N] [--only F,F]``.

Changes one thing at a time in a copy of the C core (a comparison, an operator, a number, a condition, a statement left
out), compiles that file, links it with the others, and runs the firmware's tests against the program. A mutant that no
test notices survives; one that does not compile is none. Lines are told from comments by the house's way of writing
them; no C is parsed here. What is known to change nothing that can be seen (``EQUIVALENT``, with the reason) is left
out and told; ``--equivalent`` tries just those, and fails when a test notices one.
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
from tools.mutants_equivalent import EQUIVALENT, Equivalent
from tools.mutation import in_child

ROOT = Path(__file__).resolve().parents[1]
FILES = ("framing.c", "dispatch.c", "motion.c", "core.c", "parameters.c", "trust.c", "update.c", "store.c")
WATCHING = "board_power board_update board_orders board_motion board_dialogue signature store board protocol"
"""The quick first."""
TESTS = tuple(f"tests/firmware/test_{name}.py" for name in WATCHING.split())
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--no-header", "--tb=no")
LEFT_OUT = "small_boards or cppcheck or cannot_be or what_is_generated or trial_finds or library_takes or ten_million"
"""Tests that do not run the program, or compile their own."""
SWAPS = (
    (" < ", " <= "), (" < ", " >= "), (" <= ", " < "), (" > ", " >= "), (" > ", " <= "), (" >= ", " > "),
    (" == ", " != "), (" != ", " == "), (" && ", " || "), (" || ", " && "), (" + ", " - "), (" - ", " + "),
    (" * ", " / "), (" / ", " * "), (" % ", " * "), (" & ", " | "), (" | ", " & "), (" += ", " = "),
    (" << ", " >> "), (" >> ", " << "), ("++", "--"), ("true", "false"), ("false", "true"), ("(!", "(!!"),
)  # fmt: skip
FUNCTION = re.compile(r"\w[^(=]*?\b(\w+)\(")
NUMBER = re.compile(r"(?<![\w.\[])(\d+)(\.\d+f|u)(?![\w.])")
STATEMENT = re.compile(
    r"^\s+(?!return|break|continue|const |case |default)[\w>.\-\[\]]+( [+|&-]?= .*|\(.*\));$"
)
SLOWER_MAX = 8.0
"""A mutant that takes so many times as long as the tests do without it hangs."""
UNCHANGED_MAX_S = 600.0
SAMPLE = 120


class Mutant(NamedTuple):
    """One line of a function, changed."""

    file: str
    line: int
    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before.strip()} -> {self.after.strip()}"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every change that can be made in a file; declarations at its top are settings and left alone."""
    inside = comment = False
    function = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if head := FUNCTION.match(line):
            function = head[1]
        inside = (inside or line == "{") and line != "}"
        comment = comment or line.lstrip().startswith("/*")
        if inside and not comment:
            code, mark, rest = line.partition("/*")
            changed = (after + mark + rest for after in _changed(code))
            yield from (Mutant(path.name, number, function, line, after) for after in changed)
        comment = comment and "*/" not in line


def _changed(code: str) -> Iterator[str]:
    for was, new in SWAPS:
        for found in re.finditer(re.escape(was), code):
            yield code[: found.start()] + new + code[found.end() :]
    for found in NUMBER.finditer(code):
        yield f"{code[: found.start()]}{int(found[1]) + 1}{found[2]}{code[found.end() :]}"
    if STATEMENT.match(code.rstrip()):
        yield "    ;"


def known(mutant: Mutant) -> Equivalent | None:
    """The claim that no test can notice it, where there is one."""
    before, after = mutant.before.strip(), mutant.after.strip()
    for claim in EQUIVALENT:
        place = mutant.file == claim.file and claim.function in ("", mutant.function)
        if place and before.startswith(claim.before) and after.startswith(claim.after):
            return claim
    return None


def parted(every: list[Mutant]) -> tuple[list[Mutant], list[tuple[Mutant, Equivalent]]]:
    """Those that a test should notice, and those that none can."""
    claims = [(mutant, known(mutant)) for mutant in every]
    return [mutant for mutant, claim in claims if claim is None], [
        (mutant, claim) for mutant, claim in claims if claim is not None
    ]


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


def try_all(chosen: list[Mutant]) -> tuple[int, list[Mutant]]:
    """How many compile, and which of them no test notices."""
    tried, survivors, began_s = 0, list[Mutant](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="outrider-mutation-") as folder:
        bench = Bench(Path(folder))
        if not bench.build(None) or bench.noticed(TESTS, UNCHANGED_MAX_S):
            raise SystemExit(f"the tests must pass before anything is changed; run pytest {' '.join(TESTS)}")
        max_s = SLOWER_MAX * (time.monotonic() - began_s)
        for mutant in chosen:
            if not bench.build(mutant):
                continue
            tried += 1
            if not bench.noticed(TESTS, max_s):
                survivors.append(mutant)
                print(mutant, file=sys.stderr, flush=True)
            if tried % 20 == 0:
                passed_s = time.monotonic() - began_s
                print(f"{tried}: {len(survivors)} survive, {passed_s:.0f} s", file=sys.stderr, flush=True)
    return tried, survivors


def main() -> int:
    """Change, compile, test; say who survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(FILES), help="files, comma-separated")
    parser.add_argument(
        "--equivalent", action="store_true", help="those that are said to change nothing, and all"
    )
    arguments = parser.parse_args()
    every = [mutant for name in arguments.only.split(",") for mutant in mutants_of(SOURCES / name)]
    possible, equivalent = parted(every)
    for mutant, claim in equivalent:
        print(f"changes nothing: {mutant} ({claim.reason})")
    if arguments.equivalent:
        chosen = [mutant for mutant, _ in equivalent]
    else:
        sample = arguments.sample or len(possible)
        chosen = random.Random(arguments.seed).sample(possible, min(sample, len(possible)))
    os.chdir(ROOT)
    tried, survivors = try_all(sorted(chosen))
    for survivor in survivors:
        print(f"survives: {survivor}")
    killed = tried - len(survivors)
    print(
        f"{killed} of {tried} mutants killed ({killed / max(tried, 1):.1%}), "
        f"{len(possible)} could be made and {len(equivalent)} that change nothing"
    )
    if arguments.equivalent:
        files = arguments.only.split(",")
        stale = {claim for claim in EQUIVALENT if claim.file in files} - {claim for _, claim in equivalent}
        for claim in stale:
            print(f"no line in {claim.file} is as this says: {claim.before}")
        return 1 if killed or stale else 0
    return 0 if killed >= 0.9 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
