"""Version numbers of metadata signed online that never come twice, whatever a power cut takes.

A robot's director changes with every order. To sync its files each time would cost four fsyncs a robot; instead only a
ceiling is durable: versions below it may be given away freely, and a hub that starts goes on at the ceiling. What a
power cut took of the files is signed anew, under a version that no robot has ever seen.
"""

from pathlib import Path

from contracts.atomic import write_atomically
from contracts.trust import Code, TrustError

CEILING_FILE = "versions.ceiling"
STEP = 1000
"""Versions a hub's start uses up at least; a name holds nine digits, so a million starts."""


class Versions:
    """The versions of one hub's directors."""

    def __init__(self, folder: Path) -> None:
        """Begin above everything given away before; raises TrustError, OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / CEILING_FILE
        try:
            self._ceiling = int(self._path.read_text())
        except FileNotFoundError:
            self._ceiling = 0
        except ValueError:
            raise TrustError(
                Code.INCOMPLETE, f"{self._path} holds no number; restore it from a copy, never a lower one"
            ) from None
        self._base = self._ceiling
        self._raise_above(self._base)

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
