"""What hub and robot agree on about trust: two TUF repositories, as in Uptane 2.1. No files and no sockets here.

*image* says what a bundle is; its root (two of three) and targets (trainer and release manager, both) are signed
offline. *director* says which robot should run which; it is signed online by the hub, a small repository a robot.
A robot takes a bundle only when both agree (``edge_agent/update/trust.py``).
"""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from contracts.errors import ContractError
from contracts.manifest import Digest, Manifest, PolicyName, RobotModelRef, VersionText

if TYPE_CHECKING:  # control and comms read this file: python-tuf and its urllib3 stay out of them
    from securesystemslib.signer import Key
    from tuf.api.metadata import Root

IMAGE, DIRECTOR = "image", "director"
REPOSITORIES = (IMAGE, DIRECTOR)
TRUST_FOLDER = "trust"
RUNTIME = 1
"""What this software can run; an image may ask for a newer one."""
ROOT_MAX_BYTES = 64 * 1024
TIMESTAMP_MAX_BYTES = 16 * 1024
SNAPSHOT_MAX_BYTES = 16 * 1024
TARGETS_MAX_BYTES = 384 * 1024
"""Some 600 releases."""
ORDER_MAX_BYTES = 512 * 1024
ROOT_ROTATIONS_MAX = 64
NONCE_BYTES = 16
HUB_TIME_TYPE = "application/vnd.outrider.hub-time+json"
CLOCK_ROLE = (DIRECTOR, "timestamp")
"""Whose key signs the hub's time: of those the hub holds, the one that can do least (docs/operations/trust.md)."""
ORDER_TARGET = "order"
BUNDLE_SUFFIX = ".outrider"
OFFLINE: dict[str, dict[str, tuple[str, ...]]] = {
    IMAGE: {
        "root": ("image_root_1", "image_root_2", "image_root_3"),
        "targets": ("trainer", "release_manager"),
    },
    DIRECTOR: {"root": ("director_root_1", "director_root_2", "director_root_3")},
}
"""Repository -> role -> names of keys that never lie on the hub."""
ONLINE: dict[str, dict[str, tuple[str, ...]]] = {
    IMAGE: {"snapshot": ("image_snapshot",), "timestamp": ("image_timestamp",)},
    DIRECTOR: {
        "targets": ("director_targets",),
        "snapshot": ("director_snapshot",),
        "timestamp": ("director_timestamp",),
    },
}
THRESHOLDS = {(IMAGE, "root"): 2, (IMAGE, "targets"): 2, (DIRECTOR, "root"): 2}
"""How many different keys must sign; one where nothing is said. A robot takes no root that asks for fewer."""
_NAME = re.compile(
    r"(image|director/[a-z0-9][a-z0-9_-]{0,62})/"
    r"(timestamp\.json|(\d{1,9}\.)?(root|snapshot|targets)\.json)"
    r"|director/[a-z0-9][a-z0-9_-]{0,62}/order|bundles/[0-9a-f]{64}\.outrider"
)


class Code(StrEnum):
    """Why something is not trusted: what is logged and reported."""

    ROLLBACK = "rollback"
    BELOW_FLOOR = "below_floor"
    EXPIRED = "expired"
    CLOCK_BACK = "clock_back"
    TIME_FORGED = "time_forged"
    TIME_REPLAYED = "time_replayed"
    TIME_SLOW = "time_slow"
    TIME_BACK = "time_back"
    TIME_BEYOND = "time_beyond_root"
    MIXED = "metadata_mixed"
    TOO_LONG = "endless_data"
    WRONG_LENGTH = "wrong_length"
    WRONG_HASH = "wrong_hash"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    TOO_FEW = "too_few_signatures"
    BAD_SIGNATURE = "bad_signature"
    DUPLICATE_KEY = "duplicate_key"
    LOW_THRESHOLD = "threshold_too_low"
    FOREIGN_FLEET = "foreign_fleet"
    OTHER_ROBOT = "other_robot"
    WRONG_MODEL = "wrong_model"
    WRONG_LAYOUT = "wrong_layout"
    OLD_RUNTIME = "runtime_too_old"
    COUNTER_TOO_LOW = "counter_too_low"
    OTHER_ORDER = "other_order"
    NOT_IN_IMAGE = "not_in_image"
    NOT_IN_DIRECTOR = "not_in_director"
    DISAGREE = "repositories_disagree"
    OTHER_BUNDLE = "bundle_says_otherwise"
    INCOMPLETE = "incomplete"
    UNREADABLE = "metadata_unreadable"
    BAD_PATH = "bad_path"
    UNREACHABLE = "hub_silent"
    FLOOR_DAMAGED = "floor_damaged"
    NO_ROOT = "no_root"


