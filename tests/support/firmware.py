"""A host and a board in virtual time."""

import random
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.provenance import ReleaseKey, TrustedKeys
from firmware_interface.emulator.virtual import Asked, Executed, Observed, Sent, StateChanged, VirtualBoard
from firmware_interface.link.machine import Event, LinkMachine, LinkState, Opened
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import AnyFrame

MS = 1_000_000
OPEN_MAX_S = 30.0
"""A machine that stands still for a second loses a session, and has another after that."""
BOARD = "host-emulator"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
TRUSTED = TrustedKeys(1, (ReleaseKey("test", PUBLIC.hex()),))


class Pair:
    """The host's state machine and the real firmware, one clock. ``host_ahead_us``: the host's clock shows more."""

    def __init__(
        self,
        program: Path,
        seed: int = 1,
        host_ahead_us: int = 7_000_000,
        drift: float = 0.0,
        key: bytes = PUBLIC,
    ) -> None:
        self.board = VirtualBoard(program, seed, key)
        self.now_us = 0
        self._ahead_us, self._drift = host_ahead_us, drift
        self._rng = random.Random(seed)
        self._out: list[bytes] = []
        self.machine = LinkMachine(lambda: self._rng.getrandbits(32), self._keep)
        self.events: list[Event] = []
        self.observed: list[Observed] = []
        self.sequence = 0

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.board.close()

    def _keep(self, data: bytes) -> bool:
        self._out.append(data)
        return True

    @property
    def host_ns(self) -> int:
        """The host's clock."""
        return round((self.now_us * (1.0 + self._drift) + self._ahead_us) * 1000)

    def run(self, ms: int) -> list[Observed]:
        """Go on; what the board did."""
        done: list[Observed] = []
        for _ in range(ms):
            self.events += self.machine.poll(self.host_ns)
            data, self._out[:] = b"".join(self._out), []
            self.now_us += 1000
            for seen in self.board.exchange(self.now_us, data):
                if isinstance(seen, Sent):
                    self.events += self.machine.receive(seen.data, self.host_ns)
                else:
                    done.append(seen)
        self.observed += done
        return done

    def open(self) -> None:
        """Shake hands."""
        self.machine.start(self.host_ns)
        for _ in range(1000):
            self.run(1)
            if self.machine.state is LinkState.OPEN:
                assert any(isinstance(event, Opened) for event in self.events)
                self.sequence = 0
                return
        raise AssertionError(f"no session in 1 s: {self.machine.state}, {self.events[-3:]}")

    def send(self, frame: AnyFrame) -> None:
        """Put a frame on the line with the next step."""
        self._out.append(codec.encode(frame))

    def send_raw(self, data: bytes) -> None:
        """Put any bytes on the line with the next step."""
        self._out.append(data)

    def command(self, linear: float, angular: float = 0.0, age_us: int = 0, expiry_us: int = 80_000) -> int:
        """Send a command; returns its sequence."""
        self.sequence += 1
        board_us = self.machine.stamp_us(self.host_ns)
        self.send(
            frames.VelocityCommand(
                self.machine.session, self.sequence, board_us, age_us, expiry_us, linear, angular
            )
        )
        return self.sequence

    def arm(self) -> None:
        """Send arm and go on until it is acknowledged."""
        self.sequence += 1
        self.send(frames.Arm(self.machine.session, self.sequence, self.machine.stamp_us(self.host_ns)))
        self.run(5)

    def ask(self, frame_type: type[AnyFrame], *rest: object) -> frames.Acknowledge:
        """Send an ordered frame; the answer."""
        self.sequence += 1
        self.send(frame_type(self.machine.session, self.sequence, *rest))  # type: ignore[arg-type,call-arg]
        for _ in range(3000):
            self.run(1)
            for event in reversed(self.events):
                if isinstance(event, frames.Acknowledge) and event.sequence == self.sequence:
                    return event
        raise AssertionError(f"no answer to {frame_type.__name__}")

    def latest(self, kind: type[AnyFrame]) -> AnyFrame:
        """The newest frame of a kind."""
        return next(event for event in reversed(self.events) if isinstance(event, kind))  # type: ignore[return-value]


def executed(observed: list[Observed]) -> list[Executed]:
    """The commands that were executed."""
    return [seen for seen in observed if isinstance(seen, Executed)]


def zero_at_us(observed: list[Observed]) -> int | None:
    """When the wheels were last asked for zero."""
    return next((s.time_us for s in reversed(observed) if isinstance(s, Asked) and not s.turning), None)


def states(observed: list[Observed]) -> list[StateChanged]:
    """The changes of state."""
    return [seen for seen in observed if isinstance(seen, StateChanged)]


def drive(pair: Pair, ms: int = 200, linear: float = 0.5) -> None:
    """Arm, and send a command every 10 ms."""
    pair.arm()
    for _ in range(ms // 10):
        pair.command(linear)
        pair.run(10)
