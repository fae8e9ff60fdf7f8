"""Version numbers of metadata signed online that never come twice, whatever a power cut takes.

A robot's director changes with every order. To sync its files each time would cost four fsyncs a robot; instead only a
ceiling is durable: versions below it may be given away freely, and a hub that starts goes on at the ceiling. What a
power cut took of the files is signed anew, under a version that no robot has ever seen.
"""

from pathlib import Path

from contracts.atomic import make_folder, sync_folder, write_atomically
from contracts.trust import Code, TrustError

CEILING_FILE = "versions.ceiling"
STEP = 1000
"""Versions a hub's start uses up at least; a name holds nine digits, so a million starts."""
CEILING_DIGITS_MAX = 12


class Versions:
    """The versions of one hub's directors."""

    def __init__(self, folder: Path) -> None:
        """Begin above everything given away before; raises TrustError, OSError."""
        make_folder(folder)
        # A ceiling in a folder that a power cut takes is none; a kill may have come between a folder and its sync.
        sync_folder(folder.parent)
        sync_folder(folder.parent.parent)
        self._path = folder / CEILING_FILE
        self._ceiling = self._read(folder)
        self._base = self._ceiling
        self._raise_above(self._base)

    def _read(self, folder: Path) -> int:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return _highest_named(folder)
        if not text.isdigit() or len(text) > CEILING_DIGITS_MAX:
            raise TrustError(
                Code.INCOMPLETE, f"{self._path} holds no number; restore it from a copy, never a lower one"
            )
        return int(text)

    def after(self, known: int) -> int:
        """The version to sign next where ``known`` was the last one; 0 for none that is known. Raises OSError."""
        version = max(known, self._base) + 1
        self._raise_above(version)
        return version

    def _raise_above(self, version: int) -> None:
        if version >= self._ceiling:
            ceiling = version + STEP
            write_atomically(self._path, str(ceiling).encode())
            self._ceiling = ceiling


def _highest_named(folder: Path) -> int:
    """Where the ceiling is lost (no power cut does that): the highest version that a director's file is named by."""
    numbers = (path.name.split(".")[0] for path in folder.glob("*/*.json"))
    return max((int(number) for number in numbers if number.isdigit()), default=0)
