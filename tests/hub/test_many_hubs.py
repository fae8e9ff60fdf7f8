"""Hubs that share a fleet in PostgreSQL: one serves, the other takes over; real processes, a real server, CURVE."""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from contracts.enrolment import EnrolCode, EnrolmentError
from contracts.framelog import iterate_frames, list_segments
from edge_agent.update.enrol import enrol
from fleet_hub.errors import DatabaseLostError, DataFolderError, LeaseHeldError
from fleet_hub.rollout.events import Left
from fleet_hub.store.audit import AuditLog, read_entries, verify_chain
from fleet_hub.store.database import Database, checked_url, known_url, open_database
from fleet_hub.store.lease import FencedError
from fleet_hub.store.schema import COLUMNS
from tests.support.enrolment import issue
from tests.support.fleet import Fleet, make_bundle
from tests.support.postgres import MISSING, Postgres
from tests.support.waiting import wait_for

NEEDS_POSTGRES = pytest.mark.skipif(bool(MISSING), reason=MISSING)
TAKEN_OVER_S = 90.0
ANSWER_MAX_S = 30.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One server for all tests here."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def url(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.make(f"fleet_{secrets.token_hex(4)}")


def test_urls_that_are_none_are_refused() -> None:
    with pytest.raises(DataFolderError, match="expected postgresql"):
        checked_url("mysql://somebody@db/fleet")
    with pytest.raises(DataFolderError, match="expected postgresql"):
        checked_url("fleet.sqlite")
    with pytest.raises(DataFolderError, match="no password"):
        checked_url("postgresql+psycopg://hub:secret@db/fleet")
    assert checked_url("postgresql+psycopg://hub@db/fleet")


@NEEDS_POSTGRES
def test_one_serves_and_what_lost_its_lease_writes_nothing(tmp_path: Path, url: str) -> None:
    first = Database(tmp_path / "none", url, "hub_a")
    AuditLog(first, lambda: 1).append("anna", Left("robot_1"))
    with pytest.raises(LeaseHeldError, match="hub_a serves"):
        Database(tmp_path / "none", url, "hub_b")
    first.rows("UPDATE hub_lease SET until = clock_timestamp() - interval '1 second' RETURNING 1")
    second = Database(tmp_path / "none", url, "hub_b")
    for write in (
        lambda: first.run("DELETE FROM audit"),
        first.hold,
        lambda: first._lease and first._lease.renew(),
    ):
        with pytest.raises(FencedError):
            write()
        if first._inside:
            first._connection.exec_driver_sql("ROLLBACK")
            first._inside = False
    assert second.rows("SELECT seq, who FROM audit") == [(1, "anna")]
    AuditLog(second, lambda: 2).append("boris", Left("robot_2"))
    first.close()  # gives up nothing that is another's
    with pytest.raises(LeaseHeldError, match="hub_b serves"):
        Database(tmp_path / "none", url, "hub_c")
    second.close()
    Database(tmp_path / "none", url, "hub_c").close()


@NEEDS_POSTGRES
def test_an_open_transaction_keeps_the_lease_in_place(tmp_path: Path, url: str) -> None:
    first = Database(tmp_path / "none", url, "hub_a")
    first.rows("UPDATE hub_lease SET until = clock_timestamp() - interval '1 second' RETURNING 1")
    first.hold()
    first.run("INSERT INTO robot VALUES ('robot_1', '', '', '', 0)")
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(Database, tmp_path / "none", url, "hub_b")
        time.sleep(0.3)
        assert not taking.done()
        first.commit()
        second = taking.result()
    assert second.rows("SELECT robot FROM robot") == [("robot_1",)]
    first.close()
    second.close()


