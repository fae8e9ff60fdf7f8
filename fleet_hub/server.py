"""The hub process: one ROUTER socket over CURVE, one loop: poll, drain, handle, sync, acknowledge, offer."""

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from contracts.enrolment import EnrolmentError
from contracts.errors import ContractError, MessageError, OrderError
from contracts.keyring import CURVE_FILE, TRUSTED_FILE, CurvePair, party_folder, read_key_file
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
from contracts.provenance import TrustedKeys
from contracts.replay import STORE_FOLDER
from contracts.tracing import open_sink
from contracts.trust import TRUST_FOLDER
from fleet_hub import limits
from fleet_hub.access import ENROLMENT, Access, ZapThread
from fleet_hub.catalogue.catalogue import Catalogue
from fleet_hub.desks import OperatorDesk, RobotDesk, Session
from fleet_hub.enrolment import EnrolmentDesk
from fleet_hub.errors import AddressBusyError, DataFolderError, HubError, NotAllowedError, RevokedError
from fleet_hub.intake.intake import Intake
from fleet_hub.members import Members
from fleet_hub.observe.metrics import STEP_S as METRICS_STEP_S
from fleet_hub.observe.metrics import HubFigures, MetricsServer, metrics_text
from fleet_hub.observe.rollup import FIGURES_FILE, RollupReader
from fleet_hub.observe.traces import LAST_WORDS, spans_of, write_all
from fleet_hub.people import People, read_cards
from fleet_hub.rollout.events import StrangersRefused
from fleet_hub.rollout.evidence import EvidenceRoom
from fleet_hub.rollout.rollouts import Rollouts, Told
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database
from fleet_hub.store.erasure_orders import ErasureOrders
from fleet_hub.store.folder import DataFolder
from fleet_hub.store.ingesting import IngestChild
from fleet_hub.transfers import SpeechLimit, TransferLimits, Transfers
from fleet_hub.trust.keys import passphrase
from fleet_hub.trust.room import TrustRoom


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
    ) -> None:
        """Read keys, take the data folder, listen; at ``metrics`` ([HOST:]PORT) for Prometheus, too.

        With ``ingest`` a child process keeps the replay store up to date; ``transfers`` limits what robots fetch; with
        ``traces`` (a file or a URL) updates are traced (``contracts.tracing``).

        Raises:
            KeyFileError: A key is missing or unusable.
            DataFolderError: Another hub uses ``data``, or it is not a hub's.
            AddressBusyError: ``listen`` or ``metrics`` is in use or no address.
            TraceTargetError: ``traces`` cannot be written to.
        """
        self._spans = open_sink(traces, "outrider-hub")
        own = party_folder(keys, "hub")
        pair = read_key_file(own / CURVE_FILE, CurvePair, private=True)
        self._access = access = Access.load(own)
        trusted = TrustedKeys.load(own / TRUSTED_FILE)
        cards = {name: card for name, card in read_cards(own, trusted).items() if name in access.robots}
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._folder = DataFolder(data)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._zap = ZapThread(self._context, access)
            self._zap.start()
            self._metrics = MetricsServer(metrics) if metrics else None
            self._socket = self._listen(pair, listen)
        except AddressBusyError:
            self._zap.stop()
            self._context.term()
            self._folder.close()
            raise
        self.endpoint = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self._database = Database(self._folder.database)
        self._catalogue = Catalogue(self._database, self._folder, trusted, wall_ns)
        self._intake = Intake(self._folder.telemetry)
        audit = AuditLog(self._database, wall_ns)
        trips = TripStore(self._database, self._folder.telemetry)
        people = People(own, trusted)
        self._members = members = Members(self._database, audit, access, people, cards, trusted, wall_ns)
        self._rollouts = Rollouts(
            self._database, audit, self._catalogue, people, cards, EvidenceRoom(trips), wall_ns
        )
        if self._spans is not None:
            self._rollouts.on_report = self._trace
        self._trust = TrustRoom(
            data / TRUST_FOLDER, own / TRUST_FOLDER, self._catalogue, self._rollouts, members.robots, wall_ns,
            passphrase(),
        )  # fmt: skip
        self._rollouts.fleet_changed()
        self._enrolment_desk = EnrolmentDesk(members, audit, access, trusted, self._trust.roots, wall_ns)
        self._audit, self._strangers, self._strangers_ns = audit, 0, 0
        self._transfers = Transfers(transfers or TransferLimits(), mono_ns())
        self._erasures = erasures = ErasureOrders(
            data, self._database, audit, people, members.robots, cards, self._intake, trips, wall_ns
        )
        self._robot_desk = RobotDesk(
            self._database, self._catalogue, self._rollouts, self._intake, trips, self._trust, self._transfers, erasures
        )  # fmt: skip
        self._operator_desk = OperatorDesk(
            self._database, self._catalogue, self._rollouts, self._intake, audit, members, self._trust, erasures
        )  # fmt: skip
        sites = {name: card.site for name, (_, card) in cards.items()}
        self._rollup = RollupReader(data / STORE_FOLDER / FIGURES_FILE, sites)
        self._ingest = IngestChild(data) if ingest else None
        self._heard_wall_ns = dict.fromkeys(access.robots, wall_ns())
        self._sessions: dict[bytes, Session] = {}
        self._robots: dict[str, Session] = {}
        self._speech = SpeechLimit()
        self._stopping = False
        self._step_due = True
        self._step_ns = 0
        self._figures_ns = self._turn_worst_ns = 0
        self.dropped = 0

    def stop(self) -> None:
        """Let ``run`` return after the messages at hand; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until stopped, then close everything.

        Raises:
            DataFolderError: The database takes no more (a full disk): what is in memory may be ahead of it, so this hub
                ends, and goes on from the disk when it is started again.
        """
        try:
            while not self._stopping:
                self._socket.poll(limits.STEP_POLL_MS if self._step_due else limits.POLL_MS)
                began_ns = self._mono_ns()
                self._drain()
                self._database.commit()
                for robot, log_id, durable_seq in self._intake.commit():
                    self._send_to_robot(robot, Ack(log_id, durable_seq))
                self._step_rollouts()
                self._step_erasures()
                self._forget_silent()
                self._note_strangers()
                if self._ingest:
                    self._ingest.step(self._mono_ns())
                self._turn_worst_ns = max(self._turn_worst_ns, self._mono_ns() - began_ns)
                self._tell_figures()
        except sqlite3.Error as error:
            raise DataFolderError(
                f"{self._folder.database}: {error}; this hub ends, free some space and start it again"
            ) from None
        finally:
            self.close()

    def close(self) -> None:
        """Close sockets, files and lock; end the ingest."""
        if self._ingest:
            self._ingest.close()
        if self._metrics:
            self._metrics.close()
        if self._spans is not None:
            self._spans.close()
        self._socket.close(linger=200)
        self._zap.stop()
        self._context.term()
        self._intake.close()
        self._catalogue.close()
        self._database.close()
        self._folder.close()

    def _drain(self) -> None:
        for _ in range(limits.DRAIN_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if len(frames) != 2:
                continue
            session = self._session(frames[0].bytes, str(frames[1].get("User-Id")))
            if session and self._may_speak(session):
                if session.role == "robot":  # nothing that a robot is answered depends on the database
                    self._database.hold()
                else:
                    self._database.commit()
                self._handle(session, frames[1].bytes)

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

    def _handle(self, session: Session, data: bytes) -> None:
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
            answer = self._operator_desk.answer(session.name, message, self._robots, self._mono_ns())
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
        for answer in self._robot_desk.answer(session, message, self._wall_ns()):
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
        self._send(session, self._enrolment_desk.answer(session.name, party.key, message))
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
        now_ns, refused = self._mono_ns(), self._zap.refused
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

    def _listen(self, pair: CurvePair, listen: str) -> Any:
        try:
            return listen_at(self._context, pair, listen)
        except AddressBusyError:
            if self._metrics:
                self._metrics.close()
            raise

    def _send_to_robot(self, robot: str, message: FromHub) -> None:
        if session := self._robots.get(robot):
            self._send(session, message)

    def _send(self, session: Session, message: FromHub | bytes) -> bool:
        data = message if isinstance(message, bytes) else encode(message)
        try:
            self._socket.send_multipart([session.routing_id, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.dropped += 1
            return False
        return True

    def _forget_silent(self) -> None:
        before = self._mono_ns() - int(limits.SESSION_MAX_SILENCE_S * 1e9)
        for routing_id in [key for key, session in self._sessions.items() if session.heard_ns < before]:
            self._forget(routing_id)

    def _forget(self, routing_id: bytes) -> None:
        session = self._sessions.pop(routing_id)
        if self._robots.get(session.name) is session:
            del self._robots[session.name]
            self._transfers.gone(session.name)


def listen_at(context: "zmq.Context[zmq.Socket[bytes]]", pair: CurvePair, listen: str) -> Any:
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.encode()
    socket.setsockopt_string(zmq.ZAP_DOMAIN, "outrider")
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.SOCKET_MESSAGE_MAX_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, limits.HANDSHAKE_MAX_MS)
    socket.setsockopt(zmq.SNDHWM, limits.SEND_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, limits.RECEIVE_QUEUE_MAX)
    socket.setsockopt(zmq.BACKLOG, limits.BACKLOG_MAX)
    socket.setsockopt(zmq.HEARTBEAT_IVL, limits.HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, limits.HEARTBEAT_TIMEOUT_MS)
    try:
        socket.bind(listen)
    except zmq.ZMQError as error:
        socket.close()
        raise AddressBusyError(
            f"cannot listen at {listen}: {zmq.strerror(error.errno or 0)}; "
            "stop what is listening there, or give another --listen tcp://HOST:PORT"
        ) from None
    return socket
