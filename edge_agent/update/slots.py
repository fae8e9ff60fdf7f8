"""Two places for policies: the active one is never touched, the spare one takes what comes next.

STATE/slots/{a,b}/policy.outrider and STATE/slots/active.json, which is replaced atomically: at every moment,
also in a power cut, it names a file that is whole; and so does its copy (``twice``).
"""

from pathlib import Path
from typing import Annotated

import msgspec

from contracts.atomic import make_folder, sync_folder
from contracts.errors import BundleCounterTooLowError
from contracts.manifest import Digest, PolicyName, VersionText
from edge_agent.errors import SlotError
from edge_agent.update.twice import read_twice, write_twice

SLOTS = ("a", "b")
POLICY_FILE = "policy.outrider"
ACTIVE_FILE = "active.json"
ACTIVE_MAX_BYTES = 64 * 1024


class BundleFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a checked bundle is."""

    digest: Digest
    policy_name: PolicyName
    version: VersionText
    release_counter: Annotated[int, msgspec.Meta(ge=1)]


class SlotEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle in a slot."""

    slot: Annotated[str, msgspec.Meta(pattern="^[ab]$")]
    path: str
    facts: BundleFacts

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle file."""
        return self.facts.digest


class _Active(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    active: SlotEntry | None = None
    previous: SlotEntry | None = None
    counter_floors: dict[str, int] = {}


class SlotStore:
    """The slots of one robot. Comms writes; control only reads."""

    def __init__(self, state_dir: Path) -> None:
        """Use STATE/slots; it is made when missing."""
        self.folder = state_dir / "slots"
        for slot in SLOTS:
            make_folder(self.folder / slot)

    def active(self) -> SlotEntry | None:
        """The committed policy; None when there never was one. Raises SlotError for a damaged active.json."""
        return self._existing(self._read().active)

    def previous(self) -> SlotEntry | None:
        """The policy before the active one, while the spare slot still holds it."""
        return self._existing(self._read().previous)

    def counter_floor(self, policy_name: str) -> int:
        """The highest release counter of that policy that has been committed here."""
        return self._read().counter_floors.get(policy_name, 0)

    def check_counter(self, policy_name: str, release_counter: int) -> None:
        """Refuse to go back; raises BundleCounterTooLowError."""
        floor = self.counter_floor(policy_name)
        if release_counter < floor:
            raise BundleCounterTooLowError(
                f"this robot has accepted release counter {floor} of {policy_name}, came {release_counter}; "
                "to go back, release the old policy again under a higher counter"
            )

    def stage(self, path: Path, facts: BundleFacts) -> SlotEntry:
        """Move a checked bundle file into the spare slot; the active one stays as it is.

        Raises:
            BundleCounterTooLowError: Older than what was committed.
            OSError: The disk refused; the active slot is untouched.
        """
        self.check_counter(facts.policy_name, facts.release_counter)
        state = self._read()
        slot = "b" if state.active and state.active.slot == "a" else "a"
        self._write(
            msgspec.structs.replace(state, previous=None)
        )  # no copy may name what is written over now
        target = self.folder / slot / POLICY_FILE
        path.rename(target)
        sync_folder(target.parent)
        return SlotEntry(slot, str(target), facts)

    def commit(self, entry: SlotEntry) -> None:
        """Make a staged policy the active one; the one before becomes ``previous``."""
        state = self._read()
        if state.active and state.active.slot == entry.slot:
            raise SlotError(f"slot {entry.slot} is the active one; only the spare slot can be committed")
        name = entry.facts.policy_name
        floors = {**state.counter_floors, name: max(entry.facts.release_counter, self.counter_floor(name))}
        self._write(_Active(entry, state.active, floors))

    def retreat(self, digest: str) -> SlotEntry | None:
        """Make the policy before the active one active again, else none, where ``digest`` is active.

        The counter floors stay where they are, and so does the file: whoever runs it may still need it.
        """
        state = self._read()
        if state.active is not None and state.active.digest == digest:
            state = _Active(self._existing(state.previous), None, state.counter_floors)
            self._write(state)
        return state.active

    def discard(self, entry: SlotEntry) -> None:
        """Remove a staged policy that was refused; never the active one."""
        state = self._read()
        if state.active is None or state.active.slot != entry.slot:
            path = (
                self.folder / entry.slot / POLICY_FILE
            )  # wherever the state folder lay when that was written
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def _existing(self, entry: SlotEntry | None) -> SlotEntry | None:
        if entry is None:
            return None
        path = self.folder / entry.slot / POLICY_FILE
        return msgspec.structs.replace(entry, path=str(path)) if path.exists() else None

    def _read(self) -> _Active:
        path = self.folder / ACTIVE_FILE
        try:
            return read_twice(path, _Active, ACTIVE_MAX_BYTES) or _Active()
        except ValueError as error:
            raise SlotError(
                f"{path} and its copy are unreadable ({error}); remove both: the robot falls back to rules"
            ) from None

    def _write(self, state: _Active) -> None:
        write_twice(self.folder / ACTIVE_FILE, state)
