"""Receipts for erasures on the robot: what went, by whom and why, signed with the robot's log key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from contracts.canonical import canonical_json, digest_hex
from edge_agent.recorder.key import receipt_fits

RECEIPT_GLOB = "erasure-*.json"
RECEIPT_MAX_BYTES = 16 * 1024**2
RECEIPTS_MAX = 10_000
NOT_REACHED = "the hub (outrider episodes erase), exports, copies, backups, the medium's own spare blocks"
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


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


class SignedReceipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A receipt and the robot's signature over the SHA-256 of its canonical JSON."""

    receipt: Receipt
    signature: str


def read_receipts(folder: Path) -> Iterator[tuple[str, SignedReceipt | None]]:
    """The receipts in a log's folder by name; None for one that cannot be read."""
    for path in sorted(folder.glob(RECEIPT_GLOB))[:RECEIPTS_MAX]:
        try:
            with path.open("rb") as file:
                yield path.name, msgspec.json.decode(file.read(RECEIPT_MAX_BYTES), type=SignedReceipt)
        except (OSError, msgspec.MsgspecError):
            yield path.name, None


def signed_by(one: SignedReceipt, public: bytes) -> bool:
    """Whether the robot with that log key gave the receipt, as it stands."""
    try:
        signature = bytes.fromhex(one.signature)
    except ValueError:
        return False
    return receipt_fits(public, receipt_digest(one.receipt), signature)


def receipt_digest(receipt: Receipt) -> bytes:
    """SHA-256 of a receipt's canonical JSON: what is signed, and what the log's event names."""
    return bytes.fromhex(digest_hex(canonical_json(receipt)))


def covered(folder: Path) -> Iterator[ErasedBlock]:
    """What the receipts in a folder name, whoever signed them."""
    for _, one in read_receipts(folder):
        if one is not None:
            yield from one.receipt.blocks
