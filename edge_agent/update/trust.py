"""Whether a bundle is what the image repository says and the director wants here. python-tuf's client, unmodified.

A check works on a copy of TUF's cache; only ``accept`` makes the copy the cache and lifts the floor, so that whatever
is refused has changed nothing. The floor catches what TUF alone does not: a lost cache and a clock turned back.
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig

from contracts.atomic import sync_folder
from contracts.canonical import digest_hex, hash_of
from contracts.manifest import BUNDLE_MAX_BYTES
from contracts.observation import ROUTING_LAYOUT
from contracts.robot import RobotModel
from contracts.trust import (
    BUNDLE_SUFFIX,
    DIRECTOR,
    IMAGE,
    ORDER_MAX_BYTES,
    ORDER_TARGET,
    REPOSITORIES,
    ROOT_MAX_BYTES,
    ROOT_ROTATIONS_MAX,
    RUNTIME,
    SNAPSHOT_MAX_BYTES,
    TARGETS_MAX_BYTES,
    TIMESTAMP_MAX_BYTES,
    Code,
    DirectorFacts,
    ImageFacts,
    TrustError,
    Wanted,
    check_root,
    read_facts,
    target_path,
)
from edge_agent.update.clock import clock_keys
from edge_agent.update.fetchers import Fetcher
from edge_agent.update.floor import Floor, FloorStore

CACHE_FOLDER = "trust"
CURRENT = "current"
ROLES = ("timestamp", "snapshot", "targets")


class RobotTrust:
    """One robot's view of both repositories. ``keys`` is its own key folder with the roots it started from."""

    def __init__(
        self,
        state: Path,
        keys: Path,
        robot: str,
        model: RobotModel,
        fetcher: Fetcher,
        wall_ns: Callable[[], int] = time.time_ns,
        hub_ns: Callable[[], int] | None = None,
    ) -> None:
        """Nothing is read or fetched yet. ``hub_ns`` is verified time of the hub; without it ``wall_ns`` has to do."""
        self._folder, self._keys, self._robot, self._model = state / CACHE_FOLDER, keys, robot, model
        self._fetcher, self._wall_ns, self._hub_ns = fetcher, wall_ns, hub_ns
        self._floors = FloorStore(state)
        self._work = self._folder / ".new"
        self._reached: Floor | None = None
        self._seen_versions: dict[str, int] = {}

    def check(self, wanted: Wanted, bundle: Path, facts: ImageFacts) -> None:
        """Hold a fetched bundle and its order against both; ``facts`` are what the bundle says of itself.

        Raises:
            TrustError: With its code; nothing has changed.
        """
        with self._opened() as (image, director, floor):
            listed = self._director_targets(director)
            path = target_path(wanted.digest)
            ordered = listed.get(path)
            if ordered is None:
                raise TrustError(Code.NOT_IN_DIRECTOR, f"the director does not send {path[:12]} here")
            self._check_order(ordered, wanted)
            target = image.get_targetinfo(path)
            if target is None:
                raise TrustError(
                    Code.NOT_IN_IMAGE,
                    f"the director sends {path[:12]}, which trainer and release manager have not signed",
                )
            if (target.length, target.hashes) != (ordered.length, ordered.hashes):
                raise TrustError(
                    Code.DISAGREE, "length or hashes differ between image and director repository"
                )
            signed = read_facts(target.custom, ImageFacts)
            self._check_facts(signed, facts, floor)
            _check_file(target, bundle)
            own_ns = 0 if self._hub_ns else self._wall_ns()  # the hub's has been noted when it came
            self._reached = Floor(versions=self._seen_versions, verified_wall_ns=own_ns)

    def order(self) -> bytes:
        """The order that the director has for this robot, nothing for none; raises TrustError, changes nothing."""
        with self._opened() as (_, director, _):
            target = self._director_targets(director).get(ORDER_TARGET)
            if target is None:
                return b""
            if target.length > ORDER_MAX_BYTES:
                raise TrustError(Code.TOO_LONG, f"an order of {target.length} bytes")
            try:
                base = f"{DIRECTOR}/{self._robot}/"
                path = director.download_target(target, str(self._work / ORDER_TARGET), base)
            except (RepositoryError, DownloadError, OSError) as error:
                raise self._named(error, DIRECTOR) from None
            data = Path(path).read_bytes()
        self.discard()
        return data

    def refresh(self) -> bool:
        """Verify both repositories as they are now and keep what is newer; whether anything was. Raises TrustError."""
        known = self._floors.read()
        with self._opened():
            self._reached = Floor(versions=self._seen_versions, verified_wall_ns=self._wall_ns())
        news = self._reached.versions.items() - known.versions.items()
        if news or not (self._folder / CURRENT).is_dir():
            self.accept()
            return True
        self.discard()
        return False

    def accept(self) -> None:
        """Keep what the last check verified: the floor first, then the cache. Raises OSError.

        The floor of release counters is lifted when a release has been committed (``Updater``), not here.
        """
        assert self._reached is not None, "only what was checked can be accepted"
        self._floors.lift(self._reached)
        _sync_tree(self._work)
        name = f"cache-{self._wall_ns()}"
        self._work.rename(self._folder / name)
        link = self._folder / ".current"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.rename(self._folder / CURRENT)
        sync_folder(self._folder)
        for old in self._folder.glob("cache-*"):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)
        self._reached = None

    def discard(self) -> None:
        """Forget the last check."""
        self._reached = None
        shutil.rmtree(self._work, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # where there was never anything else

    @contextlib.contextmanager
    def _opened(self) -> "Iterator[tuple[Updater, Updater, Floor]]":
        """Both repositories, refreshed and verified in a copy of the cache, which goes where something is refused."""
        floor = self._floors.read()
        now = self._now(floor)
        self.discard()
        try:
            self._work.mkdir(parents=True)
            if (self._folder / CURRENT).is_dir():
                _link_tree(self._folder / CURRENT, self._work)
            image, director = (self._refresh(repository, now) for repository in REPOSITORIES)
            self._seen_versions = {**_versions(IMAGE, image), **_versions(DIRECTOR, director)}
            floor.check_versions(self._seen_versions)
            yield image, director, floor
        except BaseException:
            self.discard()
            raise

    def _now(self, floor: Floor) -> datetime:
        """The time by which metadata expires: the hub's, else the robot's own clock; never before the floor's."""
        clock = clock_keys(self._folder.parent, self._keys).name
        if self._hub_ns is None:
            floor.check_time(self._wall_ns(), clock)
        now_ns = max(floor.time_ns(clock), (self._hub_ns or self._wall_ns)())
        return datetime.fromtimestamp(now_ns / 1e9, UTC)

    def _refresh(self, repository: str, now: datetime) -> Updater:
        folder = self._work / repository
        folder.mkdir(exist_ok=True)
        base = repository if repository == IMAGE else f"{DIRECTOR}/{self._robot}"
        config = UpdaterConfig(
            max_root_rotations=ROOT_ROTATIONS_MAX,
            max_delegations=0,
            root_max_length=ROOT_MAX_BYTES,
            timestamp_max_length=TIMESTAMP_MAX_BYTES,
            snapshot_max_length=SNAPSHOT_MAX_BYTES,
            targets_max_length=TARGETS_MAX_BYTES,
            prefix_targets_with_hash=False,
        )
        try:
            updater = Updater(
                str(folder), base, fetcher=self._fetcher, config=config, bootstrap=self._bootstrap(repository)
            )
            assert hasattr(updater._trusted_set, "reference_time"), "python-tuf keeps its time elsewhere now"
            updater._trusted_set.reference_time = (
                now  # it reads the machine's clock and has no door for another
            )
            updater.refresh()
        except (RepositoryError, DownloadError, OSError) as error:
            raise self._named(error, repository) from None
        newest = updater._trusted_set.root
        for path in (folder / "root_history").glob("*.json"):
            check_root(repository, newest if path.name == f"{newest.version}.root.json" else _signed(path))
        return updater

    def _bootstrap(self, repository: str) -> bytes:
        path = self._keys / f"{repository}.root.json"
        try:
            with path.open("rb") as file:
                return file.read(ROOT_MAX_BYTES)
        except OSError as error:
            raise TrustError(
                Code.NO_ROOT, f"no root at {path} ({error.strerror}); `outrider keys trust` makes them"
            ) from None

    def _director_targets(self, director: Updater) -> dict[str, TargetFile]:
        """What the director lists: an order and at most one bundle; raises TrustError for anything else."""
        found: Targets = director._trusted_set.targets
        for path in found.targets:
            digest = path.removesuffix(BUNDLE_SUFFIX)
            if path != ORDER_TARGET and not (len(digest) == 64 and digest.isalnum() and path != digest):
                raise TrustError(
                    Code.BAD_PATH, f"the director lists {path[:100]!r}, which is no bundle's name"
                )
        verified = {path: director.get_targetinfo(path) for path in found.targets}
        return {path: target for path, target in verified.items() if target is not None}

    def _check_order(self, target: TargetFile, wanted: Wanted) -> None:
        said = read_facts(target.custom, DirectorFacts)
        if said.robot != self._robot:
            raise TrustError(
                Code.OTHER_ROBOT, f"the director's order is for {said.robot}, this is {self._robot}"
            )
        if said != wanted.order:
            raise TrustError(
                Code.OTHER_ORDER,
                f"the director says {said.action} in stage {said.stage} of plan {said.plan_digest[:12]}, the order "
                f"{wanted.order.action} in stage {wanted.order.stage} of {wanted.order.plan_digest[:12]}",
            )

    def _check_facts(self, signed: ImageFacts, bundle: ImageFacts, floor: Floor) -> None:
        """What was signed fits this robot, and is what the bundle says of itself."""
        if (self._model.name, self._model.hash()) not in [
            (ref.name, ref.hash) for ref in signed.robot_models
        ]:
            names = ", ".join(ref.name for ref in signed.robot_models)
            raise TrustError(Code.WRONG_MODEL, f"the image is for {names}, this robot is {self._model.name}")
        if signed.layout_hash != ROUTING_LAYOUT.hash():
            raise TrustError(
                Code.WRONG_LAYOUT,
                f"the image is for layout {signed.layout_hash[:12]}, here is {ROUTING_LAYOUT.hash()[:12]}",
            )
        if signed.minimum_runtime > RUNTIME:
            raise TrustError(
                Code.OLD_RUNTIME,
                f"the image needs runtime {signed.minimum_runtime}, here is {RUNTIME}; update it",
            )
        floor.check_counter(signed.policy_name, signed.release_counter)
        if msgspec.structs.replace(signed, minimum_runtime=bundle.minimum_runtime) != bundle:
            raise TrustError(
                Code.OTHER_BUNDLE, "the bundle says something else of itself than the image repository"
            )

    def _named(self, error: Exception, repository: str) -> TrustError:
        """What python-tuf refused, by our code."""
        name = self._fetcher.last_name or repository
        if self._fetcher.fault is not None:
            fault, self._fetcher.fault = self._fetcher.fault, None
            return fault
        if isinstance(error, UnsignedMetadataError):
            return TrustError(self._why_unsigned(name, repository), f"{name}: {error}")
        for kind, code in _CODES:
            if isinstance(error, kind):
                return TrustError(code, f"{name}: {error}")
        return TrustError(Code.INCOMPLETE, f"{name}: {error}")

    def _why_unsigned(self, name: str, repository: str) -> Code:
        """Which kind of signature was missing: looks at the refused file, which is believed nothing else."""
        folder = self._work / repository
        role = name.removesuffix(".json").rsplit("/", 1)[-1].split(".")[-1]
        trusted: Root = _signed(folder / "root.json")
        if self._foreign(repository):
            return Code.FOREIGN_FLEET
        try:
            refused: Metadata[Any] = Metadata.from_bytes(b"".join(self._fetcher.fetch(name)))
        except (RepositoryError, DownloadError):
            return Code.UNREADABLE
        ids, mine = set(refused.signatures), set(trusted.roles[role].keyids)
        result = trusted.get_verification_result(role, refused.signed_bytes, refused.signatures)
        if ids & mine - set(result.signed):
            return Code.BAD_SIGNATURE
        if result.signed:
            return Code.TOO_FEW
        before: set[str] = set()
        for path in (folder / "root_history").glob("*.json"):
            before |= set(_signed(path).roles[role].keyids)
        return Code.REVOKED_KEY if ids & before else Code.UNKNOWN_KEY

    def _foreign(self, repository: str) -> bool:
        """Whether what came hangs on another fleet's root."""
        mine = self._bootstrap(repository)
        base = repository if repository == IMAGE else f"{DIRECTOR}/{self._robot}"
        version = Metadata.from_bytes(mine).signed.version
        try:
            theirs = b"".join(self._fetcher.fetch(f"{base}/{version}.root.json"))
        except DownloadError:
            return False
        return digest_hex(theirs) != digest_hex(mine)


_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (BadVersionNumberError, Code.ROLLBACK),
    (ExpiredMetadataError, Code.EXPIRED),
    (LengthOrHashMismatchError, Code.MIXED),
    (DeserializationError, Code.UNREADABLE),
    (RepositoryError, Code.MIXED),
    (DownloadLengthMismatchError, Code.TOO_LONG),
    (DownloadHTTPError, Code.INCOMPLETE),
)


