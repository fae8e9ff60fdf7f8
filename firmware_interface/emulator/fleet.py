"""The boards of a simulated floor: a process for each robot, on a port of its own, the simulator's robot behind it."""

import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from contracts.atomic import write_atomically
from firmware_interface.emulator.build import build
from firmware_interface.emulator.plant import Pair, Plant, Sample
from firmware_interface.emulator.process import Emulator
from firmware_interface.errors import EmulatorError
from firmware_interface.protocol.frames import Fault, State, StopReason

RESTART_S = 1.0
SILENT_MAX_S = 1.0
"""A simulator that does not run for a moment is no silent sensor: its robots do not move meanwhile."""
PORTS_FILE, EVENTS_FILE = "boards.json", "events.jsonl"
EVENTS_MAX = 100_000


def flash_file(port: Path) -> Path:
    """A board's memory, beside its port: firmware, parameters, key; it outlasts the board's process."""
    return port.with_name(f"{port.name}.flash")


class _Board:
    """One robot's: the process, and the socket of its sensors and motors."""

    def __init__(self, port: Path, plant: Path, program: Path, rate: float, key: bytes) -> None:
        self._port, self._plant_path, self._program, self._rate = port, plant, program, rate
        self._key = key
        self.plant = Plant(plant)
        self.emulator: Emulator | None = None
        self.seen = self.starts = 0
        self.ended_s = -RESTART_S

    def start(self) -> None:
        self.emulator = Emulator(
            self._program,
            link=self._port,
            flash=flash_file(self._port),
            plant=self._plant_path,
            rate=self._rate,
            silent_max_s=SILENT_MAX_S,
            key=self._key,
        )
        self.emulator.hurry()
        self.seen, self.starts = 0, self.starts + 1

    @property
    def pid(self) -> int:
        return self.emulator.process.pid if self.emulator is not None else 0


class BoardFleet:
    """Boards for robots; what ``sim.physics.boards`` wants. ``look`` starts them, and again a second after they ended.

    ``FOLDER/NAME`` is the port of a robot's board, ``boards.json`` says where they are and as which process, and
    ``events.jsonl`` has a line for each change of state.

    Args:
        names: of the robots.
        folder: for ports and the boards' memories; made where it is missing.
        rate: of their clocks, see ``Emulator``.
        program: as ``build`` gives it.
        key: whose firmware images they take, see ``Emulator``; without, they take no update.

    Raises:
        BuildError: the firmware cannot be compiled here.
        EmulatorError: the folder cannot be written.
    """

    def __init__(
        self,
        names: list[str],
        folder: Path,
        rate: float = 1.0,
        program: Path | None = None,
        key: bytes = b"",
    ) -> None:
        program = program or build()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._events = (folder / EVENTS_FILE).open("w", buffering=1)
        except OSError as error:
            raise EmulatorError(
                f"cannot write to {folder} ({error.strerror}); choose another folder"
            ) from None
        self.folder = folder.absolute()
        # A socket's path may have 107 characters; the folder is the user's.
        self._sockets = Path(tempfile.mkdtemp(prefix="outrider-"))
        self._written = 0
        self._boards: dict[str, _Board] = {}
        try:
            for name in names:
                board = _Board(self.folder / name, self._sockets / name, program, rate, key)
                self._boards[name] = board
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "BoardFleet":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    @property
    def ports(self) -> dict[str, str]:
        """Where each robot's port is."""
        return {name: str(self.folder / name) for name in self._boards}

    def emulator(self, name: str) -> Emulator | None:
        """The process of a robot's board; None while there is none."""
        return self._boards[name].emulator

    def shafts_radps(self, name: str) -> Pair:
        """What the motors of a robot do now, rad/s left and right; zero where its board is dead."""
        return self._boards[name].plant.read().shaft_radps

    def tell(self, name: str, sample: tuple[Any, ...]) -> None:
        """Tell a robot's board what its sensors see: the fields of ``Sample``. A board that is gone hears nothing."""
        board = self._boards[name]
        if board.emulator is not None:
            with contextlib.suppress(EmulatorError):
                board.plant.tell(Sample(*sample))

    def look(self) -> None:
        """Notice boards that ended, start those that are due, keep the events. Call it every step, before ``tell``.

        Raises:
            EmulatorError: a board does not start.
        """
        now_s = time.monotonic()
        for name, board in self._boards.items():
            if board.emulator is None:
                if now_s - board.ended_s >= RESTART_S:
                    board.start()
                    self._write_ports()
                    self._note(name, "started")
                continue
            for event in board.emulator.events[board.seen :]:
                board.seen += 1
                if event["event"] == "state":
                    self._note(name, State(event["state"]).name.lower(), _why(event))
            if board.emulator.process.poll() is not None:
                board.emulator.close()
                board.emulator, board.ended_s = None, now_s
                board.plant.forget()
                self._note(name, "ended")

    def counts(self) -> dict[str, dict[str, int]]:
        """What each board has counted since it started, and how often it has; for a dead one only that."""
        found = {}
        for name, board in self._boards.items():
            found[name] = {"starts": board.starts}
            if board.emulator is not None:
                with contextlib.suppress(EmulatorError):
                    counts = board.emulator.counts()
                    keys = ("good", "bad", "sent", "unsent", "executed", "stale", "repeated", "refused")
                    found[name] |= {key: int(counts[key]) for key in keys}
        return found

    def close(self) -> None:
        """End all boards."""
        for board in self._boards.values():
            if board.emulator is not None:
                board.emulator.close()
            board.plant.close()
        self._events.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _note(self, name: str, what: str, why: str = "") -> None:
        self._written += 1
        if self._written <= EVENTS_MAX:
            line = {"wall_s": time.time(), "robot": name, "what": what, "why": why}
            self._events.write(json.dumps(line) + "\n")

    def _write_ports(self) -> None:
        found = {name: {"port": self.ports[name], "pid": board.pid} for name, board in self._boards.items()}
        write_atomically(self.folder / PORTS_FILE, json.dumps(found, indent=2).encode(), durable=False)


def _why(event: dict[str, Any]) -> str:
    """What stopped it."""
    if event["faults"]:
        return ", ".join(str(fault.name).lower().replace("_", " ") for fault in Fault(event["faults"]))
    return StopReason(event["reason"]).name.lower().replace("_", " ")
