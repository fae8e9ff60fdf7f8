"""The hub's side of trust: keeps both repositories in DATA/trust, signs what is signed online, hands out files.

Director metadata of a robot is made when that robot asks for its timestamp: then it says what the rollouts say. What
was made last is remembered, so that a robot for which nothing is new costs no signature and no write.
"""

import re
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, TargetFile, Targets

from contracts.atomic import write_atomically
from contracts.bundle import VerifiedBundle
from contracts.canonical import digest_hex
from contracts.errors import BundleError, KeyFileError
from contracts.messages import FileChunk, Order, ReleaseInfo, encode
from contracts.trust import (
    CLOCK_ROLE,
    DIRECTOR,
    IMAGE,
    ONLINE,
    ORDER_TARGET,
    Code,
    DirectorFacts,
    TrustError,
    check_name,
    facts_of,
    target_path,
)
from fleet_hub.catalogue.catalogue import Catalogue
from fleet_hub.errors import NotTrustedError
from fleet_hub.limits import FILE_CHUNK_BYTES
from fleet_hub.trust.ceremony import TARGETS_FILE, bundle_target, make_target
from fleet_hub.trust.clock import SignedClock
from fleet_hub.trust.keys import load_key
from fleet_hub.trust.repository import TIMESTAMP_DAYS, Repository, after, read, sign
from fleet_hub.trust.versions import Versions

DIRECTOR_AGE_MAX_S = 86_400.0
"""Signed again after a day, so that a stick is good for six."""
LOOK_S = 60.0
"""Between two looks whether the image repository's own signatures end soon."""
_DIRECTOR_NAME = re.compile(r"director/([^/]+)/(.+)")


class Offers(Protocol):
    """Who knows what a robot should be told (``fleet_hub.rollout.rollouts.Rollouts``)."""

    def offer_for(self, robot: str) -> Order | None:
        """The order, None for nothing."""


@dataclass(frozen=True)
class _Directed:
    """What a robot's director says since when."""

    order: bytes
    root_version: int
    version: int
    signed: datetime


