"""What was refused last, in STATE/slots/refused.json: asked again, the robot says so again and fetches nothing."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.atomic import write_atomically

REFUSED_FILE = "refused.json"


class Refusal(msgspec.Struct, frozen=True):
    """An order that came to nothing, and why."""

    rollout: int
    digest: str
    code: str
    reason: str


class RefusedStore:
    """One robot's; ``note`` is its log."""

    def __init__(self, state_dir: Path, note: Callable[..., None]) -> None:
        self._path, self._note = state_dir / "slots" / REFUSED_FILE, note

    def write(self, refusal: Refusal) -> None:
        """Remember it; a disk that refuses that is noted, and the robot would refuse again by itself."""
        try:
            write_atomically(self._path, msgspec.json.encode(refusal))
        except OSError as error:
            self._note("disk_error", what=REFUSED_FILE, error=str(error))

    def find(self, rollout: int, digest: str) -> Refusal | None:
        """The refusal of that release in that rollout."""
        try:
            refusal = msgspec.json.decode(self._path.read_bytes(), type=Refusal)
        except (OSError, msgspec.MsgspecError):
            return None
        return refusal if (refusal.rollout, refusal.digest) == (rollout, digest) else None
