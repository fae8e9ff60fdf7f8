"""Who may connect: a ZAP handler (ZeroMQ RFC 27) with an allow-list of CURVE keys, in its own thread.

The list changes while the hub runs (``fleet_hub.members``). A connection is known by role, name and key: when its key
goes, what still comes over it is refused, though ZeroMQ does not end it.
"""

import struct
import threading
from collections.abc import Set
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from contracts.canonical import digest_hex
from contracts.enrolment import token_id
from contracts.keyring import AUTHORIZED_FOLDER, OPERATORS_FILE, ROBOTS_FILE, AllowList, read_key_file
from fleet_hub.errors import MembershipError

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ROBOT, OPERATOR, ENROLMENT = "robot", "operator", "enrolment"
_ZAP_VERSION = b"1.0"
_FRAMES = 7
"""Version, request id, domain, address, identity, mechanism, client key."""


class Access:
    """Public key -> ``role:name:key``. Written by the hub's thread, read by the ZAP thread, each entry at once."""

    def __init__(self, robots: AllowList, operators: AllowList) -> None:
        """One key may belong to one party only."""
        self._parties: dict[bytes, str] = {}
        self._tokens: dict[str, str] = {}
        self._users: dict[str, str] = {}
        """With the key in Z85; nothing for a token."""
        self._robots: set[str] = set()
        for role, listed in ((ROBOT, robots), (OPERATOR, operators)):
            for key, name in listed.keys.items():
                self.put(role, name, key)

    @classmethod
    def load(cls, hub_folder: Path) -> "Access":
        """Read ``authorized/{robots,operators}.json``; raises KeyFileError."""
        folder = hub_folder / AUTHORIZED_FOLDER
        return cls(
            read_key_file(folder / ROBOTS_FILE, AllowList), read_key_file(folder / OPERATORS_FILE, AllowList)
        )

    def __len__(self) -> int:
        """How many keys may connect."""
        return len(self._parties)

    @property
    def robots(self) -> Set[str]:
        """Names of the robots that may connect; changes as the list does."""
        return self._robots

    def parties(self, role: str = "", name: str = "") -> list[tuple[str, str, str]]:
        """(role, name, key in Z85) of everybody, or of those of that role and name."""
        begin = f"{role}:{name}:" if name else f"{role}:" if role else ""
        found = []
        for user, key in self._users.items():
            if key and user.startswith(begin):
                role_, name_, _ = user.split(":")
                found.append((role_, name_, key))
        return sorted(found)

    def put(self, role: str, name: str, key: str) -> None:
        """Let a key (Z85) in; raises MembershipError for one that is none."""
        raw = raw_key(key)
        user = f"{role}:{name}:{digest_hex(raw)[:16]}"
        self._users[user] = key
        self._parties[raw] = user
        if role == ROBOT:
            self._robots.add(name)

    def drop(self, role: str, name: str) -> None:
        """Let nobody of that role and name in any more."""
        for *_, key in self.parties(role, name):
            self._users.pop(self._parties.pop(raw_key(key)))
        if role == ROBOT:
            self._robots.discard(name)

    def put_token(self, token: str, robot: str) -> None:
        """Let whoever holds a token connect: to enrol, and for nothing else (``fleet_hub.enrolment`` decides)."""
        user = self._tokens[token] = f"{ENROLMENT}:{robot}:{token}"
        self._users[user] = ""

    def user_of(self, key: bytes) -> str | None:
        """``role:name:key`` of the owner of a CURVE public key (32 bytes); None for a stranger."""
        return self._parties.get(key) or self._tokens.get(token_id(key))

    def knows(self, user: str) -> bool:
        """Whether a connection that was let in as ``user`` still would be."""
        return user in self._users

    def listed(self, key: str) -> bool:
        """Whether that key (Z85) is somebody's; raises MembershipError for one that is none."""
        return raw_key(key) in self._parties


def raw_key(key: str) -> bytes:
    """The 32 bytes of a CURVE public key in Z85; raises MembershipError."""
    try:
        return z85.decode(key.encode())
    except (KeyError, ValueError, struct.error) as error:
        raise MembershipError(f"{key[:40]!r} is no CURVE key in Z85 ({error})") from None


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
