"""The bundle's manifest: what a policy is, what it was made for, and within which limits it may drive."""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec

from contracts.canonical import canonical_json
from contracts.errors import BundleManifestInvalidError
from contracts.observation import OBSERVATION_SIZE

BUNDLE_FORMAT_VERSION = 1
MANIFEST_MAX_BYTES = 64 * 1024
BUNDLE_MAX_BYTES = 32 * 1024 * 1024
PARITY_LIMIT = 1e-5
ONNX_INPUT = "observation"
"""Name of the network's only input: float32[1 or dynamic, observation_size]."""
ONNX_OUTPUT = "command"
"""Name of the network's first output: float32[same, 2], m/s and rad/s in the base frame."""
ONNX_ENTROPY = "entropy"
"""Name of the second output, of a network that has one: float32[same, 1], nats (``contracts.decision``)."""
ONNX_ENTROPY_NOTE = "outrider.action_entropy_nats"
"""Key of the file's metadata that bears ``Manifest.action_entropy_nats``, for a network without its bundle."""
ENTROPY_MAX_NATS = 1e6

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
PolicyName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
VersionText = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]


class RobotModelRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A robot model that the policy may drive: its name and the hash of its description."""

    name: Text
    hash: Digest


class CommandLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest commands that the policy gives; never beyond those of the robot."""

    speed_max_mps: Positive
    turn_rate_max_radps: Positive
    reverse_max_mps: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)]


class TrainingFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a policy was trained from; enough to train it again. Empty where it came from elsewhere."""

    algorithm: Text = ""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Robot-steps."""
    commit: Text = ""
    dirty: bool = False
    """Whether the sources held changes that no commit has."""
    lock_hash: Text = ""
    config_hash: Text = ""
    reward_hash: Text = ""
    floors_hash: Text = ""
    weights_hash: Text = ""
    parents: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ()
    """Weights hashes of the runs it was started from, or the hash of who taught it."""
    versions: Annotated[dict[Text, Text], msgspec.Meta(max_length=16)] = {}


Numbers = Annotated[tuple[float, ...], msgspec.Meta(min_length=OBSERVATION_SIZE, max_length=OBSERVATION_SIZE)]
AboveZero = Annotated[float, msgspec.Meta(gt=0.0)]
Blocks = Annotated[tuple[AboveZero, ...], msgspec.Meta(min_length=3, max_length=3)]


class DriftReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the policy's observations usually are (``navigation.novelty``): the robot asks how far its own are off."""

    mean: Numbers
    std: Annotated[
        tuple[AboveZero, ...], msgspec.Meta(min_length=OBSERVATION_SIZE, max_length=OBSERVATION_SIZE)
    ]
    typical: Blocks
    """Mean absolute z-score of each block, as usual."""
    rare: Blocks
    """The same, of one observation in a thousand."""

    def __post_init__(self) -> None:
        """Refuse a reference by which everything, or nothing, would be strange."""
        if not all(usual < rare for usual, rare in zip(self.typical, self.rare, strict=True)):
            raise ValueError(f"drift reference: typical {self.typical} is not below rare {self.rare}")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is said about a policy; unknown keys are refused."""

    format_version: int = BUNDLE_FORMAT_VERSION
    policy_name: PolicyName
    version: VersionText
    release_counter: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    observation_layout_hash: Digest
    observation_size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = OBSERVATION_SIZE
    control_rate_hz: Positive
    history_interval_s: Positive
    robot_models: Annotated[tuple[RobotModelRef, ...], msgspec.Meta(min_length=1, max_length=32)]
    limits: CommandLimits
    monitor_hash: Digest
    training_run_digest: Digest
    training: TrainingFacts = TrainingFacts()
    created: Text
    """Taken from the inputs (the training run), never from the clock: same inputs, same bytes."""
    parity_max_abs: Annotated[float, msgspec.Meta(ge=0.0, le=PARITY_LIMIT)]
    drift_reference: DriftReference | None = None
    action_entropy_nats: float | None = None
    """Of the policy's action distribution where it is the same for every observation; None where it is not, or where
    there is none."""


def noted_entropy_nats(notes: Mapping[str, str]) -> float | None:
    """What an ONNX file's metadata say of its policy's entropy; None where they say nothing.

    Raises:
        BundleManifestInvalidError: what they say is no number, or one beyond ENTROPY_MAX_NATS.
    """
    text = notes.get(ONNX_ENTROPY_NOTE)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= ENTROPY_MAX_NATS:
        raise BundleManifestInvalidError(
            f"{ONNX_ENTROPY_NOTE} in the network's metadata: expected nats, came {text[:64]!r};"
            " correct it or leave it out"
        )
    return value


def encode_manifest(manifest: Manifest) -> bytes:
    """The one byte string of a manifest; raises BundleManifestInvalidError for values out of range."""
    data = canonical_json(manifest)
    decode_manifest(data)
    return data


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleManifestInvalidError: Not JSON, unknown or missing keys, values out of range, another format.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleManifestInvalidError(
            f"manifest.json is not a bundle manifest: {error}; export it anew"
        ) from None
    if manifest.format_version != BUNDLE_FORMAT_VERSION:
        raise BundleManifestInvalidError(
            f"expected bundle format {BUNDLE_FORMAT_VERSION}, came {manifest.format_version}; "
            "export the policy with this version of outrider, or update this machine"
        )
    return manifest
