"""The seam behind which a simulated robot stands: wheel speeds in, wheel commands out, over a datagram socket."""

import os
import socket
import struct
from pathlib import Path
from types import TracebackType

from firmware_interface.errors import EmulatorError

_SAMPLE = struct.Struct("<ddfBB2x")
_WISH = struct.Struct("<Qdd")
SILENT_MAX_S = 0.2
"""An emulated board that hears nothing for so long reports a SENSOR fault and stops."""


class Plant:
    """The outside plant's end of ``Emulator(plant=path)``; send a sample at least every 100 ms."""

    def __init__(self, board: Path) -> None:
        self._own = f"{board}.{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._board = str(board)
        self.wanted_radps = (0.0, 0.0)
        """What the board last asked of the left and right wheel."""
        try:
            self._socket.bind(self._own)
        except OSError as error:
            self._socket.close()
            raise EmulatorError(f"{self._own}: {error.strerror}") from None

    def __enter__(self) -> "Plant":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def exchange(
        self,
        left_radps: float,
        right_radps: float,
        battery_v: float = 25.2,
        bumpers: int = 0,
        emergency_stop: bool = False,
    ) -> tuple[float, float]:
        """Tell the board what its sensors see, get the wheel speeds it wants now; raises EmulatorError."""
        sample = _SAMPLE.pack(left_radps, right_radps, battery_v, bumpers, emergency_stop)
        try:
            self._socket.sendto(sample, self._board)
        except BlockingIOError:
            pass
        except OSError as error:
            raise EmulatorError(f"no emulator behind {self._board} ({error.strerror})") from None
        while True:
            try:
                _, left, right = _WISH.unpack(self._socket.recv(_WISH.size))
            except BlockingIOError:
                return self.wanted_radps
            self.wanted_radps = (left, right)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        Path(self._own).unlink(missing_ok=True)
