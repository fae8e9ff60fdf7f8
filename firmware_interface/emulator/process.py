"""The reference firmware in real time, a process of its own on a pseudo-terminal or a TCP port."""

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware_interface.emulator.build import build
from firmware_interface.emulator.plant import SILENT_MAX_S
from firmware_interface.errors import EmulatorError

EVENTS_MAX = 100_000
ANSWER_MAX_S = 30.0
"""It answers within milliseconds; a machine that does other things, too, may stand still for seconds."""
FIFO_PRIORITY = 50
PRIORITY = -10


class Emulator:
    """Runs until ``close``. Its events are dicts with ``event`` and ``us``, on the board's clock.

    Args:
        program: as ``build`` gives it.
        link: where a symbolic link to the port is kept, over unplugging too.
        tcp_port: a TCP port instead of a pseudo-terminal; 0 chooses one.
        flash: file of the board's memory; without it, it forgets.
        plant: socket on which an outside plant speaks (``emulator.plant``).
        seed: of the line's faults.
        rate: of the board's clock, which is ``rate`` times ``time.monotonic_ns``: all its time-outs, ramps and loops
            go by it, as those of a robot must that lives in a faster simulation.
        key: whose firmware images it takes, 32 bytes, as the firmware it was shipped with brings it; without, it takes
            no update. A board whose ``flash`` knows a key already keeps that one.
        silent_max_s: an outside plant that says nothing for longer is a silent sensor; on the board's clock.
    """

    def __init__(
        self,
        program: Path | None = None,
        *,
        link: Path | None = None,
        tcp_port: int | None = None,
        flash: Path | None = None,
        plant: Path | None = None,
        seed: int = 1,
        rate: float = 1.0,
        key: bytes = b"",
        silent_max_s: float = SILENT_MAX_S,
    ) -> None:
        command = [str(program or build()), "emulate", "--rate", repr(rate), "--seed", str(seed)]
        command += ["--link", str(link)] if link else []
        command += ["--tcp", str(tcp_port)] if tcp_port is not None else []
        command += ["--key", key.hex()] if key else []
        command += ["--flash", str(flash)] if flash else []
        command += ["--plant", str(plant), "--silent", repr(silent_max_s)] if plant else []
        # A session of its own: Ctrl-C in the terminal is for the one who runs it.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="emulator events", daemon=True)
        self._reader.start()
        try:
            self.port = str(self.wait_for("port")["port"])
        except EmulatorError:
            self.close()
            raise

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def hurry(self) -> None:
        """A board shares its processor with nobody: SCHED_FIFO where permitted, else priority, else as it is."""
        pid = self.process.pid
        try:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        except PermissionError:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                if len(self.events) < EVENTS_MAX:
                    self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def control(self, text: str) -> None:
        """A line of control: ``unplug``, ``plug``, ``estop 1``, ``line drop=100``, ...; raises EmulatorError."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{text}\n".encode())
            self.process.stdin.flush()
        except OSError:
            raise EmulatorError(f"the emulator has ended (exit code {self.process.poll()})") from None

    def ask(self, text: str, event: str = "done") -> dict[str, Any]:
        """``control``, and the event that answers it."""
        start = self.mark()
        self.control(text)
        return self.wait_for(event, start)

    def counts(self) -> dict[str, Any]:
        """What the board has counted."""
        return self.ask("counts", "counts")

    def mark(self) -> int:
        """A place in the events; pass it to ``wait_for`` to see only what comes later."""
        with self._news:
            return len(self.events)

    def wait_for(
        self, event: str, start: int = 0, timeout_s: float = ANSWER_MAX_S, **fields: object
    ) -> dict[str, Any]:
        """The first such event from ``start`` on, any when it is ""; raises EmulatorError when none comes in time."""
        end_s = time.monotonic() + timeout_s
        with self._news:
            while True:
                for found in self.events[start:]:
                    if event in ("", found["event"]) and all(found.get(k) == v for k, v in fields.items()):
                        return found
                left_s = end_s - time.monotonic()
                if left_s <= 0.0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise EmulatorError(f"no {event!r} {fields or ''} from the emulator: {self._why()}")
                self._news.wait(min(left_s, 0.2))

    def _why(self) -> str:
        code = self.process.poll()
        if code is None:
            return f"it runs; the last events were {self.events[-3:]}"
        assert self.process.stderr is not None
        return f"it ended with exit code {code}: {self.process.stderr.read().decode()[-2000:].strip()}"

    def close(self) -> int:
        """End it; returns its exit code."""
        try:
            self.control("quit")
            code = self.process.wait(ANSWER_MAX_S)
        except (EmulatorError, subprocess.TimeoutExpired):
            self.process.kill()
            code = self.process.wait()
        self._reader.join(ANSWER_MAX_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return code
