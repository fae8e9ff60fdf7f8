"""A disk that loses what was not synced: cuts the power before the Nth write of the code under test, in this process.

POSIX at its worst, on real files: after a cut a file that was not synced since it was written has its old bytes, all
of the new, a part of them, or none; a name that was made, renamed or removed since its folder was synced may be there
or not, each by itself. Which of it is drawn from a seed.
"""

import os
import random
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
RENAMES = ("os.rename", "os.symlink")
NAMES = (*RENAMES, "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class PowerCutError(BaseException):
    """Nothing more happens in this process; no ``except Exception`` gets it."""


class Disk:
    """Everything under ``root``. ``fault`` is called before each write and may raise."""

    def __init__(self, root: Path, fault: Callable[[int], None] = lambda _: None) -> None:
        self.root, self.writes = root, 0
        self._fault = fault
        self._held: dict[int, int] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._data: dict[int, bytes] = {}
        self._dead = False
        for folder, _, files in os.walk(root):
            self._sync_folder(Path(folder))
            for name in files:
                path = Path(folder) / name
                if not path.is_symlink():
                    self._data[path.stat().st_ino] = path.read_bytes()

    def close(self) -> None:
        """Let go of files that are held so that no other gets their number."""
        for descriptor in self._held.values():
            os.close(descriptor)

    def write(self, path: Path) -> None:
        """The code is about to change something."""
        if not self._dead and path.is_relative_to(self.root):
            self.writes += 1
            try:
                self._fault(self.writes)
            except PowerCutError:
                self._dead = True
                raise

    def synced(self, descriptor: int) -> None:
        """The code has synced something, which is safe now."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self._dead or not path.is_relative_to(self.root):
            return
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._sync_folder(path)
        else:
            self._hold(path)
            self._data[os.fstat(descriptor).st_ino] = path.read_bytes()

    def after_cut(self, target: Path, draw: random.Random) -> None:
        """What the disk holds once there is power again."""
        self._build(self.root.stat().st_ino, self.root, target, draw)

    def _sync_folder(self, folder: Path) -> None:
        names = {}
        for path in folder.iterdir():
            names[path.name] = path.lstat().st_ino
            self._hold(path)
        self._names[folder.stat().st_ino] = names

    def _hold(self, path: Path) -> None:
        """A number that is not given away again means one file for good."""
        number = path.lstat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_PATH | os.O_NOFOLLOW)

    def _build(self, number: int, now: Path | None, target: Path, draw: random.Random) -> None:
        """``now`` is where the folder is at the moment of the cut, if anywhere."""
        target.mkdir()
        safe = self._names.get(number, {})
        here = {path.name: path for path in sorted(now.iterdir())} if now is not None else {}
        for name in sorted({*safe, *here}):
            found = here.get(name)
            old, new = safe.get(name), found.lstat().st_ino if found else None
            kept = old if old == new else draw.choice((old, new))
            if kept is not None:
                self._put(kept, found if kept == new else None, target / name, draw)

    def _put(self, number: int, now: Path | None, target: Path, draw: random.Random) -> None:
        source = now or Path(f"/proc/self/fd/{self._held[number]}")
        mode = (now.lstat() if now else os.fstat(self._held[number])).st_mode
        if stat.S_ISLNK(mode):
            target.symlink_to(now.readlink() if now else os.readlink("", dir_fd=self._held[number]))
        elif stat.S_ISDIR(mode):
            self._build(number, now, target, draw)
        else:
            data, safe = source.read_bytes(), self._data.get(number, b"")
            if data != safe:
                part = data[: draw.randrange(len(data) + 1)]
                data = draw.choice((safe, data, part, part + bytes(len(data) - len(part))))
            target.write_bytes(data)
            target.chmod(stat.S_IMODE(mode))


_current: list[Disk] = []


def _hook(event: str, values: tuple[Any, ...]) -> None:
    if not _current:
        return
    if event == "open" and isinstance(values[2], int) and values[2] & WRITING:
        path = values[0]
    elif event in NAMES:
        path = values[1 if event in RENAMES else 0]
    else:
        return
    if isinstance(path, str | os.PathLike):
        _current[-1].write(Path(os.fspath(path)))


@contextmanager
def watched(disk: Disk) -> Iterator[None]:
    """The code inside writes to ``disk``, one at a time. What it syncs is remembered, and not waited for."""

    def counted(descriptor: int) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        disk.write(Path(f"/proc/self/fd/{number}").readlink())
        disk.synced(number)

    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    plain, os.fsync = os.fsync, counted
    _current.append(disk)
    try:
        yield
    finally:
        _current.pop()
        os.fsync = plain


_hooked: list[bool] = []


def cut_at(number: int) -> Callable[[int], None]:
    """The power goes before that write."""

    def fault(writes: int) -> None:
        if writes == number:
            raise PowerCutError

    return fault