class TrustRoom:
    """One hub's two repositories."""

    def __init__(
        self,
        folder: Path,
        keys: Path,
        catalogue: Catalogue,
        offers: Offers,
        robots: Set[str],
        wall_ns: Callable[[], int],
        secret: bytes | None = None,
    ) -> None:
        """Take over what ``keys`` (KEYS/hub/trust) holds; raises KeyFileError, TrustError."""
        self._folder, self._keys, self._catalogue, self._offers = folder, keys, catalogue, offers
        self._robots, self._wall_ns, self._secret = robots, wall_ns, secret
        self._image = Repository(folder / IMAGE, IMAGE)
        self._director_roots = Repository(folder / DIRECTOR, DIRECTOR)
        self._signers: dict[str, dict[str, Signer]] = {}
        self._complained = ""
        self._clock = SignedClock(wall_ns)
        self._directed: dict[str, _Directed] = {}
        self._seen: tuple[int, int, float] = (0, 0, 0.0)
        self._versions = Versions(folder / DIRECTOR)
        if not (keys / IMAGE).is_dir():
            raise KeyFileError(
                f"no roots in {keys}; make them with `outrider keys trust`, then start the hub"
            )
        self.adopt()

    def adopt(self) -> bool:
        """Take newer roots, with their keys and targets, from the key folder; whether there were any.

        Raises:
            TrustError: A root or targets do not follow on those before.
            KeyFileError: A key is missing.
        """
        if not self._news():
            return False
        adopted = False
        for repository, kind in ((self._image, IMAGE), (self._director_roots, DIRECTOR)):
            while (data := self._next_root(repository, kind)) is not None:
                repository.add_root(data)
                adopted = True
            if adopted or kind not in self._signers:
                self._signers.pop(kind, None)
                self._signers[kind] = self._load_signers(repository, kind)
        path = self._keys / IMAGE / TARGETS_FILE
        found, signed = path.stat(), path.read_bytes()
        known = self._image.current()
        if known is None or read(signed, Targets).signed.version > known[0].signed.version:
            self._image.publish(signed, self._signers[IMAGE], self._now())
        self._image.renew(self._signers[IMAGE], self._now())
        self._seen = found.st_ino, found.st_mtime_ns, self._wall_ns() / 1e9
        return adopted

    def _news(self) -> bool:
        """Whether the key folder may hold anything that was not taken over yet, or a signature may be due."""
        try:
            found = (self._keys / IMAGE / TARGETS_FILE).stat()
        except OSError:
            return True
        looked_s = self._wall_ns() / 1e9 - self._seen[2]
        return (
            self._seen[:2] != (found.st_ino, found.st_mtime_ns)
            or not 0.0 <= looked_s < LOOK_S
            or any(
                self._next_root_path(repository, kind).exists()
                for repository, kind in ((self._image, IMAGE), (self._director_roots, DIRECTOR))
            )
        )

    def _load_signers(self, repository: Repository, kind: str) -> dict[str, Signer]:
        root = repository.root()
        assert root is not None
        return {
            role: load_key(self._keys, names[0], root.signed.roles[role].keyids[0], self._secret)
            for role, names in ONLINE[kind].items()
        }

    def commit(self, digest: str, targets: bytes) -> ReleaseInfo:
        """Release an uploaded bundle in both: catalogue and image repository.

        Raises:
            NotTrustedError: The targets are not signed by both, drop or change a bundle, or say of this one what it
                is not; nothing has been released then.
            ReleaseRefusedError: The bundle itself is refused.
        """
        try:
            bundle, length = self._catalogue.look(digest)
        except BundleError:
            return self._catalogue.commit_upload(digest)  # which refuses it by its own reason
        try:
            if targets:
                self._check_next(targets, bundle, length)
            elif self._listed(digest) is None:
                raise NotTrustedError(
                    "no signed image targets came with this bundle; release it where the keys of trainer and "
                    "release manager are"
                )
            info = self._catalogue.commit_upload(digest)
            if targets:
                self._image.publish(targets, self._signers[IMAGE], self._now())
        except TrustError as error:
            raise NotTrustedError(f"{error.code}: {error}") from None
        return info

    def roots(self) -> tuple[bytes, bytes]:
        """The newest roots of image and director repository: what a new robot starts from."""
        self._refresh()
        return self._image.root_bytes(), self._director_roots.root_bytes()

    def tell_time(self, robot: str, nonce: bytes) -> bytes:
        """The hub's time for a robot that asks, signed; nothing for one that asks too often."""
        return self._clock.tell(robot, nonce, self._signers[CLOCK_ROLE[0]][CLOCK_ROLE[1]])

    def read(self, name: str, offset: int, robot: str = "") -> FileChunk:
        """Part of a repository's file; there is none for a ``robot`` that asks for another's director."""
        try:
            path = self._path(check_name(name), robot)
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(offset)
                return FileChunk(name, offset, size, True, file.read(FILE_CHUNK_BYTES))
        except (TrustError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                self._complain(f"{name}: {error}")
            return FileChunk(name, offset, 0, False, b"")

    def _refresh(self) -> None:
        """What the key folder has new; a robot gets what was there before where that is refused."""
        try:
            self.adopt()
        except (TrustError, KeyFileError, OSError) as error:
            self._complain(f"keys not taken over: {error}")

    def _complain(self, text: str) -> None:
        if text != self._complained:
            self._complained = text
            print(f"outrider hub: trust: {text}", file=sys.stderr, flush=True)

    def _path(self, name: str, robot: str) -> Path:
        """Where a file lies, made anew where it is asked for as the start of an update."""
        if name.endswith(("/timestamp.json", "/targets.json")):
            self._refresh()
        found = _DIRECTOR_NAME.fullmatch(name)
        if found:
            if found[1] not in self._robots or (robot and found[1] != robot):
                raise TrustError(
                    Code.OTHER_ROBOT, f"{robot or 'an operator'} asks for director of {found[1]}"
                )
            if found[2].endswith(".root.json"):
                return self._folder / DIRECTOR / found[2]
            if found[2] in ("timestamp.json", "targets.json"):
                self._direct(found[1])
        elif name.startswith("bundles/"):
            return self._catalogue.path_of(name.removeprefix("bundles/").split(".")[0])
        if name == "image/targets.json":
            known = self._image.current()
            assert known is not None
            name = f"image/{known[0].signed.version}.targets.json"
        return self._folder / name

    def _direct(self, robot: str) -> None:
        """Make the robot's director say what the rollouts say."""
        order = self._offers.offer_for(robot)
        data = encode(order) if order else b""
        root = self._director_roots.root()
        assert root is not None
        last, now = self._directed.get(robot), self._now()
        if last and (last.order, last.root_version) == (data, root.signed.version):
            age_s = (now - last.signed).total_seconds()
            if 0.0 <= age_s < DIRECTOR_AGE_MAX_S:
                return
        repository = Repository(self._folder / DIRECTOR / robot, DIRECTOR, self._folder / DIRECTOR)
        version = self._versions.after(last.version if last else _last_version(repository))
        self._put_order(repository.folder, data)
        signers, expires = self._signers[DIRECTOR], after(now, TIMESTAMP_DAYS)
        listed = self._listing(robot, order, data)
        targets = sign(Metadata(Targets(version, expires=expires, targets=listed)), [signers["targets"]])
        repository.publish_together(version, targets, signers, now)
        self._directed[robot] = _Directed(data, root.signed.version, version, now)

    def _listing(self, robot: str, order: Order | None, data: bytes) -> dict[str, TargetFile]:
        """What the director lists: the order, and the bundle that the robot is to fetch for it."""
        if order is None:
            return {}
        listed = {ORDER_TARGET: make_target(ORDER_TARGET, digest_hex(data), len(data), None)}
        info = self._catalogue.find(order.digest) if order.action != "revert" else None
        if info is not None:
            facts = DirectorFacts(robot, order.rollout, order.stage, order.action, digest_hex(order.plan))
            name = target_path(order.digest)
            listed[name] = make_target(name, order.digest, info.size_bytes, facts)
        return listed

    @staticmethod
    def _put_order(folder: Path, data: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ORDER_TARGET
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data, durable=False)  # made again where a power cut takes it

    def _check_next(self, data: bytes, bundle: VerifiedBundle, length: int) -> None:
        """New targets are the old ones and this bundle, and say of it what it says of itself."""
        self._image.check(data, self._now())
        known, new = self._image.current(), read(data, Targets).signed
        assert known is not None
        wanted = dict(known[0].signed.targets)
        wanted[target_path(bundle.digest)] = bundle_target(bundle.digest, length, facts_of(bundle.manifest))
        if new.targets != wanted or new.delegations is not None:
            raise TrustError(
                Code.DISAGREE,
                f"targets {new.version} are not those before and bundle {bundle.digest[:12]} as it is; release it "
                "again",
            )

    def _listed(self, digest: str) -> object | None:
        known = self._image.current()
        return known[0].signed.targets.get(target_path(digest)) if known else None

    def _next_root(self, repository: Repository, kind: str) -> bytes | None:
        path = self._next_root_path(repository, kind)
        return path.read_bytes() if path.exists() else None

    def _next_root_path(self, repository: Repository, kind: str) -> Path:
        known = repository.root()
        return self._keys / kind / f"{known.signed.version + 1 if known else 1}.root.json"

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_ns() / 1e9, UTC)


def _last_version(repository: Repository) -> int:
    """The highest version of what lies in a director's folder; 0 where nothing does, or a power cut took it."""
    try:
        known = repository.current()
    except TrustError:
        return 0
    return max(int(part.signed.version) for part in known) if known else 0
