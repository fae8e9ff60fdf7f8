"""Names of key files, and what a robot's own folder must hold; without msgspec, for the small supervisor."""

from pathlib import Path

CURVE_FILE = "curve.json"
HUB_PUBLIC_FILE = "hub_public.json"
MIRROR_PUBLIC_FILE = "mirror_public.json"
TRUSTED_FILE = "trusted_release_keys.json"
CARD_FILE = "card.dsse.json"
ROBOT_KEY_FILE = "robot.pem"
ROOT_FILES = ("image.root.json", "director.root.json")
COMMS_FILES = (CURVE_FILE, HUB_PUBLIC_FILE)
"""Without them comms does not start."""
UPDATE_FILES = (TRUSTED_FILE, ROBOT_KEY_FILE, CARD_FILE, *ROOT_FILES)
"""Without them every order of the hub is refused."""


def party_folder(keys: Path, *party: str) -> Path:
    """The party's own folder inside a fleet's key folder, or ``keys`` when it is that folder itself."""
    inside = keys.joinpath(*party)
    return inside if inside.is_dir() else keys


def missing_files(folder: Path, hub: bool, mirror: bool) -> list[str]:
    """Which files a robot's own key folder lacks, for one that has a hub and a mirror."""
    wanted = [*COMMS_FILES, *(UPDATE_FILES if hub else ()), *([MIRROR_PUBLIC_FILE] if mirror else ())]
    return [name for name in wanted if not (folder / name).is_file()]
