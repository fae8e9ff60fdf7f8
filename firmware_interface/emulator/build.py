"""Compiles the reference firmware: for this machine, and for a Cortex-M4 to see that it does and how large it is."""

import enum
import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from contracts.canonical import digest_hex
from firmware_interface.errors import BuildError

SOURCES = Path(__file__).resolve().parents[1] / "firmware"
OUT = Path(__file__).resolve().parents[2] / "build" / "firmware"
COMPILE_MAX_S = 300.0
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow")
CROSS = ("-Os", "-fno-math-errno", "-ffunction-sections", "-fdata-sections", "-fstack-usage")


class Target(enum.Enum):
    """Processors that the core is compiled for, to see that it can be and how large it is."""

    CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
    """STM32F4, nRF52 and the like."""
    CORTEX_M0_PLUS = ("-mcpu=cortex-m0plus", "-mthumb", "-mfloat-abi=soft")
    """RP2040, STM32G0: no floating point unit."""


class Kind(enum.Enum):
    """How it is compiled for this machine."""

    FAST = ("-O2", "-g")
    COVERED = ("-O0", "--coverage", "-fprofile-update=atomic")
    SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Size(NamedTuple):
    """Bytes of the core on a board.

    Attributes:
        flash: code and constants, without the library behind ``signature.h`` and the C library.
        memory: the one struct, and what else is not on the stack.
        frame: the largest stack frame of one function.
    """

    flash: int
    memory: int
    frame: int


@functools.cache
def signature_flags() -> tuple[str, ...]:
    """What links the emulated board to libsodium, which checks its images' signatures; empty where there is none.

    Without it the board is built all the same, and takes no update.
    """
    command = ["pkg-config", "--cflags", "--libs", "libsodium"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return ("-DOUTRIDER_SODIUM", *done.stdout.split()) if done.returncode == 0 else ()


def core_sources() -> list[Path]:
    """What goes onto a board."""
    return sorted(SOURCES.glob("*.c")) + sorted(SOURCES.glob("generated/*.c"))


def _run(command: list[str], cwd: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=COMPILE_MAX_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise BuildError(f"the firmware does not compile: {' '.join(command[:3])} ...\n{done.stderr[-4000:]}")
    return done.stdout


def build(kind: Kind = Kind.FAST, out: Path = OUT) -> Path:
    """The firmware as a program of this machine, compiled anew when a source has changed; raises BuildError."""
    if shutil.which("gcc") is None:
        raise BuildError("no gcc on PATH, which compiles the emulated board: 'apt-get install gcc libc6-dev'")
    sources = [*core_sources(), *sorted(SOURCES.glob("host/*.c"))]
    watched = sorted({*sources, *SOURCES.rglob("*.h")})
    texts = b"\0".join(path.read_bytes() for path in watched)
    flags = signature_flags()
    key = digest_hex(repr((STRICT, kind.value, flags)).encode() + texts)[:16]
    program = out / f"board-{kind.name.lower()}-{key}"
    if program.exists():
        return program
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot write to {out} ({error.strerror}): pass another folder") from None
    fresh = out / f"{program.name}.{os.getpid()}"
    _run(["gcc", *STRICT, *kind.value, "-o", str(fresh), *map(str, sources), *flags, "-lm"], out)
    fresh.replace(program)
    return program


def cross_compile(target: Target = Target.CORTEX_M4, out: Path = OUT) -> Size | None:
    """Compile the core for a board's processor; None where there is no compiler for it; raises BuildError."""
    if shutil.which("arm-none-eabi-gcc") is None:
        return None
    out = out / target.name.lower()
    out.mkdir(parents=True, exist_ok=True)
    flags = (*STRICT, *target.value, *CROSS)
    objects = []
    for source in core_sources():
        objects.append(f"{source.stem}.o")
        _run(["arm-none-eabi-gcc", *flags, "-c", "-o", objects[-1], str(source)], out)
    text, data, bss = _sections(["-t", *objects], out)
    probe = out / "probe.c"  # holds one struct core: nothing else here does
    probe.write_text('#include "core.h"\nextern struct core board;\nstruct core board;\n')
    _run(["arm-none-eabi-gcc", *flags, f"-I{SOURCES}", "-c", "-o", "probe.o", str(probe)], out)
    frames = [int(line.split("\t")[1]) for path in out.glob("*.su") for line in path.read_text().splitlines()]
    return Size(text + data, data + bss + _sections(["probe.o"], out)[2], max(frames))


def _sections(arguments: list[str], out: Path) -> tuple[int, int, int]:
    """Bytes of text, data and bss: the last line that arm-none-eabi-size prints."""
    last = _run(["arm-none-eabi-size", *arguments], out).splitlines()[-1].split()
    return int(last[0]), int(last[1]), int(last[2])
