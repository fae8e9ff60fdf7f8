"""What the hub answers: one desk for robots, one for operators. No sockets here; answers are returned."""

import hashlib
from collections.abc import Set
from dataclasses import dataclass

from contracts.errors import OrderError
from contracts.framelog import Kind, LostClass, iterate_frames
from contracts.messages import (
    HELLO_FIRST,
    Ack,
    ActOnFleet,
    ActOnRollout,
    ApprovePlan,
    AskAudit,
    AskErasures,
    AskFile,
    AskFleet,
    AskMembers,
    AskRollout,
    AskStored,
    AskTime,
    AuditPage,
    BeginRelease,
    CheckPlan,
    CommitRelease,
    EraseReport,
    FetchChunk,
    FetchFile,
    FleetView,
    FromHub,
    FromOperator,
    FromRobot,
    Heartbeat,
    Hello,
    ListReleases,
    OrderErasure,
    Records,
    Refused,
    ReleaseChunk,
    ReleaseList,
    RobotStatus,
    RolloutReport,
    Running,
    SignedTime,
    Stored,
    UploadFrom,
    Wait,
    Welcome,
    short,
)
from fleet_hub.catalogue.catalogue import Catalogue
from fleet_hub.errors import HubError, NotAllowedError
from fleet_hub.intake.intake import Intake
from fleet_hub.limits import PROOF_PAUSE_S, SILENT_MAX_S
from fleet_hub.members import Members
from fleet_hub.rollout.events import Denied, Released
from fleet_hub.rollout.rollouts import Rollouts
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database
from fleet_hub.store.erasure_orders import ErasureOrders
from fleet_hub.transfers import Transfers
from fleet_hub.trust.room import TrustRoom


@dataclass
class Session:
    """One connection, and what its peer has said so far."""

    routing_id: bytes
    role: str
    name: str
    heard_ns: int
    log_id: str = ""
    last_seq: int = 0
    told: tuple[int, int, str] = (0, 0, "")
    proved_wall_ns: int = 0
    user: str = ""
    """As the ZAP handler let it in: role, name and key."""


class RobotDesk:
    """Answers robots."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        rollouts: Rollouts,
        intake: Intake,
        trips: TripStore,
        trust: TrustRoom,
        transfers: Transfers,
        erasures: ErasureOrders,
    ) -> None:
        """Use the hub's parts."""
        self._trust, self._transfers, self._erasures = trust, transfers, erasures
        self._database = database
        self._catalogue = catalogue
        self._rollouts = rollouts
        self._intake = intake
        self._trips = trips

    def answer(self, session: Session, message: FromRobot, wall_ns: int) -> list[FromHub | bytes]:
        """Answers to one message, some encoded already; raises HubError for what is not allowed."""
        if isinstance(message, Hello):
            return self._welcome(session, message, wall_ns)
        if not session.log_id:
            return [Refused(HELLO_FIRST, "the hub does not know this connection yet; say Hello first")]
        if isinstance(message, Records):
            self._check_log(session, message.log_id)
            self._intake.append(session.name, message, wall_ns)
            self._trips.add(session.name, message)
            session.last_seq = max(session.last_seq, message.first_seq + message.count - 1)
            return []
        if isinstance(message, Heartbeat):
            session.last_seq = message.last_seq
            return [Ack(session.log_id, self._intake.durable_seq(session.name, session.log_id))]
        if isinstance(message, AskStored):
            self._check_log(session, message.log_id)
            return self._prove(session, message, wall_ns)
        if isinstance(message, FetchChunk):
            return [self._fetch(session, message)]
        if isinstance(message, FetchFile):
            return [self._trust.read(message.name, message.offset, session.name)]
        if isinstance(message, AskTime):
            paper = self._trust.tell_time(session.name, message.nonce)
            return [SignedTime(paper)] if paper else []
        if isinstance(message, RolloutReport):
            self._rollouts.report(session.name, message)
            return []
        if isinstance(message, EraseReport):
            self._erasures.report(session.name, message)
            return []
        self._note_running(session, message, wall_ns)
        return []

    def _prove(self, session: Session, asked: AskStored, wall_ns: int) -> list[FromHub | bytes]:
        """Read the records back; a robot that asks too often gets no answer."""
        if 0 <= wall_ns - session.proved_wall_ns < PROOF_PAUSE_S * 1e9:
            return []
        session.proved_wall_ns = wall_ns
        frames = self._intake.stored_frames(session.name, asked.log_id, asked.first_seq, asked.count)
        kinds = [(frame.kind, frame.payload) for frame in iterate_frames(frames)]
        erased = sum(kind is Kind.LOST and payload[0] == LostClass.ERASED for kind, payload in kinds)
        return [Stored(asked.nonce, len(kinds), hashlib.sha256(asked.nonce + frames).hexdigest(), erased)]

    def _fetch(self, session: Session, asked: FetchChunk) -> FromHub | bytes:
        """The chunk, or how long to wait for it."""
        now_ns = session.heard_ns
        if wait_ms := self._transfers.ask(session.name, asked.digest, now_ns):
            return Wait(asked.digest, wait_ms)
        chunk, size, last = self._catalogue.chunk(asked.digest, asked.offset)
        self._transfers.sent(session.name, size, last, now_ns)
        return chunk

    def _welcome(self, session: Session, hello: Hello, wall_ns: int) -> list[FromHub | bytes]:
        if hello.robot != session.name:
            raise NotAllowedError(
                f"this key belongs to {session.name}, but the robot says it is {hello.robot}; "
                "give each robot its own key folder"
            )
        session.log_id, session.last_seq, session.told = hello.log_id, hello.last_seq, (0, 0, "")
        self._note_running(session, Running(hello.active_digest, hello.active_version), wall_ns)
        orders = self._erasures.for_robot(
            session.name
        )  # first: what is to be erased shall not be sent any more
        return [*orders, Welcome(self._intake.durable_seq(session.name, hello.log_id))]

    def _note_running(self, session: Session, running: Running, wall_ns: int) -> None:
        self._database.run(
            "INSERT INTO robot VALUES (?, ?, ?, ?, ?) ON CONFLICT (robot) DO UPDATE SET active_digest = "
            "excluded.active_digest, active_version = excluded.active_version, log_id = excluded.log_id, "
            "seen_wall_ns = excluded.seen_wall_ns",
            session.name,
            running.active_digest,
            running.active_version,
            session.log_id,
            wall_ns,
        )

    @staticmethod
    def _check_log(session: Session, log_id: str) -> None:
        if log_id != session.log_id:
            raise NotAllowedError(f"records of log {log_id[:8]}, but Hello announced {session.log_id[:8]}")


