"""The hub's clock for robots: wall time with the robot's name and nonce, signed with the director's timestamp key."""

from collections.abc import Callable

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer

from contracts.canonical import canonical_json
from contracts.provenance import encode_envelope
from contracts.trust import HUB_TIME_TYPE, HubTime

INTERVAL_MIN_NS = 200_000_000
"""Of one robot's questions; sooner ones are not answered."""
ROBOTS_MAX = 100_000


class SignedClock:
    """Signs the time, to each robot not too often."""

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        """``wall_ns`` is the hub's own clock: keep it right (NTP)."""
        self._wall_ns = wall_ns
        self._told: dict[str, int] = {}

    def tell(self, robot: str, nonce: bytes, signer: Signer) -> bytes:
        """An envelope around ``contracts.trust.HubTime``; nothing when it was asked a moment ago."""
        now = self._wall_ns()
        if 0 <= now - self._told.get(robot, 0) < INTERVAL_MIN_NS:
            return b""
        if len(self._told) >= ROBOTS_MAX:
            self._told.clear()
        self._told[robot] = now
        envelope = Envelope(canonical_json(HubTime(robot, nonce.hex(), now)), HUB_TIME_TYPE, {})
        envelope.sign(signer)
        return encode_envelope(envelope)
