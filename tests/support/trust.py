"""Two real repositories in a folder, a robot that takes updates from it, and an attacker's hands."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from contracts.bundle import verify_signed
from contracts.canonical import digest_hex
from contracts.keyring import TRUSTED_FILE
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from contracts.trust import (
    DIRECTOR,
    IMAGE,
    ONLINE,
    ORDER_TARGET,
    DirectorFacts,
    ImageFacts,
    TrustError,
    Wanted,
    facts_of,
    target_path,
)
from edge_agent.update.fetchers import FolderFetcher
from edge_agent.update.floor import Floor, FloorStore
from edge_agent.update.trust import RobotTrust
from fleet_hub.trust.ceremony import Ceremony, make_target
from fleet_hub.trust.repository import Repository, after, read, sign

ROBOT = "robot_1"
F = TypeVar("F", ImageFacts, DirectorFacts)
ORDER = DirectorFacts(ROBOT, 1, 0, "run", "d" * 64)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder`` and where every link leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink()).encode()
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


class World:
    """A fleet's keys (a copy, to be rotated at will), a stick of files, a robot's state: all in one folder."""

    def __init__(self, folder: Path, bundles: tuple[bytes, ...]) -> None:
        """Use what is in ``folder``."""
        self.folder, self.bundles = folder, bundles
        self.keys, self.stick, self.state = folder / "keys", folder / "stick", folder / "state"
        self.ceremony = Ceremony(self.keys)
        self.wall_ns = time.time_ns
        self.image = Repository(self.stick / IMAGE, IMAGE)
        self.director = Repository(self.stick / DIRECTOR / ROBOT, DIRECTOR)

    @classmethod
    def make(cls, folder: Path, keys: Path, bundles: tuple[bytes, ...]) -> "World":
        """A new one, with the first bundle sent."""
        shutil.copytree(keys, folder / "keys")
        world = cls(folder, bundles)
        world.state.mkdir()
        world.carry_roots()
        world.publish_targets(world.ceremony.targets().to_bytes())
        world.send(0)
        return world

    def copy(self, folder: Path) -> "World":
        """The same somewhere else."""
        for name in ("keys", "stick", "state"):
            shutil.copytree(self.folder / name, folder / name, symlinks=True)
        return World(folder, self.bundles)

    @property
    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)

    @property
    def past(self) -> datetime:
        """Long enough ago for everything that is signed online to have expired."""
        return self.now - timedelta(days=60)

    def online(self, repository: str) -> dict[str, Signer]:
        """What the hub signs with: an attacker who has the hub has these."""
        return {role: self.ceremony.signer(names[0]) for role, names in ONLINE[repository].items()}

    def carry_roots(self) -> None:
        """Bring every root of the key folder onto the stick."""
        for repository in (self.image, self.director):
            for path in sorted((self.keys / "trust" / repository.kind).glob("*.root.json")):
                known = repository.root()
                if known is None or int(path.name.split(".")[0]) > known.signed.version:
                    repository.add_root(path.read_bytes())

    def publish_targets(self, data: bytes) -> None:
        """Image targets, honestly."""
        self.image.publish(data, self.online(IMAGE), self.now)

    def facts(self, number: int) -> ImageFacts:
        """What bundle ``number`` says of itself."""
        trusted = TrustedKeys.load(self.keys / TRUSTED_FILE)
        return facts_of(verify_signed(self.bundles[number], trusted).manifest)

    def path(self, number: int) -> Path:
        """The bundle's file on the stick."""
        return self.stick / "bundles" / target_path(digest_hex(self.bundles[number]))

    def send(self, number: int, order: DirectorFacts = ORDER) -> None:
        """Release bundle ``number`` and order it, as it should be."""
        data, digest = self.bundles[number], digest_hex(self.bundles[number])
        path = self.path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        current = self.ceremony.targets().to_bytes()
        signed = self.ceremony.sign_release(current, digest, len(data), self.facts(number), self.now)
        if signed:
            self.publish_targets(signed)
            self.ceremony.keep_targets(signed)
        self.direct(self.target(number, order))

    def target(self, number: int, facts: Any, **changes: Any) -> TargetFile:
        """A target about bundle ``number``; ``changes`` are lies."""
        digest, length = digest_hex(self.bundles[number]), len(self.bundles[number])
        values: dict[str, Any] = {"path": target_path(digest), "digest": digest, "length": length} | changes
        return make_target(facts=facts, **values)

    def direct(self, *targets: TargetFile, order: bytes = b"", robot: str = ROBOT) -> None:
        """Director metadata with the director's own keys."""
        repository = Repository(self.stick / DIRECTOR / robot, DIRECTOR, self.director.folder)
        listed = {target.path: target for target in targets}
        if order:
            listed[ORDER_TARGET] = make_target(ORDER_TARGET, digest_hex(order), len(order), None)
            (repository.folder / ORDER_TARGET).write_bytes(order)
        known = repository.current()
        version = known[0].signed.version + 1 if known else 1
        made = Metadata(Targets(version, expires=after(self.now, 7), targets=listed))
        online = self.online(DIRECTOR)
        repository.publish(sign(made, [online["targets"]]), online, self.now)

    def forge_targets(
        self, target: TargetFile, *signers: Signer, online: dict[str, Signer] | None = None
    ) -> None:
        """Image targets with one entry more, whoever signs; the hub's own keys name them as the current ones."""
        known = self.image.current()
        assert known is not None
        new = read(known[0].to_bytes(), Targets)
        new.signed.version += 1
        new.signed.targets[target.path] = target
        data = sign(new, list(signers))
        (self.image.folder / f"{new.signed.version}.targets.json").write_bytes(data)
        self.image.stamp(new.signed.version, data, online or self.online(IMAGE), self.now)

    def forge_root(self, change: Any, *signers: str) -> None:
        """A next image root, changed by ``change`` and signed by the root keys of these names."""
        known = self.image.root()
        assert known is not None
        root = read(known.to_bytes(), Root)
        root.signed.version += 1
        change(root.signed)
        data = sign(root, [self.ceremony.signer(name) for name in signers])
        (self.image.folder / f"{root.signed.version}.root.json").write_bytes(data)

    def robot(self) -> RobotTrust:
        """The robot's side, on what is on disk."""
        own = self.keys / "robots" / ROBOT
        return RobotTrust(
            self.state, own, ROBOT, AMR_SMALL, FolderFetcher(self.stick), lambda: self.wall_ns()
        )

    def check(self, number: int, order: DirectorFacts = ORDER) -> RobotTrust:
        """What the robot's check does once the bundle's own signatures are verified."""
        trust = self.robot()
        trust.check(Wanted(digest_hex(self.bundles[number]), order), self.path(number), self.facts(number))
        return trust

    def take(self, number: int, order: DirectorFacts = ORDER) -> None:
        """Check, accept, commit."""
        self.check(number, order).accept()
        facts = self.facts(number)
        FloorStore(self.state).lift(Floor({facts.policy_name: facts.release_counter}))

    def refuses(self, number: int, code: str) -> str:
        """Bundle ``number`` is refused by that code, and nothing has changed; the reason."""
        before = tree(self.state)
        with pytest.raises(TrustError) as caught:
            self.check(number)
        assert caught.value.code == code, caught.value
        assert tree(self.state) == before
        return str(caught.value)

    def keep(self) -> Path:
        """A copy of the stick as it is now."""
        copy = self.stick.with_name(f"stick-{time.monotonic_ns()}")
        shutil.copytree(self.stick, copy)
        return copy

    def put_back(self, copy: Path) -> None:
        """Make the stick what it was."""
        shutil.rmtree(self.stick)
        shutil.copytree(copy, self.stick)


def with_facts(facts: F, **changes: Any) -> F:
    """Other facts."""
    return msgspec.structs.replace(facts, **changes)


def alias_of(signer: Signer) -> CryptoSigner:
    """The same key under another id: its public half written in capitals."""
    assert isinstance(signer, CryptoSigner)
    key = signer.public_key
    public = {"public": key.keyval["public"].upper()}
    return CryptoSigner(signer._private_key, SSlibKey("f" * 64, key.keytype, key.scheme, public))
