"""Canonical JSON: the one byte string that a value has, so that its hash can be a version."""

import hashlib

import msgspec

_encoder = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: object) -> bytes:
    """Encode a value as JSON with sorted keys, no white space, UTF-8."""
    return _encoder.encode(value)


def digest_hex(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_of(value: object) -> str:
    """SHA-256 over the canonical JSON of ``value``: a schema's version."""
    return digest_hex(canonical_json(value))
