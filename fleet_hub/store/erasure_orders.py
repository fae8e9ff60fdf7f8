"""Orders for erasure: kept, brought to their robots whenever those connect, and carried out at the hub as well.

An order is durable, and in the audit log, before anybody is told. At once it is carried out on the hub's own trips,
logs and store (``erasure_work``), and once more when the robot's receipt has come, for what was sent in between. The
robot checks the order itself; its receipt counts when it is signed with the robot's own key and fits the order.
"""

import zlib
from collections.abc import Callable, Mapping, Set
from pathlib import Path

import msgspec

from contracts.atomic import write_atomically
from contracts.canonical import digest_hex
from contracts.erasure import (
    RECEIPT_MAX_BYTES,
    EraseAct,
    RobotErased,
    SignedReceipt,
    open_erase_act,
    open_robot_erased,
    receipt_digest,
)
from contracts.errors import AccessFileError, OrderError
from contracts.messages import ERASURES_MAX, EraseOrder, EraseReport, ErasuresView, ErasureView, short
from contracts.plan import RobotCard
from fleet_hub.errors import ErasureError
from fleet_hub.intake.intake import Intake
from fleet_hub.people import People
from fleet_hub.rollout import events as ev
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database
from fleet_hub.store.erasure_work import (
    RECEIPTS_FOLDER,
    Receipt,
    Work,
    receipt_path,
    work_path,
    write_work,
)

OPEN_MAX = 1000
"""Orders that a robot has not answered yet."""
AT_ONCE_MAX = 8
"""Brought to a robot with one Hello; the next ones with the next."""
STEP_S = 0.5
WAITING, FAILED, REFUSED, ERASED = "waiting", "failed", "refused", "erased"
TRY_AGAIN = "cannot_erase"
"""A robot's code for what it will try again by itself."""


