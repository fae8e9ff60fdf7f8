"""The audit log: every transition and every refusal, each entry bound to the one before by its hash.

``hash = SHA-256(canonical JSON of [seq, wall_ns, rollout, who, body, previous])``; the first entry's ``previous`` is
zeros. Whoever changes, removes or inserts an entry breaks the chain there; whoever cuts off its end is found out by
anyone who has noted a later hash.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from contracts.canonical import canonical_json, digest_hex
from contracts.messages import AuditEntry
from fleet_hub.errors import AuditBrokenError
from fleet_hub.rollout.events import Entry
from fleet_hub.store.database import Database, read_rows

FIRST = "0" * 64
PAGE_MAX = 256
PAGE_MAX_BYTES = 256 * 1024


def entry_hash(entry: AuditEntry) -> str:
    """What an entry's hash must be."""
    fields = [entry.seq, entry.wall_ns, entry.rollout, entry.who, entry.body, entry.previous]
    return digest_hex(canonical_json(fields))


class AuditLog:
    """The log of one hub, in its database."""

    def __init__(self, database: Database, wall_ns: Callable[[], int]) -> None:
        """Go on after the newest entry."""
        self._database, self._wall_ns = database, wall_ns
        rows = database.rows("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        self._seq, self._head = rows[0] if rows else (0, FIRST)

    def append(self, who: str, event: Entry, rollout: int = 0) -> int:
        """Write one entry, in the caller's transaction where there is one; returns its wall time."""
        now, body = self._wall_ns(), canonical_json(event).decode()
        entry = AuditEntry(self._seq + 1, now, rollout, who, body, self._head, FIRST)
        found = entry_hash(entry)
        self._database.run(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)",
            entry.seq, now, rollout, who, body, entry.previous, found,
        )  # fmt: skip
        self._seq, self._head = entry.seq, found
        return now

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the newest entry."""
        return self._seq, self._head

    def page(self, first_seq: int) -> tuple[AuditEntry, ...]:
        """Entries from ``first_seq`` on, as many as fit into a message."""
        rows = self._database.rows(
            "SELECT * FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?", first_seq, PAGE_MAX
        )
        entries: list[AuditEntry] = []
        size = 0
        for row in rows:
            size += len(row[4]) + 256
            if entries and size > PAGE_MAX_BYTES:
                break
            entries.append(AuditEntry(*row))
        return tuple(entries)

    def of(self, rollout: int) -> Iterable[AuditEntry]:
        """Everything about one rollout, in order."""
        for row in self._database.rows("SELECT * FROM audit WHERE rollout = ? ORDER BY seq", rollout):
            yield AuditEntry(*row)


def read_entries(data: Path, first_seq: int = 1) -> list[AuditEntry]:
    """The log in a hub's data folder, whether the hub runs or not; raises DataFolderError."""
    rows = read_rows(data, "SELECT * FROM audit WHERE seq >= ? ORDER BY seq", first_seq)
    return [AuditEntry(*row) for row in rows]


def verify_chain(entries: Iterable[AuditEntry], head: str = "") -> tuple[int, str]:
    """Number of entries and the newest hash of an unbroken chain that begins with the first entry.

    Args:
        head: a hash noted earlier, which must be in the chain; "" for none.

    Raises:
        AuditBrokenError: With the entry at which it is broken.
    """
    count, previous, seen = 0, FIRST, not head
    for entry in entries:
        count += 1
        if entry.seq != count:
            raise AuditBrokenError(f"entry {count} is missing: after it comes {entry.seq}")
        if entry.previous != previous:
            raise AuditBrokenError(
                f"entry {entry.seq} does not follow entry {entry.seq - 1}: one was changed"
            )
        if entry_hash(entry) != entry.hash:
            raise AuditBrokenError(f"entry {entry.seq} ({entry.who}) was changed after it was written")
        previous = entry.hash
        seen = seen or entry.hash == head
    if not seen:
        raise AuditBrokenError(f"the hash {head[:12]} noted earlier is not in the chain: its end was cut off")
    return count, previous
