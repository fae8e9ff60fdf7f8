"""The one connection to the hub: a DEALER over CURVE; Hello, heartbeats, back-off with jitter."""

import random
from collections.abc import Callable
from pathlib import Path

import zmq

from contracts.errors import MessageError
from contracts.keyring import CURVE_FILE, HUB_PUBLIC_FILE, CurvePair, CurvePublic, read_key_file
from contracts.messages import (
    HELLO_FIRST,
    MESSAGE_MAX_BYTES,
    FromHub,
    FromRobot,
    Heartbeat,
    Hello,
    Refused,
    Welcome,
    decode_from_hub,
    encode_into,
)

HEARTBEAT_INTERVAL_S = 2.0
"""Half of what the hub takes for silence, and less."""
SILENT_MAX_S = 10.0
"""A hub that thousands talk to after a restart answers late; who says Hello again only makes it later."""
BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 5.0
RECONNECT_MIN_S = 0.1
NO_CONNECTION_S = 0.5
"""Between two looks whether there is a connection by now."""
REOPEN_AFTER_S = 60.0
"""A connection that brings no Welcome for so long is begun anew: ZeroMQ does not try again where it was refused. Not
sooner, for a hub that thousands come back to at once is still shaking hands.
"""
SEND_QUEUE_MAX = 32
RECEIVE_QUEUE_MAX = 64
HANDSHAKE_MAX_MS = 30_000
"""A hub that thousands come back to at once shakes hands with some late; whoever begins anew makes it worse."""
RECEIVE_MAX = 64


class HubLink:
    """Knows whether the hub is there; everything else passes through."""

    def __init__(
        self,
        endpoint: str,
        keys: Path,
        hello: Callable[[], Hello],
        seed: int,
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
        server_file: str = HUB_PUBLIC_FILE,
    ) -> None:
        """``keys`` is the robot's own folder, ``hello`` makes the first message; raises KeyFileError.

        Many links in one process may share a ``context``, which they leave open. ``server_file`` in ``keys`` holds
        the public key of who listens there.
        """
        self._pair = read_key_file(keys / CURVE_FILE, CurvePair, private=True)
        self._server = read_key_file(keys / server_file, CurvePublic)
        self._endpoint, self._hello = endpoint, hello
        self._random = random.Random(seed)
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._encoded = bytearray()
        self._socket = self._open()
        self.online = False
        self.last_refusal = ""
        self._heard_ns = self._beat_ns = self._next_hello_ns = self._opened_ns = 0
        self._hellos = 0

    def _open(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        socket.setsockopt(zmq.SNDHWM, SEND_QUEUE_MAX)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_MAX)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MAX_MS)
        socket.setsockopt(zmq.RECONNECT_IVL, int(RECONNECT_MIN_S * 1000))
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(BACKOFF_MAX_S * 1000))
        socket.curve_publickey, socket.curve_secretkey = (
            self._pair.public.encode(),
            self._pair.secret.encode(),
        )
        socket.curve_serverkey = self._server.public.encode()
        socket.connect(self._endpoint)
        return socket

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """The connection as it is now, for who waits for many links at once."""
        return self._socket

    def wait(self, timeout_ms: int) -> None:
        """Sleep until something comes in, at most ``timeout_ms``."""
        self._socket.poll(timeout_ms)

    def send(self, message: FromRobot) -> bool:
        """Hand a message to the socket; False when offline or the queue is full (nothing is kept then)."""
        return self.online and self._put(message)

    def _put(self, message: FromRobot) -> bool:
        try:
            encode_into(message, self._encoded)
            self._socket.send(self._encoded, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def receive(self, now_ns: int) -> list[FromHub]:
        """Messages that have come, at most RECEIVE_MAX; a refusal means offline until the next Hello."""
        messages: list[FromHub] = []
        for _ in range(RECEIVE_MAX):
            try:
                message = decode_from_hub(self._socket.recv(zmq.NOBLOCK))
            except zmq.ZMQError:
                break
            except MessageError as error:
                self.last_refusal = str(error)
                continue
            self._heard_ns = now_ns
            if isinstance(message, Welcome):
                self.online, self._hellos, self.last_refusal = True, 0, ""
            elif isinstance(message, Refused):
                self._on_refused(message, now_ns)
                continue
            messages.append(message)
        return messages

    def _on_refused(self, refused: Refused, now_ns: int) -> None:
        was_online, self.online = self.online, False
        if refused.code == HELLO_FIRST:
            self._next_hello_ns = now_ns if was_online else self._next_hello_ns
        else:
            self.last_refusal = refused.reason

    def step(self, now_ns: int, last_seq: int) -> None:
        """Heartbeat, notice silence, say Hello again."""
        if self.online and now_ns - self._heard_ns > SILENT_MAX_S * 1e9:
            self.online = False
        if self.online:
            self._opened_ns = 0
            if now_ns - self._beat_ns >= HEARTBEAT_INTERVAL_S * 1e9:
                self._beat_ns = now_ns
                self._put(Heartbeat(last_seq))
        elif now_ns >= self._next_hello_ns:
            self._say_hello(now_ns)

    def _say_hello(self, now_ns: int) -> None:
        self._opened_ns = self._opened_ns or now_ns
        if now_ns - self._opened_ns > REOPEN_AFTER_S * 1e9:
            self._socket.close()
            self._socket, self._opened_ns = self._open(), now_ns
        ceiling_s = NO_CONNECTION_S  # ZeroMQ itself backs off from one that cannot be made
        if self._put(self._hello()):
            self._hellos += 1
            ceiling_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(self._hellos, 10))
        self._next_hello_ns = now_ns + int(self._random.uniform(0.5, 1.0) * ceiling_s * 1e9)

    def restart(self) -> None:
        """Say Hello again at once: what the last one said is no longer so."""
        self.online, self._next_hello_ns = False, 0

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        if self._own_context:
            self._context.term()
