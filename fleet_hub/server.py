"""The hub process: one ROUTER socket over CURVE, one loop: poll, drain, handle, sync, acknowledge, offer."""

import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from contracts.enrolment import EnrolmentError
from contracts.errors import ContractError, MessageError, OrderError
from contracts.messages import (
    Ack,
    ActOnFleet,
    ActOnRollout,
    Enrol,
    FromHub,
    FromRobot,
    Hello,
    Refused,
    RolloutReport,
    decode_from_client,
    encode,
    short,
)
from contracts.replay import STORE_FOLDER
from contracts.tracing import open_sink
from fleet_hub import limits
from fleet_hub.access import ENROLMENT
from fleet_hub.desks import Session
from fleet_hub.door import Door
from fleet_hub.errors import HubError, NotAllowedError, RevokedError
from fleet_hub.observe.metrics import STEP_S as METRICS_STEP_S
from fleet_hub.observe.metrics import HubFigures, MetricsServer, metrics_text
from fleet_hub.observe.rollup import FIGURES_FILE, RollupReader
from fleet_hub.observe.traces import LAST_WORDS, spans_of, write_all
from fleet_hub.parts import Desks, OwnKeys, Stores
from fleet_hub.rollout.events import StrangersRefused
from fleet_hub.rollout.rollouts import Told
from fleet_hub.store.database import open_database
from fleet_hub.store.folder import DataFolder
from fleet_hub.store.ingesting import IngestChild
from fleet_hub.transfers import SpeechLimit, TransferLimits, Transfers


