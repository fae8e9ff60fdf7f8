"""How long the wheels go on after the host or the line has failed: real processes, real time, a pseudo-terminal.

The time is from the failure until the firmware asks its wheels for zero. After each stop the host drives on or comes
back, and the wheels must not move before somebody arms.
"""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from firmware_interface.emulator.process import Emulator
from firmware_interface.errors import EmulatorError
from firmware_interface.protocol import codec, frames

ANSWER_MAX_S = 30.0
START_MAX_S = 0.5
COMMANDS_REFUSED = 5
"""So many commands must reach the stopped board before it counts as one that does not start by itself."""
FLOOD_S = 0.2
ATTEMPTS_MAX = 20
"""On a busy machine the driver itself is late now and then, and the board has stopped before anything fails."""
FAILING_MAX_US = 5000
"""Took it longer to make it fail, then nobody knows when it did."""


class Stop(NamedTuple):
    """One trial. ``stall_ms``: how long the emulator itself did not run meanwhile, which a board would have."""

    cause: str
    stop_ms: float
    stall_ms: float
    restarted: bool
    """The wheels were asked to turn again without anybody arming."""


class Driver:
    """The process that drives."""

    def __init__(self, port: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "firmware_interface.emulator.driver", port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,
        )
        self.expect("open")

    def expect(self, word: str) -> None:
        """Wait for a line that begins with ``word``; raises EmulatorError."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_MAX_S)
        line = self.process.stdout.readline() if ready else "nothing"
        if not line.startswith(word):
            raise EmulatorError(f"expected {word!r} from the driver, came {line.strip()!r}")

    def arm(self) -> None:
        """Have it arm."""
        assert self.process.stdin is not None
        self.process.stdin.write("arm\n")
        self.process.stdin.flush()
        self.expect("armed")

    def close(self) -> None:
        """Kill it, stopped or not."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class StopTrials:
    """Trials of one cause after another, on one emulator."""

    def __init__(self, program: Path, folder: Path, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._emulator = Emulator(program, link=folder / "board")
        self._emulator.hurry()
        self._driver: Driver | None = None

    def __enter__(self) -> "StopTrials":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._driver is not None:
            self._driver.close()
        if self._emulator.close() != 0:
            raise EmulatorError("the emulator ended with an error")

    def run(self, cause: str) -> Stop:
        """One trial: ``killed``, ``frozen``, ``unplugged`` or ``flooded``."""
        fail: dict[str, Callable[[], None]] = {
            "killed": self._kill,
            "frozen": self._freeze,
            "unplugged": lambda: self._emulator.control("unplug"),
            "flooded": self._freeze,
        }
        for _ in range(ATTEMPTS_MAX):
            self._drive()
            time.sleep(self._rng.uniform(0.05, 0.15))
            start = self._emulator.mark()
            failed_us = time.monotonic_ns() // 1000
            fail[cause]()
            spoiled = time.monotonic_ns() // 1000 - failed_us > FAILING_MAX_US
            if cause == "flooded":
                self._flood()
            self._wait_until(lambda: self._last_asked()["on"] == 0)
            stopped_us = int(self._last_asked()["us"])
            stalls = [
                e for e in self._emulator.events[start:] if e["event"] == "stall" and e["us"] <= stopped_us
            ]
            restarted = self._recover(cause)
            if stopped_us >= failed_us and not spoiled:
                stall_ms = sum(event["gap_us"] for event in stalls) / 1000
                return Stop(cause, (stopped_us - failed_us) / 1000, stall_ms, restarted)
        raise EmulatorError(
            f"the driver was late {ATTEMPTS_MAX} times: this machine is too busy for the trial"
        )

    def _last_asked(self) -> dict[str, Any]:
        """Whether the wheels are asked to turn, and since when."""
        asked = (event for event in reversed(self._emulator.events) if event["event"] == "asked")
        return next(asked, {"on": 0, "us": 0})

    def _drive(self) -> None:
        for _ in range(ATTEMPTS_MAX):
            if self._driver is None:
                self._driver = Driver(self._emulator.port)
            if self._last_asked()["on"] == 1:
                return
            self._wait_until(lambda: self._emulator.counts()["state"] == 0)
            start = self._emulator.mark()
            self._driver.arm()
            with contextlib.suppress(EmulatorError):
                self._emulator.wait_for("asked", start, START_MAX_S, on=1)
        raise EmulatorError(f"the driver did not get going {ATTEMPTS_MAX} times: this machine is too busy")

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        end_s = time.monotonic() + ANSWER_MAX_S
        while not holds():
            if time.monotonic() > end_s:
                driver = "none" if self._driver is None else self._driver.process.poll()
                raise EmulatorError(
                    f"the board did not get there within {ANSWER_MAX_S:g} s: {self._emulator.counts()},"
                    f" the driver's exit code {driver}, the last events {self._emulator.events[-5:]}"
                )
            time.sleep(0.005)

    def _kill(self) -> None:
        assert self._driver is not None
        self._driver.process.kill()

    def _freeze(self) -> None:
        assert self._driver is not None
        self._driver.process.send_signal(signal.SIGSTOP)

    def _flood(self) -> None:
        """Another program fills the line with noise and valid frames, none of them a fresh command."""
        port = os.open(os.path.realpath(self._emulator.port), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        junk = b"".join(
            codec.encode(frame)
            for frame in (
                frames.TimeRequest(1),
                frames.Heartbeat(1, 1),
                frames.VelocityCommand(1, 2**31, 0, 0, 200_000, 0.5, 0.0),
                frames.Hello(1, 0xBAD, 1, 0, 0),
            )
        )
        end_s = time.monotonic() + FLOOD_S
        try:
            while time.monotonic() < end_s:
                with contextlib.suppress(BlockingIOError):
                    os.write(port, junk + self._rng.randbytes(64) + b"\0")
        finally:
            os.close(port)

    def _recover(self, cause: str) -> bool:
        """Bring host and line back, let commands arrive; whether the wheels turned, nobody having armed."""
        start = self._emulator.mark()
        refused = self._emulator.counts()["refused"]
        if cause == "killed":
            assert self._driver is not None
            self._driver.close()
            self._driver = Driver(self._emulator.port)
        elif cause in ("frozen", "flooded"):
            assert self._driver is not None
            self._driver.process.send_signal(signal.SIGCONT)
        elif cause == "unplugged":
            self._emulator.control("plug")
            self._emulator.wait_for("port", start)
        self._wait_until(lambda: self._emulator.counts()["refused"] >= refused + COMMANDS_REFUSED)
        return any(e["event"] == "asked" and e["on"] == 1 for e in self._emulator.events[start:])
