"""What hub and ingest hand each other for an erasure: work to do, and the receipt of what was done. No Arrow here.

The hub's loop must not wait for files to be rewritten: it writes DATA/erasures/N.json (N: the audit log's entry
``ErasureBegan``), the ingest's process carries that out and leaves DATA/receipts/erasure-N.json, and the hub notes it
in the audit log and takes the work away. Both files are whole or not there; done twice is done once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from contracts.atomic import write_atomically

WORK_FOLDER, RECEIPTS_FOLDER = "erasures", "receipts"
FILE_MAX_BYTES = 16 * 1024**2
LOGS_MAX = 100_000


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure at the hub, of a robot's records of [since_ns, until_ns]."""

    robot: str
    since_ns: int
    until_ns: int
    who: str
    reason: str
    audit_seq: int
    """The entry ``ErasureBegan``, and its hash."""
    audit_hash: str


class Work(Begun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is left to do of one."""

    trips: int
    """Erased already."""
    closed: Annotated[dict[str, int], msgspec.Meta(max_length=LOGS_MAX)]
    """Of each log the first segment that the intake may write to; those before it do not change any more."""


class Receipt(Begun, frozen=True, kw_only=True):
    """What one did. Its SHA-256 is in the audit log's entry ``Erased``."""

    rows: dict[str, int]
    """Erased from each table of the store."""
    files_removed: tuple[str, ...]
    files_rewritten: tuple[str, ...]
    records: int
    """Erased from the intake's logs, decisions and events."""
    trips: int
    finished_wall_ns: int
    not_reached: str = "the robot's own log, exports, backups"


def receipt_path(data: Path, audit_seq: int) -> Path:
    """Where the receipt for an erasure lies."""
    return data / RECEIPTS_FOLDER / f"erasure-{audit_seq:08d}.json"


def work_path(data: Path, audit_seq: int) -> Path:
    """Where the work for it lies until it is done."""
    return data / WORK_FOLDER / f"{audit_seq:08d}.json"


def write_work(data: Path, work: Work) -> None:
    """Hand it over; raises OSError."""
    path = work_path(data, work.audit_seq)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, msgspec.json.encode(work))


def open_work(data: Path) -> Iterator[Work]:
    """What is to be done, oldest first; files that are no work of ours are left alone."""
    for path in sorted((data / WORK_FOLDER).glob("[0-9]*.json")):
        try:
            with path.open("rb") as file:
                work = msgspec.json.decode(file.read(FILE_MAX_BYTES), type=Work)
        except (OSError, msgspec.MsgspecError):
            continue
        if not receipt_path(data, work.audit_seq).exists():
            yield work


def write_receipt(data: Path, receipt: Receipt) -> tuple[Path, bytes]:
    """Where it lies now, and its bytes; raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(receipt)) + b"\n"
    path = receipt_path(data, receipt.audit_seq)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text)
    return path, text