def _versions(repository: str, updater: Updater) -> dict[str, int]:
    """Versions of everything that ``updater`` has verified, named by the keys that sign it.

    Out of python-tuf's memory: to read its files again would take longer, and believe the disk a second time.
    """
    verified = updater._trusted_set
    found = {f"{repository}/root/-": verified.root.version}
    for role, signed in zip(ROLES, (verified.timestamp, verified.snapshot, verified.targets), strict=True):
        keys = hash_of(sorted(verified.root.roles[role].keyids))[:16]
        found[f"{repository}/{role}/{keys}"] = signed.version
    return found


def _signed(path: Path) -> Any:
    return Metadata.from_file(str(path)).signed


def _check_file(target: TargetFile, bundle: Path) -> None:
    size = bundle.stat().st_size
    if size != target.length or size > BUNDLE_MAX_BYTES:
        raise TrustError(Code.WRONG_LENGTH, f"the bundle has {size} bytes, signed are {target.length}")
    try:
        with bundle.open("rb") as file:
            target.verify_length_and_hashes(file)
    except LengthOrHashMismatchError as error:
        raise TrustError(Code.WRONG_HASH, f"the bundle is not the one that was signed: {error}") from None


def _link_tree(source: Path, made: Path) -> None:
    """A copy whose files are the source's own: python-tuf replaces files and never writes into one."""
    try:
        shutil.copytree(source, made, symlinks=True, dirs_exist_ok=True, copy_function=os.link)
    except (shutil.Error, OSError):  # a file system without links
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(source, made, symlinks=True)


def _sync_tree(folder: Path) -> None:
    """Sync what python-tuf wrote, which it does not; files shared with the cache before were synced with that."""
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base) / name
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        sync_folder(Path(base))
