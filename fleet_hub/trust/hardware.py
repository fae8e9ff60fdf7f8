"""Keys in hardware (YubiKey, HSM, smart card) by way of PKCS#11 and securesystemslib's HSMSigner.

For the TUF roles alone: HSMSigner knows NIST's curves and no Ed25519, which the release key, people's and robots'
keys are. Whoever copies the key folder has no such key. The PIN comes from OUTRIDER_PIN, or is asked for.
"""

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib import parse

import msgspec
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import HSMSigner, Signer, SSlibKey

from contracts.atomic import write_atomically
from contracts.errors import KeyFileError

PIN_VARIABLE = "OUTRIDER_PIN"
LIBRARY_VARIABLE = "PYKCS11LIB"
FILE_MAX_BYTES = 16 * 1024


class HardwareKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which key of which device it is."""

    uri: Annotated[str, msgspec.Meta(pattern="^hsm:", max_length=512)]
    key_id: str
    public: dict[str, Any]


def hardware_path(folder: Path, name: str, key_id: str) -> Path:
    """Where it is written which key in hardware this is."""
    return folder / f"{name}-{key_id[:12]}.hsm.json"


def import_hardware(folder: Path, name: str, uri: str, known: Mapping[str, str]) -> Signer:
    """Take a key that was made on a device: its public half and where it is; raises KeyFileError.

    ``known`` are ids and names of the keys that are trusted already: one device does not sign for two.

    ``uri`` is ``hsm:KEYID?label=TOKEN`` as HSMSigner has it; ``hsm:`` alone is key 2 (PIV 9c) of the only device.
    """
    parsed = parse.urlparse(uri)
    if parsed.scheme != "hsm" or not (parsed.path.isdigit() or not parsed.path):
        raise KeyFileError(f"{uri!r} names no key in hardware; give hsm:KEYID?label=TOKEN, such as hsm:2")
    label = dict(parse.parse_qsl(parsed.query)).get("label")
    try:
        found, key = HSMSigner.import_(int(parsed.path) if parsed.path else None, label, _pin)
    except Exception as error:  # each PKCS#11 library has errors of its own
        raise _no_hardware(uri, error) from None
    if key.keyid in known:
        raise KeyFileError(f"the key at {uri} is trusted already, as {known[key.keyid]}; take another")
    value = HardwareKey(found, key.keyid, key.to_dict())
    write_atomically(hardware_path(folder, name, key.keyid), msgspec.json.encode(value))
    return Signer.from_priv_key_uri(found, key, _pin)


def load_hardware(folder: Path, name: str, key_id: str) -> Signer:
    """A key in hardware as a signer; the device is asked when it signs. Raises KeyFileError."""
    path = hardware_path(folder, name, key_id)
    try:
        with path.open("rb") as file:
            value = msgspec.json.decode(file.read(FILE_MAX_BYTES), type=HardwareKey)
        key = SSlibKey.from_dict(value.key_id, dict(value.public))
        if value.key_id != key_id:
            raise ValueError(f"it names key {value.key_id[:12]}")
        return Signer.from_priv_key_uri(value.uri, key, _pin)
    except (OSError, msgspec.MsgspecError, ValueError, KeyError, UnsupportedLibraryError) as error:
        raise _no_hardware(str(path), error) from None


def _no_hardware(what: str, error: Exception) -> KeyFileError:
    text = str(error) or type(error).__name__
    return KeyFileError(
        f"{what}: {text}; needs pip install 'outrider[hsm]', {LIBRARY_VARIABLE}=the device's PKCS#11 library, the "
        "device plugged in, and an elliptic curve key (P-256 or P-384) on it"
    )


def _pin(_: str) -> str:
    pin = os.environ.get(PIN_VARIABLE, "")
    if not pin and sys.stdin.isatty():
        pin = getpass.getpass("PIN of the device: ")
    if not pin:
        raise ValueError(f"no PIN: set {PIN_VARIABLE}")
    return pin
