"""One sync for many files: ``syncfs``, where the kernel tells of its errors; if wanted, while the hub goes on."""

import ctypes
import os
import platform
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._thread = ThreadPoolExecutor(1, "sync")
        self._running: Future[bool] | None = None
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Can be read from when what was begun has ended."""
        return self._woken

    @property
    def busy(self) -> bool:
        """Whether something was begun of which ``ended`` has not told yet."""
        return self._running is not None

    def begin(self) -> bool:
        """Sync what has been written up to now, in a thread; False when that is not to be had here.

        Before the next, ``ended`` must have told how this one went.
        """
        assert self._running is None, "one at a time"
        if self._call is None:
            return False
        self._running = self._thread.submit(self._all_and_wake)
        return True

    def _all_and_wake(self) -> bool:
        try:
            return self.all()
        finally:
            os.write(self._wake, b".")

    def ended(self, wait: bool = False) -> bool | None:
        """Whether everything that had been written before ``begin`` is durable now; None while that is not known."""
        if self._running is None:
            return None
        if wait:
            self._running.result()
        try:
            os.read(self._woken, 1)
        except BlockingIOError:
            return None
        durable, self._running = self._running.result(), None
        return durable

    def all(self) -> bool:
        """Sync; False when that is not to be had here, or failed: sync each file then."""
        return self._call is not None and self._call(self._folder) == 0

    def close(self) -> None:
        """Close the folder, after what was begun."""
        if self._folder >= 0:
            self._thread.shutdown()
            for descriptor in (self._folder, self._woken, self._wake):
                os.close(descriptor)
            self._folder = -1
