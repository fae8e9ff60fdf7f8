"""The catalogue: verified bundles by digest on disk, their facts in the database.

A bundle is uploaded into ``staging/`` in chunks (resumable), verified with the trusted release keys, synced
and renamed into ``bundles/``; only then does a row make it a release. A refused upload is removed.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from contracts.atomic import sync_folder
from contracts.bundle import VerifiedBundle, read_bundle, verify_signed
from contracts.errors import BundleError
from contracts.manifest import BUNDLE_MAX_BYTES
from contracts.messages import LIST_MAX, Chunk, ReleaseInfo, encode
from contracts.provenance import TrustedKeys
from fleet_hub.errors import ReleaseRefusedError, UnknownReleaseError, UploadError
from fleet_hub.limits import CHUNKS_KEPT_MAX, DIGEST_PREFIX_MIN, DOWNLOAD_CHUNK_BYTES, OPEN_BUNDLES_MAX
from fleet_hub.store.database import Database
from fleet_hub.store.folder import DataFolder

_COLUMNS = "digest, policy_name, version, release_counter, size_bytes, released_wall_ns"


class Catalogue:
    """Releases of one hub."""

    def __init__(
        self, database: Database, folder: DataFolder, trusted: TrustedKeys, wall_ns: Callable[[], int]
    ) -> None:
        """Use an open database and data folder."""
        self._database = database
        self._folder = folder
        self._trusted = trusted
        self._wall_ns = wall_ns
        self._open: OrderedDict[str, int] = OrderedDict()
        self._chunks: OrderedDict[tuple[str, int], tuple[bytes, int, bool]] = OrderedDict()

    def begin_upload(self, digest: str, size_bytes: int) -> int:
        """From which offset the upload goes on; the whole size when the bundle is there already."""
        if size_bytes > BUNDLE_MAX_BYTES:
            raise UploadError(f"a bundle may have {BUNDLE_MAX_BYTES} bytes, this one has {size_bytes}")
        if self.find(digest):
            return size_bytes
        part = self._folder.staging / f"{digest}.part"
        return min(part.stat().st_size, size_bytes) if part.exists() else 0

    def write_chunk(self, digest: str, offset: int, data: bytes) -> int:
        """Append a chunk; returns the offset after it."""
        part = self._folder.staging / f"{digest}.part"
        have = part.stat().st_size if part.exists() else 0
        if offset != have:
            raise UploadError(
                f"expected the bytes from {have}, came those from {offset}; start the release again"
            )
        if offset + len(data) > BUNDLE_MAX_BYTES:
            raise UploadError(f"a bundle may have {BUNDLE_MAX_BYTES} bytes; this upload is longer")
        with part.open("ab") as file:
            file.write(data)
        return offset + len(data)

    def look(self, digest: str) -> tuple[VerifiedBundle, int]:
        """The bundle, uploaded or released, as its own signatures prove it, and its size; raises BundleError."""
        path = self._folder.staging / f"{digest}.part"
        data = read_bundle(path if path.exists() else self.path_of(digest))
        return verify_signed(data, self._trusted), len(data)

    def path_of(self, digest: str) -> Path:
        """Where a released bundle lies."""
        return self._folder.bundles / f"{digest}.outrider"

    def commit_upload(self, digest: str) -> ReleaseInfo:
        """Verify what was uploaded and make it a release; the same bundle twice is the same release.

        Raises:
            ReleaseRefusedError: With the bundle's own reason; the upload is removed.
        """
        if known := self.find(digest):
            return known
        part = self._folder.staging / f"{digest}.part"
        try:
            bundle = verify_signed(part, self._trusted)
            if bundle.digest != digest:
                raise ReleaseRefusedError(
                    f"announced as {digest[:12]}, came as {bundle.digest[:12]}; release again"
                )
            self._check_counter(bundle)
        except (BundleError, ReleaseRefusedError) as error:
            part.unlink(missing_ok=True)
            raise ReleaseRefusedError(f"bundle {digest[:12]} refused: {error}") from None
        size_bytes = part.stat().st_size
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(self.path_of(digest))
        sync_folder(self._folder.bundles)
        return self._insert(bundle, size_bytes)

    def _check_counter(self, bundle: VerifiedBundle) -> None:
        name, counter = bundle.manifest.policy_name, bundle.manifest.release_counter
        rows = self._database.rows("SELECT MAX(release_counter) FROM release WHERE policy_name = ?", name)
        highest = int(rows[0][0] or 0)
        if counter <= highest:
            raise ReleaseRefusedError(
                f"release counter of {name} must be above {highest}, came {counter}; export with a higher "
                "counter"
            )

    def _insert(self, bundle: VerifiedBundle, size_bytes: int) -> ReleaseInfo:
        manifest = bundle.manifest
        info = ReleaseInfo(
            bundle.digest,
            manifest.policy_name,
            manifest.version,
            manifest.release_counter,
            size_bytes,
            self._wall_ns(),
        )
        self._database.run(
            f"INSERT INTO release ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
            info.digest,
            info.policy_name,
            info.version,
            info.release_counter,
            info.size_bytes,
            info.released_wall_ns,
        )
        return info

    def releases(self) -> list[ReleaseInfo]:
        """The newest releases, newest first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM release ORDER BY id DESC LIMIT ?", LIST_MAX)
        return [_info(row) for row in rows]

    def find(self, digest: str) -> ReleaseInfo | None:
        """The release with exactly this digest."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM release WHERE digest = ?", digest)
        return _info(rows[0]) if rows else None

    def read_chunk(self, digest: str, offset: int, count: int) -> bytes:
        """Bytes of a released bundle; none when there is no such release or the offset is past its end."""
        descriptor = self._open.get(digest)
        if descriptor is None:
            if not self.find(digest):
                return b""
            descriptor = os.open(self.path_of(digest), os.O_RDONLY | os.O_CLOEXEC)
            self._open[digest] = descriptor
            if len(self._open) > OPEN_BUNDLES_MAX:
                os.close(self._open.popitem(last=False)[1])
        return os.pread(descriptor, count, offset)

    def chunk(self, digest: str, offset: int) -> tuple[bytes, int, bool]:
        """The encoded ``Chunk`` message, how many bytes of the bundle it holds, and whether they are its last.

        Kept in memory: a thousand robots ask for the same few.
        """
        key = digest, offset
        found = self._chunks.get(key)
        if found is None:
            data = self.read_chunk(digest, offset, DOWNLOAD_CHUNK_BYTES)
            info = self.find(digest)
            last = info is None or offset + len(data) >= info.size_bytes
            found = encode(Chunk(digest, offset, data)), len(data), last
            if data:
                self._chunks[key] = found
        if found[1]:
            self._chunks.move_to_end(key)
        if len(self._chunks) > CHUNKS_KEPT_MAX:
            self._chunks.popitem(last=False)
        return found

    def close(self) -> None:
        """Close the open bundle files."""
        while self._open:
            os.close(self._open.popitem()[1])


def resolve(releases: Sequence[ReleaseInfo], name: str) -> ReleaseInfo:
    """The release that goes by a digest, its beginning, ``name@version``, a version, or a name (its newest).

    Raises:
        UnknownReleaseError: None, or more than one.
    """
    exact = [r for r in releases if name in (r.digest, f"{r.policy_name}@{r.version}")]
    begins = [r for r in releases if len(name) >= DIGEST_PREFIX_MIN and r.digest.startswith(name)]
    version = [r for r in releases if r.version == name]
    for found in (exact, begins, version):
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownReleaseError(f"{name!r} names {len(found)} releases; give the whole digest")
    if of_name := [r for r in releases if r.policy_name == name]:
        return max(of_name, key=lambda release: release.release_counter)
    known = ", ".join(f"{r.policy_name}@{r.version}" for r in releases[:5]) or "none"
    raise UnknownReleaseError(
        f"no release {name!r}; there are: {known}. Register one: `outrider release BUNDLE`"
    )


def _info(row: tuple[str | int, ...]) -> ReleaseInfo:
    digest, name, version, counter, size, wall = row
    return ReleaseInfo(str(digest), str(name), str(version), int(counter), int(size), int(wall))
