"""The mirror's process: a ROUTER for robots and further mirrors, CURVE and the fleet's allow-list as at the hub.

Read-only: it answers Hello, heartbeats, image files and bundles. Where it cannot answer it says nothing, and the robot
asks the hub: a mirror can make nothing worse than slower.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from contracts.errors import KeyFileError, MessageError
from contracts.keyring import CURVE_FILE, HUB_PUBLIC_FILE, CurvePair, CurvePublic, read_key_file
from contracts.messages import (
    HELLO_FIRST,
    Ack,
    FetchChunk,
    FetchFile,
    FromHub,
    FromRobot,
    Heartbeat,
    Hello,
    Refused,
    Wait,
    Welcome,
    decode_from_client,
    encode,
    short,
)
from contracts.trust import IMAGE, ROOT_MAX_BYTES
from fleet_hub import limits
from fleet_hub.door import Door
from fleet_hub.mirror.allowed import FollowedLists
from fleet_hub.mirror.store import MirrorStore
from fleet_hub.mirror.upstream import Carrier, Upstream
from fleet_hub.transfers import SpeechLimit, TransferLimits, Transfers

PENDING_MAX = 8_192
PENDING_MAX_S = 10.0
POLL_MS = 5
FRESH_S = 2.0
"""A robot asks for the next root, then for the timestamp: one refresh answers both."""
COMING_MS = 300
"""So long is a robot told to wait for a bundle that is on its way here."""
TIMESTAMP = f"{IMAGE}/timestamp.json"


class Mirror:
    """One mirror. ``run`` returns when ``stop`` has been called."""

    def __init__(
        self,
        data: Path,
        keys: Path,
        name: str,
        upstream: str,
        listen: str,
        transfers: TransferLimits | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``keys`` is the folder of the mirror ``name``; raises KeyFileError, AddressBusyError."""
        pair = read_key_file(keys / CURVE_FILE, CurvePair, private=True)
        server = read_key_file(keys / HUB_PUBLIC_FILE, CurvePublic)
        try:
            root = (keys / f"{IMAGE}.root.json").read_bytes()[:ROOT_MAX_BYTES]
        except OSError as error:
            raise KeyFileError(
                f"no image root in {keys} ({error.strerror}); `outrider hub mirror-keys`"
            ) from None
        self._mono_ns = mono_ns
        self._lists = FollowedLists(keys)
        self._door = Door(pair, listen, self._lists.access)
        self.endpoint = self._door.endpoint
        self._store = MirrorStore(data)
        self._carrier = Carrier(self._store, Upstream(upstream, name, pair, server.public), root)
        self._transfers = Transfers(transfers or TransferLimits(), mono_ns())
        self._known: dict[bytes, str] = {}
        self._speech = SpeechLimit()
        self._pending: deque[tuple[int, int, bytes, FetchFile]] = deque(maxlen=PENDING_MAX)
        self._stopping = False
        self._fresh_ns = -int(FRESH_S * 1e9)
        self.dropped = 0
        self.served_bytes: dict[str, int] = {}
        """Of bundles, by who asked: robots and mirrors of the allow-list, nobody else."""

    def stop(self) -> None:
        """Let ``run`` return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until stopped, then close everything."""
        self._carrier.start()
        try:
            while not self._stopping:
                self._door.wait(POLL_MS if self._pending else limits.POLL_MS)
                self._follow_lists()
                self._drain()
                self._answer_pending()
        finally:
            self._carrier.stop()
            self._door.close()

    def _drain(self) -> None:
        for peer, user, data in self._door.messages():
            party = self._lists.access.party(user)
            if party is None:  # ZeroMQ does not end a connection whose key has gone
                self._send(peer, Refused("not_allowed", "this key is not let in any more"))
            elif self._may_speak(party.name):
                self._handle(peer, party.name, data)

    def _follow_lists(self) -> None:
        if self._lists.step(self._mono_ns()):
            names = {party.name for party in self._lists.access.parties()}
            for peer in [peer for peer, name in self._known.items() if name not in names]:
                del self._known[peer]

    def _may_speak(self, name: str) -> bool:
        allowed = self._speech.allows(name, self._mono_ns())
        self.dropped += not allowed
        return allowed

    def _handle(self, peer: bytes, name: str, data: memoryview) -> None:
        try:
            message = decode_from_client(data)
        except MessageError as error:
            self._send(peer, Refused("message", short(error)))
            return
        if isinstance(message, Hello):
            self._welcome(peer, name, message)
        elif peer not in self._known:
            self._send(
                peer, Refused(HELLO_FIRST, "the mirror does not know this connection; say Hello first")
            )
        elif isinstance(message, Heartbeat):
            self._send(peer, Ack("0" * 32, 0))
        elif isinstance(message, FetchFile):
            self._file(peer, message)
        elif isinstance(message, FetchChunk):
            self._fetch(peer, name, message)
        elif isinstance(message, FromRobot):
            self._send(peer, Refused("mirror", "a mirror serves files alone; tell the hub"))

    def _welcome(self, peer: bytes, name: str, hello: Hello) -> None:
        if hello.robot != name:
            self._send(peer, Refused("not_allowed", f"this key belongs to {name}"))
            return
        if len(self._known) >= limits.SESSIONS_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[peer] = name
        self._send(peer, Welcome(0))

    def _file(self, peer: bytes, asked: FetchFile) -> None:
        """A root that is not here yet, and then the timestamp, are answered with what upstream has now."""
        if not asked.name.startswith(f"{IMAGE}/"):
            return
        here = self._store.read(asked.name, asked.offset)
        fresh = self._mono_ns() - self._fresh_ns < FRESH_S * 1e9
        if (asked.name == TIMESTAMP and not fresh) or (asked.name.endswith(".root.json") and not here.found):
            if len(self._pending) < PENDING_MAX:
                self._pending.append((self._carrier.begun, self._mono_ns(), peer, asked))
                self._carrier.want("")
            return
        self._send(peer, here)

    def _answer_pending(self) -> None:
        """Answer whose refresh, begun after the question, went well; the others get nothing, and ask the hub."""
        now_ns, ended, good = self._mono_ns(), self._carrier.ended, self._carrier.good
        for _ in range(len(self._pending)):
            begun, asked_ns, peer, asked = self._pending.popleft()
            if good > begun:
                self._fresh_ns = now_ns
                self._send(peer, self._store.read(asked.name, asked.offset))
            elif ended <= begun and now_ns - asked_ns < PENDING_MAX_S * 1e9:
                self._pending.append((begun, asked_ns, peer, asked))
                self._carrier.want("")

    def _fetch(self, peer: bytes, name: str, asked: FetchChunk) -> None:
        now_ns = self._mono_ns()
        if wait_ms := self._transfers.ask(name, asked.digest, now_ns):
            self._send(peer, Wait(asked.digest, wait_ms))
            return
        found = self._store.chunk(asked.digest, asked.offset)
        if found is None:
            if self._carrier.want(asked.digest) and self._carrier.coming(asked.digest):
                self._send(peer, Wait(asked.digest, COMING_MS))
            return
        self._transfers.sent(name, found[1], found[2], now_ns)
        self.served_bytes[name] = self.served_bytes.get(name, 0) + found[1]
        self._send(peer, found[0])

    def _send(self, peer: bytes, message: FromHub | bytes) -> None:
        data = message if isinstance(message, bytes) else encode(message)
        self.dropped += not self._door.send(peer, data)
