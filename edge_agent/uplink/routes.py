"""Which way a question goes: image metadata and bundles to the site's mirror, everything else to the hub.

A mirror is trusted with nothing: what comes from it is verified as from the hub. One that says nothing, or something
that was refused, is left alone for a while, and the hub is asked instead.
"""

from collections.abc import Callable
from typing import Protocol

from contracts.messages import Chunk, FetchChunk, FetchFile, FromHub, FromRobot, Wait
from contracts.trust import IMAGE

MIRROR_SILENT_S, MIRROR_SILENT_MAX_S = 3.0, 15.0
"""So long may it leave a question unanswered; longer where its answers have taken long."""
SILENT_TIMES = 4.0
"""Its slowest answer of late so many times: within that it is slow, beyond it silent."""
SILENCES_MAX = 2
"""One after the other. After the first the hub is asked that one question; a busy machine has such moments."""
TURN_MAX_S = 0.25
"""More than that between two turns is the robot's own delay, in which it could not have heard an answer."""
MIRROR_WAIT_MAX_S = 60.0
"""So long may it say Wait and bring nothing."""
AVOIDED_S = 300.0
CONNECTS_S = 3.0
"""After a start a question waits so long for the mirror's connection: the hub's may stand a moment earlier."""


class Link(Protocol):
    """A connection (``HubLink``)."""

    online: bool

    def send(self, message: FromRobot) -> bool:
        """False when it could not be handed over."""


class Routes:
    """The ways of one robot."""

    def __init__(
        self, hub: Link, mirror: Link | None, mono_ns: Callable[[], int], note: Callable[..., None]
    ) -> None:
        """``note`` is the robot's log."""
        self._hub, self._mirror, self._mono_ns, self._note = hub, mirror, mono_ns, note
        self._waited_s: float | None = None
        self._turn_ns = 0
        self._slowest_s = 0.0
        self._silences = 0
        self._hub_next = self._held = False
        self._connect_until_ns = mono_ns() + int(CONNECTS_S * 1e9)
        self._put_off_ns: int | None = None
        self._avoid_until_ns = 0
        self._used = False

    def send(self, message: FromRobot) -> bool:
        """Send it where it belongs."""
        shared = isinstance(message, FetchChunk) or (
            isinstance(message, FetchFile) and message.name.startswith(f"{IMAGE}/")
        )
        mirror = self._mirror
        if shared and self._hub_next:
            self._hub_next = False
        elif shared and mirror is not None and self._usable() and mirror.send(message):
            self._waited_s = self._waited_s or 0.0
            self._used = True
            return True
        elif shared and self._connecting():
            self._held = True
            return True
        return self._hub.send(message)

    def heard(self, message: FromHub) -> bool:
        """Whether something from the mirror is for this robot; that it comes says the mirror lives."""
        self._slowest_s = max(self._waited_s or 0.0, 0.75 * self._slowest_s)
        self._waited_s = None
        if isinstance(message, Wait):
            self._put_off_ns = self._mono_ns() if self._put_off_ns is None else self._put_off_ns
            if self._mono_ns() - self._put_off_ns > MIRROR_WAIT_MAX_S * 1e9:
                self._avoid("it puts off for too long")
                return False
        else:
            self._put_off_ns, self._silences = None, 0
        if isinstance(message, Chunk) and not message.data:
            self._avoid("it does not have the bundle")
            return False
        return True

    def step(self, now_ns: int) -> bool:
        """Whether a question must be asked again: no answer came from the mirror, or its connection stands now."""
        if self._held and not self._connecting():
            self._held = False
            return True
        turn_s, self._turn_ns = (now_ns - self._turn_ns) / 1e9, now_ns
        if self._waited_s is None:
            return False
        self._waited_s += max(0.0, min(turn_s, TURN_MAX_S))
        if self._waited_s < min(MIRROR_SILENT_MAX_S, max(MIRROR_SILENT_S, SILENT_TIMES * self._slowest_s)):
            return False
        self._waited_s = None
        self._silences += 1
        if self._silences < SILENCES_MAX:
            self._hub_next = True
            self._note("mirror_silent")
        else:
            self._avoid("no answer")
        return True

    def other_way(self) -> bool:
        """What came was refused: whether it may have been the mirror's fault, which is avoided then."""
        if not self._used:
            return False
        self._avoid("what came from it was refused")
        return True

    def _connecting(self) -> bool:
        mirror = self._mirror
        return mirror is not None and not mirror.online and self._mono_ns() < self._connect_until_ns

    def _usable(self) -> bool:
        return self._mirror is not None and self._mirror.online and self._mono_ns() >= self._avoid_until_ns

    def _avoid(self, why: str) -> None:
        self._waited_s, self._put_off_ns, self._used = None, None, False
        self._silences, self._hub_next = 0, False
        self._avoid_until_ns = self._mono_ns() + int(AVOIDED_S * 1e9)
        self._note("mirror_avoided", why=why)
