"""How a new robot comes into the fleet: a one-time token, a voucher, a binding. Reading, never signing.

    token     a secret for one robot's field tech; the hub never has it, only the hash of a public key made from it
    voucher   the fleet's owner (release key) says: who holds that token is this robot, at this site, of this model
    binding   the robot, with the token's key, says: these are my own public keys

Voucher and binding together are the robot's card (``contracts.papers.open_card``): a stolen hub can neither make a
robot nor give one another key. The token says by a hash which roots and release keys the robot is to start from, so
that a stolen hub cannot give it others.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from contracts.canonical import canonical_json, digest_hex
from contracts.errors import ContractError
from contracts.keyring import PartyName, Z85Key
from contracts.provenance import TrustedKeys

TOKEN_PREFIX = "outrider1-"
TOKEN_MAX_CHARS = 512
SECRET_BYTES = 32
CHECK_BYTES = 4
LIFE_MAX_S = 7 * 86400.0
LIFE_USUAL_S = 3600.0


class EnrolCode(StrEnum):
    """Why a robot is not taken in: what is logged, audited and shown."""

    UNREADABLE = "token_unreadable"
    UNKNOWN = "token_unknown"
    USED = "token_used"
    EXPIRED = "token_expired"
    OTHER_ROBOT = "token_of_another_robot"
    FORGED = "binding_forged"
    KEY_TAKEN = "key_taken"
    NAME_TAKEN = "name_taken"
    FLEET_CHANGED = "fleet_changed"
    TOO_MANY = "too_many_attempts"
    ALREADY = "already_enrolled"
    SILENT = "hub_silent"
    REFUSED = "refused"


class EnrolmentError(ContractError):
    """A robot is not taken in; ``code`` says why, and nothing has changed."""

    def __init__(self, code: EnrolCode, message: str) -> None:
        """``message`` says what was expected, what came, what to do."""
        super().__init__(message)
        self.code = code


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What the issuer gives to whoever stands beside the robot."""

    robot: PartyName
    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    hub_key: Z85Key
    """The hub's CURVE public key: the robot talks to no other hub."""
    fleet: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """``fleet_hash`` of what the robot is to start from."""


@dataclass(frozen=True)
class TokenKeys:
    """What is made from a token's secret: a CURVE pair (32 bytes each) to connect with, a key to sign a binding."""

    curve_secret: bytes
    curve_public: bytes
    signing: Ed25519PrivateKey

    @property
    def public_hex(self) -> str:
        """Public half of the signing key."""
        return self.signing.public_key().public_bytes_raw().hex()

    @property
    def token_id(self) -> str:
        """What the hub knows the token by."""
        return token_id(self.curve_public)


def token_id(curve_public: bytes) -> str:
    """SHA-256 of the CURVE public key that a token connects with (32 bytes)."""
    return digest_hex(curve_public)


def encode_token(token: Token) -> str:
    """One line to be copied or shown as a QR code; its end tells a mistyped one from a good one."""
    data = msgspec.msgpack.encode(token)
    check = hashlib.sha256(data).digest()[:CHECK_BYTES]
    return TOKEN_PREFIX + base64.urlsafe_b64encode(data + check).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """Read a token; raises EnrolmentError."""
    body = text.strip().removeprefix(TOKEN_PREFIX)
    try:
        if len(text) > TOKEN_MAX_CHARS or body == text.strip():
            raise ValueError(f"it must begin with {TOKEN_PREFIX}")
        data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        data, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
        if hashlib.sha256(data).digest()[:CHECK_BYTES] != check:
            raise ValueError("its end does not fit")
        return msgspec.msgpack.decode(data, type=Token)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise EnrolmentError(
            EnrolCode.UNREADABLE,
            f"that is no token ({error}); copy it whole, or issue one: outrider fleet enrol",
        ) from None


def token_keys(secret: bytes) -> TokenKeys:
    """The keys of a token (HKDF-SHA256, RFC 5869, one purpose each)."""
    curve = _derived(secret, b"outrider enrolment curve 1")
    public = X25519PrivateKey.from_private_bytes(curve).public_key().public_bytes_raw()
    signing = Ed25519PrivateKey.from_private_bytes(_derived(secret, b"outrider enrolment sign 1"))
    return TokenKeys(curve, public, signing)


def fleet_hash(trusted: TrustedKeys, image_root: bytes, director_root: bytes) -> bytes:
    """SHA-256 over everything that a new robot starts from (32 bytes)."""
    parts = (canonical_json(trusted), image_root, director_root)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)
