"""One sync for many files: ``syncfs``, where the kernel tells of its errors."""

import ctypes
import os
import platform
from pathlib import Path

TELLS_ERRORS = (5, 8)
"""Linux before 5.8 returns success from syncfs even where a write failed."""


def _syncfs() -> "ctypes._FuncPointer | None":
    release = platform.release().split(".")
    numbers = tuple(int(part) for part in release[:2] if part.isdigit())
    if platform.system() != "Linux" or len(numbers) < 2 or numbers < TELLS_ERRORS:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


class FolderSync:
    """Makes everything durable that has been written to the file system of one folder."""

    def __init__(self, folder: Path) -> None:
        """Made before the first write: an error since then is told."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._call = _syncfs()

    def all(self) -> bool:
        """Sync; False when that is not to be had here, or failed: sync each file then."""
        return self._call is not None and self._call(self._folder) == 0

    def close(self) -> None:
        """Close the folder."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
