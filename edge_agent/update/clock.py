"""What time it is, told by the hub: the robot sends a nonce, the hub signs it together with its wall time.

Signed with the director's timestamp key, which the robot's director root names. A verified time goes on by the clock
that nobody can set (CLOCK_BOOTTIME), and the floor remembers it by the key that signed it: never backwards. Without a
hub the robot's own clock holds, as far as the floor allows, as it always did.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from contracts.canonical import canonical_json, hash_of
from contracts.messages import AskTime, FromRobot, SignedTime
from contracts.trust import (
    CLOCK_ROLE,
    DIRECTOR,
    HUB_TIME_TYPE,
    NONCE_BYTES,
    ROOT_MAX_BYTES,
    TRUST_FOLDER,
    Code,
    HubTime,
    TrustError,
)
from edge_agent.update.floor import Floor, FloorStore

NS = 1_000_000_000
ASK_EVERY_S = 600.0
ASK_AGAIN_S = 30.0
"""After a question that was not answered well."""
ROUND_TRIP_MAX_S = 2.0
"""A later answer may have been kept back: it says when the hub signed, not that it is so late now."""
NOTE_EVERY_S = 60.0
APART_S = 2.0
"""From here on it is worth a line in the log that the robot's clock and the hub's are apart."""


class VerifiedTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wall time that the hub signed, and what CLOCK_BOOTTIME said when it came."""

    wall_ns: int
    boot_ns: int

    def at(self, boot_ns: int) -> int:
        """The wall time when CLOCK_BOOTTIME says ``boot_ns``."""
        return self.wall_ns + max(0, boot_ns - self.boot_ns)


