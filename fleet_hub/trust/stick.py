"""Writes both repositories and the bundles on order as a folder, for robots that no network reaches."""

import os
import shutil
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

from tuf.api.metadata import Snapshot, Targets, Timestamp

from contracts.atomic import sync_folder
from contracts.trust import BUNDLE_SUFFIX, DIRECTOR, IMAGE, ORDER_TARGET
from fleet_hub.errors import DataFolderError
from fleet_hub.trust.repository import read


def write_stick(folder: Path, fetch: Callable[[str], bytes], robots: Iterable[str]) -> dict[str, str]:
    """Fill ``folder`` for ``robots``; it is there whole or not at all. Robot -> digest of its bundle, "" for none.

    Args:
        folder: Must not exist, or be empty.
        fetch: A repository's file by name; raises FileNotFoundError where there is none.
        robots: Whose orders to take along.

    Raises:
        DataFolderError: ``folder`` holds something.
        OSError: The stick refuses, is full, or was pulled out; nothing is left but ``.NAME.new``.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataFolderError(f"{folder} is not empty; give a new folder on the stick")
    made = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    _copy_repository(made, IMAGE, fetch)
    given = {}
    for robot in robots:
        targets = _copy_repository(made, f"{DIRECTOR}/{robot}", fetch)
        given[robot] = ""
        for path in targets.targets:
            if path == ORDER_TARGET:
                _put(made, f"{DIRECTOR}/{robot}/{ORDER_TARGET}", fetch)
            else:
                given[robot] = path.removesuffix(BUNDLE_SUFFIX)
                if not (made / "bundles" / path).exists():
                    _put(made, f"bundles/{path}", fetch)
    for base, _, _ in os.walk(made):
        sync_folder(Path(base))
    made.rename(folder)
    sync_folder(folder.parent)
    return given


def _copy_repository(made: Path, base: str, fetch: Callable[[str], bytes]) -> Targets:
    """Every root, and the files that one timestamp names."""
    for version in count(1):
        try:
            _put(made, f"{base}/{version}.root.json", fetch)
        except FileNotFoundError:
            break
    timestamp = read(_put(made, f"{base}/timestamp.json", fetch), Timestamp).signed
    snapshot = read(
        _put(made, f"{base}/{timestamp.snapshot_meta.version}.snapshot.json", fetch), Snapshot
    ).signed
    version = snapshot.meta["targets.json"].version
    targets: Targets = read(_put(made, f"{base}/{version}.targets.json", fetch), Targets).signed
    return targets


def _put(made: Path, name: str, fetch: Callable[[str], bytes]) -> bytes:
    data = fetch(name)
    path = made / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return data
