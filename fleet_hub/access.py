"""Who may connect: a ZAP handler (ZeroMQ RFC 27) with an allow-list of CURVE keys, in its own thread.

The list changes while the hub runs (``fleet_hub.members``). A connection is known by role, name and key: when its key
goes, what still comes over it is refused, though ZeroMQ does not end it.
"""

import struct
import threading
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

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


class Party(NamedTuple):
    """Somebody who may connect."""

    role: str
    name: str
    key: str
    """CURVE public key in Z85; of a bearer of a token, the token's id."""


class Access:
    """Who may connect. Written by the hub's thread, read by the ZAP thread, each entry at once.

    A connection is known as its user, ``role.KEY:name``, in which KEY tells one key of a name from another.
    """

    def __init__(self, robots: AllowList, operators: AllowList) -> None:
        """One key may belong to one party only."""
        self._user_of_key: dict[bytes, str] = {}
        self._user_of_token: dict[str, str] = {}
        self._parties: dict[str, Party] = {}
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
        """How many keys may connect, tokens aside."""
        return len(self._user_of_key)

    @property
    def robots(self) -> Set[str]:
        """Names of the robots that may connect; changes as the list does."""
        return self._robots

    def parties(self, role: str = "", name: str = "") -> list[Party]:
        """Everybody but bearers of tokens, or those of that role and name."""
        return sorted(
            party
            for party in self._parties.values()
            if party.role != ENROLMENT and role in ("", party.role) and name in ("", party.name)
        )

    def put(self, role: str, name: str, key: str) -> None:
        """Let a key (Z85) in; raises MembershipError for one that is none."""
        raw = raw_key(key)
        user = f"{role}.{digest_hex(raw)[:16]}:{name}"
        self._parties[user] = Party(role, name, key)
        self._user_of_key[raw] = user
        if role == ROBOT:
            self._robots.add(name)

    def drop(self, role: str, name: str) -> None:
        """Let nobody of that role and name in any more."""
        for party in self.parties(role, name):
            del self._parties[self._user_of_key.pop(raw_key(party.key))]
        if role == ROBOT:
            self._robots.discard(name)

    def become(self, listed: "Access") -> None:
        """Let in whom ``listed`` does, tokens aside, and nobody else."""
        wanted = set(listed.parties())
        for role, name in {(party.role, party.name) for party in set(self.parties()) - wanted}:
            self.drop(role, name)
        for party in wanted - set(self.parties()):
            self.put(party.role, party.name, party.key)

    def put_token(self, token: str, robot: str) -> None:
        """Let whoever holds a token connect: to enrol, and for nothing else (``fleet_hub.enrolment`` decides)."""
        user = f"{ENROLMENT}.{token[:16]}:{robot}"
        self._parties[user] = Party(ENROLMENT, robot, token)
        self._user_of_token[token] = user

    def user_of(self, key: bytes) -> str | None:
        """The user whose CURVE public key (32 bytes) that is; None for a stranger."""
        return self._user_of_key.get(key) or self._user_of_token.get(token_id(key))

    def party(self, user: str) -> Party | None:
        """Who came as ``user``; None where that key would not be let in any more."""
        return self._parties.get(user)

    def listed(self, key: str) -> bool:
        """Whether that key (Z85) is somebody's; raises MembershipError for one that is none."""
        return raw_key(key) in self._user_of_key


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
