"""Where keys lie and how they are read. One folder a party; a robot's folder holds nothing of anyone else.

KEYS/release/release.pem             private Ed25519 release key; only ``trainer/release`` opens it
KEYS/trusted_release_keys.json       whose signatures count, and how many are needed
KEYS/access.yaml                     people and their roles, as the fleet's owner writes them
KEYS/people/PERSON.pem               private Ed25519 key of a person; on their own machine, nowhere else
KEYS/hub/{curve,trusted_release_keys}.json, KEYS/hub/authorized/{robots,operators}.json
KEYS/hub/access.dsse.json, KEYS/hub/cards/ROBOT.dsse.json      signed by the release key
KEYS/operator/{curve,hub_public}.json
KEYS/robots/ROBOT/{curve,hub_public,trusted_release_keys}.json
KEYS/mirrors/MIRROR/{curve,hub_public,image.root}.json, KEYS/mirrors/MIRROR/authorized/; robots: mirror_public.json
KEYS/trust/, KEYS/hub/trust/, KEYS/robots/ROBOT/{image,director}.root.json     TUF (``fleet_hub/trust/keys.py``)
KEYS/robots/ROBOT/{robot.pem,card.dsse.json}   the robot's own Ed25519 key; where it works and what it is, signed
"""

import stat
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from contracts.errors import KeyFileError
from contracts.key_files import CARD_FILE as CARD_FILE
from contracts.key_files import CURVE_FILE as CURVE_FILE
from contracts.key_files import HUB_PUBLIC_FILE as HUB_PUBLIC_FILE
from contracts.key_files import MIRROR_PUBLIC_FILE as MIRROR_PUBLIC_FILE
from contracts.key_files import ROBOT_KEY_FILE as ROBOT_KEY_FILE
from contracts.key_files import TRUSTED_FILE as TRUSTED_FILE
from contracts.key_files import party_folder as party_folder

KEY_FILE_MAX_BYTES = 4 * 1024 * 1024
MIRRORS_FOLDER = "mirrors"
AUTHORIZED_FOLDER = "authorized"
ROBOTS_FILE = "robots.json"
OPERATORS_FILE = "operators.json"
ACCESS_SOURCE = "access.yaml"
ACCESS_FILE = "access.dsse.json"
PEOPLE_FOLDER = "people"
CARDS_FOLDER = "cards"

ROBOT_ID_PATTERN = "^[a-z0-9][a-z0-9_-]{0,62}$"
Z85Key = Annotated[str, msgspec.Meta(min_length=40, max_length=40)]
PartyName = Annotated[str, msgspec.Meta(pattern=ROBOT_ID_PATTERN)]
S = TypeVar("S")


class CurvePair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CURVE25519 key pair in ZeroMQ's Z85 text."""

    public: Z85Key
    secret: Z85Key


class CurvePublic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CURVE25519 public key in ZeroMQ's Z85 text."""

    public: Z85Key


class AllowList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Public keys that may connect, each with the name of its owner."""

    keys: dict[Z85Key, PartyName]


def read_key_file(path: Path, kind: type[S], private: bool = False) -> S:
    """Read a JSON key file.

    Raises:
        KeyFileError: Missing, too large, not of this kind, or private and readable by others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = file.read(KEY_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise KeyFileError(
            f"no key at {path} ({error.strerror}); make the fleet's keys with `outrider keys init`"
        ) from None
    if private and mode & 0o077:
        raise KeyFileError(f"{path} is readable by others (mode {mode:04o}); run `chmod 600 {path}`")
    if len(data) > KEY_FILE_MAX_BYTES:
        raise KeyFileError(f"{path} is larger than {KEY_FILE_MAX_BYTES} bytes; it is no key file")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} holds no {kind.__name__}: {error}; make it anew") from None
