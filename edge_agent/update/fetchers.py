"""Where python-tuf's client gets its files from: a folder (a USB stick), any file system of fsspec, or the hub by way
of comms.
"""

import os
import select
import stat
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from contracts.messages import FetchFile, FileChunk
from contracts.trust import Code, TrustError, check_name
from edge_agent.update.checker import LENGTH

READ_BYTES = 32 * 1024
ANSWER_MAX_S = 20.0
ANSWER_MAX_BYTES = 64 * 1024


class Fetcher(FetcherInterface):
    """Remembers the last file, so that a refusal can say what was wrong with it."""

    def __init__(self) -> None:
        """Nothing has been fetched."""
        self.last_name = ""
        self.fault: TrustError | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The file; the first bytes are read at once, so that an error comes before the iterator."""
        self.last_name = url
        try:
            check_name(url)
            chunks = self._chunks(url)
            first = next(chunks, b"")
        except TrustError as error:
            self.fault = error
            raise
        return self._all(first, chunks)

    def _all(self, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
        yield first
        try:
            yield from rest
        except TrustError as error:
            self.fault = error
            raise

    @abstractmethod
    def _chunks(self, name: str) -> Iterator[bytes]:
        """The file ``name``, piece by piece."""


class FolderFetcher(Fetcher):
    """Files of a folder or of a URL's; nothing outside of it, whatever links lie there."""

    def __init__(self, folder: Path | str) -> None:
        """``folder`` is what ``outrider release --stick`` wrote, or the URL of a copy (``is_url``)."""
        super().__init__()
        self._folder = folder

    def _chunks(self, name: str) -> Iterator[bytes]:
        with open_source(self._folder, name) as file:
            while block := file.read(READ_BYTES):
                yield block


def is_url(source: Path | str) -> bool:
    """Whether a source is a URL for fsspec (``https://``, ``s3://``, ``file://`` ...) and no folder."""
    return "://" in str(source)


def open_source(source: Path | str, name: str) -> BinaryIO:
    """Open a file of a folder or URL; raises DownloadHTTPError (404), TrustError.

    Nothing that comes from there is believed, so whose server it is does not matter. How long it may take is up to who
    asks: the checking process ends by itself, an update from a source within its own time.
    """
    if not is_url(source):
        return open_inside(Path(source), name)
    try:
        import fsspec
    except ImportError:
        raise TrustError(
            Code.UNREACHABLE, "updates from a URL need fsspec; install outrider[tech], or copy it to a folder"
        ) from None
    try:
        opened: BinaryIO = fsspec.open(f"{str(source).rstrip('/')}/{name}", "rb").open()
    except FileNotFoundError:
        raise DownloadHTTPError(f"{name} is not there", 404) from None
    except (OSError, ValueError, ImportError) as error:
        raise TrustError(Code.UNREACHABLE, f"cannot read {source}: {error}") from None
    return opened


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a plain file of ``folder`` without following links; raises DownloadHTTPError (404), TrustError."""
    path = folder
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            raise TrustError(Code.BAD_PATH, f"{path} is a link; copy the stick's folder as it was written")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DownloadHTTPError(f"{name} is not there", 404) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TrustError(Code.BAD_PATH, f"{path} is no plain file")
    return os.fdopen(descriptor, "rb")


class AskingFetcher(Fetcher):
    """Asks somebody who speaks with the hub, one piece at a time."""

    def _chunks(self, name: str) -> Iterator[bytes]:
        offset = 0
        while True:
            chunk = self.ask(FetchFile(name, offset))
            if not chunk.found:
                raise DownloadHTTPError(f"the hub has no {name}", 404)
            offset += len(chunk.data)
            yield chunk.data
            if not chunk.data or offset >= chunk.size_bytes:
                return

    @abstractmethod
    def ask(self, question: FetchFile) -> FileChunk:
        """The hub's answer to this very question; raises TrustError when there is none in time."""


class PipeFetcher(AskingFetcher):
    """Asks comms over standard output, which asks the hub over CURVE; the answer comes on standard input."""

    def ask(self, question: FetchFile) -> FileChunk:
        """One question, one answer."""
        sys.stdout.buffer.write(msgspec.json.encode(question) + b"\n")
        sys.stdout.buffer.flush()
        end_s = time.monotonic() + ANSWER_MAX_S
        (length,) = LENGTH.unpack(_read(LENGTH.size, end_s))
        if length > ANSWER_MAX_BYTES:
            raise TrustError(Code.TOO_LONG, f"an answer of {length} bytes")
        chunk = msgspec.msgpack.decode(_read(length, end_s), type=FileChunk)
        if (chunk.name, chunk.offset) != (question.name, question.offset):
            raise TrustError(Code.UNREACHABLE, f"asked for {question.name}, came {chunk.name}")
        return chunk


def _read(count: int, end_s: float) -> bytes:
    data = b""
    while len(data) < count:
        ready, _, _ = select.select([0], [], [], max(0.0, end_s - time.monotonic()))
        block = os.read(0, count - len(data)) if ready else b""
        if not block:
            raise TrustError(Code.UNREACHABLE, f"no answer from the hub within {ANSWER_MAX_S:g} s")
        data += block
    return data
