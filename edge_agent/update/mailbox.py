"""Between comms and control: a candidate one way, an answer the other. Two small files, each replaced
atomically.

``candidate.json`` (comms to control): this checked bundle waits in the spare slot, please load it.
``loaded.json`` (control to comms): taken, or refused and why.
A generation ties the answer to the question, whoever was killed and started again in between.
"""

import secrets
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from contracts.atomic import sync_folder, write_atomically
from edge_agent.update.slots import SlotEntry

CANDIDATE_FILE = "candidate.json"
LOADED_FILE = "loaded.json"
LETTER_MAX_BYTES = 64 * 1024
T = TypeVar("T")
Kind = Literal["run", "shadow", "revert"]


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A staged policy that control should load and swap in, or one that it should leave."""

    generation: str
    entry: SlotEntry
    rollout: int
    stage: int = 0
    kind: Kind = "run"
    """Drive with it, run it beside for ``shadow_s`` alone, or take it off."""
    shadow_s: float = 0.0

    @property
    def path(self) -> Path:
        """The bundle file."""
        return Path(self.entry.path)

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle file."""
        return self.entry.digest


class Loaded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Control's answer."""

    generation: str
    digest: str
    accepted: bool
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


def new_candidate(
    entry: SlotEntry, rollout: int, stage: int = 0, kind: Kind = "run", shadow_s: float = 0.0
) -> Candidate:
    """A candidate with a generation of its own."""
    return Candidate(secrets.token_hex(8), entry, rollout, stage, kind, shadow_s)


class ControlMailbox:
    """Control's side. Call ``poll`` from a thread beside the tick, never inside it: it touches the disk."""

    def __init__(self, state_dir: Path) -> None:
        """Use STATE/slots; a candidate already refused is not shown again."""
        self._candidate = state_dir / "slots" / CANDIDATE_FILE
        self._loaded = state_dir / "slots" / LOADED_FILE
        self._seen = (0, 0)
        answer = _read(self._loaded, Loaded)
        self._answered = answer.generation if answer and not answer.accepted else ""

    def poll(self) -> Candidate | None:
        """A candidate that was not answered yet; None when there is nothing new (one ``stat`` then)."""
        try:
            found = self._candidate.stat()
        except OSError:
            return None
        if (found.st_ino, found.st_mtime_ns) == self._seen:
            return None
        self._seen = (found.st_ino, found.st_mtime_ns)
        candidate = _read(self._candidate, Candidate)
        return candidate if candidate and candidate.generation != self._answered else None

    def answer(self, candidate: Candidate, accepted: bool, reason: str = "") -> None:
        """Say that the candidate drives now, or why it does not."""
        self._answered = candidate.generation
        loaded = Loaded(candidate.generation, candidate.digest, accepted, reason[:500])
        write_atomically(self._loaded, msgspec.json.encode(loaded))


class CommsMailbox:
    """Comms's side."""

    def __init__(self, state_dir: Path) -> None:
        """Use STATE/slots."""
        self._candidate = state_dir / "slots" / CANDIDATE_FILE
        self._loaded = state_dir / "slots" / LOADED_FILE

    def waiting(self) -> Candidate | None:
        """The candidate that was offered last and not withdrawn."""
        return _read(self._candidate, Candidate)

    def offer(self, candidate: Candidate) -> None:
        """Put a candidate before control."""
        write_atomically(self._candidate, msgspec.json.encode(candidate))

    def withdraw(self, durable: bool = True) -> None:
        """Take the candidate away, after its answer has been acted on; ``durable=False`` where that may come twice."""
        self._candidate.unlink(missing_ok=True)
        if durable:
            sync_folder(self._candidate.parent)

    def answer_to(self, candidate: Candidate) -> Loaded | None:
        """Control's answer to this very candidate."""
        loaded = _read(self._loaded, Loaded)
        return loaded if loaded and loaded.generation == candidate.generation else None


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(LETTER_MAX_BYTES), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
