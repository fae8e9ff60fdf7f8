"""Erasure across the fleet: what a person orders of a robot, and what the robot says it did. Reading, never signing.

An order is a DSSE envelope of one person of the access file; robots check it with this module, whatever the hub says.
It is about what had been recorded when it was signed and nothing later, so that an old one that is shown again can
never take what came after it.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from contracts.canonical import canonical_json, digest_hex
from contracts.errors import AccessDeniedError, BundleError, ErasureSpanError, RobotCardError
from contracts.keyring import PartyName
from contracts.manifest import Digest
from contracts.papers import SKEW_MAX, AccessFile, Why, check_role, open_paper, open_personal
from contracts.plan import RobotCard
from contracts.provenance import ReleaseKey, TrustedKeys
from contracts.replay import WALL_MAX_NS

ERASE_TYPE = "application/vnd.outrider.erase+json"
ERASED_TYPE = "application/vnd.outrider.erased+json"
EVENTS_ROLE = "safety_officer"
"""Faults and swaps are evidence: who erases events, too, answers for safety."""
RECEIPT_MAX_BYTES = 16 * 1024**2
NOT_REACHED = "the hub (outrider episodes erase), exports, copies, backups, the medium's own spare blocks"
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
WallNs = Annotated[int, msgspec.Meta(ge=0, le=WALL_MAX_NS)]


class EraseAct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person wants what a robot recorded in [since_ns, until_ns] (the robot's clock) to go, there and at the hub."""

    robot: PartyName
    since_ns: WallNs
    until_ns: WallNs
    person: PartyName
    why: Why
    signed_wall_ns: int
    events: bool = False
    """Events, too: faults and swaps among them."""


class RobotErased(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A robot says with its own key that it has carried out an order."""

    order: Digest
    """SHA-256 of the order's envelope."""
    robot: PartyName
    receipt: Digest
    """SHA-256 of the receipt's canonical JSON."""
    records: Annotated[int, msgspec.Meta(ge=0)]
    log_key: Digest
    """Public key that signed the receipt, and the robot's sealed segments."""


class ErasedBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block of which something is gone. Its seal is named, so that a receipt is good for no other."""

    segment: int
    seal: str
    """SHA-256 of the segment's signed statement."""
    block: int
    first_seq: int
    last_seq: int
    wall_ns: tuple[int, int]
    kinds: tuple[str, ...]
    records: int


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an erasure did, by the robot itself."""

    robot: str
    since_ns: int
    until_ns: int
    who: Text
    why: Text
    blocks: tuple[ErasedBlock, ...]
    records: int
    unreadable: tuple[str, ...]
    """Segments that are damaged: they are as they were."""
    finished_wall_ns: int
    not_reached: str = NOT_REACHED
    order: Digest | UnsetType = UNSET
    """The order that was carried out; left out where somebody stood beside the robot (and in older receipts)."""


class SignedReceipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A receipt and the robot's signature over the SHA-256 of its canonical JSON."""

    receipt: Receipt
    signature: str


def receipt_digest(receipt: Receipt) -> bytes:
    """SHA-256 of a receipt's canonical JSON: what is signed, and what the log's event names."""
    return bytes.fromhex(digest_hex(canonical_json(receipt)))


def open_erase_act(data: bytes, access: AccessFile, now_wall_ns: int | None = None) -> EraseAct:
    """What a person wants erased, in a role that may.

    Args:
        data: the envelope.
        access: who may do what.
        now_wall_ns: the hub's time, at which it must have been signed; None at a robot, which may hear of it late.

    Raises:
        AccessDeniedError: Signed by nobody of the access file, by somebody who may not, or not now.
        ErasureSpanError: It ends before it begins, or after it was signed.
    """
    act, person = open_personal(data, ERASE_TYPE, access, EraseAct)
    check_role(act.person, person, "erase records of a robot", act.signed_wall_ns, now_wall_ns)
    if act.events and EVENTS_ROLE not in person.roles:
        raise AccessDeniedError(
            f"{person.name} is {', '.join(person.roles)}; to erase events, too, takes a {EVENTS_ROLE}"
        )
    if act.since_ns > act.until_ns:
        raise ErasureSpanError("the time ends before it begins; nothing was erased")
    if act.until_ns > act.signed_wall_ns + SKEW_MAX.total_seconds() * 1e9:
        raise ErasureSpanError(
            "the time ends after the order was signed; what is not recorded yet cannot be erased beforehand"
        )
    return act


def open_robot_erased(data: bytes, card: RobotCard) -> RobotErased:
    """What the robot of that card signed; raises RobotCardError."""
    try:
        key = ReleaseKey(card.robot, card.public_hex)
        found = open_paper(data, ERASED_TYPE, TrustedKeys(1, (key,)), RobotErased)
        if found.robot != card.robot:
            raise ValueError(f"it is about {found.robot}")
    except (BundleError, ValueError) as error:
        raise RobotCardError(f"{card.robot} has not signed that: {error}") from None
    return found
