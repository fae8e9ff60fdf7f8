"""What the link must survive, as functions that tests, benchmarks and ``outrider firmware soak`` share."""

import json
import random
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cobs import cobs

from firmware_interface.emulator.virtual import Executed, Observed, Sent, VirtualBoard
from firmware_interface.errors import EmulatorError
from firmware_interface.link.machine import LinkMachine, LinkState
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import AnyFrame
from firmware_interface.protocol.schema import FRAMES, Field
from firmware_interface.protocol.values import as_f32

BATCH = 20_000
RUN_MAX_S = 7200.0
EXPIRIES_US = (20_000, 80_000)
"""The short one: what is late for it meets a board whose watchdog has not stopped it yet."""
NOISE = "line flip=1000 drop=500 burst=100 duplicate=50000 hold=3000 delay_us=3000"
"""Chances per million: of bytes; of frames for ``duplicate``; of writes for ``hold``."""


def any_value(field: Field, rng: random.Random) -> int | float | bytes:
    """A value in the field's range, the bounds more often than chance would have it."""
    if field.kind == "bytes":
        return rng.choice([bytes(field.count), rng.randbytes(field.count)])
    bits = 8 * field.size
    whole = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if field.kind == "i32" else (0, 2**bits - 1)
    low, high = field.bounds or whole
    if field.kind == "f32":
        return as_f32(rng.choice([low, high, rng.uniform(low, high)]))
    return rng.choice([int(low), int(high), rng.randint(int(low), int(high))])


def any_frame(rng: random.Random) -> AnyFrame:
    """A valid frame of any kind."""
    frame = rng.choice(FRAMES)
    return frames.TYPES[frame.code](*(any_value(field, rng) for field in frame.fields))  # type: ignore[arg-type]


def any_encoding(rng: random.Random) -> bytes:
    """What may lie between two zero bytes: good frames, frames with any bits and a good CRC, damaged ones, noise."""
    wire = codec.encode(any_frame(rng))[:-1]
    match rng.randrange(4):
        case 0:
            raw = bytearray(cobs.decode(wire)[:-4])
            at = rng.randrange(1, len(raw))
            raw[at : at + 4] = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\xff", rng.randbytes(4)])[
                : len(raw) - at
            ]
            encoded: bytes = cobs.encode(bytes(raw) + zlib.crc32(raw).to_bytes(4, "little"))
            return encoded
        case 1:
            damaged = bytearray(wire)
            damaged[rng.randrange(len(damaged))] = rng.randrange(1, 256)
            return bytes(damaged[: rng.randint(1, len(damaged))])
        case 2 if rng.random() < 0.2:
            return bytes(rng.randrange(1, 256) for _ in range(rng.randint(1, 300)))
        case _:
            return wire


def differential(program: Path, count: int, seed: int = 1) -> dict[str, int]:
    """Decode and encode again in Python and in C; how many of ``count`` differ, and how many of each verdict."""
    rng = random.Random(seed)
    result = {"frames": 0, "differ": 0}
    while result["frames"] < count:
        batch = [any_encoding(rng) for _ in range(min(BATCH, count - result["frames"]))]
        sent = b"".join(struct.pack("<H", len(item)) + item for item in batch)
        answer = _run([str(program), "codec"], sent)
        at = 0
        for item in batch:
            verdict, size = struct.unpack_from("<BH", answer, at)
            again = answer[at + 3 : at + 3 + size]
            at += 3 + size
            mine, frame = codec.decode(item)
            same = verdict == mine and again == (b"" if frame is None else codec.encode(frame))
            result["differ"] += not same
            result[mine.name.lower()] = result.get(mine.name.lower(), 0) + 1
        result["frames"] += len(batch)
    return result


def _run(command: list[str], data: bytes = b"") -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, timeout=RUN_MAX_S, check=False)
    if done.returncode != 0:
        raise EmulatorError(
            f"'{' '.join(command[1:])}' ended with exit code {done.returncode}:\n{done.stderr.decode()[-4000:]}"
        )
    return done.stdout


def fuzz(program: Path, count: int, seed: int = 1) -> dict[str, Any]:
    """Feed ``count`` bytes to the whole C core; raises EmulatorError with what a sanitizer found."""
    found: dict[str, Any] = json.loads(_run([str(program), "fuzz", str(seed), str(count)]))
    return found


