"""The robot's own signature under what it has seen, with the key that never leaves it."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from contracts.canonical import canonical_json
from contracts.errors import KeyFileError
from contracts.keyring import ROBOT_KEY_FILE
from contracts.papers import WITNESS_TYPE, Witness
from contracts.provenance import ReleaseKey, encode_envelope

KEY_MAX_BYTES = 16 * 1024


def sign_witness(witness: Witness, keys: Path) -> bytes:
    """A DSSE envelope around what the robot has seen; raises KeyFileError."""
    return sign_as_robot(witness, WITNESS_TYPE, witness.robot, keys)


def sign_as_robot(paper: object, paper_type: str, robot: str, keys: Path) -> bytes:
    """A DSSE envelope around what the robot says, with its own key in ``keys``; raises KeyFileError."""
    path = keys / ROBOT_KEY_FILE
    try:
        with path.open("rb") as file:
            private = serialization.load_pem_private_key(file.read(KEY_MAX_BYTES), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"no robot key at {path} ({error}); make one with `outrider keys robot`") from None
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    envelope = Envelope(canonical_json(paper), paper_type, {})
    envelope.sign(CryptoSigner(private, ReleaseKey(robot, raw.hex()).sslib_key()))
    return encode_envelope(envelope)
