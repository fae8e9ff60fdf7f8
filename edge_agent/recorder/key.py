"""The robot's own key for its log: made on the robot at its first start, never leaves its state folder.

STATE/log_key.pem, private Ed25519, readable by its owner alone. The public half is in every sealed segment and is
recorded in the log itself, so that the hub knows it from the first day on.
"""

import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.atomic import write_atomically
from contracts.errors import KeyFileError

KEY_FILE = "log_key.pem"
KEY_MAX_BYTES = 4096
_PURPOSE, _RECEIPT_PURPOSE = b"outrider log seal 1\0", b"outrider log erasure 1\0"
"""Signed in front of a digest, so that a signature is good for nothing else."""


class LogKey:
    """Signs seals."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    def sign(self, digest: bytes) -> bytes:
        """An Ed25519 signature (64 bytes) over a seal's digest."""
        return self._private.sign(_PURPOSE + digest)

    def sign_receipt(self, digest: bytes) -> bytes:
        """The same over the digest of a receipt for an erasure."""
        return self._private.sign(_RECEIPT_PURPOSE + digest)


def signature_fits(public: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether ``public`` (32 bytes) signed the seal with that digest."""
    return _fits(public, _PURPOSE + digest, signature)


def receipt_fits(public: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether ``public`` (32 bytes) signed the receipt with that digest."""
    return _fits(public, _RECEIPT_PURPOSE + digest, signature)


def _fits(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_or_make_key(state_dir: Path) -> LogKey:
    """The robot's log key; raises KeyFileError for a file that is none, OSError when the disk refuses."""
    path = state_dir / KEY_FILE
    try:
        mode, data = stat.S_IMODE(path.stat().st_mode), path.read_bytes()[: KEY_MAX_BYTES + 1]
    except FileNotFoundError:
        return _make(path)
    if mode & 0o077:
        raise KeyFileError(f"{path} is readable by others (mode {mode:04o}); run `chmod 600 {path}`")
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds no Ed25519 key; move it away, and the robot makes a new one")
    return LogKey(private)


def _make(path: Path) -> LogKey:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(path, pem, private=True)
    return LogKey(private)
