"""What people sign offline: the roots, and in the image repository what a bundle is. Works on a fleet's key folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Role, Root, TargetFile, Targets

from contracts.atomic import write_private
from contracts.errors import KeyFileError
from contracts.trust import (
    IMAGE,
    OFFLINE,
    ONLINE,
    REPOSITORIES,
    THRESHOLDS,
    TRUST_FOLDER,
    Code,
    ImageFacts,
    TrustError,
    check_root,
    target_path,
)
from fleet_hub.trust.hardware import hardware_path, import_hardware
from fleet_hub.trust.keys import create_key, key_path, load_key
from fleet_hub.trust.repository import ROOT_DAYS, TARGETS_DAYS, after, read, sign, verify

TARGETS_FILE = "targets.json"
NAMES_FIELD = "x-outrider-names"


@dataclass(frozen=True)
class KeyStatus:
    """One key of the fleet's trust as it stands."""

    name: str
    repository: str
    role: str
    key_id: str
    here: bool
    encrypted: bool
    hardware: bool = False
    """On a device: what lies here says on which."""


def robot_root(repository: str) -> str:
    """Name of the file with a repository's root in a robot's key folder."""
    return f"{repository}.root.json"


class Ceremony:
    """The fleet's key folder and who opens its keys; ``secret`` is the passphrase, when there is one."""

    def __init__(self, keys: Path, secret: bytes | None = None) -> None:
        """Nothing is read yet."""
        self.keys, self._secret = keys, secret
        self._offline, self._online = keys / TRUST_FOLDER, keys / "hub" / TRUST_FOLDER

    def create(self, now: datetime) -> None:
        """Make every key, both roots and empty image targets; raises KeyFileError where there are some."""
        if (self._offline / IMAGE).exists():
            raise KeyFileError(f"{self._offline} holds a fleet's roots already; keys are never overwritten")
        for repository in REPOSITORIES:
            signers = {
                name: create_key(self._home(name), name, self._secret) for name in names_of(repository)
            }
            root = _root_of(repository, signers, now)
            self._write_root(repository, root, [signers[name] for name in OFFLINE[repository]["root"]])
        empty = Metadata(Targets(1, expires=after(now, TARGETS_DAYS)))
        self.keep_targets(sign(empty, self.signers("targets")))
        for folder in sorted((self.keys / "robots").iterdir()):
            self.equip(folder)

    def equip(self, robot_folder: Path) -> None:
        """Give a robot the newest roots to start from."""
        for repository in REPOSITORIES:
            write_private(robot_folder / robot_root(repository), self.root_bytes(repository))

    def signers(self, role: str) -> list[Signer]:
        """Everybody of an offline role of the image repository; raises KeyFileError."""
        return [self.signer(name) for name in OFFLINE[IMAGE][role]]

    def signer(self, name: str) -> Signer:
        """One key as the newest root trusts it; raises KeyFileError."""
        return self._signer(self.root(role_of(name)[0]).signed, name)

    def root(self, repository: str) -> Metadata[Root]:
        """The newest root; raises KeyFileError."""
        return read(self.root_bytes(repository), Root)

    def targets(self) -> Metadata[Targets]:
        """The image targets signed last here."""
        return read(_bytes(self._offline / IMAGE / TARGETS_FILE), Targets)

    def keep_targets(self, data: bytes) -> None:
        """Note image targets as the newest, and put them where a hub that starts finds them."""
        for folder in (self._online, self._offline):
            write_private(folder / IMAGE / TARGETS_FILE, data)

    def sign_release(
        self, current: bytes, digest: str, length: int, facts: ImageFacts, now: datetime
    ) -> bytes | None:
        """The image targets ``current`` with one bundle more, signed by trainer and release manager.

        None when the bundle is in them already. Raises TrustError for targets that these two have not signed, or
        older than those signed last here: a stolen hub would have them sign its own.
        """
        known = read(current, Targets)
        verify(self.root(IMAGE).signed, "targets", known)
        if known.signed.version < self.targets().signed.version:
            raise TrustError(
                Code.ROLLBACK,
                f"the hub shows image targets {known.signed.version}, signed last was "
                f"{self.targets().signed.version}; restore the hub's data, or ask who runs it",
            )
        if target_path(digest) in known.signed.targets:
            return None
        known.signed.targets[target_path(digest)] = bundle_target(digest, length, facts)
        return _next_targets(known, self.signers("targets"), now)

    def replace(self, name: str, now: datetime, hardware: str = "") -> int:
        """Put a new key in the place of ``name``: for a routine change, or when it was stolen. The new root's version.

        The new key is made here, or is one that lies in ``hardware`` (``fleet_hub.trust.hardware``).

        The other root keys sign the new root, and a new root key itself. The root is written last: a kill before it
        has changed nothing. Raises KeyFileError.
        """
        repository, role = role_of(name)
        root = self.root(repository)
        old_id = names_in(root.signed)[name]
        signing = [self._signer(root.signed, n) for n in OFFLINE[repository]["root"] if n != name]
        if hardware:
            known = {key_id: other for other, key_id in names_in(root.signed).items()}
            new = import_hardware(self._home(name), name, hardware, known)
        else:
            new = create_key(self._home(name), name, self._secret)
        root.signed.revoke_key(old_id, role)
        root.signed.add_key(new.public_key, role)
        named = {key_id: other for other, key_id in names_in(root.signed).items() if other != name}
        root.signed.unrecognized_fields[NAMES_FIELD] = named | {new.public_key.keyid: name}
        root.signed.version += 1
        root.signed.expires = after(now, ROOT_DAYS)
        if role == "root":
            signing.append(new)
        if (repository, role) == (IMAGE, "targets"):
            trusted = [self._signer(root.signed, n) for n in OFFLINE[IMAGE]["targets"]]
            self.keep_targets(_next_targets(self.targets(), trusted, now))
        self._write_root(repository, root, signing)
        for path in (key_path, hardware_path):
            path(self._home(name), name, old_id).unlink(missing_ok=True)
        return int(root.signed.version)

    def status(self) -> list[KeyStatus]:
        """Every key that the newest roots trust."""
        found = []
        for repository in REPOSITORIES:
            for name, key_id in names_in(self.root(repository).signed).items():
                path = key_path(self._home(name), name, key_id)
                sealed = path.exists() and b"ENCRYPTED" in path.read_bytes()
                role = role_of(name)[1]
                hardware = hardware_path(self._home(name), name, key_id).exists()
                found.append(KeyStatus(name, repository, role, key_id, path.exists(), sealed, hardware))
        return sorted(found, key=lambda key: (key.repository, key.role, key.name))

    def _signer(self, root: Root, name: str) -> Signer:
        return load_key(self._home(name), name, names_in(root)[name], self._secret)

    def _home(self, name: str) -> Path:
        online = any(name in names for roles in ONLINE.values() for names in roles.values())
        return self._online if online else self._offline

    def root_bytes(self, repository: str) -> bytes:
        """The newest root as it was signed; raises KeyFileError."""
        paths = list((self._offline / repository).glob("*.root.json"))
        if not paths:
            raise KeyFileError(f"no roots in {self._offline}; make them with `outrider keys trust`")
        return _bytes(max(paths, key=lambda path: int(path.name.split(".")[0])))

    def _write_root(self, repository: str, root: Metadata[Root], signers: list[Signer]) -> None:
        check_root(repository, root.signed)
        data = sign(root, signers)
        verify(root.signed, "root", read(data, Root))
        for folder in (self._online / repository, self._offline / repository):
            write_private(folder / f"{root.signed.version}.root.json", data)


