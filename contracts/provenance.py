"""Who made a bundle out of what: an in-toto statement with SLSA provenance in a DSSE envelope, Ed25519."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from contracts.canonical import canonical_json, hash_of
from contracts.errors import (
    BundleContentChangedError,
    BundleProvenanceInvalidError,
    BundleSignatureRefusedError,
    KeyFileError,
)
from contracts.keyring import read_key_file
from contracts.manifest import Digest, Manifest, Text

PROVENANCE_MAX_BYTES = 64 * 1024
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://outrider.invalid/policy-bundle/v1"
SIGNATURES_MAX = 16


class ReleaseKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public Ed25519 release key: 32 bytes in hexadecimal, and what people call it."""

    name: Text
    public_hex: Digest

    @property
    def key_id(self) -> str:
        """The key's id, derived from the key itself, so that one key cannot have two."""
        return hash_of({"keytype": "ed25519", "public": self.public_hex})

    def sslib_key(self) -> SSlibKey:
        """The same key as securesystemslib wants it."""
        return SSlibKey(self.key_id, "ed25519", "ed25519", {"public": self.public_hex})


class TrustedKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose signatures count, and how many different keys must have signed."""

    threshold: Annotated[int, msgspec.Meta(ge=1, le=SIGNATURES_MAX)]
    keys: Annotated[tuple[ReleaseKey, ...], msgspec.Meta(min_length=1, max_length=SIGNATURES_MAX)]

    def __post_init__(self) -> None:
        """Refuse one key listed twice, and a threshold that can never be met."""
        if len({key.public_hex for key in self.keys}) != len(self.keys):
            raise ValueError("the same release key is listed twice: one person could meet a threshold of two")
        if self.threshold > len(self.keys):
            raise ValueError(f"threshold {self.threshold} with only {len(self.keys)} keys can never be met")

    @classmethod
    def load(cls, path: Path) -> "TrustedKeys":
        """Read ``trusted_release_keys.json``; raises KeyFileError."""
        try:
            return read_key_file(path, cls)
        except ValueError as error:
            raise KeyFileError(f"{path}: {error}; correct the file") from None


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    digest: dict[str, Digest]


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"type_": "_type"}):
    type_: str
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(max_length=8)]
    predicateType: str  # noqa: N815 - in-toto's own spelling
    predicate: dict[str, Any]


class _EnvelopeSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: Text
    sig: Text


class _EnvelopeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payloadType: str  # noqa: N815 - DSSE's own spelling
    signatures: Annotated[tuple[_EnvelopeSignature, ...], msgspec.Meta(max_length=SIGNATURES_MAX)]


def make_statement(manifest: Manifest, digests: dict[str, str]) -> bytes:
    """The in-toto statement (canonical JSON) about members with these SHA-256 ``digests``."""
    return canonical_json(
        _Statement(
            STATEMENT_TYPE,
            tuple(_Subject(name, {"sha256": digests[name]}) for name in sorted(digests)),
            PREDICATE_TYPE,
            {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "policy_name": manifest.policy_name,
                        "version": manifest.version,
                        "release_counter": manifest.release_counter,
                    },
                    "internalParameters": {"training": msgspec.to_builtins(manifest.training)},
                    "resolvedDependencies": [
                        {"name": "training_run", "digest": {"sha256": manifest.training_run_digest}}
                    ],
                },
                "runDetails": {"builder": {"id": "https://outrider.invalid/trainer/release"}},
            },
        )
    )


def encode_envelope(envelope: Envelope) -> bytes:
    """The one byte string of an envelope: canonical JSON, signatures sorted by key id."""
    value = envelope.to_dict()
    value["signatures"] = sorted(value["signatures"], key=lambda item: str(item["keyid"]))
    return canonical_json(value)


def verify_provenance(
    data: bytes, digests: dict[str, str], manifest: Manifest, trusted: TrustedKeys
) -> list[str]:
    """Check signatures and that exactly these members were signed; returns the names of the keys that count.

    Raises:
        BundleProvenanceInvalidError: Not a DSSE envelope around our kind of statement.
        BundleSignatureRefusedError: Fewer trusted signatures than the threshold.
        BundleContentChangedError: A member differs from what was signed.
    """
    payload, names = open_envelope(data, PAYLOAD_TYPE, trusted)
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleProvenanceInvalidError(f"provenance holds no in-toto statement: {error}") from None
    signed = {subject.name: subject.digest.get("sha256") for subject in statement.subject}
    for name, digest in digests.items():
        if signed.get(name) != digest:
            raise BundleContentChangedError(
                f"{name} was signed as {str(signed.get(name))[:12]}, came as {digest[:12]}; fetch the bundle "
                "again"
            )
    if payload != make_statement(manifest, digests):
        raise BundleProvenanceInvalidError(
            "provenance states other facts than the manifest; release the bundle anew"
        )
    return names


def open_envelope(data: bytes, payload_type: str, trusted: TrustedKeys) -> tuple[bytes, list[str]]:
    """What a DSSE envelope holds, once enough trusted keys have signed it; and the names of those that count.

    Raises:
        BundleProvenanceInvalidError: Not a DSSE envelope, or one around something else.
        BundleSignatureRefusedError: Fewer trusted signatures than the threshold.
    """
    try:
        msgspec.json.decode(data, type=_EnvelopeFile)
        envelope = Envelope.from_dict(msgspec.json.decode(data))
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise BundleProvenanceInvalidError(f"no DSSE envelope: {error}") from None
    if envelope.payload_type != payload_type:
        raise BundleProvenanceInvalidError(
            f"expected payload type {payload_type}, came {envelope.payload_type[:64]}"
        )
    return envelope.payload, _verify_signatures(envelope, trusted)


def _verify_signatures(envelope: Envelope, trusted: TrustedKeys) -> list[str]:
    by_id = {key.key_id: key for key in trusted.keys}
    try:
        accepted = envelope.verify([key.sslib_key() for key in trusted.keys], trusted.threshold)
    except (VerificationError, ValueError):
        came = ", ".join(key_id[:12] for key_id in envelope.signatures) or "none"
        names = ", ".join(f"{key.name} {key.key_id[:12]}" for key in trusted.keys)
        raise BundleSignatureRefusedError(
            f"expected {trusted.threshold} good signature(s) of [{names}], came signatures of [{came}]; "
            "have it signed by a trusted release key"
        ) from None
    return sorted(by_id[key_id].name for key_id in accepted)
