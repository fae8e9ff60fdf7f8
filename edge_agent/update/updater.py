"""Takes orders of the hub to their end: check the papers, fetch, check, stage, ask control, commit, report.

    idle -> downloading -> checking -> waiting (for control) -> idle
Never blocks. A kill at any point goes on where it was: what was accepted (``orders``), the part file, the candidate
and the active slot are on disk. Beside that it watches the soak: a release that has driven without a fault for as
long as its stage asks is witnessed with the robot's signature, one that control dropped is reported as failed.
"""

import enum
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from contracts.atomic import write_atomically
from contracts.errors import BundleError, KeyFileError, OrderError
from contracts.messages import (
    Chunk,
    FetchChunk,
    FetchFile,
    FileChunk,
    FromRobot,
    Order,
    RolloutReport,
    Running,
    Wait,
    short,
)
from contracts.papers import Witness
from contracts.plan import Release
from contracts.trust import Code, DirectorFacts, TrustError, Wanted
from edge_agent.errors import SlotError
from edge_agent.infer.dropped import DroppedStore
from edge_agent.update.checker import CHECK_KILLED, CheckResult
from edge_agent.update.download import Download
from edge_agent.update.floor import Floor, FloorStore
from edge_agent.update.mailbox import Candidate, CommsMailbox, Kind, new_candidate
from edge_agent.update.orders import Accepted, OrderBook
from edge_agent.update.slots import SlotStore
from edge_agent.update.tracing import Phase, UpdateTrace
from edge_agent.update.witness import sign_witness

CHUNK_WAIT_MAX_S = 3.0
BACKOFF_MAX_S = 30.0
"""Between two questions that nobody answers: doubled each time, and drawn, so that a fleet does not ask in step."""
DOWNLOAD_TRIES_MAX = 2
CHECK_KILLS_MAX = 3
"""So often the check of one bundle may be killed from outside before the bundle is held to be at fault."""
SOAK_LOOK_S = 0.5
REFUSED_FILE = "refused.json"
MIRRORED = frozenset(Code)
"""What a bad mirror can bring about; a bundle's own faults are the bundle's, whoever served it."""


