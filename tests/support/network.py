"""Raw peers and bad lines for tests of the hub: a robot's own socket, a TCP line that is cut after so many bytes."""

import contextlib
import selectors
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from contracts.keyring import CURVE_FILE, HUB_PUBLIC_FILE, CurvePair, CurvePublic, read_key_file
from contracts.messages import FromHub, Hello, Welcome, decode_from_hub, encode
from contracts.observation import ROUTING_LAYOUT

ANSWER_MAX_S = 30.0


class RawRobot:
    """A robot's key and socket, and nothing that keeps it from misbehaving."""

    def __init__(self, keys: Path, robot: str, address: str) -> None:
        own = keys / "robots" / robot
        pair = read_key_file(own / CURVE_FILE, CurvePair)
        server = read_key_file(own / HUB_PUBLIC_FILE, CurvePublic)
        self.name = robot
        self._context: zmq.Context[Any] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.curve_publickey, self.socket.curve_secretkey = pair.public.encode(), pair.secret.encode()
        self.socket.curve_serverkey = server.public.encode()
        self.socket.connect(address)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.socket.close()
        self._context.term()

    def ask(self, message: Any, kind: type[Any], max_s: float = ANSWER_MAX_S) -> Any:
        """Say something; the next answer of that kind, whatever else comes before it."""
        self.socket.send(encode(message))
        answer = self._next(kind, max_s)
        assert answer is not None, f"{self.name} got no {kind.__name__} within {max_s:g} s"
        return answer

    def ask_again(self, message: Any, kind: type[Any], every_s: float = 2.0, max_s: float = 60.0) -> Any:
        """As ``ask``, over and over: who cannot answer at the moment may say nothing, as a mirror does."""
        end_s = time.monotonic() + max_s
        while True:
            self.socket.send(encode(message))
            if (answer := self._next(kind, every_s)) is not None:
                return answer
            assert time.monotonic() < end_s, f"{self.name} got no {kind.__name__} within {max_s:g} s"

    def _next(self, kind: type[Any], max_s: float) -> Any:
        """The next answer of that kind; None when none comes."""
        end_s = time.monotonic() + max_s
        while self.socket.poll(max(0, int((end_s - time.monotonic()) * 1000))):
            answer: FromHub = decode_from_hub(self.socket.recv())
            if isinstance(answer, kind):
                return answer
        return None

    def hello(self, max_s: float = ANSWER_MAX_S) -> None:
        """Be known."""
        said = Hello(self.name, "a" * 32, "b" * 32, 0, "amr_small", ROUTING_LAYOUT.hash(), "", "")
        self.ask(said, Welcome, max_s)


class CutLine:
    """A TCP line to ``port`` that is cut after ``cut_bytes`` towards the client, as often as ``cuts``."""

    def __init__(self, port: int, cut_bytes: int, cuts: int) -> None:
        self._target, self._cut_bytes, self.cuts_left = port, cut_bytes, cuts
        self.down_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = int(self._listener.getsockname()[1])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the line."""
        self._stopping.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                with client, socket.create_connection(("127.0.0.1", self._target)) as hub:
                    self._carry(client, hub)

    def _carry(self, client: socket.socket, hub: socket.socket) -> None:
        """One connection until somebody ends it, or it is cut."""
        came, other = 0, {client: hub, hub: client}
        with selectors.DefaultSelector() as selector:
            for end in other:
                selector.register(end, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select(0.1):
                    end = key.fileobj
                    assert isinstance(end, socket.socket)
                    try:
                        data = end.recv(16 * 1024)
                        other[end].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    if end is hub:
                        came += len(data)
                        self.down_bytes += len(data)
                        if self.cuts_left and came >= self._cut_bytes:
                            self.cuts_left -= 1
                            return
