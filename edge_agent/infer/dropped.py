"""Policies that failed on this robot, by digest: they do not come back by themselves, not after a restart either."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.atomic import write_atomically
from contracts.manifest import Digest

DROPPED_FILE = "dropped.json"
KEPT_MAX = 32
"""The oldest goes first; its release has long been followed by others."""
FILE_MAX_BYTES = 64 * 1024
WHY_MAX = 200


class Dropped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of them."""

    digest: Digest
    version: str
    why: str
    wall_ns: int


class DroppedStore:
    """STATE/slots/dropped.json; only the loader's thread writes.

    Args:
        state_dir: the robot's state folder.
        tell: told in words what could not be read or written.
    """

    def __init__(self, state_dir: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = state_dir / "slots" / DROPPED_FILE, tell
        self._kept = {entry.digest: entry for entry in self._read()}

    def why(self, digest: str) -> str:
        """Why that policy was dropped; "" when it was not."""
        entry = self._kept.get(digest)
        return entry.why if entry else ""

    def add(self, digest: str, version: str, why: str) -> None:
        """Remember one."""
        self._kept.pop(digest, None)
        self._kept[digest] = Dropped(digest, version, why[:WHY_MAX], time.time_ns())
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._write()

    def forget(self, digest: str) -> None:
        """Someone wants that policy all the same."""
        if self._kept.pop(digest, None):
            self._write()

    def _read(self) -> list[Dropped]:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(FILE_MAX_BYTES), type=list[Dropped])
        except FileNotFoundError:
            return []
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            self._tell(f"{self._path} is unreadable ({error}): policies that failed here may be tried again")
            return []

    def _write(self) -> None:
        try:
            write_atomically(self._path, msgspec.json.encode(list(self._kept.values())))
        except OSError as error:
            self._tell(f"{self._path} cannot be written ({error.strerror}): known only until a restart")
