"""Do the tests notice when the monitor is wrong? ``python -m tools.mutation [--room R] [--sample N] [--seed N]``.

Changes one thing at a time in ``safety/``, or with ``--room serial`` in the host's side of the serial protocol: a
comparison, an operator, a number, a word such as ``min`` or ``any``, a result; never on disk. Then it runs the tests
that touch that line. A mutant that no test notices survives. Defaults of a class's fields and what stands at the top of
a module are settings, not logic: they are left alone. First all tests run once under a line trace, which also gives the
line coverage. Each mutant is a fork of one process that has imported what is slow to import, with a time limit; the
files of the room may be edited meanwhile.
"""

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", tempfile.mkdtemp(prefix="outrider-mutation-"))

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/unit/test_monitor.py", "tests/unit/test_faults.py", "tests/unit/test_watches.py",
    "tests/unit/test_geometry.py", "tests/unit/test_admission.py", "tests/unit/test_safety_settings.py",
    "tests/unit/test_fields.py", "tests/unit/test_monitor_golden.py", "tests/unit/test_movers_bound.py",
    "tests/unit/test_scan.py",
    "tests/agent/test_never_more.py",
)  # fmt: skip
SLOW_TESTS = ("tests/property/test_safety.py", "tests/property/test_stranger.py", "tests/twin/test_movers.py")
"""They compile the twin first, or try many inputs."""
SERIAL = ("protocol/codec.py", "protocol/values.py", "link/machine.py", "link/clock.py")
SERIAL_TESTS = tuple(
    f"tests/firmware/test_{name}.py" for name in ("clock", "machine", "protocol", "board", "board_dialogue")
)
OPTIONS = ("-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--no-header", "--tb=short")
SAMPLE, SEED = 240, 1
MUTANT_MAX_S = 60
IMPORT = ""
"""Stands for every test, where lines run when the room is imported."""
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
WORDS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum",
    "less": "greater_equal", "greater_equal": "less", "cos": "sin", "sin": "cos", "argmax": "argmin", "ceil": "floor",
}  # fmt: skip


class Room(NamedTuple):
    """What is changed, and by which tests it is watched."""

    folder: Path
    files: tuple[Path, ...]
    tests: tuple[str, ...]


def room_of(name: str, quick: bool) -> Room:
    """``safety`` or ``serial``."""
    if name == "safety":
        folder = ROOT / "safety"
        return Room(folder, tuple(sorted(folder.rglob("*.py"))), TESTS if quick else TESTS + SLOW_TESTS)
    folder = ROOT / "firmware_interface"
    return Room(folder, tuple(folder / file for file in SERIAL), SERIAL_TESTS)


class Mutant(NamedTuple):
    """One change: the ``index``-th that can be made in the file."""

    path: str
    index: int
    line: int
    what: str


def changes(tree: ast.Module) -> Iterator[tuple[int, str, Any]]:
    """Line, words and a function that makes the change in the very tree, for each change that can be made."""
    for node in _logic(tree):
        yield from _of(node)


def _logic(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that is neither annotation, docstring, default of a class's field, nor a table of settings."""
    left: list[tuple[ast.AST, bool]] = [(node, True) for node in tree.body]
    while left:
        node, outside = left.pop(0)
        if isinstance(node, ast.Assert | ast.Raise):  # an assert is no protection, and a message no logic
            continue
        if outside and isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr):
            continue
        yield node
        inside = isinstance(node, ast.FunctionDef)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list") or (
                name == "keywords" and isinstance(node, ast.ClassDef)
            ):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _text(child):
                    left.append((child, outside and not inside))


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _of(node: ast.AST) -> Iterator[tuple[int, str, Any]]:
    if isinstance(node, ast.Compare):
        for place, was in enumerate(node.ops):
            for new in COMPARISONS[type(was)]:
                yield node.lineno, f"{type(was).__name__} -> {new.__name__}", _put(node.ops, place, new())
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        new_operator = OPERATORS[type(node.op)]
        yield (
            node.lineno,
            f"{type(node.op).__name__} -> {new_operator.__name__}",
            _set(node, "op", new_operator()),
        )
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node.lineno, f"{type(node.op).__name__} -> {type(other).__name__}", _set(node, "op", other)
    elif isinstance(node, ast.UnaryOp):
        yield (
            node.lineno,
            f"{type(node.op).__name__} dropped",
            _set(node, "op", ast.UAdd())
            if isinstance(node.op, ast.USub)
            else _become(node, ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])),
        )
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        other_value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield node.lineno, f"{node.value} -> {other_value}", _set(node, "value", other_value)
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in WORDS:
            field = "id" if isinstance(node.func, ast.Name) else "attr"
            yield node.lineno, f"{name} -> {WORDS[name]}", _set(node.func, field, WORDS[name])
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield node.lineno, "return None", _set(node, "value", ast.Constant(None))


