"""The seam behind which a simulated robot stands, over a datagram socket: what its sensors see in, wheel speeds out."""

import math
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from firmware_interface.errors import EmulatorError

_SAMPLE = struct.Struct("<4d9f2B2x")
_WISH = struct.Struct("<Q4d")
SILENT_MAX_S = 0.2
"""An emulated board that hears nothing for so long, on its own clock, reports a SENSOR fault and stops, by default."""
NO_MOTORS = (math.nan, math.nan)
Pair = tuple[float, float]
"""Left and right."""


class Sample(NamedTuple):
    """What a robot's sensors see. Base frame (REP 103), m, s, rad, V, A.

    Attributes:
        wheels_radps: what the wheels do, as measured.
        driven_radps: the shaft speeds that they had been made to follow; the difference goes back to the shafts.
            ``NO_MOTORS``: the plant closes the speed loop itself, by ``Wish.wanted_radps``.
        battery_a: positive is discharging.
        charge: 0 to 1.
        bumpers: bits: 1 front, 2 left, 4 right, 8 rear.
    """

    wheels_radps: Pair
    driven_radps: Pair = NO_MOTORS
    acceleration_mps2: tuple[float, float, float] = (0.0, 0.0, 9.81)
    turn_rate_radps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    battery_v: float = 25.2
    battery_a: float = 1.0
    charge: float = 0.8
    bumpers: int = 0
    emergency_stop: bool = False

    def pack(self) -> bytes:
        """As the board reads it."""
        return _SAMPLE.pack(
            *self.wheels_radps,
            *self.driven_radps,
            *self.acceleration_mps2,
            *self.turn_rate_radps,
            *(self.battery_v, self.battery_a, self.charge),
            *(self.bumpers, self.emergency_stop),
        )


class Wish(NamedTuple):
    """What the board does: ``wanted_radps`` is asked of its speed loop, ``shaft_radps`` is what its motors do."""

    time_us: int = 0
    wanted_radps: Pair = (0.0, 0.0)
    shaft_radps: Pair = (0.0, 0.0)


class Plant:
    """The outside plant's end of ``Emulator(plant=path)``; send a sample at least every 100 ms."""

    def __init__(self, board: Path) -> None:
        self._own = f"{board}.{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._board = str(board)
        self._wish = Wish()
        try:
            self._socket.bind(self._own)
        except OSError as error:
            self._socket.close()
            raise EmulatorError(f"{self._own}: {error.strerror}") from None

    def __enter__(self) -> "Plant":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def tell(self, sample: Sample) -> None:
        """Tell the board what its sensors see; raises EmulatorError when there is none."""
        try:
            self._socket.sendto(sample.pack(), self._board)
        except BlockingIOError:
            pass
        except OSError as error:
            raise EmulatorError(f"no emulator behind {self._board} ({error.strerror})") from None

    def read(self) -> Wish:
        """The newest that the board has said."""
        while True:
            try:
                time_us, wanted_left, wanted_right, left, right = _WISH.unpack(self._socket.recv(_WISH.size))
            except BlockingIOError:
                return self._wish
            self._wish = Wish(time_us, (wanted_left, wanted_right), (left, right))

    def forget(self) -> None:
        """The board has gone: its motors do nothing any more."""
        self.read()
        self._wish = Wish()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        Path(self._own).unlink(missing_ok=True)
