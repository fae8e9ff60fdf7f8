"""All trials in a row, as long as one likes."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from firmware_interface.emulator.build import Kind, build
from firmware_interface.emulator.stops import StopTrials
from firmware_interface.emulator.trials import LineTrial, differential, fuzz, power_cuts

CAUSES = ("killed", "frozen", "unplugged", "flooded")
IMAGE_BYTES = 3000
STOP_MAX_MS = 100.0


class Wanted(NamedTuple):
    """How much of each; 0 leaves a trial out. ``cut_stride``: bytes between two power cuts."""

    fuzz_bytes: int
    line_frames: int
    differential_frames: int
    cut_stride: int
    stops: int
    seed: int


class Result(NamedTuple):
    """One kind of trial."""

    name: str
    good: bool
    seconds: float
    facts: dict[str, Any]


def soak(wanted: Wanted) -> Iterator[Result]:
    """Run what is wanted, one result after the other; raises FirmwareError when a process ends in an error."""
    safe, fast = build(Kind.SANITIZED), build(Kind.FAST)
    trials: list[tuple[str, bool, Callable[[], tuple[bool, dict[str, Any]]]]] = [
        ("fuzz", wanted.fuzz_bytes > 0, lambda: (True, fuzz(safe, wanted.fuzz_bytes, wanted.seed))),
        ("differential", wanted.differential_frames > 0, lambda: _differential(safe, wanted)),
        ("bad line", wanted.line_frames > 0, lambda: _line(fast, wanted)),
        ("power cuts", wanted.cut_stride > 0, lambda: _cuts(fast, wanted.cut_stride)),
        *((cause, wanted.stops > 0, lambda cause=cause: _stops(fast, cause, wanted)) for cause in CAUSES),
    ]
    for name, chosen, run in trials:
        if chosen:
            started_s = time.monotonic()
            good, facts = run()
            yield Result(name, good, round(time.monotonic() - started_s, 2), facts)


def _differential(program: Path, wanted: Wanted) -> tuple[bool, dict[str, Any]]:
    facts = differential(program, wanted.differential_frames, wanted.seed)
    return facts["differ"] == 0, {"frames": facts["frames"], "differ": facts["differ"]}


def _line(program: Path, wanted: Wanted) -> tuple[bool, dict[str, Any]]:
    facts = LineTrial(program, wanted.seed, commands_per_ms=4).run(wanted.line_frames)._asdict()
    return facts["wrong"] == 0 and facts["damaged"] > 0 and facts["executed"] > 0, facts


def _cuts(program: Path, stride: int) -> tuple[bool, dict[str, Any]]:
    facts = power_cuts(program, IMAGE_BYTES, stride)
    return facts["wrong"] == 0, dict(facts)


def _stops(program: Path, cause: str, wanted: Wanted) -> tuple[bool, dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="outrider-stops-") as folder,
        StopTrials(program, Path(folder), wanted.seed) as rig,
    ):
        stops = [rig.run(cause) for _ in range(wanted.stops)]
    late = sum(stop.stop_ms > STOP_MAX_MS + stop.stall_ms for stop in stops)
    restarts = sum(stop.restarted for stop in stops)
    facts = {
        "trials": len(stops),
        "stop_ms_max": round(max(stop.stop_ms for stop in stops), 1),
        "stall_ms_max": round(max(stop.stall_ms for stop in stops), 1),
        "late": late,
        "restarts": restarts,
    }
    return late == 0 and restarts == 0, facts
