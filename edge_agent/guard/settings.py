"""The signed file of a robot's own monitor settings: read and checked at every start, never later.

A DSSE envelope around ``safety.settings.SafetySettings`` as JSON. Where the robot's key folder has
``trusted_safety_keys.json``, only those keys count (the safety officer's), else the release keys.
"""

from pathlib import Path

import msgspec

from contracts.errors import ContractError
from contracts.keyring import TRUSTED_FILE
from contracts.provenance import TrustedKeys, open_envelope
from edge_agent.errors import SafetyFileError
from safety.errors import SafetyError
from safety.settings import SAFETY_PAYLOAD_TYPE, SafetySettings

TRUSTED_SAFETY_FILE = "trusted_safety_keys.json"
FILE_MAX_BYTES = 256 * 1024


def load_safety(
    path: Path, keys: Path, robot_model: str | None, floor_hash: str
) -> tuple[SafetySettings, tuple[str, ...]]:
    """The settings in a file, and who signed them.

    Args:
        path: the signed file.
        keys: the robot's own key folder.
        robot_model, floor_hash: what the settings must be for; without a model, any robot's are taken.

    Raises:
        SafetyFileError: missing, too large, unsigned, signed by a key that does not count, looser than what is built
            in, for another robot model, or with zones of another floor.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise SafetyFileError(f"no safety settings at {path} ({error.strerror})") from None
    if len(data) > FILE_MAX_BYTES:
        raise SafetyFileError(f"{path} is larger than {FILE_MAX_BYTES} bytes; it holds no safety settings")
    officers = keys / TRUSTED_SAFETY_FILE
    try:
        trusted = TrustedKeys.load(officers if officers.exists() else keys / TRUSTED_FILE)
        payload, names = open_envelope(data, SAFETY_PAYLOAD_TYPE, trusted)
        settings = msgspec.json.decode(payload, type=SafetySettings).check()
    except (ContractError, SafetyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SafetyFileError(f"{path}: {error}; sign with `outrider keys sign-safety`") from None
    if robot_model is not None and settings.robot_model != robot_model:
        raise SafetyFileError(f"{path} is for {settings.robot_model!r}; this robot is {robot_model!r}")
    if settings.floor_hash not in (None, floor_hash):
        raise SafetyFileError(
            f"{path} has zones of floor {str(settings.floor_hash)[:12]}; this one is {floor_hash[:12]}: sign them anew"
        )
    return settings, tuple(names)
