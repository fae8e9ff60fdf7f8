"""Ends this process by SIGKILL just before its Nth write: Python imports this at its start from PYTHONPATH.

``OUTRIDER_DIE=MARK|WORD|FOLDER|N``: only the process that has WORD on its command line and takes the file MARK away
dies, once, before the Nth time it opens a file under FOLDER for writing, renames, removes or syncs one. What it was
about to do stands in ``MARK.did``.
"""

import os
import signal
import sys
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _arm(mark: str, folder: str, number: int) -> None:
    left = [number]

    def count(what: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            descriptor = os.open(f"{mark}.did", os.O_RDWR | os.O_CREAT, 0o600)
            os.write(descriptor, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = values
            wanted = isinstance(flags, int) and bool(flags & WRITING)
        elif event in ("os.rename", "os.remove", "os.symlink", "os.mkdir", "os.truncate"):
            path, wanted = values[1 if event in ("os.rename", "os.symlink") else 0], True
        else:
            return
        if (
            wanted
            and left[0] > 0
            and isinstance(path, str | os.PathLike)
            and os.fspath(path).startswith(folder)
        ):
            count(f"{event} {os.path.basename(os.fspath(path))}")  # noqa: PTH119 - before pathlib is there

    for name in ("fsync", "fdatasync"):
        plain = getattr(os, name)

        def counted(descriptor: int, plain: Any = plain, name: str = name) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}") if left[0] > 0 else ""  # noqa: PTH115
            if path.startswith(folder):
                count(f"{name} {os.path.basename(path)}")  # noqa: PTH119
            plain(descriptor)

        setattr(os, name, counted)
    sys.addaudithook(hook)


def _main() -> None:
    mark, word, folder, number = os.environ["OUTRIDER_DIE"].split("|")
    if word not in sys.orig_argv:
        return
    try:
        os.remove(mark)  # noqa: PTH107
    except OSError:
        return
    _arm(mark, folder, int(number))


if "OUTRIDER_DIE" in os.environ:
    _main()