class ErasureOrders:
    """Of one hub.

    Args:
        data: the hub's data folder.
        robots: who is in the fleet; changes as it does.
        cards: their signed cards, by name.
    """

    def __init__(
        self,
        data: Path,
        database: Database,
        audit: AuditLog,
        people: People,
        robots: Set[str],
        cards: Mapping[str, tuple[bytes, RobotCard]],
        intake: Intake,
        trips: TripStore,
        wall_ns: Callable[[], int],
    ) -> None:
        self._data, self._database, self._audit, self._people = data, database, audit, people
        self._robots, self._cards, self._intake, self._trips = robots, cards, intake, trips
        self._wall_ns = wall_ns
        database.pragma("secure_delete = ON")
        self._stepped_ns = 0
        self._news: list[tuple[str, EraseOrder]] = []
        self._due = True
        """Whether there may be work to hand over, or a receipt to come."""

    def order(self, paper: bytes) -> ErasuresView:
        """Take up what a person signed; it and what became of it. Raises OrderError, ErasureError."""
        access_paper, access = self._people.access()
        act = open_erase_act(paper, access, self._wall_ns())
        order = digest_hex(paper)
        if act.robot not in self._robots:
            raise ErasureError(f"no robot {act.robot} in the fleet; see `outrider fleet members`")
        if self._database.rows("SELECT 1 FROM erasure WHERE id = ?", order):
            raise ErasureError("that very order is known; see `outrider fleet erasures`, or sign a new one")
        (waiting,) = self._database.rows(
            "SELECT COUNT(*) FROM erasure WHERE state IN (?, ?)", WAITING, FAILED
        )[0]
        if waiting >= OPEN_MAX:
            raise ErasureError(f"{waiting} orders wait for their robots, at most {OPEN_MAX}")
        with self._database.transaction():
            self._database.run(
                "INSERT INTO erasure VALUES (?, ?, ?, ?, ?, '', '', 0, '')",
                order, act.robot, paper, self._wall_ns(), WAITING,
            )  # fmt: skip
            asked = ev.ErasureOrdered(act.robot, act.since_ns, act.until_ns, act.events, act.why, order)
            self._audit.append(act.person, asked)
            self._begin(order, act, act.why)
        self._due = True
        self._news.append((act.robot, EraseOrder(paper, access_paper)))
        return self.view(order=order)

    def news(self) -> list[tuple[str, EraseOrder]]:
        """Orders that were taken up since this was asked last, and for whom."""
        found, self._news = self._news, []
        return found

    def for_robot(self, robot: str) -> list[EraseOrder]:
        """What a robot that has connected is to be told, before anything else."""
        rows = self._database.rows(
            "SELECT paper FROM erasure WHERE robot = ? AND state IN (?, ?) ORDER BY ordered_wall_ns LIMIT ?",
            robot, WAITING, FAILED, AT_ONCE_MAX,
        )  # fmt: skip
        try:
            access = self._people.access()[0] if rows else b""
        except AccessFileError:
            return []  # no robot would follow it; it stays until there is one again
        return [EraseOrder(bytes(paper), access) for (paper,) in rows]

    def report(self, robot: str, report: EraseReport) -> None:
        """What a robot says of an order of its own. What does not fit is refused by name; raises ErasureError."""
        rows = self._database.rows(
            "SELECT paper, state, code FROM erasure WHERE id = ? AND robot = ?", report.order, robot
        )
        if not rows:
            raise ErasureError(f"{robot} was never told of order {report.order[:12]}")
        paper, state, code = rows[0]
        if state in (ERASED, REFUSED):
            return  # said twice, for the first time got no further
        if not report.done:
            if report.code != code:
                now = FAILED if report.code == TRY_AGAIN else REFUSED
                self._note(report.order, robot, now, report)
            return
        act = _act_of(bytes(paper))
        done, receipt = self._checked(robot, act, report)
        file = self._keep(robot, report.order, receipt)
        with self._database.transaction():
            self._database.run(
                "UPDATE erasure SET state = ?, code = '', reason = '', records = ?, receipt = ? WHERE id = ?",
                ERASED, done.records, file, report.order,
            )  # fmt: skip
            self._audit.append(
                robot, ev.RobotErasedRecords(report.order, robot, done.records, done.receipt, done.log_key)
            )
            self._begin(report.order, act, f"{act.why} (sent before the robot erased it)")
        self._due = True

    def _note(self, order: str, robot: str, state: str, report: EraseReport) -> None:
        with self._database.transaction():
            self._database.run(
                "UPDATE erasure SET state = ?, code = ?, reason = ? WHERE id = ?",
                state, report.code, report.reason, order,
            )  # fmt: skip
            self._audit.append(robot, ev.ErasureRefused(order, robot, report.code, report.reason))

    def _checked(self, robot: str, act: EraseAct, report: EraseReport) -> tuple[RobotErased, bytes]:
        """The robot's word, and its receipt as JSON (nothing where it was too long to come along)."""
        if robot not in self._cards:
            raise ErasureError(f"{robot} has no card here; its receipt cannot be checked")
        try:
            done = open_robot_erased(report.done, self._cards[robot][1])
        except OrderError as error:
            raise ErasureError(str(error)) from None
        if done.order != report.order:
            raise ErasureError(f"{robot} signed for order {done.order[:12]}, this is {report.order[:12]}")
        if not report.receipt:
            return done, b""
        try:
            inflater = zlib.decompressobj()
            text = inflater.decompress(report.receipt, RECEIPT_MAX_BYTES)
            signed = msgspec.json.decode(text, type=SignedReceipt)
        except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ErasureError(f"the receipt of {robot} is none: {error}") from None
        said = signed.receipt
        fits = (said.robot, said.order, said.since_ns, said.until_ns, said.records)
        if fits != (robot, report.order, act.since_ns, act.until_ns, done.records):
            raise ErasureError(f"the receipt of {robot} is for something else")
        if receipt_digest(said).hex() != done.receipt:
            raise ErasureError(f"the receipt of {robot} is not the one that it signed for")
        return done, msgspec.json.format(text) + b"\n"

    def _keep(self, robot: str, order: str, receipt: bytes) -> str:
        """Write the robot's receipt beside the hub's own; its name in the data folder."""
        if not receipt:
            return ""
        path = self._data / RECEIPTS_FOLDER / f"robot-{robot}-{order[:16]}.json"
        path.parent.mkdir(exist_ok=True)
        try:
            write_atomically(path, receipt)
        except OSError as error:
            raise ErasureError(f"the hub's disk refused: {error.strerror}; say it again later") from None
        return f"{RECEIPTS_FOLDER}/{path.name}"

    # At the hub itself

    def _begin(self, order: str, act: EraseAct, why: str) -> None:
        """An erasure at the hub begins, in the caller's transaction; its work is handed over by ``step``."""
        trips = self._trips.erase(act.robot, act.since_ns, act.until_ns)
        self._audit.append(act.person, ev.ErasureBegan(act.robot, act.since_ns, act.until_ns, why))
        self._database.run(
            "INSERT INTO erasure_work VALUES (?, ?, ?, 0, 0)", self._audit.head[0], order, trips
        )

    def step(self, now_ns: int) -> None:
        """Hand work over, and note what was done; what was begun is durable by now."""
        if not self._due or now_ns - self._stepped_ns < STEP_S * 1e9:
            return
        self._stepped_ns = now_ns
        rows = self._database.rows(
            "SELECT w.began, w.trips, e.paper FROM erasure_work w JOIN erasure e ON e.id = w.id "
            "WHERE w.done = 0 ORDER BY w.began"
        )
        self._due = bool(rows)
        for began, trips, paper in rows:
            if receipt_path(self._data, began).exists():
                self._finish(began)
            elif not work_path(self._data, began).exists():
                self._hand_over(began, trips, _act_of(bytes(paper)))

    def _hand_over(self, began: int, trips: int, act: EraseAct) -> None:
        entry = next(iter(self._audit.page(began)))
        body = ev.decode_entry(entry.body)
        assert isinstance(body, ev.ErasureBegan)
        work = Work(
            robot=act.robot, since_ns=act.since_ns, until_ns=act.until_ns, who=act.person, reason=body.reason,
            audit_seq=began, audit_hash=entry.hash, trips=trips, closed=self._intake.close_segments(act.robot),
        )  # fmt: skip
        write_work(self._data, work)

    def _finish(self, began: int) -> None:
        """The ingest has left a receipt: into the audit log with it."""
        text = receipt_path(self._data, began).read_bytes()
        receipt = msgspec.json.decode(text, type=Receipt)
        rows = sum(receipt.rows.values())
        with self._database.transaction():
            erased = ev.Erased(began, rows, receipt.records, receipt.trips, digest_hex(text))
            self._audit.append(receipt.who, erased)
            self._database.run(
                "UPDATE erasure_work SET done = 1, records = ? WHERE began = ?", receipt.records + rows, began
            )
        work_path(self._data, began).unlink(missing_ok=True)

    def view(self, robot: str = "", order: str = "") -> ErasuresView:
        """Orders, newest first: of a robot, or one, or as many as fit."""
        rows = self._database.rows(
            "SELECT id, robot, paper, ordered_wall_ns, state, code, reason, records, receipt FROM erasure "
            "WHERE (? = '' OR robot = ?) AND (? = '' OR id = ?) ORDER BY ordered_wall_ns DESC LIMIT ?",
            robot, robot, order, order, ERASURES_MAX,
        )  # fmt: skip
        return ErasuresView(tuple(self._view(*row) for row in rows))

    def _view(
        self, order: str, robot: str, paper: bytes, at_ns: int, state: str, code: str, reason: str,
        records: int, receipt: str,
    ) -> ErasureView:  # fmt: skip
        act = _act_of(bytes(paper))
        works = self._database.rows(
            "SELECT began, done, records FROM erasure_work WHERE id = ? ORDER BY began", order
        )
        return ErasureView(
            order, robot, act.since_ns, act.until_ns, act.events, act.person, act.why, at_ns, state, code,
            short(reason), records, receipt, ERASED if all(done for _, done, _ in works) else WAITING,
            sum(gone for _, _, gone in works),
            tuple(f"{RECEIPTS_FOLDER}/{receipt_path(self._data, began).name}" for began, done, _ in works if done),
        )  # fmt: skip


class _Payload(msgspec.Struct, frozen=True):
    payload: bytes


def _act_of(paper: bytes) -> EraseAct:
    """What an order that was checked when it came is about."""
    return msgspec.json.decode(msgspec.json.decode(paper, type=_Payload).payload, type=EraseAct)
