"""Rollouts of one hub: the machine's events on disk, its orders and views out of them.

Every event goes through the audit log in the transaction that makes it true; in memory is only what folding the log
gives. Nothing here decides when a stage passes: that is ``machine``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contracts.canonical import digest_hex
from contracts.errors import NotApprovedError, OrderError, PlanError
from contracts.messages import (
    GateView,
    Order,
    PlanView,
    ReleaseInfo,
    RobotProgress,
    RolloutReport,
    RolloutView,
    StageMembers,
    StageView,
)
from contracts.papers import (
    WITNESSES_MAX,
    Act,
    Witness,
    check_approved,
    check_time,
    open_act,
    open_approval,
    open_witness,
)
from contracts.plan import Plan, RobotCard, decode_plan, stages_of
from fleet_hub.catalogue.catalogue import Catalogue
from fleet_hub.errors import NotAllowedError, RolloutRefusedError, UnknownReleaseError, UnknownRolloutError
from fleet_hub.people import People
from fleet_hub.rollout import events as ev
from fleet_hub.rollout.evidence import EvidenceRoom
from fleet_hub.rollout.machine import DONE, FAILED, OPEN, Fleet, State, accepts, decide, order_for
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database

STEPS_MAX = 64
"""Rounds of decisions in one step; more follow in the next."""
WITNESSES_SPARE = 2
"""More than the plan asks for, should one robot's card not be what another robot trusts."""
HUB = "hub"
Told = tuple[int, int, str]
"""Rollout, stage, action."""


@dataclass
class Rollout:
    """One rollout in memory."""

    number: int
    plan_bytes: bytes
    plan_digest: str
    state: State
    members: dict[int, frozenset[str]]

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return self.state.plan


