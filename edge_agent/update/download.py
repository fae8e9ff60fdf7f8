"""A bundle on its way: STATE/staging/DIGEST.part grows chunk by chunk; its size says where to go on."""

import hashlib
import os
from pathlib import Path

from contracts.manifest import BUNDLE_MAX_BYTES


class Download:
    """One bundle being fetched. Raises OSError when the disk refuses."""

    def __init__(self, staging: Path, digest: str, size_bytes: int) -> None:
        """Go on with what is there already; parts of other bundles are removed."""
        staging.mkdir(parents=True, exist_ok=True)
        self.digest = digest
        self.size_bytes = size_bytes
        self.path = staging / f"{digest}.part"
        for other in staging.iterdir():
            if other != self.path:
                other.unlink()
        self.offset, self._hasher = 0, hashlib.sha256()
        if self.path.exists():
            self._go_on()
        if self.offset > size_bytes:
            self.restart()

    def _go_on(self) -> None:
        """Hash what is there already."""
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                self._hasher.update(block)
                self.offset += len(block)

    @property
    def possible(self) -> bool:
        """Whether a bundle may have this size."""
        return 0 < self.size_bytes <= BUNDLE_MAX_BYTES

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        return self.offset == self.size_bytes

    def add(self, offset: int, data: bytes) -> bool:
        """Append a chunk; False when it is not the one wanted next, or makes the file too long."""
        if offset != self.offset or not data or offset + len(data) > self.size_bytes:
            return False
        with self.path.open("ab") as file:
            file.write(data)
        self._hasher.update(data)
        self.offset += len(data)
        return True

    def seal(self) -> bool:
        """Sync the file; whether the SHA-256 of what came is the digest. The check reads the file itself again."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        return self._hasher.hexdigest() == self.digest

    def restart(self) -> None:
        """Throw away what has come."""
        self.path.unlink(missing_ok=True)
        self.offset, self._hasher = 0, hashlib.sha256()