def _set(node: ast.AST, field: str, value: object) -> Any:
    return lambda: setattr(node, field, value)


def _put(values: list[Any], place: int, value: object) -> Any:
    return lambda: values.__setitem__(place, value)


def _become(node: ast.UnaryOp, other: ast.expr) -> Any:
    def change() -> None:
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), copy.deepcopy(other))

    return change


def mutants_of(path: Path) -> list[Mutant]:
    """Every change that can be made in a file."""
    name = str(path.relative_to(ROOT))
    found = enumerate(changes(ast.parse(path.read_text())))
    return [Mutant(name, index, line, what) for index, (line, what, _) in found]


class MutantFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from its changed tree."""

    def __init__(self, mutant: Mutant, source: str) -> None:
        self._name = mutant.path.removesuffix(".py").replace("/", ".")
        self._path, tree = str(ROOT / mutant.path), ast.parse(source)
        list(changes(tree))[mutant.index][2]()
        self._code = compile(ast.fix_missing_locations(tree), self._path, "exec")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``MetaPathFinder``."""
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: types.ModuleType) -> None:
        """See ``Loader``."""
        exec(self._code, module.__dict__)


class Tracer:
    """A pytest plugin: which lines of the room each test touches, and how long it takes."""

    def __init__(self, room: Room) -> None:
        self._files = frozenset(map(str, room.files))
        self.lines: dict[str, set[tuple[str, int]]] = {IMPORT: set()}
        self.spent_s: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace one test with its fixtures."""
        touched = self.lines.setdefault(item.nodeid, set())
        began_s = time.monotonic()
        sys.settrace(self.into(touched))
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.spent_s[item.nodeid] = time.monotonic() - began_s

    def into(self, touched: set[tuple[str, int]]) -> Any:
        """A trace function that notes the room's lines."""

        def line(frame: types.FrameType, *_: object) -> Any:
            touched.add((frame.f_code.co_filename, frame.f_lineno))
            return line

        return lambda frame, *_: line(frame) if frame.f_code.co_filename in self._files else None


def in_child(work: Any, max_s: float, quiet: bool = True) -> int:
    """Run ``work`` in a fork; its exit code, -1 when it took too long."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        if quiet:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    end_s = time.monotonic() + max_s
    while time.monotonic() < end_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def trace(room: Room) -> tuple[dict[str, set[tuple[str, int]]], dict[str, float]]:
    """Lines and seconds of each test; ends the program when one of them fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trace.json"

        def work() -> int:
            tracer = Tracer(room)
            # What runs at import concerns every test.
            sys.settrace(tracer.into(tracer.lines[IMPORT]))
            code = pytest.main([*OPTIONS, *room.tests], plugins=[tracer])
            lines = {test: sorted(touched) for test, touched in tracer.lines.items()}
            out.write_text(json.dumps([lines, tracer.spent_s]))
            return int(code)

        if (code := in_child(work, 600.0, quiet=False)) != 0:
            raise SystemExit(
                f"the tests must pass before anything is changed; run pytest {' '.join(room.tests)} ({code})"
            )
        lines, spent_s = json.loads(out.read_text())
    return {test: {(name, line) for name, line in touched} for test, touched in lines.items()}, spent_s


