"""Files that are there whole or not at all, also after a power cut."""

import os
from contextlib import suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make ``folder``, and what is missing above it, so that its name is durable: what is synced inside needs that."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_atomically(
    path: Path, data: bytes, durable: bool = True, folder: bool = True, private: bool = False
) -> None:
    """Replace ``path`` by ``data``: temporary file, fsync, rename, fsync of the folder.

    ``durable=False`` leaves out both fsyncs: readers still never see half a file. ``folder=False`` leaves out the
    folder's alone, for who syncs it after several files: until then a power cut may bring the old file back, whole.
    With ``private`` nobody but its owner can read or write the file, at no moment.

    Raises:
        OSError: the disk refused; it names ``path``, which is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=_private if private else None) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = str(path)  # the temporary file's name would tell nobody anything
        error.filename2 = None
        raise
    if durable and folder:
        sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """A file of a key folder: whole or not there, synced, never readable by others; so is the folder where it is new.

    Raises:
        OSError: as ``write_atomically``.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, data, private=True)


def _private(name: str, flags: int) -> int:
    """Opens a file for its owner only. The umask would do, but it is the whole process's, and threads share it."""
    descriptor = os.open(name, flags, 0o600)
    os.fchmod(descriptor, 0o600)  # one that a killed process of the same number has left
    return descriptor