class Rollouts:
    """Plans, approvals and rollouts of one hub."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        catalogue: Catalogue,
        people: People,
        cards: Mapping[str, tuple[bytes, RobotCard]],
        evidence: EvidenceRoom,
        wall_ns: Callable[[], int],
    ) -> None:
        """Fold what the audit log says about rollouts that are not over. ``cards`` are the fleet's robots."""
        self._database, self._audit, self._catalogue = database, audit, catalogue
        self._people, self._cards, self._evidence, self._wall_ns = people, cards, evidence, wall_ns
        self._live: dict[int, Rollout] = {}
        self.on_report: Callable[[int, RolloutReport, str], None] | None = None
        """Told of every report that was news: rollout, report, robot."""
        for (number,) in database.rows("SELECT id FROM rollout ORDER BY id"):
            self._live[number] = self._load(number)
            self._drop_settled()

    def check(self, plan_bytes: bytes) -> PlanView:
        """Who would get what, and what is missing; raises PlanError, HubError where the plan does not fit."""
        plan, digest = decode_plan(plan_bytes), digest_hex(plan_bytes)
        members = self._check_fleet(plan, digest)
        try:
            access = self._people.access()[1]
            names = [person.name for _, person in check_approved(digest, self._approvals(digest), access)]
            missing = ""
        except OrderError as error:
            names = [str(row[0]) for row in self._database.rows(_PERSONS, digest)]
            missing = str(error)[:500]
        everybody = frozenset().union(*members.values())
        stages = tuple(
            StageMembers(stage.name, stage.kind, len(members[i]), tuple(sorted(members[i])[:4096]))
            for i, stage in enumerate(plan.stages)
        )
        left_out = tuple(sorted(set(self._cards) - everybody)[:4096])
        return PlanView(digest, self._release(plan), stages, left_out, tuple(sorted(names)), missing)

    def approve(self, plan_bytes: bytes, paper: bytes) -> PlanView:
        """Take a person's signature; raises OrderError, HubError."""
        plan, digest = decode_plan(plan_bytes), digest_hex(plan_bytes)
        self._check_fleet(plan, digest)
        check_time(plan, self._wall_ns())
        approval, person = open_approval(paper, digest, self._people.access()[1])
        with self._database.transaction():
            self._keep_plan(digest, plan_bytes)
            self._database.run(_APPROVE, digest, person.name, paper)
            self._audit.append(person.name, ev.Approved(digest, plan.name, person.roles, approval.why))
        return self.check(plan_bytes)

    def act(self, paper: bytes, plan_bytes: bytes) -> RolloutView:
        """Do what a person signed; raises OrderError, HubError."""
        act = open_act(paper, self._people.access()[1], self._wall_ns())
        act_digest = digest_hex(paper)
        if self._database.rows(
            "SELECT 1 FROM audit WHERE who = ? AND body LIKE ?", act.person, f"%{act_digest}%"
        ):
            raise RolloutRefusedError("that very order has been carried out before; sign a new one")
        if act.action == "start":
            return self.view(self._start(act, act_digest, plan_bytes))
        rollout = self._live.get(act.rollout)
        if rollout is None or rollout.plan_digest != act.plan_digest:
            raise UnknownRolloutError(f"no rollout {act.rollout} of that plan is under way")
        self._record(rollout, act.person, _act_event(act, act_digest, rollout.state.state))
        self._drop_settled()
        return self.view(rollout.number)

    def _start(self, act: Act, act_digest: str, plan_bytes: bytes) -> int:
        plan, digest = decode_plan(plan_bytes), digest_hex(plan_bytes)
        if digest != act.plan_digest:
            raise NotApprovedError(
                f"signed for plan {act.plan_digest[:12]}, came {digest[:12]}; sign this one"
            )
        members = self._check_fleet(plan, digest)
        check_time(plan, self._wall_ns())
        approved = check_approved(digest, self._approvals(digest), self._people.access()[1])
        if self._database.rows("SELECT 1 FROM rollout WHERE plan_digest = ?", digest):
            raise RolloutRefusedError("this plan has been rolled out before; issue a new one")
        running = [rollout for rollout in self._live.values() if rollout.state.state in OPEN]
        if running and not act.supersede:
            raise RolloutRefusedError(
                f"rollout {running[0].number} is {running[0].state.state}; end it with `outrider rollout abort`"
            )
        with self._database.transaction():
            self._keep_plan(digest, plan_bytes)
            number = int(self._database.rows(_BEGIN, digest)[0][0])
            names = tuple(sorted(person.name for _, person in approved))
            release = f"{plan.release.policy_name}@{plan.release.version}"
            event = ev.Started(digest, plan.name, release, act.why, names, act_digest)
            wall_ns = self._audit.append(act.person, event, number)
            for other in running:
                self._record(other, HUB, ev.Superseded(number))
        state = State(plan)
        state.apply(event, act.person, wall_ns)
        self._live[number] = Rollout(number, plan_bytes, digest, state, members)
        self._drop_settled()
        return number

    def report(self, robot: str, report: RolloutReport) -> None:
        """Note how far a robot has come; what is not news changes nothing. Raises NotAllowedError."""
        rollout = self._live.get(report.rollout)
        if rollout is None or rollout.plan.release.digest != report.digest:
            return
        event = ev.Reported(robot, report.stage, report.state, report.code, report.reason)
        if not accepts(rollout.state, robot, event):
            return
        if report.state in DONE:
            wanted = Witness(rollout.plan_digest, report.stage, robot, report.digest)
            if open_witness(report.witness, self._cards[robot][1]) != wanted:
                raise NotAllowedError(f"{robot} signed that it saw something else than {report.state}")
        with self._database.transaction():
            if report.state in DONE:
                self._database.run(
                    _WITNESS,
                    rollout.plan_digest, report.stage, robot, report.witness,
                )  # fmt: skip
            self._record(rollout, robot, event)
        if self.on_report is not None:
            self.on_report(rollout.number, report, robot)

    def step(self, heard_ns: Mapping[str, int], online: frozenset[str]) -> bool:
        """Let every rollout go on as far as it may now; whether anything happened."""
        happened = False
        for rollout in list(self._live.values()):
            fleet = Fleet(rollout.members, heard_ns, online & frozenset(self._cards))
            judged = self._evidence.judge(rollout.number, rollout.state, fleet, self._wall_ns())
            if judged is not None:
                self._record(rollout, HUB, judged)
            for _ in range(STEPS_MAX):
                events = decide(rollout.state, self._wall_ns(), fleet)
                if not events:
                    break
                with self._database.transaction():
                    for event in events:
                        self._record(rollout, HUB, event)
                happened = True
        self._drop_settled()
        return happened

    def fleet_changed(self) -> None:
        """Cards have come or gone: stages name their robots anew, and who has none any more has left.

        What a robot that left had failed before still counts.
        """
        for rollout in self._live.values():
            rollout.members = self._members(rollout.plan, rollout.plan_digest)
            for robot, track in sorted(rollout.state.robots.items()):
                if robot not in self._cards and track.state not in (*FAILED, "reverted", "left"):
                    self._record(rollout, HUB, ev.Left(robot))
        self._drop_settled()

    def told_for(self, robot: str) -> Told | None:
        """What the robot should be told, in short: the newest rollout that has something to say to it."""
        for number in sorted(self._live, reverse=True):
            state = self._live[number].state
            if told := order_for(state, robot):
                return number, told[1], told[0]
            if robot in state.robots:
                return None
        return None

    def offer_for(self, robot: str) -> Order | None:
        """What the robot would be told if it were here: what the director signs, and what goes on a stick."""
        told = self.told_for(robot)
        for number in sorted(self._live, reverse=True) if told is None else ():
            state = self._live[number].state
            if state.state == "running" and robot not in state.robots:
                stage = state.stage
                if state.stage_began_ns.get(stage) and robot in self._live[number].members[stage]:
                    kind = state.plan.stages[stage].kind
                    told = number, stage, "shadow" if kind == "shadow" else "run"
                break
        return self.order(told) if told else None

    def order(self, told: Told) -> Order | None:
        """The same with its papers; None while there is no access file."""
        number, stage, action = told
        rollout = self._live[number]
        try:
            access = self._people.access()[0]
        except OrderError:
            return None
        witnesses = self._database.rows(
            "SELECT robot, paper FROM witness WHERE plan_digest = ? AND stage = ? LIMIT ?",
            rollout.plan_digest, stage - 1, min(WITNESSES_MAX, rollout.plan.witnesses + WITNESSES_SPARE),
        )  # fmt: skip
        return Order(
            rollout.number,
            stage,
            action,
            rollout.plan.release.digest,
            rollout.plan_bytes,
            self._approvals(rollout.plan_digest),
            access,
            tuple((self._cards[name][0], paper) for name, paper in witnesses if name in self._cards),
        )

    def view(self, number: int) -> RolloutView:
        """One rollout, the newest for 0; raises UnknownRolloutError."""
        if number == 0:
            number = int(self._database.rows("SELECT COALESCE(MAX(id), 0) FROM rollout")[0][0])
        rollout = self._live.get(number) or self._load(number)
        state, plan = rollout.state, rollout.plan
        stages = tuple(self._stage_view(rollout, index) for index in range(len(plan.stages)))
        return RolloutView(
            number, plan.name, rollout.plan_digest, self._release(plan), state.started_by, state.started_ns,
            state.state, state.reason[:500], stages, tuple(_progress(rollout)[:4096]),
        )  # fmt: skip

    def _stage_view(self, rollout: Rollout, index: int) -> StageView:
        state, stage = rollout.state, rollout.plan.stages[index]
        tracks = [track for track in state.robots.values() if track.stage == index]
        judged = self._evidence.latest(rollout.number, index) or state.judged.get(index)
        gates: tuple[GateView, ...] = judged.gates if judged else ()
        began_ns = state.stage_began_ns.get(index, 0)
        done = "passed" if index in state.passed else ("running" if began_ns else "waiting")
        if index == state.stage and state.state not in ("running", "finished"):
            done = state.state
        return StageView(
            stage.name, stage.kind, done, len(rollout.members[index]),
            sum(track.state in DONE for track in tracks), sum(track.state in FAILED for track in tracks),
            judged.trips if judged else 0, stage.minimum_trips, began_ns, gates,
        )  # fmt: skip

    def _load(self, number: int) -> Rollout:
        rows = self._database.rows(
            "SELECT r.plan_digest, p.plan FROM rollout r JOIN plan p USING (plan_digest) WHERE r.id = ?",
            number,
        )
        if not rows:
            what = f"no rollout {number}" if number else "no rollout has been started"
            raise UnknownRolloutError(f"{what}; begin one with `outrider rollout start`")
        digest, plan_bytes = rows[0]
        plan = decode_plan(plan_bytes)
        state = State(plan)
        for entry in self._audit.of(number):
            state.apply(ev.decode_entry(entry.body), entry.who, entry.wall_ns)
        return Rollout(number, plan_bytes, digest, state, self._members(plan, digest))

    def _record(self, rollout: Rollout, who: str, event: ev.RolloutEvent) -> None:
        rollout.state.apply(event, who, self._audit.append(who, event, rollout.number))

    def _drop_settled(self) -> None:
        """Keep those under way, those that still take something back, and the newest that finished."""
        finished = [number for number, found in self._live.items() if found.state.state == "finished"]
        for number in list(self._live):
            if self._live[number].state.settled or number in finished[:-1]:
                del self._live[number]

    def _members(self, plan: Plan, digest: str) -> dict[int, frozenset[str]]:
        found: dict[int, set[str]] = {index: set() for index in range(len(plan.stages))}
        for robot, (_, card) in self._cards.items():
            for index in stages_of(plan, digest, card):
                found[index].add(robot)
        return {index: frozenset(robots) for index, robots in found.items()}

    def _check_fleet(self, plan: Plan, digest: str) -> dict[int, frozenset[str]]:
        """Hold a plan against the catalogue and the fleet; raises PlanError, UnknownReleaseError."""
        if self._release_of(plan) is None:
            wanted = plan.release
            raise UnknownReleaseError(
                f"the plan is for {wanted.policy_name}@{wanted.version} ({wanted.digest[:12]}), which is not in "
                "the catalogue like that; release it: `outrider release BUNDLE`"
            )
        listed = {robot for stage in plan.stages for robot in stage.who.robots}
        if unknown := sorted(listed - set(self._cards)):
            raise PlanError(
                f"no robot {', '.join(unknown[:5])} in this fleet; there are: {', '.join(sorted(self._cards)[:20])}"
            )
        members = self._members(plan, digest)
        reached: set[str] = set()
        for shadow in (True, False):
            taken: dict[str, str] = {}
            for index, stage in enumerate(plan.stages):
                if (stage.kind == "shadow") is not shadow:
                    continue
                if not members[index]:
                    raise PlanError(
                        f"stage {stage.name} names no robot of this fleet; name some, or raise its percent"
                    )
                if both := sorted(members[index] & set(taken)):
                    raise PlanError(f"robot {both[0]} is in stage {taken[both[0]]} and in {stage.name}")
                taken |= dict.fromkeys(members[index], stage.name)
                reached = set() if shadow else set(taken)
                if stage.gates and not set(self._cards) - reached:
                    raise PlanError(f"stage {stage.name} has gates but leaves no robot to compare with")
        return members

    def _release_of(self, plan: Plan) -> ReleaseInfo | None:
        wanted, found = plan.release, self._catalogue.find(plan.release.digest)
        facts = (wanted.policy_name, wanted.version, wanted.release_counter, wanted.size_bytes)
        if found and facts == (found.policy_name, found.version, found.release_counter, found.size_bytes):
            return found
        return None

    def _release(self, plan: Plan) -> ReleaseInfo:
        found = self._release_of(plan)
        assert found is not None, "checked when the plan came"
        return found

    def _keep_plan(self, digest: str, plan_bytes: bytes) -> None:
        self._database.run(_KEEP_PLAN, digest, plan_bytes, self._wall_ns())

    def _approvals(self, digest: str) -> tuple[bytes, ...]:
        rows = self._database.rows(
            "SELECT paper FROM approval WHERE plan_digest = ? ORDER BY person LIMIT 8", digest
        )
        return tuple(row[0] for row in rows)


