"""Whom a mirror lets in: the lists in its key folder, followed while it runs."""

import sys
from pathlib import Path

from contracts.errors import KeyFileError
from contracts.keyring import AUTHORIZED_FOLDER, OPERATORS_FILE, ROBOTS_FILE
from fleet_hub.access import Access
from fleet_hub.errors import MembershipError

LOOK_S = 1.0
Seen = tuple[tuple[int, int, int], ...]


class FollowedLists:
    """``access`` is what the door asks; a list that is damaged, or not whole yet, changes nothing."""

    def __init__(self, keys: Path) -> None:
        """Read them; raises KeyFileError."""
        self._keys, self._complained, self._looked_ns = keys, "", 0
        self._seen = self._look()
        self.access = Access.load(keys)

    def step(self, now_ns: int) -> bool:
        """Look whether they have changed, now and then; whether they had."""
        if now_ns - self._looked_ns < LOOK_S * 1e9:
            return False
        self._looked_ns, seen = now_ns, self._look()
        if seen == self._seen:
            return False
        try:
            self.access.become(Access.load(self._keys))
        except (KeyFileError, MembershipError) as error:
            self._complain(f"lists not taken over: {error}")
            return False
        self._seen, self._complained = seen, ""
        return True

    def _look(self) -> Seen:
        found = []
        for name in (ROBOTS_FILE, OPERATORS_FILE):
            try:
                stat = (self._keys / AUTHORIZED_FOLDER / name).stat()
            except OSError:
                continue
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _complain(self, text: str) -> None:
        if text != self._complained:
            self._complained = text
            print(f"outrider mirror: {text}", file=sys.stderr, flush=True)
