"""Takes orders of the hub to their end: check the papers, fetch, check, stage, ask control, commit, report.

    idle -> downloading -> checking -> waiting (for control) -> idle
Never blocks. A kill at any point goes on where it was: what was accepted (``orders``), the part file, the candidate
and the active slot are on disk. What is done in each state is elsewhere: ``transfer`` talks with the hub, ``swap``
writes, ``job`` decides what follows from a check, ``soak`` watches what drives.
"""

import enum
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from contracts.errors import BundleError, OrderError
from contracts.messages import (
    Chunk,
    FetchFile,
    FileChunk,
    FromHub,
    FromRobot,
    Order,
    RolloutReport,
    Running,
    Wait,
    Welcome,
    short,
)
from edge_agent.errors import SlotError, TransferFailedError
from edge_agent.update.checker import CHECK_KILLED, Checker
from edge_agent.update.job import Job, job_of, verdict_on, wanted_of
from edge_agent.update.mailbox import Candidate
from edge_agent.update.orders import OrderBook
from edge_agent.update.refused import Refusal, RefusedStore
from edge_agent.update.slots import BundleFacts
from edge_agent.update.soak import SoakWatch
from edge_agent.update.swap import Swap
from edge_agent.update.tracing import Phase, UpdateTrace
from edge_agent.update.transfer import Transfer

ANSWER_MAX_S = 3.0
"""After that a file that the check wants is asked for again."""
DISK_AGAIN_S = 1.0
"""How often a way back is tried that the disk refuses."""


