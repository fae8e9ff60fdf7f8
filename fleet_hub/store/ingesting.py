"""The ingest as a child of the hub: a process of its own, started again with back-off when it ends.

A thread in the hub would hold up the loop that acknowledges records; a process does not, and may crash. It takes the
store's lock for each pass only, so that retention and ingest by hand get their turn. It ends when its parent does.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import ContractError
from contracts.replay import STORE_FOLDER
from fleet_hub.errors import HubError, StoreBusyError
from fleet_hub.store.erasure_work import open_work

if TYPE_CHECKING:
    from fleet_hub.store.live import LiveFigures

EVERY_S = 60.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 1.0, 300.0
WELL_S = 120.0
"""A child that lived for so long did well: the next one starts soon."""
BUSY_S = 2.0
STOP_MAX_S = 10.0
NICENESS = 10


class IngestChild:
    """Keeps one ingest process going; ``step`` is called in the hub's loop and never waits."""

    def __init__(self, data: Path, every_s: float = EVERY_S) -> None:
        """Nothing is started before the first ``step``."""
        self._command = [sys.executable, "-m", "fleet_hub.store.ingesting", "--data", str(data)]
        self._command += ["--every", str(every_s), "--parent", str(os.getpid())]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_ns = self._next_ns = 0
        self._backoff_s = BACKOFF_MIN_S
        self.starts = 0

    @property
    def pid(self) -> int:
        """Of the running child; 0 without one."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def step(self, now_ns: int) -> None:
        """Start the child where there is none and its time has come."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            well = now_ns - self._started_ns >= WELL_S * 1e9
            self._backoff_s = BACKOFF_MIN_S if well else min(2 * self._backoff_s, BACKOFF_MAX_S)
            self._next_ns, self._process = now_ns + int(self._backoff_s * 1e9), None
        if now_ns >= self._next_ns:
            self._started_ns, self.starts = now_ns, self.starts + 1
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End the child: a pass that is cut short leaves nothing half done."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def run(data: Path, every_s: float, parent: int, stop: threading.Event) -> int:
    """Take what has closed, again and again, until stopped or orphaned; returns the exit code."""
    from fleet_hub.store.erasure import carry_out
    from fleet_hub.store.figures import FIGURES_S
    from fleet_hub.store.live import LiveFigures
    from fleet_hub.store.replay import Ingest  # with it comes Arrow, which the hub itself does without

    told, live = "", LiveFigures(data)
    while not stop.is_set() and os.getppid() == parent:
        try:
            with Ingest(data) as ingest:
                for work in open_work(data):
                    carry_out(ingest, work)
                found = ingest.run(stopping=lambda: stop.is_set() or os.getppid() != parent)
            _tell_figures(data, live)
            trouble, pause_s = "; ".join(found.unreadable), every_s
        except StoreBusyError:
            trouble, pause_s = "", min(every_s, BUSY_S)  # retention, or the child of a hub that was killed
        except (HubError, ContractError, OSError) as error:
            print(f"outrider ingest: {error}", file=sys.stderr, flush=True)
            return 1
        if trouble and trouble != told:
            print(f"outrider ingest: left alone: {trouble}", file=sys.stderr, flush=True)
        told = trouble
        end_s, figures_s = time.monotonic() + pause_s, time.monotonic() + FIGURES_S
        while time.monotonic() < end_s and os.getppid() == parent and not stop.wait(0.5):
            if next(open_work(data), None) is not None:
                break
            if time.monotonic() >= figures_s:
                _tell_figures(data, live)
                figures_s = time.monotonic() + FIGURES_S
    return 0


def _tell_figures(data: Path, live: "LiveFigures") -> None:
    """Sum up the newest, without the lock; the last figures stay where retention took a file from under us."""
    from fleet_hub.store.figures import AHEAD_MAX_S, gather, write_figures

    store, now_ns = data / STORE_FOLDER, time.time_ns()
    with suppress(HubError, ContractError, OSError):
        live.update(now_ns + int(AHEAD_MAX_S * 1e9))
        write_figures(store, gather(store, now_ns, live))


def main() -> int:
    """The child's process."""
    parser = argparse.ArgumentParser(prog="python -m fleet_hub.store.ingesting", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=float, default=EVERY_S)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.nice(NICENESS)
    return run(arguments.data, arguments.every, arguments.parent, stop)


if __name__ == "__main__":
    sys.exit(main())
