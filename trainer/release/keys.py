"""Private Ed25519 keys (release, people, robots): made, written once with mode 0600, and loaded as signers."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Signer

from contracts.errors import KeyFileError
from contracts.provenance import ReleaseKey

RELEASE_KEY_FILE = Path("release") / "release.pem"
RELEASE_KEY_MAX_BYTES = 16 * 1024


def _public_of(private: Ed25519PrivateKey, name: str) -> ReleaseKey:
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return ReleaseKey(name, raw.hex())


def create_release_key(path: Path, name: str = "release") -> ReleaseKey:
    """Make an Ed25519 key, write it to ``path`` (which must not exist), return its public half."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return _public_of(private, name)


def load_signer(path: Path, what: str = "release key", made_with: str = "outrider keys init") -> Signer:
    """The private key at ``path`` as a signer; a fleet's key folder is taken for its release key.

    Raises:
        KeyFileError: Missing, or no Ed25519 private key.
    """
    file = path / RELEASE_KEY_FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            pem = stream.read(RELEASE_KEY_MAX_BYTES)
        private = serialization.load_pem_private_key(pem, password=None)
    except OSError as error:
        raise KeyFileError(f"no {what} at {file} ({error.strerror}); make one with `{made_with}`") from None
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{file} holds no private key: {error}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{file}: expected an Ed25519 key, came {type(private).__name__}")
    return CryptoSigner(private, _public_of(private, "release").sslib_key())