class Checker(Protocol):
    """Checks a bundle file beside us."""

    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Begin."""

    def question(self) -> FetchFile | None:
        """Metadata that it wants from the hub; each question once."""

    def answer(self, chunk: FileChunk) -> None:
        """What the hub has of it."""

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
    code: str
    reason: str


class _Job(msgspec.Struct, frozen=True):
    """The order being followed."""

    rollout: int
    stage: int
    kind: Kind
    release: Release
    shadow_s: float
    plan_digest: str

    @property
    def digest(self) -> str:
        return self.release.digest


class Updater:
    """One robot's updater. ``send`` and ``note`` are the way to the hub and to the robot's own log."""

    def __init__(
        self,
        state_dir: Path,
        checker: Checker,
        send: Callable[[FromRobot], bool],
        note: Callable[..., None],
        keys: Path,
        robot: str,
        wall_ns: Callable[[], int] = time.time_ns,
        trace: UpdateTrace | None = None,
        trusted_ns: Callable[[], int] | None = None,
        draw: random.Random | None = None,
        other_way: Callable[[], bool] = lambda: False,
    ) -> None:
        """Pick up what was going on when the process before this one ended. ``keys`` is the robot's own folder.

        ``trusted_ns`` is the time by which plans expire (the hub's, verified); ``wall_ns`` without it. ``other_way``
        is asked when what came was refused: whether to ask for it again, since it came by a mirror.
        """
        self._trusted_ns = trusted_ns or wall_ns
        self._other_way = other_way
        self.slots = SlotStore(state_dir)
        self.mailbox = CommsMailbox(state_dir)
        self.orders = OrderBook(state_dir, keys, robot)
        self._state_dir, self._keys, self._robot, self._wall_ns = state_dir, keys, robot, wall_ns
        self._staging = state_dir / "staging"
        self._refused_path = state_dir / "slots" / REFUSED_FILE
        self._checker, self._send, self._note = checker, send, note
        self._job: _Job | None = None
        self._taking_back: _Job | None = None
        self._later: Order | None = None
        self._download: Download | None = None
        self._question: FetchFile | None = None
        self._tries = self._kills = self._unanswered = 0
        self._draw = draw or random.Random(zlib.crc32(robot.encode()))
        self._ask_again_ns = self._asked_ns = self._looked_ns = 0
        self._trace = trace or UpdateTrace(None, robot)
        self._candidate = self.mailbox.waiting()
        self.state = State.WAITING if self._candidate else State.IDLE

    def on_order(self, order: Order, now_ns: int) -> None:
        """The hub says what this robot should run; followed only when the order's papers say so, too."""
        if self.state is State.WAITING:
            self._step_waiting()
        if self._candidate and self._candidate.kind == "revert" and order.action != "revert":
            self._later = order  # control must hear of the way back before of anything new
            return
        try:
            if order.action == "revert" and self._nothing_of(order.digest):
                self._send(RolloutReport(order.rollout, order.stage, order.digest, "reverted"))
                return
            accepted = self.orders.check(order, self._trusted_ns())
            self.orders.accept(accepted, self._wall_ns())
        except (OrderError, SlotError, OSError) as error:
            self._refuse_order(order, error)
            return
        job = _job_of(accepted)
        if job.kind == "revert":
            self._take_back(job)
        elif self._job == job and self.state is not State.IDLE:
            self._report_state()
        else:
            self._begin(job, now_ns)

    def _refuse_order(self, order: Order, error: Exception) -> None:
        """Say why; nothing has changed, on disk or in what is under way."""
        code = error.code if isinstance(error, OrderError) else "disk"
        self._note("order_refused", code=code, digest=order.digest, reason=short(error))
        self._send(RolloutReport(order.rollout, order.stage, order.digest, "refused", code, short(error)))

    def _begin(self, job: _Job, now_ns: int) -> None:
        if self.state in (State.DOWNLOADING, State.CHECKING):
            self._checker.cancel()
        self._job = job
        if self._settle_known(job):
            return
        if self._candidate:
            self._discard_candidate()
        try:
            self.slots.check_counter(job.release.policy_name, job.release.release_counter)
            self._download = Download(self._staging, job.digest, job.release.size_bytes)
        except (BundleError, OSError, SlotError) as error:
            self._refuse(str(error), getattr(error, "code", "disk"))
            return
        self._tries, self._kills, self._unanswered, self.state = 0, 0, 0, State.DOWNLOADING
        self._phase("download", job)
        self._report("downloading")
        self._ask(now_ns)

    def on_chunk(self, chunk: Chunk, now_ns: int) -> None:
        """Bytes have come; ask for the next, or begin to check."""
        download = self._download
        if self.state is not State.DOWNLOADING or download is None or chunk.digest != download.digest:
            return
        if not chunk.data:
            self._refuse("the hub ordered a bundle that it does not have; release it again", "unreadable")
            return
        try:
            if not download.add(chunk.offset, chunk.data):
                return  # asked for twice: the answer to the newer question is under way
            self._unanswered = 0
            self._ask(now_ns)
        except OSError as error:
            self._refuse(f"cannot store the bundle: {error.strerror}; free some space", "disk")

    def on_wait(self, wait: Wait, now_ns: int) -> None:
        """The hub has no place for this transfer yet: ask again when it says, or up to a quarter later."""
        if self.state is State.DOWNLOADING and self._download and wait.digest == self._download.digest:
            self._unanswered = 0
            self._ask_again_ns = now_ns + int(wait.wait_ms * self._draw.uniform(1.0, 1.25) * 1e6)

    def on_file(self, chunk: FileChunk) -> None:
        """Metadata has come: hand it to the check that asked for it."""
        asked = self._question
        if asked is not None and (chunk.name, chunk.offset) == (asked.name, asked.offset):
            self._question = None
            self._checker.answer(chunk)

    def on_online(self, now_ns: int) -> None:
        """The hub is there (again): go on asking at once."""
        if self.state is State.DOWNLOADING:
            self._unanswered = 0
            self._ask(now_ns)
        elif self._question is not None:
            self._send(self._question)

    def step(self, now_ns: int) -> None:
        """What is due now."""
        if self.state is State.DOWNLOADING and now_ns > self._ask_again_ns:
            self._unanswered += 1
            self._ask(now_ns)
        elif self.state is State.CHECKING:
            self._step_checking(now_ns)
        elif self.state is State.WAITING:
            self._step_waiting()
        elif self._later:
            order, self._later = self._later, None
            self.on_order(order, now_ns)
        elif now_ns - self._looked_ns >= SOAK_LOOK_S * 1e9:
            self._looked_ns = now_ns
            self._look_at_soak()

    def close(self) -> None:
        """End a running check."""
        self._checker.cancel()

    def _settle_known(self, job: _Job) -> bool:
        """Whether the order's end is known already, or near."""
        active = self.slots.active()
        if active and active.digest == job.digest and job.kind == "run":
            self.state = State.IDLE
            self.orders.drives_since(self._wall_ns())
            self._report("active")
            self._report_soak()
            return True
        note = self._read_refused()
        if note and (note.rollout, note.digest) == (job.rollout, job.digest):
            self.state = State.IDLE
            self._report("refused", note.reason, note.code)
            return True
        standing = self.orders.standing()
        if job.kind == "shadow" and standing.soaked:
            self.state = State.IDLE
            self._report_witnessed("shadowed")
            return True
        candidate = self._candidate
        if candidate and (candidate.digest, candidate.kind) == (job.digest, job.kind):
            self._candidate = msgspec.structs.replace(candidate, rollout=job.rollout, stage=job.stage)
            self.state = State.WAITING
            self._report("staged")
            return True
        return False

    def _ask(self, now_ns: int) -> None:
        assert self._download is not None
        if not self._download.complete:
            self._asks(now_ns)
            self._send(FetchChunk(self._download.digest, self._download.offset))
            return
        try:
            whole = self._download.seal()
        except OSError as error:
            self._refuse(f"cannot store the bundle: {error.strerror}", "disk")
            return
        if whole:
            assert self._job is not None
            self.state, self._question = State.CHECKING, None
            self._phase("check", self._job)
            self._checker.start(self._download.path, now_ns, _wanted(self._job, self._robot))
            return
        self._tries += not self._other_way()
        self._download.restart()
        if self._tries >= DOWNLOAD_TRIES_MAX:
            self._refuse(
                f"fetched {self._tries} times, never with the digest that was approved; look at the hub's disk",
                "content_changed",
            )
            return
        self._asks(now_ns)
        self._send(FetchChunk(self._download.digest, 0))

    def _asks(self, now_ns: int) -> None:
        """When to ask for a chunk again should no answer come."""
        ceiling_s = min(BACKOFF_MAX_S, CHUNK_WAIT_MAX_S * 2.0 ** min(self._unanswered, 8))
        self._ask_again_ns = now_ns + int(self._draw.uniform(0.5, 1.0) * ceiling_s * 1e9)

    def _step_checking(self, now_ns: int) -> None:
        self._pass_question(now_ns)
        result = self._checker.result(now_ns)
        if result is None:
            return
        job, download, facts = self._job, self._download, result.facts
        self._question = None
        assert job is not None
        assert download is not None
        self._kills += facts is None and result.code == CHECK_KILLED
        if facts is None and (
            result.code == Code.UNREACHABLE or (result.code == CHECK_KILLED and self._kills < CHECK_KILLS_MAX)
        ):
            self.state = State.DOWNLOADING  # the bundle stays; the check begins again
            self._asks(now_ns)
            return
        if facts is None and result.code in MIRRORED and self._other_way():
            self.state = State.DOWNLOADING
            self._ask(now_ns)  # the bundle is whole: only the check begins again, by way of the hub
            return
        if facts is None:
            self._refuse(f"{result.code}: {result.reason}", result.code)
            return
        release = job.release
        promised = (release.digest, release.policy_name, release.version, release.release_counter)
        if (facts.digest, facts.policy_name, facts.version, facts.release_counter) != promised:
            self._refuse("the bundle says something else of itself than the plan", "wrong_release")
            return
        try:
            entry = self.slots.stage(download.path, facts)
            self._candidate = new_candidate(entry, job.rollout, job.stage, job.kind, job.shadow_s)
            self._phase("swap", self._candidate)
            self.mailbox.offer(self._candidate)
        except (BundleError, OSError, SlotError) as error:
            self._refuse(str(error), getattr(error, "code", "disk"))
            return
        self.state = State.WAITING
        self._note("update_staged", digest=facts.digest, version=facts.version)
        self._report("staged")

    def _pass_question(self, now_ns: int) -> None:
        """Ask the hub what the check asks; again where the answer stays away."""
        if question := self._checker.question():
            self._question = question
        elif self._question is None or now_ns - self._asked_ns < CHUNK_WAIT_MAX_S * 1e9:
            return
        assert self._question is not None
        self._asked_ns = now_ns
        self._send(self._question)

    def _step_waiting(self) -> None:
        candidate = self._candidate
        answer = self.mailbox.answer_to(candidate) if candidate else None
        if candidate is None or answer is None:
            return
        if not answer.accepted:
            self._discard_candidate()
            reason = f"control refused it: {answer.reason}"
            self._refuse(reason, "control_refused", candidate)
        elif candidate.kind == "run":
            self._commit(candidate)
        elif candidate.kind == "shadow":
            self._end_shadow(candidate)
        else:
            self._end_taking_back(candidate)
        if self._taking_back and self.state is State.IDLE:
            job, self._taking_back = self._taking_back, None
            self._take_back(job)

    def _commit(self, candidate: Candidate) -> None:
        active, facts = self.slots.active(), candidate.entry.facts
        self._phase("commit", candidate)
        try:
            FloorStore(self._state_dir).lift(Floor({facts.policy_name: facts.release_counter}))
        except (OSError, TrustError) as error:
            self._note("disk_error", what="floor", error=str(error))
        if active is None or active.digest != candidate.digest:
            self.slots.commit(candidate.entry)
        self.orders.drives_since(self._wall_ns())
        self.mailbox.withdraw(durable=False)  # where a power cut brings it back, it is committed already
        self._candidate, self.state = None, State.IDLE
        self._trace.done("active")
        self._note("update_active", digest=facts.digest, version=facts.version)
        self._send(Running(facts.digest, facts.version))
        self._send(RolloutReport(candidate.rollout, candidate.stage, candidate.digest, "active"))

    def _end_shadow(self, candidate: Candidate) -> None:
        self.orders.soaked()
        self._discard_candidate()
        self.state = State.IDLE
        self._trace.done("shadowed")
        self._note("update_shadowed", digest=candidate.digest, version=candidate.entry.facts.version)
        self._report_witnessed("shadowed")

    def _nothing_of(self, digest: str) -> bool:
        """Whether this robot neither runs that release nor is about to."""
        active, job = self.slots.active(), self._job
        busy = job is not None and job.digest == digest and self.state is not State.IDLE
        mail = self._candidate is not None and self._candidate.digest == digest
        return not busy and not mail and (active is None or active.digest != digest)

    def _take_back(self, job: _Job) -> None:
        """Go back to the policy before: on disk at once, so that a control that crashes over it comes up well."""
        if self._candidate is not None:
            self._taking_back = job  # control is at it: its answer comes first
            return
        if self.state in (State.DOWNLOADING, State.CHECKING):
            self._checker.cancel()
            if self._download:
                self._download.restart()
        self._job, self._download, self.state = job, None, State.IDLE
        active = self.slots.active()
        if active is None or active.digest != job.digest:
            self._report("reverted")
            return
        try:
            self._candidate = new_candidate(active, job.rollout, job.stage, "revert")
            self._phase("return", job)
            self.mailbox.offer(self._candidate)
            self.slots.retreat(job.digest)
            self.orders.drives_since(0)
        except (OSError, SlotError) as error:
            self._note("disk_error", what="taking a release back", error=str(error))
        self.state = State.WAITING

    def _end_taking_back(self, candidate: Candidate) -> None:
        now_active = self.slots.retreat(candidate.digest)
        self._discard_candidate()
        self.state = State.IDLE
        facts = now_active.facts if now_active else None
        version = facts.version if facts else ""
        self._trace.done("reverted")
        self._note("update_reverted", digest=candidate.digest, version=version)
        self._send(Running(facts.digest if facts else "", version))
        self._send(RolloutReport(candidate.rollout, candidate.stage, candidate.digest, "reverted"))

    def _look_at_soak(self) -> None:
        """The release drives: has it failed since, or driven long enough?"""
        try:
            standing = self.orders.standing()
        except OrderError:
            return  # said with the next order
        if standing.action != "run" or not standing.active_wall_ns:
            return
        if why := DroppedStore(self._state_dir, self._tell).why(standing.release):
            self.orders.drives_since(0)
            self._note("update_failed", digest=standing.release, reason=why)
            self._send(
                RolloutReport(
                    standing.rollout, standing.stage, standing.release, "failed", "dropped", short(why)
                )
            )
        elif not standing.soaked and self._wall_ns() - standing.active_wall_ns >= standing.soak_s * 1e9:
            self.orders.soaked()
            self._note("update_soaked", digest=standing.release)
            self._report_witnessed("soaked")

    def _tell(self, text: str) -> None:
        self._note("disk_error", what="dropped.json", error=text)

    def _report_soak(self) -> None:
        """Say again what may have been lost on the way."""
        if self.orders.standing().soaked:
            self._report_witnessed("soaked")

    def _report_witnessed(self, state: str) -> None:
        standing = self.orders.standing()
        seen = Witness(standing.plan_digest, standing.stage, self._robot, standing.release)
        try:
            paper = sign_witness(seen, self._keys)
        except KeyFileError as error:
            self._note("order_refused", code="card_refused", digest=standing.release, reason=short(error))
            return
        self._send(RolloutReport(standing.rollout, standing.stage, standing.release, state, witness=paper))

    def _discard_candidate(self) -> None:
        if self._candidate:
            self.mailbox.withdraw()
            self.slots.discard(self._candidate.entry)
            self._candidate = None

    def _refuse(self, reason: str, code: str, candidate: Candidate | None = None) -> None:
        """Leave everything as it was, remember and report why."""
        if self._download:
            self._download.path.unlink(missing_ok=True)
            self._download = None
        self.state = State.IDLE
        about = candidate or self._job
        assert about is not None
        note = _RefusedNote(about.rollout, about.digest, code, short(reason))
        try:
            write_atomically(self._refused_path, msgspec.json.encode(note))
        except OSError as error:
            self._note("disk_error", what="refused.json", error=str(error))
        self._trace.done("refused", code, note.reason)
        self._note("update_refused", code=code, digest=note.digest, reason=note.reason)
        self._send(RolloutReport(note.rollout, about.stage, note.digest, "refused", code, note.reason))

    def _phase(self, name: Phase, about: _Job | Candidate) -> None:
        self._trace.phase(about.rollout, about.stage, about.digest, name)

    def _report_state(self) -> None:
        names = {State.DOWNLOADING: "downloading", State.CHECKING: "downloading", State.WAITING: "staged"}
        self._report(names[self.state])

    def _report(self, state: str, reason: str = "", code: str = "") -> None:
        job = self._job
        assert job is not None
        self._send(RolloutReport(job.rollout, job.stage, job.digest, state, code, reason))

    def _read_refused(self) -> _RefusedNote | None:
        try:
            return msgspec.json.decode(self._refused_path.read_bytes(), type=_RefusedNote)
        except (OSError, msgspec.MsgspecError):
            return None


def _wanted(job: _Job, robot: str) -> Wanted:
    return Wanted(job.digest, DirectorFacts(robot, job.rollout, job.stage, job.kind, job.plan_digest))


def _job_of(accepted: Accepted) -> _Job:
    order, stage = accepted.order, accepted.stage
    kind: Kind = "run"
    if order.action != "run":
        kind = "revert" if order.action == "revert" else "shadow"
    shadow_s = stage.soak_s if kind == "shadow" else 0.0
    return _Job(order.rollout, order.stage, kind, accepted.plan.release, shadow_s, accepted.plan_digest)
