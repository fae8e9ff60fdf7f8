"""The hub's door: a ROUTER socket over CURVE with its ZAP thread, and how hub and mirror take messages out of one."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq

from contracts.keyring import CurvePair
from fleet_hub import limits
from fleet_hub.access import Access, ZapThread
from fleet_hub.errors import AddressBusyError


class Message(NamedTuple):
    """What came over one connection."""

    routing_id: bytes
    user: str
    """As the ZAP handler let it in: role, name and key."""
    data: memoryview
    """In the socket's own memory."""


def drain(socket: Any) -> Iterator[Message]:
    """Messages that are there, DRAIN_MAX and DRAIN_MAX_BYTES at most; what has not two frames is dropped."""
    came_bytes = 0
    for _ in range(limits.DRAIN_MAX):
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        if len(frames) == 2:
            data = frames[1].buffer
            yield Message(frames[0].bytes, str(frames[1].get("User-Id")), data)
            came_bytes += len(data)
            if came_bytes >= limits.DRAIN_MAX_BYTES:
                return


class Door:
    """Lets in whom ``access`` names."""

    def __init__(self, pair: CurvePair, listen: str, access: Access) -> None:
        """Listen; raises AddressBusyError."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = ZapThread(self._context, access)
        self._zap.start()
        try:
            self._socket = listen_at(self._context, pair, listen)
        except AddressBusyError:
            self._zap.stop()
            self._context.term()
            raise
        self.endpoint = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    @property
    def refused(self) -> int:
        """How many strangers were not let in."""
        return self._zap.refused

    def wait_for(self, descriptor: int) -> None:
        """Let ``wait`` end, too, when that file can be read."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, milliseconds: int) -> None:
        """Until something comes, or so long."""
        self._poller.poll(milliseconds)

    def messages(self) -> Iterator[Message]:
        """What has come."""
        return drain(self._socket)

    def send(self, routing_id: bytes, data: bytes) -> bool:
        """Whether there was room for it on the way to that connection."""
        try:
            self._socket.send_multipart([routing_id, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        """Close socket and thread."""
        self._socket.close(linger=200)
        self._zap.stop()
        self._context.term()


def listen_at(context: "zmq.Context[zmq.Socket[bytes]]", pair: CurvePair, listen: str) -> Any:
    """A bound ROUTER with every limit set; raises AddressBusyError."""
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.encode()
    socket.setsockopt_string(zmq.ZAP_DOMAIN, "outrider")
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.SOCKET_MESSAGE_MAX_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, limits.HANDSHAKE_MAX_MS)
    socket.setsockopt(zmq.SNDHWM, limits.SEND_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, limits.RECEIVE_QUEUE_MAX)
    socket.setsockopt(zmq.BACKLOG, limits.BACKLOG_MAX)
    socket.setsockopt(zmq.HEARTBEAT_IVL, limits.HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, limits.HEARTBEAT_TIMEOUT_MS)
    try:
        socket.bind(listen)
    except zmq.ZMQError as error:
        socket.close()
        raise AddressBusyError(
            f"cannot listen at {listen}: {zmq.strerror(error.errno or 0)}; "
            "stop what is listening there, or give another --listen tcp://HOST:PORT"
        ) from None
    return socket
