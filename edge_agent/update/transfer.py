"""A bundle's way here: asks chunk by chunk, again where no answer comes, from the start where the digest is wrong."""

import random
from collections.abc import Callable
from pathlib import Path

from contracts.messages import Chunk, FetchChunk, FromRobot, Wait
from edge_agent.errors import TransferFailedError
from edge_agent.update.download import Download

CHUNK_WAIT_MAX_S = 3.0
BACKOFF_MAX_S = 30.0
"""Between two questions that nobody answers: doubled each time, and drawn, so that a fleet does not ask in step."""
DOWNLOAD_TRIES_MAX = 2


class Transfer:
    """One robot's. ``send`` is the way to the hub."""

    def __init__(
        self,
        staging: Path,
        send: Callable[[FromRobot], bool],
        draw: random.Random,
        other_way: Callable[[], bool],
    ) -> None:
        """``other_way``: whether what came with a wrong digest may have been a mirror's fault, asked elsewhere now."""
        self._staging, self._send, self._draw, self._other_way = staging, send, draw, other_way
        self._download: Download | None = None
        self._tries = self._unanswered = self._ask_again_ns = 0

    def begin(self, digest: str, size_bytes: int) -> None:
        """Go on with what is there of this bundle; what is there of others goes. Raises OSError."""
        self._download = Download(self._staging, digest, size_bytes)
        self._tries = self._unanswered = 0

    @property
    def digest(self) -> str:
        """Of the bundle that is fetched; "" for none."""
        return self._download.digest if self._download else ""

    @property
    def path(self) -> Path:
        """Where the bundle's file grows."""
        assert self._download is not None
        return self._download.path

    def proceed(self, now_ns: int) -> bool:
        """Ask for what is missing; True when nothing is: the file is synced and has its digest.

        Raises:
            TransferFailedError: The disk refused, or what comes never has the digest.
        """
        download = self._download
        assert download is not None
        if not download.complete:
            self._ask(download, now_ns)
            return False
        try:
            whole = download.seal()
        except OSError as error:
            raise TransferFailedError(f"cannot store the bundle: {error.strerror}", "disk") from None
        if whole:
            return True
        self._tries += not self._other_way()
        download.restart()
        if self._tries >= DOWNLOAD_TRIES_MAX:
            raise TransferFailedError(
                f"fetched {self._tries} times, never with the digest that was approved; look at the hub's disk",
                "content_changed",
            )
        self._ask(download, now_ns)
        return False

    def add(self, chunk: Chunk) -> bool:
        """Take bytes that have come; False for those that were asked for twice.

        Raises:
            TransferFailedError: The hub has no such bundle, or the disk refused.
        """
        assert self._download is not None
        if not chunk.data:
            raise TransferFailedError(
                "the hub ordered a bundle that it does not have; release it again", "unreadable"
            )
        try:
            added = self._download.add(chunk.offset, chunk.data)
        except OSError as error:
            raise TransferFailedError(
                f"cannot store the bundle: {error.strerror}; free some space", "disk"
            ) from None
        if added:
            self._unanswered = 0
        return added  # else the answer to the newer question is under way

    def wait(self, wait: Wait, now_ns: int) -> None:
        """The hub has no place for this transfer yet: ask again when it says, or up to a quarter later."""
        self._unanswered = 0
        self._ask_again_ns = now_ns + int(wait.wait_ms * self._draw.uniform(1.0, 1.25) * 1e6)

    def online(self) -> None:
        """The hub is there (again): what it left unanswered before does not count."""
        self._unanswered = 0

    def due(self, now_ns: int) -> bool:
        """Whether no answer has come for too long."""
        if now_ns <= self._ask_again_ns:
            return False
        self._unanswered += 1
        return True

    def put_off(self, now_ns: int) -> None:
        """When to go on should no answer come."""
        ceiling_s = min(BACKOFF_MAX_S, CHUNK_WAIT_MAX_S * 2.0 ** min(self._unanswered, 8))
        self._ask_again_ns = now_ns + int(self._draw.uniform(0.5, 1.0) * ceiling_s * 1e9)

    def forget(self) -> None:
        """Nothing is fetched any more."""
        self._download = None

    def drop(self) -> None:
        """Nor is anything of it kept."""
        if self._download:
            self._download.path.unlink(missing_ok=True)
        self.forget()

    def _ask(self, download: Download, now_ns: int) -> None:
        self.put_off(now_ns)
        self._send(FetchChunk(download.digest, download.offset))