class State(enum.Enum):
    """What the updater is busy with."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    CHECKING = "checking"
    WAITING = "waiting"


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
        self._other_way, self._robot, self._wall_ns = other_way, robot, wall_ns
        self._checker, self._send, self._note = checker, send, note
        self.orders = OrderBook(state_dir, keys, robot)
        self._swap = Swap(state_dir, self.orders, note)
        self.slots, self.mailbox = self._swap.slots, self._swap.mailbox
        draw = draw or random.Random(zlib.crc32(robot.encode()))
        self._transfer = Transfer(state_dir / "staging", send, draw, other_way)
        self._soak = SoakWatch(state_dir, self.orders, send, note, keys, robot, wall_ns)
        self._refused = RefusedStore(state_dir, note)
        self._trace = trace or UpdateTrace(None, robot)
        self._job: Job | None = None
        self._taking_back: Job | None = None
        self._later: Order | None = None
        self._question: FetchFile | None = None
        self._kills = self._asked_ns = self._try_again_ns = 0
        self.state = State.WAITING if self._swap.candidate else State.IDLE

    # What comes from the hub

    def on_message(self, message: FromHub, now_ns: int) -> None:
        """Whatever the hub says; what is not about updates is passed over."""
        if isinstance(message, Welcome):
            self.on_online(now_ns)
        elif isinstance(message, Order):
            self.on_order(message, now_ns)
        elif isinstance(message, Chunk):
            self.on_chunk(message, now_ns)
        elif isinstance(message, Wait):
            self.on_wait(message, now_ns)
        elif isinstance(message, FileChunk):
            self.on_file(message)

    def on_order(self, order: Order, now_ns: int) -> None:
        """The hub says what this robot should run; followed only when the order's papers say so, too."""
        if self.state is State.WAITING:
            self._step_waiting()
        candidate = self._swap.candidate
        if candidate and candidate.kind == "revert" and order.action != "revert":
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
        job = job_of(accepted)
        if job.kind == "revert":
            self._take_back(job)
        elif self._job == job and self.state is not State.IDLE:
            self._report("staged" if self.state is State.WAITING else "downloading")
        else:
            self._begin(job, now_ns)

    def on_chunk(self, chunk: Chunk, now_ns: int) -> None:
        """Bytes have come; ask for the next, or begin to check."""
        if self.state is not State.DOWNLOADING or chunk.digest != self._transfer.digest:
            return
        try:
            added = self._transfer.add(chunk)
        except TransferFailedError as error:
            self._refuse(str(error), error.code)
            return
        if added:
            self._fetch(now_ns)

    def on_wait(self, wait: Wait, now_ns: int) -> None:
        """The hub has no place for this transfer yet."""
        if self.state is State.DOWNLOADING and wait.digest == self._transfer.digest:
            self._transfer.wait(wait, now_ns)

    def on_file(self, chunk: FileChunk) -> None:
        """Metadata has come: hand it to the check that asked for it."""
        asked = self._question
        if asked is not None and (chunk.name, chunk.offset) == (asked.name, asked.offset):
            self._question = None
            self._checker.answer(chunk)

    def on_online(self, now_ns: int) -> None:
        """The hub is there (again): go on asking at once."""
        if self.state is State.DOWNLOADING:
            self._transfer.online()
            self._fetch(now_ns)
        elif self._question is not None:
            self._send(self._question)

    # What is due by itself

    def step(self, now_ns: int) -> None:
        """What is due now."""
        if self.state is State.DOWNLOADING and self._transfer.due(now_ns):
            self._fetch(now_ns)
        elif self.state is State.CHECKING:
            self._step_checking(now_ns)
        elif self.state is State.WAITING:
            self._step_waiting()
        elif self._taking_back and now_ns >= self._try_again_ns:
            self._try_again_ns = now_ns + int(DISK_AGAIN_S * 1e9)
            job, self._taking_back = self._taking_back, None
            self._take_back(job)
        elif self._later:
            order, self._later = self._later, None
            self.on_order(order, now_ns)
        else:
            self._soak.step(now_ns)

    def close(self) -> None:
        """End a running check."""
        self._checker.cancel()

    # An order that is followed

    def _begin(self, job: Job, now_ns: int) -> None:
        if self.state in (State.DOWNLOADING, State.CHECKING):
            self._checker.cancel()
        self._job = job
        if self._settle_known(job):
            return
        if self._swap.candidate:
            self._swap.discard()
        try:
            self.slots.check_counter(job.release.policy_name, job.release.release_counter)
            self._transfer.begin(job.digest, job.release.size_bytes)
        except (BundleError, OSError, SlotError) as error:
            self._refuse(str(error), getattr(error, "code", "disk"))
            return
        self._kills, self.state = 0, State.DOWNLOADING
        self._phase("download", job)
        self._report("downloading")
        self._fetch(now_ns)

    def _settle_known(self, job: Job) -> bool:
        """Whether the order's end is known already, or near."""
        active = self.slots.active()
        if active and active.digest == job.digest and job.kind == "run":
            self.state = State.IDLE
            self.orders.drives_since(self._wall_ns())
            self._report("active")
            self._soak.report_again()
            return True
        if refusal := self._refused.find(job.rollout, job.digest):
            self.state = State.IDLE
            self._report("refused", refusal.reason, refusal.code)
            return True
        if job.kind == "shadow" and self.orders.standing().soaked:
            self.state = State.IDLE
            self._soak.report("shadowed")
            return True
        if self._swap.asked_again(job):
            self.state = State.WAITING
            self._report("staged")
            return True
        return False

    def _fetch(self, now_ns: int) -> None:
        """Ask for what is missing; the check begins when nothing is."""
        try:
            whole = self._transfer.proceed(now_ns)
        except TransferFailedError as error:
            self._refuse(str(error), error.code)
            return
        if whole:
            assert self._job is not None
            self.state, self._question = State.CHECKING, None
            self._phase("check", self._job)
            self._checker.start(self._transfer.path, now_ns, wanted_of(self._job, self._robot))

    def _step_checking(self, now_ns: int) -> None:
        self._pass_question(now_ns)
        result = self._checker.result(now_ns)
        if result is None:
            return
        job, self._question = self._job, None
        assert job is not None
        self._kills += result.facts is None and result.code == CHECK_KILLED
        verdict = verdict_on(result, self._kills, job.release)
        if verdict.next == "check_again":
            self.state = State.DOWNLOADING  # the bundle stays; the check begins again
            self._transfer.put_off(now_ns)
        elif verdict.next == "ask_elsewhere" and self._other_way():
            self.state = State.DOWNLOADING
            self._fetch(now_ns)  # the bundle is whole: only the check begins again, by way of the hub
        elif verdict.next == "stage":
            assert result.facts is not None
            self._stage(job, result.facts)
        else:
            self._refuse(verdict.reason, verdict.code)

    def _pass_question(self, now_ns: int) -> None:
        """Ask the hub what the check asks; again where the answer stays away."""
        if question := self._checker.question():
            self._question = question
        elif self._question is None or now_ns - self._asked_ns < ANSWER_MAX_S * 1e9:
            return
        self._asked_ns = now_ns
        self._send(self._question)

    def _stage(self, job: Job, facts: BundleFacts) -> None:
        try:
            candidate = self._swap.stage(self._transfer.path, facts, job)
            self._phase("swap", candidate)
            self._swap.offer(candidate)
        except (BundleError, OSError, SlotError) as error:
            self._refuse(str(error), getattr(error, "code", "disk"))
            return
        self.state = State.WAITING
        self._note("update_staged", digest=facts.digest, version=facts.version)
        self._report("staged")

    def _step_waiting(self) -> None:
        candidate, answer = self._swap.candidate, self._swap.answer()
        if candidate is None or answer is None:
            return
        if not answer.accepted:
            self._swap.discard()
            self._refuse(f"control refused it: {answer.reason}", "control_refused", candidate)
        elif candidate.kind == "run":
            self._commit(candidate)
        elif candidate.kind == "shadow":
            self._end_shadow(candidate)
        else:
            self._end_taking_back(candidate)
        if self._taking_back and self.state is State.IDLE:
            job, self._taking_back = self._taking_back, None
            self._take_back(job)

    # Its ends

    def _commit(self, candidate: Candidate) -> None:
        self._phase("commit", candidate)
        self._swap.commit(candidate, self._wall_ns())
        self.state, facts = State.IDLE, candidate.entry.facts
        self._trace.done("active")
        self._note("update_active", digest=facts.digest, version=facts.version)
        self._send(Running(facts.digest, facts.version))
        self._send(RolloutReport(candidate.rollout, candidate.stage, candidate.digest, "active"))

    def _end_shadow(self, candidate: Candidate) -> None:
        self.orders.soaked()
        self._swap.discard()
        self.state = State.IDLE
        self._trace.done("shadowed")
        self._note("update_shadowed", digest=candidate.digest, version=candidate.entry.facts.version)
        self._soak.report("shadowed")

    def _nothing_of(self, digest: str) -> bool:
        """Whether this robot neither runs that release nor is about to."""
        active, job, candidate = self.slots.active(), self._job, self._swap.candidate
        busy = job is not None and job.digest == digest and self.state is not State.IDLE
        mail = candidate is not None and candidate.digest == digest
        return not busy and not mail and (active is None or active.digest != digest)

    def _take_back(self, job: Job) -> None:
        """Go back to the policy before."""
        if self._swap.candidate is not None:
            self._taking_back = job  # control is at it: its answer comes first
            return
        if self.state in (State.DOWNLOADING, State.CHECKING):
            self._checker.cancel()
            self._transfer.drop()
        self._transfer.forget()
        self._job, self.state = job, State.IDLE
        active = self.slots.active()
        if active is None or active.digest != job.digest:
            self._report("reverted")
            return
        self._phase("return", job)
        try:
            self._swap.take_back(active, job)
        except (OSError, SlotError) as error:
            self._note("disk_error", what="taking a release back", error=str(error))
            self._swap.candidate, self._taking_back = None, job  # control has not heard of it: tried again
            return
        self.state = State.WAITING

    def _end_taking_back(self, candidate: Candidate) -> None:
        now_active = self._swap.end_taking_back(candidate)
        self.state = State.IDLE
        facts = now_active.facts if now_active else None
        version = facts.version if facts else ""
        self._trace.done("reverted")
        self._note("update_reverted", digest=candidate.digest, version=version)
        self._send(Running(facts.digest if facts else "", version))
        self._send(RolloutReport(candidate.rollout, candidate.stage, candidate.digest, "reverted"))

    def _refuse_order(self, order: Order, error: Exception) -> None:
        """Say why; nothing has changed, on disk or in what is under way."""
        code = error.code if isinstance(error, OrderError) else "disk"
        self._note("order_refused", code=code, digest=order.digest, reason=short(error))
        self._send(RolloutReport(order.rollout, order.stage, order.digest, "refused", code, short(error)))

    def _refuse(self, reason: str, code: str, candidate: Candidate | None = None) -> None:
        """Leave everything as it was, remember and report why."""
        self._transfer.drop()
        self.state = State.IDLE
        about = candidate or self._job
        assert about is not None
        refusal = Refusal(about.rollout, about.digest, code, short(reason))
        self._refused.write(refusal)
        self._trace.done("refused", code, refusal.reason)
        self._note("update_refused", code=code, digest=refusal.digest, reason=refusal.reason)
        self._send(
            RolloutReport(refusal.rollout, about.stage, refusal.digest, "refused", code, refusal.reason)
        )

    # What is told

    def _phase(self, name: Phase, about: Job | Candidate) -> None:
        self._trace.phase(about.rollout, about.stage, about.digest, name)

    def _report(self, state: str, reason: str = "", code: str = "") -> None:
        job = self._job
        assert job is not None
        self._send(RolloutReport(job.rollout, job.stage, job.digest, state, code, reason))
