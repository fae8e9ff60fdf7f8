"""Packs and signs a bundle. Ed25519, fixed order and dates: same inputs, same bytes."""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer

from contracts.atomic import write_atomically
from contracts.bundle import PROVENANCE_MEMBER, Floats, encode_zip, unsigned_members
from contracts.canonical import digest_hex
from contracts.manifest import Manifest
from contracts.provenance import PAYLOAD_TYPE, encode_envelope, make_statement


def pack(
    manifest: Manifest,
    policy_onnx: bytes,
    golden_observations: Floats,
    golden_commands: Floats,
    signers: Sequence[Signer],
) -> bytes:
    """The bytes of a signed bundle.

    Args:
        manifest: What is said about the policy.
        policy_onnx: The network; one input ``observation``, one output ``command``, normaliser, clip, rescale
        inside. golden_observations: float32[N, observation_size], as the encoder makes them.
        golden_commands: float32[N, 2], what the network must answer (m/s, rad/s).
        signers: One or more release keys.

    Raises:
        BundleError: What a robot would refuse, refused here already.
    """
    if not signers:
        raise ValueError("a bundle needs at least one signature")
    members = unsigned_members(manifest, policy_onnx, golden_observations, golden_commands)
    statement = make_statement(manifest, {name: digest_hex(data) for name, data in members.items()})
    return encode_zip({**members, PROVENANCE_MEMBER: seal(statement, PAYLOAD_TYPE, signers)})


def seal(payload: bytes, payload_type: str, signers: Sequence[Signer]) -> bytes:
    """A DSSE envelope around ``payload``, signed; ``contracts.provenance.open_envelope`` opens it."""
    envelope = Envelope(payload, payload_type, {})
    for signer in signers:
        envelope.sign(signer)
    return encode_envelope(envelope)


def write_bundle(path: Path, bundle: bytes) -> str:
    """Write a bundle whole or not at all; returns its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, bundle)
    return digest_hex(bundle)
