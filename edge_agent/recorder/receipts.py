"""Receipts for erasures on the robot: what went, by whom and why, signed with the robot's log key."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from contracts.erasure import RECEIPT_MAX_BYTES, ErasedBlock, SignedReceipt, receipt_digest
from edge_agent.recorder.key import receipt_fits

RECEIPT_GLOB = "erasure-*.json"
RECEIPTS_MAX = 10_000


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


def covered(folder: Path) -> Iterator[ErasedBlock]:
    """What the receipts in a folder name, whoever signed them."""
    for _, one in read_receipts(folder):
        if one is not None:
            yield from one.receipt.blocks


def receipt_of(folder: Path, order: str, public: bytes) -> tuple[str, SignedReceipt] | None:
    """Name and content of the receipt, signed by that log key, for an order (SHA-256) that was carried out here."""
    for name, one in read_receipts(folder):
        if one is not None and one.receipt.order == order and signed_by(one, public):
            return name, one
    return None