class OperatorDesk:
    """Answers operators."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        rollouts: Rollouts,
        intake: Intake,
        audit: AuditLog,
        members: Members,
        trust: TrustRoom,
        erasures: ErasureOrders,
    ) -> None:
        """Use the hub's parts."""
        self._trust, self._erasures = trust, erasures
        self._audit = audit
        self._database = database
        self._catalogue = catalogue
        self._rollouts = rollouts
        self._intake = intake
        self._members = members
        self._robots: Set[str] = members.robots

    def answer(
        self, operator: str, message: FromOperator, sessions: dict[str, Session], now_ns: int
    ) -> FromHub:
        """The answer to one message; ``sessions`` are those of robots, by name. Raises HubError, OrderError."""
        try:
            return self._answer(operator, message, sessions, now_ns)
        except (HubError, OrderError) as error:
            if isinstance(message, CommitRelease | ApprovePlan | ActOnRollout | ActOnFleet | OrderErasure):
                asked = type(message).__name__
                self._audit.append(operator, Denied(asked, error.code, short(error)))
            raise

    def _answer(
        self, operator: str, message: FromOperator, sessions: dict[str, Session], now_ns: int
    ) -> FromHub:
        if isinstance(message, BeginRelease):
            return UploadFrom(self._catalogue.begin_upload(message.digest, message.size_bytes))
        if isinstance(message, ReleaseChunk):
            return UploadFrom(self._catalogue.write_chunk(message.digest, message.offset, message.data))
        if isinstance(message, CommitRelease):
            known = self._catalogue.find(message.digest)
            info = self._trust.commit(message.digest, message.targets)
            if known is None:
                self._audit.append(operator, Released(info.digest, f"{info.policy_name}@{info.version}"))
            return info
        if isinstance(message, AskFile):
            return self._trust.read(message.name, message.offset)
        if isinstance(message, ListReleases):
            return ReleaseList(tuple(self._catalogue.releases()))
        if isinstance(message, CheckPlan):
            return self._rollouts.check(message.plan)
        if isinstance(message, ApprovePlan):
            return self._rollouts.approve(message.plan, message.approval)
        if isinstance(message, ActOnRollout):
            return self._rollouts.act(message.act, message.plan)
        if isinstance(message, ActOnFleet):
            return self._members.act(message.act, message.voucher)
        if isinstance(message, AskMembers):
            return self._members.view(name=message.name)
        if isinstance(message, OrderErasure):
            return self._erasures.order(message.act)
        if isinstance(message, AskErasures):
            return self._erasures.view(message.robot)
        if isinstance(message, AskAudit):
            return AuditPage(self._audit.page(message.first_seq))
        if isinstance(message, AskRollout):
            return self._rollouts.view(message.rollout)
        assert isinstance(message, AskFleet)
        return self._fleet(sessions, now_ns)

    def _fleet(self, sessions: dict[str, Session], now_ns: int) -> FleetView:
        known = {str(row[0]): row for row in self._database.rows("SELECT * FROM robot")}
        return FleetView(
            tuple(
                self._status(robot, known.get(robot), sessions.get(robot), now_ns)
                for robot in sorted(self._robots)
                if robot in known
                or self._members.has_card(robot)  # a mirror is let in as robots are, and is none
            )
        )

    def _status(
        self, robot: str, row: tuple[str | int, ...] | None, session: Session | None, now_ns: int
    ) -> RobotStatus:
        online = session is not None and now_ns - session.heard_ns < SILENT_MAX_S * 1e9
        digest, version, log_id, seen = row[1:] if row else ("", "", "", 0)
        durable = self._intake.durable_seq(robot, str(log_id)) if log_id else 0
        last_seq = max(durable, session.last_seq if session else 0)
        stored = self._intake.records_stored(robot)
        return RobotStatus(
            robot, online, str(digest), str(version), str(log_id), durable, last_seq, stored, int(seen)
        )