_KEEP_PLAN = "INSERT INTO plan VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_APPROVE = (
    "INSERT INTO approval VALUES (?, ?, ?) "
    "ON CONFLICT (plan_digest, person) DO UPDATE SET paper = excluded.paper"
)
_BEGIN = "INSERT INTO rollout (plan_digest) VALUES (?) RETURNING id"
_WITNESS = (
    "INSERT INTO witness VALUES (?, ?, ?, ?) "
    "ON CONFLICT (plan_digest, stage, robot) DO UPDATE SET paper = excluded.paper"
)
_PERSONS = "SELECT person FROM approval WHERE plan_digest = ? ORDER BY person LIMIT 8"


def _act_event(act: Act, act_digest: str, state: str) -> ev.RolloutEvent:
    """What a signed act does to a rollout in this state; raises RolloutRefusedError."""
    if act.action == "pause" and state == "running":
        return ev.Paused(act.why, act_digest)
    if act.action == "resume" and state == "paused":
        return ev.Resumed(act.why, act_digest)
    if act.action == "abort" and state in (*OPEN, "finished", "stopped"):
        return ev.Aborted(act.why, act.revert, act_digest)
    raise RolloutRefusedError(f"the rollout is {state}: there is nothing to {act.action}")


def _progress(rollout: Rollout) -> list[RobotProgress]:
    state, plan = rollout.state, rollout.plan
    where: dict[str, int] = {}
    for index in sorted(rollout.members, key=lambda i: plan.stages[i].kind != "shadow"):
        where |= dict.fromkeys(rollout.members[index], index)
    found = []
    for robot, index in sorted(where.items()):
        track = state.robots.get(robot)
        if track is None:
            waiting = "waiting" if state.state in (*OPEN, "finished") else "left alone"
            found.append(RobotProgress(robot, plan.stages[index].name, waiting, "", "", 0))
        else:
            name = plan.stages[track.stage].name
            found.append(
                RobotProgress(robot, name, track.state, track.code, track.reason[:500], track.since_ns)
            )
    return found