def boot_ns() -> int:
    """Nanoseconds since the machine was started, suspension included; nobody can set it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class ClockKeys:
    """Whose signature under a time counts, and until when that is said."""

    keys: tuple[SSlibKey, ...]
    threshold: int
    name: str
    """What the floor knows this set of keys by: other keys begin anew, as versions do."""
    expires_ns: int


class _Role(msgspec.Struct, frozen=True):
    keyids: tuple[str, ...]
    threshold: int


class _Root(msgspec.Struct, frozen=True):
    roles: dict[str, _Role]
    keys: dict[str, dict[str, Any]]
    expires: datetime


class _RootFile(msgspec.Struct, frozen=True):
    signed: _Root


def clock_keys(state: Path, keys: Path) -> ClockKeys:
    """Of the newest director root that this robot has verified, else of the one it started from; raises TrustError."""
    problem: Exception | None = None
    first = keys / f"{DIRECTOR}.root.json"
    for path in (state / TRUST_FOLDER / "current" / DIRECTOR / "root.json", first):
        try:
            with path.open("rb") as file:
                return _clock_of(msgspec.json.decode(file.read(ROOT_MAX_BYTES), type=_RootFile).signed)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError) as error:
            problem = error
    raise TrustError(Code.NO_ROOT, f"no director root at {first} ({problem}); `outrider keys trust` makes it")


def _clock_of(root: _Root) -> ClockKeys:
    role = root.roles[CLOCK_ROLE[1]]
    keys = tuple(SSlibKey.from_dict(key_id, dict(root.keys[key_id])) for key_id in role.keyids)
    name = f"{DIRECTOR}/time/{hash_of(sorted(role.keyids))[:16]}"
    return ClockKeys(keys, role.threshold, name, int(root.expires.timestamp()) * NS)


def open_time(paper: bytes, robot: str, nonce: bytes, keys: ClockKeys, floor_ns: int) -> int:
    """The wall time (ns) in the hub's answer to this nonce.

    Raises:
        TrustError: Not signed by that key, for another robot or question, behind what was verified before, or beyond
            the root that names the key.
    """
    try:
        envelope = Envelope.from_dict(msgspec.json.decode(paper))
        if envelope.payload_type != HUB_TIME_TYPE:
            raise ValueError(f"payload type {envelope.payload_type[:64]}")
        envelope.verify(list(keys.keys), keys.threshold)
        told = msgspec.json.decode(envelope.payload, type=HubTime)
        if canonical_json(told) != envelope.payload:
            raise ValueError("not in canonical form")
    except (
        VerificationError,
        msgspec.MsgspecError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise TrustError(
            Code.TIME_FORGED, f"the hub's time is not signed by its clock key: {error}"
        ) from None
    if (told.robot, told.nonce_hex) != (robot, nonce.hex()):
        raise TrustError(
            Code.TIME_REPLAYED, f"the hub's time is an answer to another question, of {told.robot}"
        )
    if told.wall_ns < floor_ns:
        raise TrustError(
            Code.TIME_BACK,
            f"the hub's time is {(floor_ns - told.wall_ns) / NS:.0f} s behind what it was before; set the hub's clock",
        )
    if told.wall_ns >= keys.expires_ns:
        raise TrustError(
            Code.TIME_BEYOND, "the hub's time is beyond the end of the director root; look at both"
        )
    return told.wall_ns


class HubClock:
    """One robot's. ``send`` and ``note`` are the way to the hub and to the robot's own log."""

    def __init__(
        self,
        state: Path,
        keys: Path,
        robot: str,
        send: Callable[[FromRobot], bool],
        note: Callable[..., None],
        wall_ns: Callable[[], int] = time.time_ns,
        since_boot_ns: Callable[[], int] = boot_ns,
    ) -> None:
        """Nothing is known yet: the robot's own clock (``wall_ns``) holds."""
        self._state, self._keys, self._robot, self._send, self._note = state, keys, robot, send, note
        self._wall_ns, self._boot_ns = wall_ns, since_boot_ns
        self._nonce = b""
        self._asked_ns = self._due_ns = self._noted_ns = 0
        self._apart_s: float | None = None
        self.verified: VerifiedTime | None = None

    def now_wall_ns(self) -> int:
        """Verified time; the robot's own clock while the hub has not told it."""
        return self.verified.at(self._boot_ns()) if self.verified else self._wall_ns()

    def on_online(self) -> None:
        """The hub is there (again)."""
        self._nonce, self._due_ns = b"", 0

    def step(self, online: bool) -> None:
        """Ask when it is time to; one question at a time."""
        now = self._boot_ns()
        if not online or now < self._due_ns:
            return
        nonce = secrets.token_bytes(NONCE_BYTES)
        if self._send(AskTime(nonce)):
            self._nonce, self._asked_ns = nonce, now
            self._due_ns = now + int(ASK_AGAIN_S * NS)

    def on_time(self, message: SignedTime) -> None:
        """The hub has answered: taken, or refused and said so, and nothing has changed."""
        now, asked = self._boot_ns(), self._nonce
        try:
            if not asked:
                raise TrustError(Code.TIME_REPLAYED, "the hub told the time unasked")
            took_s = (now - self._asked_ns) / NS
            if took_s > ROUND_TRIP_MAX_S:
                self._nonce = b""
                raise TrustError(
                    Code.TIME_SLOW,
                    f"the hub's time took {took_s:.1f} s, at most {ROUND_TRIP_MAX_S:g} s may pass",
                )
            keys, floors = clock_keys(self._state, self._keys), FloorStore(self._state)
            wall_ns = open_time(message.paper, self._robot, asked, keys, floors.read().time_ns(keys.name))
            floors.lift(Floor(versions={keys.name: wall_ns}))
        except (TrustError, OSError) as error:
            self._refuse(error, now)
            return
        self._nonce, self._due_ns = b"", now + int(ASK_EVERY_S * NS)
        self.verified = VerifiedTime(wall_ns, now)
        self._compare()

    def _refuse(self, error: Exception, now: int) -> None:
        """Say why; not more than once a minute, for a hub that floods."""
        if not self._noted_ns or now - self._noted_ns > NOTE_EVERY_S * NS:
            self._noted_ns = now
            code = error.code if isinstance(error, TrustError) else "disk"
            self._note("hub_time_refused", code=str(code), reason=str(error)[:500])

    def _compare(self) -> None:
        """A line in the log where the robot's own clock goes wrong, or right again."""
        apart_s = (self._wall_ns() - self.now_wall_ns()) / NS
        if self._apart_s is None or abs(apart_s - self._apart_s) > APART_S:
            self._apart_s = apart_s
            self._note("hub_time", ahead_s=round(apart_s, 3))
