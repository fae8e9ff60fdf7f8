"""Firmware images: what they are, whose signature they carry.

A file is: magic ``OFW1``, version (u32), size (u32), SHA-256 of the payload, board name (16 bytes, zero padded),
Ed25519 signature (64 bytes) over all of that, payload. Little-endian. The signature travels to the board too
(``update_begin``), which puts the same bytes together with its own name and checks them with its own key; this host
checks first, to say what is wrong with more words.
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contracts.provenance import TrustedKeys
from firmware_interface.errors import ImageError

MAGIC = b"OFW1"
_HEAD = struct.Struct("<4sII32s16s")
SIGNATURE_BYTES = 64
PAYLOAD_MAX_BYTES = 4 * 1024 * 1024
U32_MAX = 2**32 - 1


class Image(NamedTuple):
    """A firmware image whose signature has been checked."""

    version: int
    board: str
    digest: bytes
    signature: bytes
    payload: bytes
    signed_by: str


def make_image(payload: bytes, version: int, board: str, sign: Callable[[bytes], bytes]) -> bytes:
    """The file's bytes; ``sign`` gives the Ed25519 signature of a message. Raises ImageError."""
    name = board.encode("ascii", "replace")
    if not 0 < len(payload) <= PAYLOAD_MAX_BYTES or not 1 <= version <= U32_MAX or not 0 < len(name) <= 16:
        raise ImageError(
            f"expected 1 to {PAYLOAD_MAX_BYTES} bytes, a version from 1 and a board name of at most 16 characters; "
            f"came {len(payload)} bytes, version {version}, board {board!r}"
        )
    head = _HEAD.pack(MAGIC, version, len(payload), hashlib.sha256(payload).digest(), name)
    return head + sign(head) + payload


def read_image(path: Path, trusted: TrustedKeys) -> Image:
    """Read and check an image file; raises ImageError, and then nothing has been sent to any board."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD.size + SIGNATURE_BYTES + PAYLOAD_MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"no firmware image at {path} ({error.strerror})") from None
    return check_image(data, trusted, str(path))


def check_image(data: bytes, trusted: TrustedKeys, where: str = "image") -> Image:
    """The image of a file's bytes; raises ImageError."""
    if len(data) < _HEAD.size + SIGNATURE_BYTES or not data.startswith(MAGIC):
        raise ImageError(f"{where}: is no firmware image; make one with `outrider firmware pack`")
    head, payload = data[: _HEAD.size], data[_HEAD.size + SIGNATURE_BYTES :]
    signature = data[_HEAD.size : _HEAD.size + SIGNATURE_BYTES]
    _, version, size, digest, board = _HEAD.unpack(head)
    if size != len(payload) or hashlib.sha256(payload).digest() != digest:
        raise ImageError(
            f"{where}: expected {size} bytes, came {len(payload)}, or they were changed; fetch it again"
        )
    signed_by = _signer(head, signature, trusted)
    if signed_by is None or trusted.threshold > 1:
        names = ", ".join(f"{key.name} {key.key_id[:12]}" for key in trusted.keys)
        need = f"; {trusted.threshold} signatures are asked for, an image carries one" if signed_by else ""
        raise ImageError(f"{where}: bad signature: not signed by any of [{names}]{need}")
    name = board.rstrip(b"\0").decode("ascii", "replace")
    return Image(version, name, digest, signature, payload, signed_by)


def _signer(message: bytes, signature: bytes, trusted: TrustedKeys) -> str | None:
    for key in trusted.keys:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_hex)).verify(signature, message)
        except InvalidSignature:
            continue
        return key.name
    return None
