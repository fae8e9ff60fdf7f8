"""Takes offers of the hub to their end: fetch, check, stage, ask control, commit, report. Never blocks.

    idle -> downloading -> checking -> waiting (for control) -> idle
A kill at any point goes on where it was: the part file, the candidate and the active slot are on disk.
"""

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from contracts.atomic import write_atomically
from contracts.errors import BundleError
from contracts.messages import Chunk, FetchChunk, FromRobot, Offer, RolloutReport, Running, short
from edge_agent.errors import SlotError
from edge_agent.update.checker import CheckResult
from edge_agent.update.download import Download
from edge_agent.update.mailbox import CommsMailbox, new_candidate
from edge_agent.update.slots import SlotStore

CHUNK_WAIT_MAX_S = 3.0
DOWNLOAD_TRIES_MAX = 2
REFUSED_FILE = "refused.json"


class Checker(Protocol):
    """Checks a bundle file beside us."""

    def start(self, path: Path, now_ns: int) -> None:
        """Begin."""

    def result(self, now_ns: int) -> CheckResult | None:
        """None while it lasts."""

    def cancel(self) -> None:
        """End it."""


class State(enum.Enum):
    """What the updater is busy with."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    CHECKING = "checking"
    WAITING = "waiting"


class _RefusedNote(msgspec.Struct, frozen=True):
    rollout: int
    digest: str
    reason: str


class Updater:
    """One robot's updater. ``send`` and ``note`` are the way to the hub and to the robot's own log."""

    def __init__(
        self,
        state_dir: Path,
        checker: Checker,
        send: Callable[[FromRobot], bool],
        note: Callable[..., None],
    ) -> None:
        """Pick up what was going on when the process before this one ended."""
        self.slots = SlotStore(state_dir)
        self.mailbox = CommsMailbox(state_dir)
        self._staging = state_dir / "staging"
        self._refused_path = state_dir / "slots" / REFUSED_FILE
        self._checker, self._send, self._note = checker, send, note
        self._offer: Offer | None = None
        self._download: Download | None = None
        self._tries = 0
        self._asked_ns = 0
        self._candidate = self.mailbox.waiting()
        self.state = State.WAITING if self._candidate else State.IDLE

    def on_offer(self, offer: Offer, now_ns: int) -> None:
        """The hub says what this robot should run."""
        if self.state is State.WAITING:
            self._step_waiting()
        if self._offer and (self._offer.rollout, self.state) != (offer.rollout, State.IDLE):
            if self._offer.rollout == offer.rollout:
                self._report_state()
                return
            self._checker.cancel()
        self._offer = offer
        if self._settle_known(offer):
            return
        if self._candidate:
            self._discard_candidate()
        try:
            self.slots.check_counter(offer.policy_name, offer.release_counter)
            self._download = Download(self._staging, offer.digest, offer.size_bytes)
        except (BundleError, OSError, SlotError) as error:
            self._refuse(str(error))
            return
        if not self._download.possible:
            self._refuse(f"a bundle cannot have {offer.size_bytes} bytes")
            return
        self._tries, self.state = 0, State.DOWNLOADING
        self._report("downloading")
        self._ask(now_ns)

    def on_chunk(self, chunk: Chunk, now_ns: int) -> None:
        """Bytes have come; ask for the next, or begin to check."""
        download = self._download
        if self.state is not State.DOWNLOADING or download is None or chunk.digest != download.digest:
            return
        if not chunk.data:
            self._refuse("the hub offered a bundle that it does not have; release it again")
            return
        try:
            download.add(chunk.offset, chunk.data)
            self._ask(now_ns)
        except OSError as error:
            self._refuse(f"cannot store the bundle: {error.strerror}; free some space")

    def on_online(self, now_ns: int) -> None:
        """The hub is there (again): go on asking at once."""
        if self.state is State.DOWNLOADING:
            self._ask(now_ns)

    def step(self, now_ns: int) -> None:
        """What is due now."""
        if self.state is State.DOWNLOADING and now_ns - self._asked_ns > CHUNK_WAIT_MAX_S * 1e9:
            self._ask(now_ns)
        elif self.state is State.CHECKING:
            self._step_checking(now_ns)
        elif self.state is State.WAITING:
            self._step_waiting()

    def close(self) -> None:
        """End a running check."""
        self._checker.cancel()

    def _settle_known(self, offer: Offer) -> bool:
        active = self.slots.active()
        if active and active.digest == offer.digest:
            self.state = State.IDLE
            self._report("active")
            return True
        note = self._read_refused()
        if note and (note.rollout, note.digest) == (offer.rollout, offer.digest):
            self.state = State.IDLE
            self._report("refused", note.reason)
            return True
        if self._candidate and self._candidate.digest == offer.digest:
            self._candidate = msgspec.structs.replace(self._candidate, rollout=offer.rollout)
            self.state = State.WAITING
            self._report("staged")
            return True
        return False

    def _ask(self, now_ns: int) -> None:
        assert self._download is not None
        if not self._download.complete:
            self._asked_ns = now_ns
            self._send(FetchChunk(self._download.digest, self._download.offset))
            return
        try:
            whole = self._download.seal()
        except OSError as error:
            self._refuse(f"cannot store the bundle: {error.strerror}")
            return
        if whole:
            self.state = State.CHECKING
            self._checker.start(self._download.path, now_ns)
            return
        self._tries += 1
        self._download.restart()
        if self._tries >= DOWNLOAD_TRIES_MAX:
            self._refuse(
                f"fetched {self._tries} times, never with the digest that was offered; look at the hub's disk"
            )
            return
        self._asked_ns = now_ns
        self._send(FetchChunk(self._download.digest, 0))

    def _step_checking(self, now_ns: int) -> None:
        result = self._checker.result(now_ns)
        if result is None:
            return
        assert self._offer is not None
        assert self._download is not None
        facts = result.facts
        if facts is None or facts.digest != self._offer.digest:
            self._refuse(f"{result.code}: {result.reason}")
            return
        try:
            entry = self.slots.stage(self._download.path, facts)
            self._candidate = new_candidate(entry, self._offer.rollout)
            self.mailbox.offer(self._candidate)
        except (BundleError, OSError, SlotError) as error:
            self._refuse(str(error))
            return
        self.state = State.WAITING
        self._note("update_staged", digest=facts.digest, version=facts.version)
        self._report("staged")

    def _step_waiting(self) -> None:
        candidate = self._candidate
        answer = self.mailbox.answer_to(candidate) if candidate else None
        if candidate is None or answer is None:
            return
        if not answer.accepted:
            self._discard_candidate()
            self._refuse(f"control refused it: {answer.reason}", candidate.rollout, candidate.digest)
            return
        active = self.slots.active()
        if active is None or active.digest != candidate.digest:
            self.slots.commit(candidate.entry)
        self.mailbox.withdraw()
        self._candidate, self.state = None, State.IDLE
        facts = candidate.entry.facts
        self._note("update_active", digest=facts.digest, version=facts.version)
        self._send(Running(facts.digest, facts.version))
        self._send(RolloutReport(candidate.rollout, candidate.digest, "active"))

    def _discard_candidate(self) -> None:
        if self._candidate:
            self.mailbox.withdraw()
            self.slots.discard(self._candidate.entry)
            self._candidate = None

    def _refuse(self, reason: str, rollout: int | None = None, digest: str | None = None) -> None:
        """Leave everything as it was, remember and report why."""
        if self._download:
            self._download.path.unlink(missing_ok=True)
            self._download = None
        self.state = State.IDLE
        if rollout is None and self._offer:
            rollout, digest = self._offer.rollout, self._offer.digest
        note = _RefusedNote(rollout or 0, digest or "", short(reason))
        try:
            write_atomically(self._refused_path, msgspec.json.encode(note))
        except OSError as error:
            self._note("disk_error", what="refused.json", error=str(error))
        self._note("update_refused", digest=note.digest, reason=note.reason)
        if note.digest:
            self._send(RolloutReport(note.rollout, note.digest, "refused", note.reason))

    def _report_state(self) -> None:
        names = {State.DOWNLOADING: "downloading", State.CHECKING: "downloading", State.WAITING: "staged"}
        self._report(names[self.state])

    def _report(self, state: str, reason: str = "") -> None:
        assert self._offer is not None
        self._send(RolloutReport(self._offer.rollout, self._offer.digest, state, reason))

    def _read_refused(self) -> _RefusedNote | None:
        try:
            return msgspec.json.decode(self._refused_path.read_bytes(), type=_RefusedNote)
        except (OSError, msgspec.MsgspecError):
            return None
