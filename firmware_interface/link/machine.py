"""The host's side of the protocol as a pure state machine: bytes in, events and bytes out, time as an argument."""

import enum
from collections.abc import Callable
from typing import NamedTuple

from firmware_interface.link.clock import BoardClock
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import AnyFrame

MS = 1_000_000
HELLO_EVERY_NS = 200 * MS
GREETING_MAX_NS = 2_000 * MS
HEARTBEAT_EVERY_NS = 100 * MS
TIME_FIRST_EVERY_NS = 10 * MS
TIME_EVERY_NS = 200 * MS
TIME_SAMPLES_MIN = 4
SILENT_MAX_NS = 500 * MS
U32 = 0xFFFFFFFF


class LinkState(enum.Enum):
    """Where the host is with its board."""

    CLOSED = "closed"
    GREETING = "greeting"
    SYNCING = "syncing"
    OPEN = "open"


class Opened(NamedTuple):
    """The handshake is done and the clocks are compared: commands may be sent. The board is disarmed."""

    session: int
    capabilities: int


class Lost(NamedTuple):
    """The session is over; a new one has to be opened. ``answered``: something of ours was ever heard."""

    reason: str
    answered: bool


class Mismatch(NamedTuple):
    """Board and host speak different versions; nothing is sent to it."""

    host_revision: int
    board_revision: int
    board_schema: int

    def advice(self) -> str:
        """Which side is older, and what to do."""
        head = (
            f"the board speaks revision {self.board_revision} (schema {self.board_schema:08X}), this host "
            f"revision {self.host_revision} ({frames.SCHEMA_HASH:08X}): "
        )
        if self.board_revision < self.host_revision:
            return head + "the board is older; flash the firmware that came with this host"
        if self.board_revision > self.host_revision:
            return head + "this host is older; update the agent, or flash an older firmware"
        return (
            head
            + "same revision, other schema: one of them is a development build; build both from one commit"
        )


Event = AnyFrame | Opened | Lost | Mismatch


class LinkMachine:
    """Opens sessions and keeps them. Only one thread calls ``start``, ``receive`` and ``poll``.

    Args:
        random32: gives a nonce in [0, 2**32).
        send: takes the bytes of one frame; False when there was no room.
    """

    def __init__(self, random32: Callable[[], int], send: Callable[[bytes], bool]) -> None:
        self._random32, self._send = random32, send
        self.state = LinkState.CLOSED
        self.session = 0
        self.capabilities = 0
        self.clock = BoardClock()
        self.reader = codec.Reader()
        self._nonce = 0
        self._started_ns = self._heard_ns = 0
        self._hello_ns = self._time_ns = self._heartbeat_ns = 0
        self._asked_us = -1
        self._heartbeats = 0
        self._refused = False

    def start(self, now_ns: int) -> None:
        """A line is there: greet. Whatever was before is over."""
        self.state, self.session = LinkState.GREETING, 0
        self.clock.reset()
        self._nonce = self._random32() & U32
        self._started_ns = self._heard_ns = now_ns
        self._hello_ns = now_ns - HELLO_EVERY_NS
        self._refused = False

    def close(self) -> None:
        """The line is gone, or is to be left."""
        self.state, self.session = LinkState.CLOSED, 0

    def receive(self, data: bytes, now_ns: int) -> list[Event]:
        """Bytes have come."""
        events: list[Event] = []
        for frame in self.reader.feed(data):
            self._take(frame, now_ns, events)
        return events

    def _take(self, frame: AnyFrame, now_ns: int, events: list[Event]) -> None:
        match frame:
            case frames.Hello():
                self._take_hello(frame, now_ns, events)
            case _ if self.state in (LinkState.CLOSED, LinkState.GREETING):
                return  # of an earlier session
            case frames.TimeReply():
                self._take_time(frame, now_ns, events)
            case frames.Status() | frames.Heartbeat() | frames.Acknowledge() if frame.session != self.session:
                if frame.session not in (0, self.session):
                    self._lose(
                        "the board is in another session: another program has the port, or it restarted",
                        events,
                    )
            case _:
                self._heard_ns = now_ns
                events.append(frame)

    def _take_hello(self, hello: frames.Hello, now_ns: int, events: list[Event]) -> None:
        if self.state is LinkState.CLOSED or hello.nonce != self._nonce:
            return
        if hello.schema != frames.SCHEMA_HASH or hello.session == 0:
            if not self._refused:
                self._refused = True
                events.append(Mismatch(frames.SCHEMA_REVISION, hello.revision, hello.schema))
            return
        self._heard_ns = now_ns
        if self.state is LinkState.GREETING:
            self.state, self.session = LinkState.SYNCING, hello.session
            self.capabilities = hello.capabilities
            self._started_ns, self._time_ns, self._asked_us = now_ns, now_ns - TIME_EVERY_NS, -1
        elif hello.session != self.session:
            self._lose("the board opened another session", events)

    def _take_time(self, reply: frames.TimeReply, now_ns: int, events: list[Event]) -> None:
        if reply.host_us != self._asked_us:
            return  # to somebody else's question, to an old one, or a second time
        self._asked_us = -1
        self.clock.add(reply.host_us, reply.received_us, reply.sent_us, now_ns // 1000)
        if self.state is LinkState.SYNCING and len(self.clock) >= TIME_SAMPLES_MIN:
            self.state = LinkState.OPEN
            events.append(Opened(self.session, self.capabilities))

    def _lose(self, reason: str, events: list[Event]) -> None:
        answered = self.state is not LinkState.GREETING
        self.close()
        events.append(Lost(reason, answered))

    def poll(self, now_ns: int) -> list[Event]:
        """Time has passed: send what is due, notice silence. At least every 10 ms."""
        events: list[Event] = []
        if self.state is LinkState.CLOSED:
            return events
        if self.state is LinkState.GREETING:
            if now_ns - self._started_ns > GREETING_MAX_NS and not self._refused:
                self._lose("no answer to hello", events)
            elif now_ns - self._hello_ns >= HELLO_EVERY_NS:
                self._hello_ns = now_ns
                self._send_hello()
            return events
        if now_ns - self._heard_ns > SILENT_MAX_NS:
            self._lose(f"nothing came for {SILENT_MAX_NS // MS} ms", events)
            return events
        if self.state is LinkState.SYNCING and now_ns - self._started_ns > GREETING_MAX_NS:
            self._lose(f"no answer to the time within {TIME_EVERY_NS // MS} ms", events)
            return events
        # The next question drops the answer to the one before: on a line slower than that, no session would open.
        hurried = self.state is LinkState.SYNCING and self._asked_us < 0
        every_ns = TIME_FIRST_EVERY_NS if hurried else TIME_EVERY_NS
        if now_ns - self._time_ns >= every_ns:
            self._time_ns, self._asked_us = now_ns, now_ns // 1000
            self._send(codec.encode(frames.TimeRequest(self._asked_us)))
        if now_ns - self._heartbeat_ns >= HEARTBEAT_EVERY_NS:
            self._heartbeat_ns = now_ns
            self._heartbeats = (self._heartbeats + 1) & U32
            self._send(codec.encode(frames.Heartbeat(self.session, self._heartbeats)))
        return events

    def _send_hello(self) -> None:
        hello = frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, self._nonce, 0, 0)
        self._send(codec.encode(hello))

    def stamp_us(self, now_ns: int) -> int:
        """For ``sent_us``: the board's clock, low 32 bits, at the earliest; 0 before any is known."""
        estimate = self.clock.estimate
        return 0 if estimate is None else estimate.board_not_after_us(now_ns // 1000)