def uncovered(room: Room, lines: dict[str, set[tuple[str, int]]]) -> dict[str, list[int]]:
    """Lines of logic that no test touches, by file."""
    touched = set().union(*lines.values())
    found = {}
    for path in room.files:
        code = compile(path.read_text(), str(path), "exec")
        wanted = {line for part in _codes(code) for *_, line in part.co_lines() if line}
        left = sorted(line for line in wanted if (str(path), line) not in touched)
        found[str(path.relative_to(ROOT))] = left
    return {name: left for name, left in found.items() if left}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Functions' code; a module's and a class's own lines run at import."""
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            if part.co_flags & 0x2:  # CO_NEWLOCALS: a function
                yield part
            yield from _codes(part)


def survives(mutant: Mutant, source: str, tests: list[str]) -> bool:
    """Whether all these tests pass with it; file by file, as some files import what is slow to."""

    def work() -> int:
        sys.meta_path.insert(0, MutantFinder(mutant, source))
        for _, group in itertools.groupby(tests, key=_file):
            if code := int(pytest.main(["-x", *OPTIONS, *group])):
                return code
        return 0

    return in_child(work, MUTANT_MAX_S) == 0


def _file(test: str) -> str:
    return test.split("::")[0]


def in_order(tests: list[str], spent_s: dict[str, float]) -> list[str]:
    """The quick first; those of a file together."""
    by_file: dict[str, float] = {}
    for test in tests:
        by_file[_file(test)] = by_file.get(_file(test), 0.0) + spent_s[test]
    return sorted(tests, key=lambda test: (by_file[_file(test)], _file(test), spent_s[test]))


def preload() -> None:
    """Import what is slow to, and not the room."""
    import msgspec  # noqa: F401
    import numpy as np  # noqa: F401

    import contracts.decision
    import contracts.robot  # noqa: F401

    with contextlib.suppress(ImportError):
        import numba  # noqa: F401


def main() -> int:
    """Trace, mutate a sample, say who survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants; 0: all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--quick", action="store_true", help="without the tests that compile the twin")
    parser.add_argument("--room", choices=("safety", "serial"), default="safety")
    parser.add_argument("--only", default="", help="files or folders of the room, comma-separated")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    room = room_of(arguments.room, arguments.quick)
    preload()
    lines, spent_s = trace(room)
    missed = uncovered(room, lines)
    sources = {path: path.read_text() for path in room.files}
    only = tuple(arguments.only.split(","))
    every = [mutant for path in sources for mutant in mutants_of(path) if mutant.path.startswith(only)]
    if not every:
        parser.error(
            f"--only {arguments.only} names nothing that can be changed; as safety/movers.py it would"
        )
    chosen = every
    if 0 < arguments.sample < len(every):
        chosen = sorted(random.Random(arguments.seed).sample(every, arguments.sample))
    survivors = []
    for done, mutant in enumerate(chosen, 1):
        path = ROOT / mutant.path
        touching = [test for test, touched in lines.items() if (str(path), mutant.line) in touched]
        touching = in_order(list(spent_s) if IMPORT in touching else touching, spent_s)
        if not touching or survives(mutant, sources[path], touching):
            survivors.append(mutant)
            print(f"{mutant.path}:{mutant.line}: {mutant.what} survives {len(touching)} tests", flush=True)
        if done % 20 == 0:
            print(f"{done} of {len(chosen)}, {len(survivors)} survive", file=sys.stderr, flush=True)
    killed = len(chosen) - len(survivors)
    for name, left in missed.items():
        print(f"{name}: lines {left} are touched by no test")
    print(
        f"{killed} of {len(chosen)} mutants killed ({killed / len(chosen):.1%}), {len(every)} could be made"
    )
    if arguments.json:
        print(
            json.dumps(
                {"killed": killed, "mutants": len(chosen), "possible": len(every), "uncovered": missed}
            )
        )
    return 0 if killed >= 0.9 * len(chosen) and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