class Hub:
    """One hub. ``run`` returns when ``stop`` has been called."""

    def __init__(
        self,
        data: Path,
        keys: Path,
        listen: str,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        metrics: str = "",
        ingest: bool = False,
        traces: str = "",
        transfers: TransferLimits | None = None,
        database: str = "",
        name: str = "",
    ) -> None:
        """Read keys, take the data folder, listen; at ``metrics`` ([HOST:]PORT) for Prometheus, too.

        With ``ingest`` a child process keeps the replay store up to date; ``transfers`` limits what robots fetch; with
        ``traces`` (a file or a URL) updates are traced (``contracts.tracing``). ``database`` is the URL of a PostgreSQL
        that hubs share, ``name`` what they call this one.

        Raises:
            KeyFileError: A key is missing or unusable.
            DataFolderError: Another hub uses ``data``, or it is not a hub's.
            LeaseHeldError: Another hub serves the fleet of that ``database``.
            DatabaseLostError: ``database`` cannot be reached.
            AddressBusyError: ``listen`` or ``metrics`` is in use or no address.
            TraceTargetError: ``traces`` cannot be written to.
        """
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._closing = ExitStack()
        self._sessions: dict[bytes, Session] = {}
        self._robots: dict[str, Session] = {}
        self._speech = SpeechLimit()
        self._stopping, self._step_due = False, True
        self._strangers = self._strangers_ns = self._step_ns = self._figures_ns = self._turn_worst_ns = 0
        self.dropped = 0
        try:
            self._open(data, OwnKeys(keys), listen, database, name, transfers or TransferLimits())
            self._open_observers(data, metrics, ingest, traces)
        except BaseException:
            self.close()
            raise

    def _open(
        self, data: Path, own: OwnKeys, listen: str, database: str, name: str, limit: TransferLimits
    ) -> None:
        """Take folder, database and address; go on from what they hold."""
        folder = DataFolder(data)
        self._closing.callback(folder.close)
        self._database = open_database(data, database, name or socket.gethostname())
        self._closing.callback(self._database.close)
        self._access = own.access
        self._door = Door(own.pair, listen, own.access)
        self._closing.callback(self._door.close)
        self.endpoint = self._door.endpoint
        self._transfers = Transfers(limit, self._mono_ns())
        try:
            stores = Stores(own, data, folder, self._database, self._closing, self._wall_ns)
        except SQLAlchemyError as error:
            raise self._database.lost(error) from None
        self._audit, self._catalogue = stores.audit, stores.catalogue
        self._intake, self._trips = stores.intake, stores.trips
        self._door.wait_for(self._intake.sync_descriptor)
        self._members, self._rollouts, self._erasures = stores.members, stores.rollouts, stores.erasures
        self._desks = Desks(own, stores, self._transfers, self._wall_ns)
        self._rollup = RollupReader(
            data / STORE_FOLDER / FIGURES_FILE, {name: card.site for name, (_, card) in own.cards.items()}
        )
        self._heard_wall_ns = dict.fromkeys(own.access.robots, self._wall_ns())

    def _open_observers(self, data: Path, metrics: str, ingest: bool, traces: str) -> None:
        """What only looks on."""
        self._spans = open_sink(traces, "outrider-hub")
        if self._spans is not None:
            self._closing.callback(self._spans.close)
            self._rollouts.on_report = self._trace
        self._metrics = MetricsServer(metrics) if metrics else None
        if self._metrics is not None:
            self._closing.callback(self._metrics.close)
        self._ingest = IngestChild(data) if ingest else None
        if self._ingest is not None:
            self._closing.callback(self._ingest.close)

    def stop(self) -> None:
        """Let ``run`` return after the messages at hand; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until stopped, then close everything.

        Raises:
            DataFolderError: The database takes no more (a full disk): what is in memory may be ahead of it, so this hub
                ends, and goes on from the disk when it is started again.
            DatabaseLostError: The same of a shared database, or another hub has taken over.
        """
        try:
            while not self._stopping:
                self._door.wait(limits.STEP_POLL_MS if self._step_due else limits.POLL_MS)
                began_ns = self._mono_ns()
                self._drain()
                self._database.commit()
                self._database.keep_lease()
                for robot, log_id, durable_seq in self._intake.commit_beside():
                    self._send_to_robot(robot, Ack(log_id, durable_seq))
                self._step_rollouts()
                self._step_erasures()
                self._forget_silent()
                self._note_strangers()
                if self._ingest:
                    self._ingest.step(self._mono_ns())
                self._turn_worst_ns = max(self._turn_worst_ns, self._mono_ns() - began_ns)
                self._tell_figures()
        except SQLAlchemyError as error:
            raise self._database.lost(error) from None
        finally:
            self.close()

    def close(self) -> None:
        """Close in the order opposite to that of opening: ingest, door, files, database, and the lock at last."""
        self._closing.close()

    def _drain(self) -> None:
        for routing_id, user, data in self._door.messages():
            session = self._session(routing_id, user)
            if session and self._may_speak(session):
                if session.role == "robot":  # nothing that a robot is answered depends on the database
                    self._database.hold()
                else:
                    self._database.commit()
                self._handle(session, data)

    def _may_speak(self, session: Session) -> bool:
        """Whether a robot keeps to its rate; operators have none."""
        allowed = session.role != "robot" or self._speech.allows(session.name, session.heard_ns)
        self.dropped += not allowed
        return allowed

    def _session(self, routing_id: bytes, user: str) -> Session | None:
        party = self._access.party(user)
        if party is None:
            self.dropped += 1
            refusal = Refused(RevokedError.code, "the key of this connection has been revoked; enrol anew")
            self._send(Session(routing_id, "", "", 0), refusal)
            return None
        session = self._sessions.get(routing_id)
        if session is None:
            if len(self._sessions) >= limits.SESSIONS_MAX:
                self.dropped += 1
                return None
            session = self._sessions[routing_id] = Session(routing_id, party.role, party.name, 0, user=user)
        session.heard_ns = self._mono_ns()
        return session

    def _handle(self, session: Session, data: memoryview) -> None:
        try:
            message = decode_from_client(data)
            if isinstance(message, FromRobot):
                self._handle_robot(session, message)
                return
            if isinstance(message, Enrol) or session.role == ENROLMENT:
                self._handle_enrolment(session, message)
                return
            if session.role != "operator":
                raise NotAllowedError(f"{session.name} is a robot; only operators may ask for that")
            answer = self._desks.operators.answer(session.name, message, self._robots, self._mono_ns())
            self._send(session, answer)
            self._step_due |= isinstance(message, ActOnRollout)
            if isinstance(message, ActOnFleet):
                self._follow_members()
        except (HubError, OrderError, EnrolmentError) as error:
            self._send(session, Refused(error.code, short(error)))
        except MessageError as error:
            self._send(session, Refused("message", short(error)))
        except (ContractError, OSError) as error:
            self._send(session, Refused("refused", short(error)))

    def _handle_robot(self, session: Session, message: FromRobot) -> None:
        if session.role != "robot":
            raise NotAllowedError(f"{session.name} is no robot of the fleet; only robots may say that")
        self._step_due |= isinstance(message, Hello | RolloutReport)
        self._heard_wall_ns[session.name] = self._wall_ns()
        for answer in self._desks.robots.answer(session, message, self._wall_ns()):
            self._send(session, answer)
        if session.log_id:
            self._robots[session.name] = session

    def _trace(self, rollout: int, report: RolloutReport, robot: str) -> None:
        """A robot has said its last word about what it was told, or another after it."""
        if self._spans is None or report.state not in LAST_WORDS:
            return
        release = report.digest
        known = self._catalogue.find(release)
        released_ns = known.released_wall_ns if known else 0
        entries = self._audit.of(rollout)
        write_all(self._spans, spans_of(rollout, release, released_ns, entries, robot))

    def _handle_enrolment(self, session: Session, message: object) -> None:
        if not isinstance(message, Enrol) or session.role != ENROLMENT:
            raise NotAllowedError(
                f"{session.name}: a token is good for enrolling with it, and nothing else is"
            )
        party = self._access.party(session.user)
        assert party is not None, "looked up when its message came"
        self._send(session, self._desks.enrolment.answer(session.name, party.key, message))
        self._follow_members()

    def _follow_members(self) -> None:
        """Somebody came or went: who was cut off is forgotten at once, rollouts name their robots anew."""
        changes = self._members.changes()
        if not changes.come and not changes.gone:
            return
        for name in changes.come:
            self._heard_wall_ns[name] = self._wall_ns()
        for name in set(self._heard_wall_ns) - set(self._members.robots):
            del self._heard_wall_ns[name]
        for routing_id in [
            key for key, found in self._sessions.items() if self._access.party(found.user) is None
        ]:
            self._forget(routing_id)
        self._rollouts.fleet_changed()
        self._step_due = True

    def _note_strangers(self) -> None:
        """Who was refused at the door goes into the audit log, as a number, now and then."""
        now_ns, refused = self._mono_ns(), self._door.refused
        if refused > self._strangers and now_ns - self._strangers_ns >= limits.STRANGERS_AUDIT_S * 1e9:
            self._audit.append("hub", StrangersRefused(refused - self._strangers))
            self._strangers, self._strangers_ns = refused, now_ns

    def _step_rollouts(self) -> None:
        """Let rollouts go on, and tell robots what they have not been told on this connection."""
        now_ns = self._mono_ns()
        wait_s = limits.ROLLOUT_STEP_MIN_S if self._step_due else limits.ROLLOUT_STEP_S
        if now_ns - self._step_ns < wait_s * 1e9:
            return
        self._step_due, self._step_ns = False, now_ns
        self._trips.catch_up()
        here = [
            name
            for name, found in self._robots.items()
            if now_ns - found.heard_ns < limits.SILENT_MAX_S * 1e9
        ]
        self._rollouts.step(self._heard_wall_ns, frozenset(here))
        orders: dict[Told, bytes] = {}  # made and encoded once for all robots of a stage
        for session in self._robots.values():
            told = self._rollouts.told_for(session.name)
            if told is None or session.told == told:
                continue
            if told not in orders:
                made = self._rollouts.order(told)
                orders[told] = encode(made) if made else b""
            order = orders[told]
            if order and self._send(session, order):
                session.told = told

    def _step_erasures(self) -> None:
        """Bring new orders to robots that are here; the others hear of them when they connect."""
        for robot, order in self._erasures.news():
            self._send_to_robot(robot, order)
        try:
            self._erasures.step(self._mono_ns())
        except (HubError, OSError) as error:  # tried again; nothing that was begun is lost
            print(f"outrider hub: erasure: {error}", file=sys.stderr, flush=True)

    def _tell_figures(self) -> None:
        """Once a second, what the metrics server hands out."""
        now_ns = self._mono_ns()
        if self._metrics is None or now_ns - self._figures_ns < METRICS_STEP_S * 1e9:
            return
        versions = self._database.rows("SELECT active_version, COUNT(*) FROM robot GROUP BY active_version")
        online = (now_ns - s.heard_ns < limits.SILENT_MAX_S * 1e9 for s in self._robots.values())
        self._metrics.text = metrics_text(
            HubFigures(
                robots=len(self._heard_wall_ns),
                robots_online=sum(online),
                robots_by_policy={str(version): int(count) for version, count in versions},
                records_stored=self._intake.stored,
                records_duplicate=self._intake.duplicates,
                messages_dropped=self.dropped,
                sessions=len(self._sessions),
                turn_worst_s=self._turn_worst_ns / 1e9,
                policies=self._rollup.policies(),
                rollup_age_s=self._rollup.age_s(self._wall_ns()),
            )
        )
        self._figures_ns, self._turn_worst_ns = now_ns, 0

    def _send_to_robot(self, robot: str, message: FromHub) -> None:
        if session := self._robots.get(robot):
            self._send(session, message)

    def _send(self, session: Session, message: FromHub | bytes) -> bool:
        data = message if isinstance(message, bytes) else encode(message)
        sent = self._door.send(session.routing_id, data)
        self.dropped += not sent
        return sent

    def _forget_silent(self) -> None:
        before = self._mono_ns() - int(limits.SESSION_MAX_SILENCE_S * 1e9)
        for routing_id in [key for key, session in self._sessions.items() if session.heard_ns < before]:
            self._forget(routing_id)

    def _forget(self, routing_id: bytes) -> None:
        session = self._sessions.pop(routing_id)
        if self._robots.get(session.name) is session:
            del self._robots[session.name]
            self._transfers.gone(session.name)