@NEEDS_POSTGRES
def test_writes_wait_for_each_other_but_nobody_sees_that(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent together, in their order; a query sees those before it, a fault in one takes all of its transaction."""
    monkeypatch.setattr("fleet_hub.store.pipeline.PENDING_MAX", 7)
    database = Database(tmp_path / "none", url)
    database.hold()
    for number in range(10):  # more than may wait
        database.run("INSERT INTO robot VALUES (?, 'd', ?, '', ?)", f"robot_{number}", "v\0", number)
    database.run("UPDATE robot SET seen_wall_ns = seen_wall_ns * 2")
    database.run("DELETE FROM robot WHERE seen_wall_ns > ?", 6)
    assert database.rows("SELECT robot, seen_wall_ns FROM robot ORDER BY robot") == [
        (f"robot_{number}", 2 * number) for number in range(4)
    ]
    database.commit()
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(SQLAlchemyError, match="duplicate key"))
        stack.enter_context(database.transaction())
        database.run("DELETE FROM robot WHERE robot = 'robot_1'")
        database.run("INSERT INTO robot VALUES ('robot_2', '', '', '', 0)")
        database.run("DELETE FROM robot")
    assert [name for (name,) in database.rows("SELECT robot FROM robot ORDER BY robot")] == [
        f"robot_{number}" for number in range(4)
    ]
    database.run("DELETE FROM robot")  # it goes on after that
    database.close()


@NEEDS_POSTGRES
def test_an_sqlite_hub_moves_with_all_it_holds(tmp_path: Path, url: str, postgres: Postgres) -> None:
    own = Database(tmp_path / "hub.sqlite")
    log = AuditLog(own, lambda: 5)
    log.append("anna", Left("robot_1"))
    own.run("INSERT INTO release VALUES (7, 'd', 'routing', 'v1', 3, 9, 0)")
    own.run("INSERT INTO plan VALUES ('p', ?, 1)", b"\0plan")
    own.run("INSERT INTO rollout VALUES (4, 'p')")
    own.run("INSERT INTO member VALUES ('key', 'robot', 'robot_9', 'in', ?, 2)", b"card")
    wanted = {table: own.rows(f"SELECT {columns} FROM {table}") for table, columns in COLUMNS.items()}
    own.close()
    shared = open_database(tmp_path, url, "hub_a")
    assert {
        table: shared.rows(f"SELECT {columns} FROM {table}") for table, columns in COLUMNS.items()
    } == wanted
    shared.run("INSERT INTO plan VALUES ('q', ?, 1)", b"")
    assert shared.rows("INSERT INTO rollout (plan_digest) VALUES ('q') RETURNING id") == [(5,)]
    shared.close()
    assert (tmp_path / "hub.sqlite.moved").is_file()
    assert not (tmp_path / "hub.sqlite").exists()
    assert known_url(tmp_path) == url
    assert verify_chain(read_entries(tmp_path)) == log.head
    open_database(tmp_path, "", "hub_a").close()  # it is known where the fleet is
    with pytest.raises(DataFolderError, match=r"share .*, came"):
        open_database(tmp_path, postgres.make("another"), "hub_a")


@NEEDS_POSTGRES
def test_a_fleet_is_not_laid_over_another(tmp_path: Path, url: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = open_database(tmp_path / "a", url)
    AuditLog(first, lambda: 1).append("anna", Left("robot_1"))
    first.close()
    Database(tmp_path / "b" / "hub.sqlite").close()
    with pytest.raises(DataFolderError, match="holds a fleet already"):
        open_database(tmp_path / "b", url)
    assert (tmp_path / "b" / "hub.sqlite").is_file()
    assert not known_url(tmp_path / "b")


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DatabaseLostError, match="nothing is answered"):
        Database(tmp_path / "none", f"postgresql+psycopg://hub@/fleet?host={tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_file_of_before_sqlalchemy_is_opened_as_it_is(tmp_path: Path) -> None:
    """``hub_schema_3.sql`` was dumped from a file that the hub before SQLAlchemy had made."""
    path = tmp_path / "hub.sqlite"
    made = sqlite3.connect(path)
    made.executescript((Path(__file__).parent / "hub_schema_3.sql").read_text())
    made.execute("PRAGMA user_version = 3")
    made.close()
    opened = Database(path)
    assert opened.rows("SELECT digest, release_counter FROM release") == [("d", 4)]
    assert opened.rows("SELECT key, card FROM member") == [("key", b"card")]
    assert opened.rows("PRAGMA journal_mode") == [("wal",)]
    assert opened.rows("PRAGMA synchronous") == [(2,)]
    assert opened.rows("PRAGMA foreign_keys") == [(1,)]
    entry = AuditLog(opened, lambda: 9)
    entry.append("boris", Left("robot_2"))
    opened.close()
    assert verify_chain(read_entries(tmp_path))[0] == 2


def stored_seqs(fleet: Fleet, robot: str = "robot_1") -> list[int]:
    """Sequence numbers of all that is stored of a robot's only log."""
    logs = list((fleet.folder / "data" / "telemetry" / robot).glob("*"))
    assert len(logs) <= 1, logs
    return [
        frame.seq
        for folder in logs
        for segment in list_segments(folder)
        for frame in iterate_frames(segment.path.read_bytes()[segment.data_start :])
    ]


def accept(fleet: Fleet, robot: str) -> None:
    """Be control: take the candidate that comes."""
    mailbox = fleet.mailbox(robot)
    mailbox.answer(wait_for(mailbox.poll, f"a candidate of {robot}", TAKEN_OVER_S), True)


@pytest.fixture
def hubs(tmp_path: Path, keys: Path, url: str) -> Iterator[tuple[Fleet, Fleet]]:
    """Hub a serves, hub b stands by, on another port; one data folder."""
    one = Fleet(tmp_path, keys)
    two = Fleet(tmp_path, keys)
    options = ("--no-ingest", "--database", url, "--name")
    one.start_hub(*options, "hub_a")
    two.start_standby(*options, "hub_b")
    yield one, two
    two.close()
    one.close()


@NEEDS_POSTGRES
@pytest.mark.timeout(400)
def test_the_other_hub_carries_on(hubs: tuple[Fleet, Fleet], tmp_path: Path) -> None:
    """A token, a robot's records and a rollout are begun at one hub, which is killed; the other goes on with each."""
    one, two = hubs
    used, late = issue(one, "robot_7"), issue(one, "robot_8")
    enrol(used.token, one.address, tmp_path / "robot_7", ANSWER_MAX_S)
    digest = one.release(make_bundle(one.keys))
    for robot in ("robot_1", "robot_2"):
        one.start_comms(robot)
    one.push(50)
    wait_for(lambda: len(stored_seqs(one)) >= 50, "records at the first hub", TAKEN_OVER_S)
    one.start_rollout(digest, "robot_1", "robot_2")
    accept(one, "robot_1")
    one.kill_hub()
    before = read_entries(tmp_path / "data")
    two.wait_until_serving()
    for robot in ("robot_1", "robot_2"):
        one.end_comms(robot)
        two.start_comms(robot, ring=one.prefix)
    one.push(50)
    accept(two, "robot_2")
    with pytest.raises(EnrolmentError) as refused:
        enrol(used.token, two.address, tmp_path / "thief", ANSWER_MAX_S)
    assert refused.value.code == EnrolCode.USED
    both = [tmp_path / "robot_8", tmp_path / "robot_8_thief"]
    with ThreadPoolExecutor(2) as pool:  # at the same moment: one comes in
        came = [pool.submit(enrol, late.token, two.address, folder, ANSWER_MAX_S) for folder in both]
        refusals = [error for asked in came if (error := asked.exception())]
    assert [getattr(error, "code", error) for error in refusals] == [EnrolCode.USED]

    def finished() -> bool:
        with two.client() as client:
            return client.rollout().state == "finished"

    wait_for(finished, "the rollout's end at the second hub", TAKEN_OVER_S)
    wait_for(lambda: len(stored_seqs(two)) >= 100, "records at the second hub", TAKEN_OVER_S)
    seqs = stored_seqs(two)
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    entries = read_entries(tmp_path / "data")
    verify_chain(entries, before[-1].hash)
    done = [(entry.who, entry.body) for entry in entries if entry.rollout]
    assert len(done) == len(set(done))


@NEEDS_POSTGRES
@pytest.mark.timeout(400)
def test_a_database_that_goes_and_comes(hubs: tuple[Fleet, Fleet], postgres: Postgres) -> None:
    """Nothing is acknowledged while it is away, nothing acknowledged is lost, and a hub serves again by itself."""
    one, two = hubs
    two.kill_hub()
    one.start_comms()
    one.push(50)
    wait_for(lambda: len(stored_seqs(one)) >= 50, "records before", TAKEN_OVER_S)
    head = read_entries(one.folder / "data")
    postgres.stop()
    try:
        one.read_hub_until("the database is lost")
        one.push(50)
    finally:
        postgres.start()
    one.wait_until_serving()
    wait_for(lambda: len(stored_seqs(one)) >= 100, "records after", TAKEN_OVER_S)
    seqs = stored_seqs(one)
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    entries = read_entries(one.folder / "data")
    assert entries[: len(head)] == head
    verify_chain(entries)
