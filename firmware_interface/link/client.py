"""A board, for programs: a thread keeps the link, calls ask and wait, commands leave at once and never wait."""

import random
import select
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from firmware_interface.errors import (
    FirmwareError,
    LinkLostError,
    NoBoardError,
    RefusedError,
    SchemaMismatchError,
)
from firmware_interface.link.machine import Event, LinkMachine, LinkState, Lost, Mismatch, Opened
from firmware_interface.link.statistics import Statistics
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import AnyFrame, Result
from firmware_interface.protocol.tables import ENUMS
from firmware_interface.protocol.values import BY_ID, checked_bits, from_bits, parameter_named
from firmware_interface.transport.ports import Transport

POLL_MS = 5
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 2.0
ASK_TRIES = 8
ASK_WAIT_S = 0.15
HANDOVER_MAX_S = 0.0002
"""The longest a tick may wait for another thread that is just writing a frame."""
EXPIRY_US = 80_000
FrameKind = TypeVar("FrameKind", bound=AnyFrame)


class FirmwareLink:
    """Keeps a session with the board on a port, and opens it anew when it breaks. It never arms by itself.

    Args:
        open_line: opens the port; raises FirmwareError.
        on_event: called from the link's thread with every event; must not wait.
        repeat_s: send the last command again, older, when no new one came for so long, until it expires: bridges lost
            frames, not a frozen caller. 0: never.
        stop_on_close: send the stop frame when closed; False for one who only looks on.
        rate: board seconds in a second: 1, or that of ``Emulator(rate=...)``. ``now_ns`` goes by it, and with it
            everything that this link times for the board.
    """

    def __init__(
        self,
        open_line: Callable[[], Transport],
        on_event: Callable[[Event], None] | None = None,
        repeat_s: float = 0.0,
        stop_on_close: bool = True,
        rate: float = 1.0,
    ) -> None:
        self._open_line, self._on_event = open_line, on_event
        self._stop_on_close, self._rate = stop_on_close, rate
        self._repeat_ns = round(repeat_s * 1e9)
        self._line: Transport | None = None
        self._writing = threading.Lock()
        self._sequence = 0
        self._broken_off = False
        self._machine = LinkMachine(lambda: random.SystemRandom().getrandbits(32), self._write)
        self._news = threading.Condition()
        self._latest: dict[type[object], AnyFrame] = {}
        self._answers: dict[int, frames.Acknowledge] = {}
        self._failure: FirmwareError | None = None
        self._last: tuple[float, float, int, int] | None = None
        self._sent_ns = 0
        self.statistics = Statistics()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="firmware link", daemon=True)

    def __enter__(self) -> "FirmwareLink":
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Begin to keep the link."""
        self._thread.start()

    def close(self) -> None:
        """Stop the robot if it drives, and let go of the port."""
        if self._stop_on_close:
            self.stop()
        self._ending.set()
        self._thread.join()

    def now_ns(self) -> int:
        """The host's clock as this link keeps it: monotonic, at the board's rate."""
        now_ns = time.monotonic_ns()
        return now_ns if self._rate == 1.0 else round(now_ns * self._rate)

    # The link's thread

    def _run(self) -> None:
        wait_s = RETRY_FIRST_S
        while not self._ending.is_set():
            try:
                line = self._open_line()
            except FirmwareError as error:
                self._fail(error)
            else:
                if self._serve(line):
                    wait_s = RETRY_FIRST_S
            # Jittered, so that several hosts on one bridge do not knock in step.
            self._ending.wait(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2.0 * wait_s, RETRY_MAX_S)

    def _serve(self, line: Transport) -> bool:
        """One life of the line; whether a session was opened."""
        heard = 0
        self._line, self._broken_off = line, True
        self._machine.start(self.now_ns())
        poller = select.poll()
        poller.register(line.fileno(), select.POLLIN)
        opened = False
        try:
            while not self._ending.is_set() and self._machine.state is not LinkState.CLOSED:
                ready = poller.poll(POLL_MS)
                data = line.read() if ready else b""
                heard += len(data)
                if ready and not data:
                    raise OSError("hung up")
                events = self._machine.receive(data, self.now_ns()) if data else []
                events += self._machine.poll(self.now_ns())
                self._repeat()
                for event in events:
                    opened = opened or isinstance(event, Opened)
                    self._note(event, heard)
        except OSError as error:
            self._note(Lost(f"the line is gone ({error.strerror or error})", True), heard)
        finally:
            self._machine.close()
            with self._writing:
                self._line = None
            line.close()
        return opened

    def _note(self, event: Event, heard: int) -> None:
        with self._news:
            match event:
                case Opened():
                    self._failure = None
                    self.statistics.sessions += 1
                    # The sequence goes on: a command of another thread may have been first in this session.
                    self._last = None
                case Mismatch():
                    self._failure = SchemaMismatchError(event.advice())
                case Lost():
                    self._failure = _why_lost(event, heard)
                case frames.Acknowledge():
                    self._answers[event.sequence] = event
                    while len(self._answers) > 64:
                        del self._answers[next(iter(self._answers))]
                case _:
                    self._latest[type(event)] = event
            self.statistics.note(self._machine)
            self._news.notify_all()
        if self._on_event is not None:
            self._on_event(event)

    def _fail(self, error: FirmwareError) -> None:
        with self._news:
            self._failure = error
            self._news.notify_all()

    def _repeat(self) -> None:
        last, now_ns = self._last, self.now_ns()
        if last is None or not self._repeat_ns or now_ns - self._sent_ns < self._repeat_ns:
            return
        linear, angular, made_ns, expiry_us = last
        if now_ns - made_ns < expiry_us * 1000:
            self._command(linear, angular, made_ns, expiry_us)

    # Writing: from any thread

    def _write(self, data: bytes) -> bool:
        with self._writing:
            return self._write_locked(data)

    def _write_locked(self, data: bytes) -> bool:
        line = self._line
        if line is None:
            return False
        # After a frame that was only half taken, its rest would be stale: end it where it broke off.
        whole = codec.DELIMITER + data if self._broken_off else data
        try:
            taken = line.write(whole)
        except OSError:
            taken = 0
        self._broken_off = taken != len(whole) if taken else self._broken_off
        self.statistics.frames_out += taken == len(whole)
        self.statistics.frames_unsent += taken != len(whole)
        return taken == len(whole)

    def send_command(
        self, linear_mps: float, angular_radps: float, made_ns: int | None = None, expiry_us: int = EXPIRY_US
    ) -> bool:
        """Send a velocity command now; returns at once, False when it could not be sent.

        Args:
            linear_mps, angular_radps: in the base frame (REP 103); raises FieldRangeError beyond the protocol's bounds.
            made_ns: ``now_ns()`` at the decision; now when None.
            expiry_us: how long after the decision the board may execute it, 1 to 200,000.
        """
        made_ns = self.now_ns() if made_ns is None else made_ns
        self._last = (linear_mps, angular_radps, made_ns, expiry_us)
        return self._command(linear_mps, angular_radps, made_ns, expiry_us)

    def _command(self, linear_mps: float, angular_radps: float, made_ns: int, expiry_us: int) -> bool:
        machine = self._machine
        if machine.state is not LinkState.OPEN or not self._writing.acquire(timeout=HANDOVER_MAX_S):
            self.statistics.frames_unsent += 1
            return False
        try:
            now_ns = self.now_ns()
            self._sequence += 1
            command = frames.VelocityCommand(
                machine.session,
                self._sequence,
                machine.stamp_us(now_ns),
                min(max((now_ns - made_ns) // 1000, 0), 1_000_000),
                expiry_us,
                linear_mps,
                angular_radps,
            )
            self._sent_ns = now_ns
            self.statistics.commands_out += 1
            return self._write_locked(codec.encode(command))
        finally:
            self._writing.release()

    def stop(self) -> None:
        """The stop frame, which needs no session; three times, for a line may lose one."""
        self._last = None
        for _ in range(3):
            self._write(codec.encode(frames.Stop(0)))

    # Asking: these wait

    def wait_open(self, timeout_s: float = 5.0) -> None:
        """Until commands may be sent; raises the reason why not."""
        end_s = time.monotonic() + timeout_s
        with self._news:
            while self._machine.state is not LinkState.OPEN:
                if isinstance(self._failure, SchemaMismatchError):
                    raise self._failure
                left_s = end_s - time.monotonic()
                if left_s <= 0.0:
                    raise self._failure or LinkLostError(f"no session within {timeout_s:g} s")
                self._news.wait(min(left_s, 0.05))

    @property
    def open(self) -> bool:
        """Whether commands may be sent."""
        return self._machine.state is LinkState.OPEN

    @property
    def capabilities(self) -> frames.Capability:
        """What the board of this session can do; none before the first session."""
        return frames.Capability(self._machine.capabilities)

    @property
    def failure(self) -> FirmwareError | None:
        """Why there is no session, or was none the last time."""
        return self._failure

    def latest(self, kind: type[FrameKind]) -> FrameKind | None:
        """The newest frame of a kind; None before the first."""
        frame = self._latest.get(kind)
        return frame if isinstance(frame, kind) else None

    def wait_frame(self, kind: type[FrameKind], timeout_s: float = 2.0) -> FrameKind:
        """The next frame of a kind; raises LinkLostError."""
        before = self._latest.get(kind)
        with self._news:
            if self._news.wait_for(lambda: self._latest.get(kind) is not before, timeout_s):
                frame = self._latest[kind]
                assert isinstance(frame, kind)
                return frame
        raise self._failure or LinkLostError(f"no {kind.__name__} within {timeout_s:g} s")

    def ask(self, make: Callable[[int, int], AnyFrame], tries: int = ASK_TRIES) -> int:
        """Send an ordered frame until it is acknowledged; returns the answer's value.

        Args:
            make: the frame, from session and sequence; called anew for each try.
            tries: how often, 0.15 s apart.

        Raises:
            RefusedError: the board said no.
            LinkLostError: it said nothing.
        """
        mine: list[int] = []
        for _ in range(tries):
            with self._writing:
                self._sequence += 1
                mine.append(self._sequence)
                self._write_locked(codec.encode(make(self._machine.session, self._sequence)))
            with self._news:
                found = self._news.wait_for(
                    lambda: next((i for i in mine if i in self._answers), 0), ASK_WAIT_S
                )
                if found:
                    return _value(self._answers.pop(found))
            if not self.open:
                break
        raise self._failure or LinkLostError(f"the board did not answer {tries} times in a row")

    def arm(self) -> None:
        """Allow motion; the first command must follow within the board's watchdog. Raises RefusedError."""
        self.ask(
            lambda session, sequence: frames.Arm(session, sequence, self._machine.stamp_us(self.now_ns()))
        )

    def disarm(self) -> None:
        """Stop, and forbid motion."""
        self._last = None
        self.ask(frames.Disarm)

    def clear_faults(self, mask: int = 0xFFFFFFFF) -> int:
        """Forget faults whose cause is gone; returns those that stay. Raises RefusedError."""
        return self.ask(lambda session, sequence: frames.ClearFaults(session, sequence, mask))

    def get_parameter(self, name: str) -> float:
        """A parameter's value; raises ParameterError."""
        parameter = parameter_named(name)
        bits = self.ask(lambda session, sequence: frames.ParameterGet(session, sequence, parameter.id))
        return from_bits(parameter.kind, bits)

    def set_parameter(self, name: str, value: float) -> float:
        """Change and store a parameter; the value that holds now. Raises ParameterError, RefusedError."""
        parameter = parameter_named(name)
        bits = checked_bits(parameter, value)
        kind = frames.Kind.F32 if parameter.kind == "f32" else frames.Kind.U32
        now = self.ask(
            lambda session, sequence: frames.ParameterSet(session, sequence, parameter.id, kind, bits)
        )
        return from_bits(BY_ID[parameter.id].kind, now)

    def firmware_info(self) -> frames.FirmwareInfo:
        """Which firmware runs; raises LinkLostError."""
        for _ in range(ASK_TRIES - 1):
            self._write(codec.encode(frames.InfoRequest(self._machine.session)))
            try:
                return self.wait_frame(frames.FirmwareInfo, ASK_WAIT_S)
            except FirmwareError:
                continue
        raise self._failure or LinkLostError("the board does not say which firmware it runs")


def _value(answer: frames.Acknowledge) -> int:
    result = Result(answer.result)
    if result is not Result.OK:
        kind = frames.TYPES[answer.code].__name__ if answer.code in frames.TYPES else f"0x{answer.code:02X}"
        name = result.name.lower().replace("_", " ")
        raise RefusedError(
            f"the board refused {kind}: {name} ({ENUMS['Result'][result.name]})", result, answer.value
        )
    return answer.value


def _why_lost(event: Lost, heard: int) -> FirmwareError:
    if event.answered:
        return LinkLostError(event.reason)
    if heard:
        return NoBoardError(
            f"{heard} bytes came, none of them in this protocol: another device on this port, or another baud rate"
        )
    return NoBoardError(
        "nothing came back: wrong port, a board without power, or receive and transmit swapped"
    )
