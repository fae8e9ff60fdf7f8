"""The key folder of a mirror: a CURVE key of its own, let in by hub and mirrors, its public half at every robot."""

import shutil
from pathlib import Path

import msgspec
import zmq

from contracts.atomic import write_private
from contracts.canonical import canonical_json
from contracts.errors import KeyFileError
from contracts.keyring import (
    AUTHORIZED_FOLDER,
    CURVE_FILE,
    HUB_PUBLIC_FILE,
    MIRROR_PUBLIC_FILE,
    MIRRORS_FOLDER,
    ROBOTS_FILE,
    AllowList,
    CurvePair,
    CurvePublic,
    read_key_file,
)
from contracts.trust import IMAGE


def create_mirror_keys(keys: Path, name: str, behind: str, root: bytes, robots: tuple[str, ...]) -> Path:
    """Make KEYS/mirrors/NAME; raises KeyFileError.

    Args:
        keys: the fleet's key folder.
        name: of the mirror; no robot and no other mirror may have it.
        behind: the mirror that this one fetches from, "" for the hub.
        root: the image root to start from.
        robots: who may use it; they get its public key. None given: all.
    """
    own, allowed = keys / MIRRORS_FOLDER / name, keys / "hub" / AUTHORIZED_FOLDER / ROBOTS_FILE
    listed = read_key_file(allowed, AllowList)
    if own.exists() or name in listed.keys.values():
        raise KeyFileError(f"{name} is taken; keys are never overwritten, choose another name")
    known = sorted(path.name for path in (keys / "robots").iterdir())
    if unknown := sorted(set(robots) - set(known)):
        raise KeyFileError(f"no robot {unknown[0]} in {keys}; there are: {', '.join(known[:20])}")
    above = keys / MIRRORS_FOLDER / behind if behind else keys / "hub"
    server = read_key_file(above / CURVE_FILE, CurvePair, private=True).public
    public, secret = (key.decode() for key in zmq.curve_keypair())
    write_private(own / CURVE_FILE, canonical_json(CurvePair(public, secret)))
    write_private(own / HUB_PUBLIC_FILE, canonical_json(CurvePublic(server)))
    write_private(own / f"{IMAGE}.root.json", root)
    write_private(
        allowed, canonical_json(msgspec.structs.replace(listed, keys={**listed.keys, public: name}))
    )
    for mirror in sorted((keys / MIRRORS_FOLDER).iterdir()):
        _copy_lists(keys, mirror)
    for robot in robots or known:
        write_private(keys / "robots" / robot / MIRROR_PUBLIC_FILE, canonical_json(CurvePublic(public)))
    return own


def _copy_lists(keys: Path, mirror: Path) -> None:
    """Whom the hub lets in, a mirror lets in."""
    (mirror / AUTHORIZED_FOLDER).mkdir(mode=0o700, exist_ok=True)
    for path in sorted((keys / "hub" / AUTHORIZED_FOLDER).glob("*.json")):
        target = mirror / AUTHORIZED_FOLDER / path.name
        shutil.copyfile(path, target)
        target.chmod(0o600)
