"""What a mirror has on disk: verified files alone, in the hub's own layout, so that a mirror may stand before a mirror.

DATA/image/*.json, DATA/bundles/DIGEST.outrider, DATA/tuf/ (python-tuf's cache), DATA/staging/DIGEST.part. A bundle
comes in only when image targets that two people signed list it, and its SHA-256 and length are theirs.
"""

import hashlib
import os
import re
from collections import OrderedDict
from pathlib import Path

from tuf.api.metadata import TargetFile

from contracts.atomic import sync_folder, write_atomically
from contracts.manifest import BUNDLE_MAX_BYTES
from contracts.messages import Chunk, FileChunk, encode
from contracts.trust import IMAGE, TrustError, check_name, target_path
from fleet_hub.limits import CHUNKS_KEPT_MAX, DOWNLOAD_CHUNK_BYTES, FILE_CHUNK_BYTES

BUNDLES_KEPT_MAX = 64
"""Of the bundles, those asked for last."""
VERSIONS_KEPT = 3
_VERSIONED = re.compile(r"(\d{1,9})\.(snapshot|targets)\.json")


class MirrorStore:
    """The files of one mirror. One thread adds, another reads: every file is there whole or not at all."""

    def __init__(self, data: Path) -> None:
        """Make what is missing; parts of before are kept."""
        self._image, self._bundles, self.staging = data / IMAGE, data / "bundles", data / "staging"
        self.cache = data / "tuf"
        for folder in (self._image, self._bundles, self.staging, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        self._chunks: OrderedDict[tuple[str, int], tuple[bytes, int, bool]] = OrderedDict()

    def read(self, name: str, offset: int) -> FileChunk:
        """Part of a file of the image repository; found is False for what is not here, director files among them."""
        try:
            if check_name(name).split("/")[0] != IMAGE:
                raise FileNotFoundError
            with (self._image / name.removeprefix(f"{IMAGE}/")).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(offset)
                return FileChunk(name, offset, size, True, file.read(FILE_CHUNK_BYTES))
        except (TrustError, OSError):
            return FileChunk(name, offset, 0, False, b"")

    def put_image(self, files: dict[str, bytes]) -> None:
        """Take over verified metadata, the timestamp last, so that a reader finds what it names."""
        for name in sorted(files, key=lambda name: name == "timestamp.json"):
            path = self._image / name
            if not path.exists() or path.read_bytes() != files[name]:
                write_atomically(path, files[name])
        for kind in ("snapshot", "targets"):
            found = [m for path in self._image.iterdir() if (m := _VERSIONED.fullmatch(path.name))]
            old = sorted((int(match[1]), match[0]) for match in found if match[2] == kind)[:-VERSIONS_KEPT]
            for _, name in old:
                (self._image / name).unlink(missing_ok=True)

    def bundle(self, digest: str) -> Path:
        """Where a verified bundle lies."""
        return self._bundles / target_path(digest)

    def chunk(self, digest: str, offset: int) -> tuple[bytes, int, bool] | None:
        """As ``Catalogue.chunk``; None where the bundle is not here."""
        key = digest, offset
        found = self._chunks.get(key)
        if found is None:
            try:
                with self.bundle(digest).open("rb") as file:
                    size = file.seek(0, 2)
                    file.seek(offset)
                    data = file.read(DOWNLOAD_CHUNK_BYTES)
            except FileNotFoundError:
                return None
            found = encode(Chunk(digest, offset, data)), len(data), offset + len(data) >= size
            self._chunks[key] = found
            if len(self._chunks) > CHUNKS_KEPT_MAX:
                self._chunks.popitem(last=False)
        return found

    def accept(self, part: Path, target: TargetFile) -> bool:
        """Make a fetched part a bundle; False, and it is gone, when it is not what was signed."""
        digest = target.path.removesuffix(".outrider")
        with part.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            whole = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        if (size, whole, target.hashes.get("sha256")) != (target.length, digest, digest):
            part.unlink()
            return False
        part.rename(self.bundle(digest))
        sync_folder(self._bundles)
        self._drop_old()
        return True

    def _drop_old(self) -> None:
        found = sorted(self._bundles.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in found[:-BUNDLES_KEPT_MAX]:
            path.unlink(missing_ok=True)

    @staticmethod
    def possible(target: TargetFile) -> bool:
        """Whether a bundle may have this size."""
        return 0 < target.length <= BUNDLE_MAX_BYTES
