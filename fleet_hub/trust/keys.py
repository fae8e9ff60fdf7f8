"""Private keys of the TUF roles: one PKCS#8 file a key, mode 0600, encrypted when there is a passphrase.

KEYS/trust/NAME-ID.pem       offline: the roots, trainer, release manager; each belongs on a machine of its own
KEYS/hub/trust/NAME-ID.pem   online: what the hub signs with
.../NAME-ID.hsm.json         in its place: the key lies in hardware (PKCS#11), this says in which; no secret
KEYS/{trust,hub/trust}/{image,director}/N.root.json, KEYS/{trust,hub/trust}/image/targets.json     public

ID begins the key's id: the newest root says which file is the one, so a change of keys has one moment, the root's.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Signer

from contracts.atomic import write_private
from contracts.errors import KeyFileError
from fleet_hub.trust.hardware import hardware_path, load_hardware

PASSPHRASE_VARIABLE = "OUTRIDER_PASSPHRASE"
KEY_MAX_BYTES = 16 * 1024


def passphrase() -> bytes | None:
    """What the environment says; None without."""
    return os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None


def key_path(folder: Path, name: str, key_id: str) -> Path:
    """Where the private half of a key lies."""
    return folder / f"{name}-{key_id[:12]}.pem"


def create_key(folder: Path, name: str, secret: bytes | None = None) -> Signer:
    """Make an Ed25519 key and write it, whole and synced, into ``folder``."""
    private = Ed25519PrivateKey.generate()
    signer = CryptoSigner(private)
    path = key_path(folder, name, signer.public_key.keyid)
    how: KeySerializationEncryption = BestAvailableEncryption(secret) if secret else NoEncryption()
    write_private(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    return signer


def load_key(folder: Path, name: str, key_id: str, secret: bytes | None = None) -> Signer:
    """A private key as a signer; raises KeyFileError."""
    path = key_path(folder, name, key_id)
    if not path.exists() and hardware_path(folder, name, key_id).exists():
        return load_hardware(folder, name, key_id)
    try:
        with path.open("rb") as file:
            pem = file.read(KEY_MAX_BYTES)
    except OSError as error:
        raise KeyFileError(
            f"no key {name} at {path} ({error.strerror}); it may lie on its holder's machine; "
            "a fleet without TUF keys gets them with `outrider keys trust`"
        ) from None
    try:
        private = load_pem_private_key(pem, secret)
    except TypeError:
        wanted = "needs a passphrase" if secret is None else "is not encrypted, but a passphrase is given"
        raise KeyFileError(f"{path} {wanted}; set or unset {PASSPHRASE_VARIABLE}") from None
    except ValueError as error:
        raise KeyFileError(f"{path}: wrong passphrase, or no private key ({error})") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, came {type(private).__name__}")
    signer = CryptoSigner(private)
    if signer.public_key.keyid != key_id:
        raise KeyFileError(f"{path} holds key {signer.public_key.keyid[:12]}; put the right file there")
    return signer
