"""The reference firmware in virtual time: the same bytes at the same times, the same answer, bit by bit."""

import contextlib
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from firmware_interface.errors import EmulatorError
from firmware_interface.protocol.frames import State, StopReason

_HEAD = struct.Struct("<cQI")
_EXECUTED = struct.Struct("<Iff")
_DAMAGED = struct.Struct("<QQ")


class Sent(NamedTuple):
    """The board sent these bytes, which have passed the line."""

    time_us: int
    data: bytes


class Executed(NamedTuple):
    """The board executed a velocity command."""

    time_us: int
    sequence: int
    linear_mps: float
    angular_radps: float


class StateChanged(NamedTuple):
    """The board went into another state."""

    time_us: int
    state: State
    reason: StopReason


class Asked(NamedTuple):
    """The wheels are asked to turn, or not any longer."""

    time_us: int
    turning: bool


class Powered(NamedTuple):
    """The bridges of the motors were switched on, or off."""

    time_us: int
    on: bool


Observed = Sent | Executed | StateChanged | Asked | Powered


class VirtualBoard:
    """A board whose time is an argument. ``damaged``: bytes and frames that its line has damaged (to it, from it).

    Args:
        program: as ``build`` gives it.
        seed: of the line's faults.
        key: whose firmware images it takes, 32 bytes; none: it takes no update.
    """

    def __init__(self, program: Path, seed: int = 1, key: bytes = b"") -> None:
        # A session of its own: Ctrl-C in the terminal is for the one who runs it; it ends with its input.
        self._process = subprocess.Popen(
            [program, "replay", str(seed), *([key.hex()] if key else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.damaged = (0, 0)

    def __enter__(self) -> "VirtualBoard":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def exchange(self, time_us: int, data: bytes = b"") -> list[Observed]:
        """Go on to ``time_us``, then put ``data`` on the line; what happened; raises EmulatorError."""
        return self.exchange_many([(time_us, data)])

    def exchange_many(self, pieces: list[tuple[int, bytes]]) -> list[Observed]:
        """Several pieces in one go, for speed; few enough that their answers fit a pipe."""
        last_us = pieces[-1][0]
        parts = [_HEAD.pack(b"B", time_us, len(data)) + data for time_us, data in pieces]
        self._write(b"".join(parts) + _HEAD.pack(b"F", last_us, 0))
        return self._read()

    def control(self, time_us: int, text: str) -> None:
        """A line of control, such as ``estop 1`` or ``line flip=100``."""
        self._write(_HEAD.pack(b"C", time_us, len(text)) + text.encode())

    def close(self) -> None:
        """End the process; raises EmulatorError when it has found something wrong with itself."""
        with contextlib.suppress(BrokenPipeError):
            self._in.close()
        code = self._process.wait(10)
        self._out.close()
        if code != 0:
            raise EmulatorError(f"the board ended with exit code {code} (sanitizers report above)")

    def _write(self, data: bytes) -> None:
        try:
            self._in.write(data)
            self._in.flush()
        except BrokenPipeError:
            raise EmulatorError("the board has ended; see its messages above") from None

    def _read(self) -> list[Observed]:
        found: list[Observed] = []
        while True:
            kind, time_us, size = _HEAD.unpack(self._exactly(_HEAD.size))
            data = self._exactly(size)
            match kind:
                case b"T":
                    found.append(Sent(time_us, data))
                case b"E":
                    found.append(Executed(time_us, *_EXECUTED.unpack(data)))
                case b"S":
                    found.append(StateChanged(time_us, State(data[0]), StopReason(data[1])))
                case b"W":
                    found.append(Asked(time_us, bool(data[0])))
                case b"P":
                    found.append(Powered(time_us, bool(data[0])))
                case _:
                    self.damaged = _DAMAGED.unpack(data)
                    return found

    def _exactly(self, size: int) -> bytes:
        data = self._out.read(size) if size else b""
        if len(data) != size:
            raise EmulatorError("the board has ended; see its messages above")
        return data