class TrustError(ContractError):
    """Metadata, a key or a bundle is not to be trusted; ``code`` says why.

    One class for all codes: every caller does the same with each of them, report the code and change nothing.
    """

    def __init__(self, code: Code, message: str) -> None:
        """``message`` says what was expected, what came, what to do."""
        super().__init__(message)
        self.code = code


class ImageFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the trainer and the release manager sign about a bundle, beside length and hash."""

    policy_name: PolicyName
    version: VersionText
    release_counter: Annotated[int, msgspec.Meta(ge=1)]
    layout_hash: Digest
    robot_models: Annotated[tuple[RobotModelRef, ...], msgspec.Meta(min_length=1, max_length=16)]
    minimum_runtime: Annotated[int, msgspec.Meta(ge=1)] = RUNTIME


class DirectorFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the hub signs about one robot and one bundle: the order for which the robot is to fetch it."""

    robot: str
    rollout: int
    stage: int
    action: str
    plan_digest: Digest


class HubTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the hub signs when a robot asks for the time."""

    robot: str
    nonce_hex: Annotated[str, msgspec.Meta(min_length=2 * NONCE_BYTES, max_length=2 * NONCE_BYTES)]
    wall_ns: Annotated[int, msgspec.Meta(ge=1)]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle of the order that a robot follows."""

    digest: Digest
    order: DirectorFacts


F = TypeVar("F", ImageFacts, DirectorFacts)


def facts_of(manifest: Manifest) -> ImageFacts:
    """The facts that a bundle's manifest states of itself."""
    return ImageFacts(
        manifest.policy_name,
        manifest.version,
        manifest.release_counter,
        manifest.observation_layout_hash,
        manifest.robot_models,
    )


def read_facts(custom: Any, kind: type[F]) -> F:
    """A target's ``custom`` field; raises TrustError."""
    try:
        return msgspec.convert(custom, kind)
    except msgspec.ValidationError as error:
        raise TrustError(
            Code.UNREADABLE, f"a target holds no {kind.__name__}: {error}; publish it anew"
        ) from None


def target_path(digest: str) -> str:
    """A bundle's path in both repositories."""
    return digest + BUNDLE_SUFFIX


def check_name(name: str) -> str:
    """Name of a file that a repository may serve; raises TrustError for any other, ``..`` above all."""
    if not _NAME.fullmatch(name):
        raise TrustError(Code.BAD_PATH, f"no file of a repository may be called {name[:100]!r}")
    return name


def key_material(key: "Key") -> bytes:
    """What a public key is, however it is written, so that one key cannot pass for two."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    public = str(key.keyval["public"])
    try:
        if key.keytype == "ed25519":
            return bytes.fromhex(public)
        der = load_pem_public_key(public.encode()).public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return bytes(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(Code.UNREADABLE, f"key {key.keyid[:12]} is none: {error}") from None


def check_root(repository: str, root: "Root") -> None:
    """Refuse a root that counts one key twice, or asks for fewer signatures than this software insists on.

    python-tuf's client checks neither. Raises TrustError.
    """
    seen: dict[bytes, str] = {}
    for key in root.keys.values():
        other = seen.setdefault(key_material(key), key.keyid)
        if other != key.keyid:
            raise TrustError(
                Code.DUPLICATE_KEY,
                f"{repository} root {root.version} lists one key as {other[:12]} and as {key.keyid[:12]}: one "
                "person could sign for two; make a root with different keys",
            )
    for (where, role), wanted in THRESHOLDS.items():
        if where == repository and root.roles[role].threshold < wanted:
            raise TrustError(
                Code.LOW_THRESHOLD,
                f"{repository} root {root.version} asks for {root.roles[role].threshold} signature(s) of {role}, "
                f"this software for {wanted}",
            )
