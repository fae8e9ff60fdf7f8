"""Who may connect: a ZAP handler (ZeroMQ RFC 27) with an allow-list of CURVE keys, in its own thread."""

import threading
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from contracts.keyring import AUTHORIZED_FOLDER, OPERATORS_FILE, ROBOTS_FILE, AllowList, read_key_file

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_FRAMES = 7
"""Version, request id, domain, address, identity, mechanism, client key."""


class Access:
    """Public key -> (role, name)."""

    def __init__(self, robots: AllowList, operators: AllowList) -> None:
        """One key may belong to one party only."""
        self._parties: dict[bytes, str] = {}
        for role, listed in (("robot", robots), ("operator", operators)):
            for key, name in listed.keys.items():
                self._parties[z85.decode(key.encode())] = f"{role}:{name}"
        self.robots = frozenset(robots.keys.values())

    @classmethod
    def load(cls, hub_folder: Path) -> "Access":
        """Read ``authorized/{robots,operators}.json``; raises KeyFileError."""
        folder = hub_folder / AUTHORIZED_FOLDER
        return cls(
            read_key_file(folder / ROBOTS_FILE, AllowList), read_key_file(folder / OPERATORS_FILE, AllowList)
        )

    def user_of(self, key: bytes) -> str | None:
        """``role:name`` of the owner of a CURVE public key (32 bytes); None for a stranger."""
        return self._parties.get(key)


class ZapThread(threading.Thread):
    """Answers every connection attempt from the allow-list; anything it does not understand is refused."""

    def __init__(self, context: "zmq.Context[Any]", access: Access) -> None:
        """Binds at once, so that no connection can come before it."""
        super().__init__(name="zap", daemon=True)
        self._access = access
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP_ENDPOINT)
        self._stopping = threading.Event()
        self.refused = 0

    def run(self) -> None:
        """Answer until stopped."""
        while not self._stopping.is_set():
            if self._socket.poll(200):
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        self._socket.close()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        request_id = request[1] if len(request) > 1 else b""
        user = None
        if len(request) == _FRAMES and request[0] == _ZAP_VERSION and request[5] == b"CURVE":
            user = self._access.user_of(request[6])
        if user is None:
            self.refused += 1
            return [_ZAP_VERSION, request_id, b"400", b"key not in the allow-list", b"", b""]
        return [_ZAP_VERSION, request_id, b"200", b"OK", user.encode(), b""]

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join(timeout=2.0)
