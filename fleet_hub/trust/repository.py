"""One TUF repository as a folder of static files; the timestamp is replaced last, so readers see one state.

Uses python-tuf's Metadata API alone. A kill between two files leaves the state before: what no timestamp names is
written over by the next publication.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from contracts.atomic import make_folder, sync_folder, write_atomically
from contracts.errors import KeyFileError
from contracts.trust import Code, TrustError, check_root

TIMESTAMP_DAYS, TIMESTAMP_RENEW_DAYS = 7, 6
"""Lifetime, and what must be left or it is renewed: a stick written at any time is good for six days."""
SNAPSHOT_DAYS, SNAPSHOT_RENEW_DAYS = 30, 15
TARGETS_DAYS = 365
ROOT_DAYS = 730
KEPT_VERSIONS = 3
Signers = Mapping[str, Signer]
"""Role -> who signs for it online."""


def sign(metadata: Metadata[Any], signers: Sequence[Signer]) -> bytes:
    """The bytes of ``metadata`` with exactly these signatures; raises KeyFileError for a device that is not there."""
    metadata.signatures.clear()
    for signer in signers:
        try:
            metadata.sign(signer, append=True)
        except UnsignedMetadataError as error:
            why = str(error.__cause__) or type(error.__cause__).__name__
            raise KeyFileError(
                f"key {signer.public_key.keyid[:12]} does not sign: {why}; is its device there, is the PIN right?"
            ) from None
    return metadata.to_bytes()


def read(data: bytes, kind: type[Any]) -> Metadata[Any]:
    """Metadata of one kind, not verified; raises TrustError."""
    try:
        found: Metadata[Any] = Metadata.from_bytes(data)
        if not isinstance(found.signed, kind):
            raise TrustError(Code.UNREADABLE, f"expected {kind.type}, came {found.signed.type}")
    except RepositoryError as error:
        raise TrustError(Code.UNREADABLE, f"no {kind.type} metadata: {error}") from None
    return found


def verify(root: Root, role: str, metadata: Metadata[Any]) -> None:
    """Raises TrustError when ``role`` has not signed with as many keys as the root asks for."""
    try:
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise TrustError(Code.TOO_FEW, f"{role} {metadata.signed.version}: {error}") from None


def after(now: datetime, days: float) -> datetime:
    """An expiry, in whole seconds as TUF wants it."""
    return (now + timedelta(days=days)).astimezone(UTC).replace(microsecond=0)


class Repository:
    """One repository. ``kind`` is image or director."""

    def __init__(self, folder: Path, kind: str, roots: Path | None = None) -> None:
        """Nothing is read yet; the folder is made when something is written. ``roots`` may lie elsewhere."""
        self.folder, self.kind, self._roots = folder, kind, roots or folder
        self._root: Metadata[Root] | None = None

    def root(self) -> Metadata[Root] | None:
        """The newest root, kept in memory: read it, change nothing of it. None in an empty repository."""
        if self._root is None:
            versions = [int(path.name.split(".")[0]) for path in self._roots.glob("*.root.json")]
            if versions:
                self._root = read(_bytes(self._roots / f"{max(versions)}.root.json"), Root)
        return self._root

    def add_root(self, data: bytes) -> None:
        """Take a next root: signed by itself and by the one before, no key twice. Raises TrustError."""
        new, old = read(data, Root), self.root()
        check_root(self.kind, new.signed)
        expected = old.signed.version + 1 if old else new.signed.version
        if new.signed.version != expected:
            raise TrustError(Code.ROLLBACK, f"expected root {expected}, came {new.signed.version}")
        for root in (old.signed if old else new.signed, new.signed):
            verify(root, "root", new)
        self._write(f"{expected}.root.json", data)
        self._root = new

    def current(self) -> tuple[Metadata[Targets], Metadata[Snapshot], Metadata[Timestamp]] | None:
        """What the timestamp names; None before the first publication."""
        if not (self.folder / "timestamp.json").exists():
            return None
        timestamp = read(self._bytes("timestamp.json"), Timestamp)
        snapshot = read(self._bytes(f"{timestamp.signed.snapshot_meta.version}.snapshot.json"), Snapshot)
        version = snapshot.signed.meta["targets.json"].version
        return read(self._bytes(f"{version}.targets.json"), Targets), snapshot, timestamp

    def check(self, targets: bytes, now: datetime) -> int:
        """Whether signed ``targets`` may be the next; their version. Raises TrustError."""
        root, new, known = self.root(), read(targets, Targets), self.current()
        if root is None:
            raise TrustError(Code.NO_ROOT, f"{self._roots} has no root; `outrider keys trust` makes one")
        verify(root.signed, "targets", new)
        if new.signed.is_expired(now):
            raise TrustError(
                Code.EXPIRED, f"targets {new.signed.version} expired {new.signed.expires}; sign anew"
            )
        if known and new.signed.version <= known[0].signed.version:
            raise TrustError(
                Code.ROLLBACK, f"targets must be above {known[0].signed.version}, came {new.signed.version}"
            )
        return int(new.signed.version)

    def publish(self, targets: bytes, signers: Signers, now: datetime) -> None:
        """Make signed ``targets`` the current ones; raises TrustError, and nothing has changed then."""
        version = self.check(targets, now)
        self._put(f"{version}.targets.json", targets)
        self.stamp(version, targets, signers, now)

    def publish_together(self, version: int, targets: bytes, signers: Signers, now: datetime) -> None:
        """Make targets signed a moment ago the current ones, all three files under one version; nothing is synced.

        For directors: their versions never come twice (``versions``), so what a power cut takes is signed anew.
        """
        meta = MetaFile.from_data(version, targets, ["sha256"])
        snapshot = Snapshot(version, expires=after(now, SNAPSHOT_DAYS), meta={"targets.json": meta})
        data = sign(Metadata(snapshot), [signers["snapshot"]])
        named = MetaFile.from_data(version, data, ["sha256"])
        timestamp = Timestamp(version, expires=after(now, TIMESTAMP_DAYS), snapshot_meta=named)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{version}.targets.json").write_bytes(targets)
        (self.folder / f"{version}.snapshot.json").write_bytes(data)
        stamp = sign(Metadata(timestamp), [signers["timestamp"]])
        write_atomically(self.folder / "timestamp.json", stamp, durable=False)
        for kind in ("snapshot", "targets"):
            self._prune(kind, version)

    def renew(self, signers: Signers, now: datetime) -> bool:
        """Sign snapshot and timestamp again where they end soon or the root no longer trusts their keys."""
        known, root = self.current(), self.root()
        if known is None or root is None:
            return False
        targets, snapshot, timestamp = known
        verify(root.signed, "targets", targets)
        if not (
            _good(root.signed, "snapshot", snapshot, now, SNAPSHOT_RENEW_DAYS)
            and _good(root.signed, "timestamp", timestamp, now, TIMESTAMP_RENEW_DAYS)
        ):
            version = targets.signed.version
            self.stamp(version, self._bytes(f"{version}.targets.json"), signers, now)
            return True
        return False

    def stamp(self, version: int, targets: bytes, signers: Signers, now: datetime) -> None:
        """Sign a snapshot and a timestamp that name these targets, which are there."""
        known = self.current()
        last = [part.signed.version for part in known[1:]] if known else [0, 0]
        meta = MetaFile.from_data(version, targets, ["sha256"])
        snapshot = Snapshot(last[0] + 1, expires=after(now, SNAPSHOT_DAYS), meta={"targets.json": meta})
        data = sign(Metadata(snapshot), [signers["snapshot"]])
        named = MetaFile.from_data(snapshot.version, data, ["sha256"])
        timestamp = Timestamp(last[1] + 1, expires=after(now, TIMESTAMP_DAYS), snapshot_meta=named)
        self._put(f"{snapshot.version}.snapshot.json", data)
        sync_folder(self.folder)  # a timestamp that names what a power cut has taken would stop the hub
        self._write("timestamp.json", sign(Metadata(timestamp), [signers["timestamp"]]))
        for kind, newest in (("snapshot", snapshot.version), ("targets", version)):
            self._prune(kind, newest)

    def root_bytes(self) -> bytes:
        """The newest root as it was signed; raises TrustError."""
        root = self.root()
        return _bytes(self._roots / f"{root.signed.version}.root.json") if root else b""

    def _prune(self, kind: str, newest: int) -> None:
        """Keep the newest few: a robot that reads meanwhile finds what its timestamp names."""
        found = {int(path.name.split(".")[0]): path for path in self.folder.glob(f"*.{kind}.json")}
        for version in sorted(version for version in found if version < newest)[: 1 - KEPT_VERSIONS]:
            found[version].unlink(missing_ok=True)

    def _bytes(self, name: str) -> bytes:
        return _bytes(self.folder / name)

    def _write(self, name: str, data: bytes) -> None:
        make_folder(self.folder)
        write_atomically(self.folder / name, data)

    def _put(self, name: str, data: bytes) -> None:
        """A file that only the timestamp will name: synced, its name by ``stamp`` before the timestamp's."""
        make_folder(self.folder)
        with (self.folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _good(root: Root, role: str, metadata: Metadata[Any], now: datetime, days: float) -> bool:
    if metadata.signed.is_expired(after(now, days)):
        return False
    try:
        verify(root, role, metadata)
    except TrustError:
        return False
    return True


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(
            Code.INCOMPLETE, f"{path}: {error.strerror}; restore the folder from a copy"
        ) from None
