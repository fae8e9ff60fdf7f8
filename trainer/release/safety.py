"""Signs a robot's own monitor settings."""

from collections.abc import Sequence

from securesystemslib.signer import Signer

from contracts.canonical import canonical_json
from safety.settings import SAFETY_PAYLOAD_TYPE, SafetySettings
from trainer.release.pack import seal


def sign_safety(settings: SafetySettings, signers: Sequence[Signer]) -> bytes:
    """The bytes of a signed file; raises SafetyError for what a robot would refuse."""
    return seal(canonical_json(settings.check()), SAFETY_PAYLOAD_TYPE, signers)