def power_cuts(program: Path, image_bytes: int, stride: int) -> dict[str, int]:
    """Cut the power at every ``stride``-th byte that an update erases or writes; raises EmulatorError."""
    found: dict[str, int] = json.loads(_run([str(program), "cut", str(image_bytes), str(stride)]))
    return found


class LineResult(NamedTuple):
    """Commands over a bad line. ``wrong``: executed though corrupt, stale, repeated or out of order."""

    sent: int
    executed: int
    wrong: int
    damaged: int
    rearmed: int


class LineTrial:
    """The host's state machine and the real firmware in virtual time, over a line with faults.

    It sends commands, arms again whenever the board has stopped, and checks whatever the board executes against what
    was sent: the same numbers, one sequence once and only upwards, not after its expiry.
    """

    def __init__(self, program: Path, seed: int, faults: str = NOISE, commands_per_ms: int = 1) -> None:
        self._board = VirtualBoard(program, seed)
        self._rng = random.Random(seed)
        self._faults, self._per_ms = faults, commands_per_ms
        self._out: list[bytes] = []
        self._machine = LinkMachine(lambda: self._rng.getrandbits(32), self._keep)
        self._now_us = 0
        self._sequence = self._last = 0
        self._pending: dict[int, tuple[float, float, int]] = {}
        self._armed = False
        self._counts = {"sent": 0, "executed": 0, "wrong": 0, "rearmed": 0}

    def _keep(self, data: bytes) -> bool:
        self._out.append(data)
        return True

    def run(self, count: int, progress: Callable[[int], None] | None = None) -> LineResult:
        """Send ``count`` commands."""
        try:
            self._step(b"")
            self._board.control(self._now_us, self._faults)
            ms = 0
            while self._counts["sent"] < count:
                self._millisecond(ms)
                ms += 1
                if progress is not None and ms % 1000 == 0:
                    progress(self._counts["sent"])
            damaged = sum(self._board.damaged)
        finally:
            self._board.close()
        return LineResult(damaged=damaged, **self._counts)

    def _millisecond(self, ms: int) -> None:
        now_ns = self._now_us * 1000
        if self._machine.state is LinkState.CLOSED:
            self._machine.start(now_ns)
            self._sequence = self._last = 0
            self._pending.clear()
        self._machine.poll(now_ns)
        if self._machine.state is LinkState.OPEN:
            if not self._armed and ms % 20 == 0:
                self._send(frames.Arm, self._machine.stamp_us(now_ns))
                self._counts["rearmed"] += 1
            for _ in range(self._per_ms):
                self._command(now_ns)
        data, self._out[:] = b"".join(self._out), []
        self._step(data)

    def _send(self, kind: Callable[..., AnyFrame], *rest: float) -> None:
        self._sequence += 1
        self._out.append(codec.encode(kind(self._machine.session, self._sequence, *rest)))

    def _command(self, now_ns: int) -> None:
        linear, angular = as_f32(self._rng.uniform(-1, 1)), as_f32(self._rng.uniform(-2, 2))
        expiry_us = self._rng.choice(EXPIRIES_US)
        self._send(frames.VelocityCommand, self._machine.stamp_us(now_ns), 0, expiry_us, linear, angular)
        self._pending[self._sequence] = (linear, angular, self._now_us + expiry_us)
        self._counts["sent"] += 1

    def _step(self, data: bytes) -> None:
        self._now_us += 1000
        for seen in self._board.exchange(self._now_us, data):
            self._look(seen)

    def _look(self, seen: Observed) -> None:
        if isinstance(seen, Sent):
            for event in self._machine.receive(seen.data, self._now_us * 1000):
                if isinstance(event, frames.Status):
                    self._armed = event.state == frames.State.ARMED
        elif isinstance(seen, Executed):
            self._counts["executed"] += 1
            linear, angular, end_us = self._pending.get(seen.sequence, (9.0, 9.0, 0))
            same = (seen.linear_mps, seen.angular_radps) == (linear, angular)
            fresh = seen.time_us <= end_us
            self._counts["wrong"] += not (same and fresh and seen.sequence > self._last)
            self._last = seen.sequence
            if len(self._pending) > 4096:
                for old in [number for number in self._pending if number <= seen.sequence]:
                    del self._pending[old]