def names_of(repository: str) -> list[str]:
    """Names of every key of a repository."""
    roles = [*OFFLINE[repository].values(), *ONLINE[repository].values()]
    return [name for names in roles for name in names]


def role_of(name: str) -> tuple[str, str]:
    """(repository, role) of a key; raises KeyFileError."""
    for table in (OFFLINE, ONLINE):
        for repository, roles in table.items():
            for role, names in roles.items():
                if name in names:
                    return repository, role
    known = ", ".join(name for repository in REPOSITORIES for name in names_of(repository))
    raise KeyFileError(f"no key is called {name!r}; there are: {known}")


def bundle_target(digest: str, length: int, facts: ImageFacts) -> TargetFile:
    """A bundle as the image repository lists it."""
    return make_target(target_path(digest), digest, length, facts)


def make_target(path: str, digest: str, length: int, facts: Any) -> TargetFile:
    """A target file; ``facts`` (a msgspec struct) become its custom field."""
    custom = {"custom": msgspec.json.decode(msgspec.json.encode(facts))} if facts is not None else None
    return TargetFile(length, {"sha256": digest}, path, custom)


def names_in(root: Root) -> dict[str, str]:
    """Name -> id of every key that a root trusts; only what people call them, nothing is decided by it."""
    named: dict[str, str] = root.unrecognized_fields.get(NAMES_FIELD, {})
    return {name: key_id for key_id, name in named.items() if key_id in root.keys}


def _next_targets(targets: Metadata[Targets], signers: list[Signer], now: datetime) -> bytes:
    targets.signed.version += 1
    targets.signed.expires = after(now, TARGETS_DAYS)
    return sign(targets, signers)


def _root_of(repository: str, signers: Mapping[str, Signer], now: datetime) -> Metadata[Root]:
    roles = {**OFFLINE[repository], **ONLINE[repository]}
    root = Root(
        1,
        expires=after(now, ROOT_DAYS),
        roles={role: Role([], THRESHOLDS.get((repository, role), 1)) for role in roles},
        consistent_snapshot=True,
    )
    for role, names in roles.items():
        for name in names:
            root.add_key(signers[name].public_key, role)
    root.unrecognized_fields[NAMES_FIELD] = {
        signer.public_key.keyid: name for name, signer in signers.items()
    }
    return Metadata(root)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}; make a fleet's roots with `outrider keys trust`"
        ) from None
