"""An order for erasure goes from the hub to the robot: signed, after days, once, and with receipts of both."""

import json
import random
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.canonical import digest_hex
from contracts.erasure import ERASED_TYPE, EraseAct, RobotErased, SignedReceipt
from contracts.keyring import ACCESS_FILE, TRUSTED_FILE
from contracts.messages import EraseOrder, EraseReport, ErasureView, FromRobot
from contracts.provenance import TrustedKeys
from edge_agent.recorder.chain import verify_folder
from edge_agent.recorder.reading import load_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.update.witness import sign_as_robot
from edge_agent.uplink.erasures import FAILED, REFUSED, Erasures
from fleet_hub.errors import ErasureError, RefusedByHubError
from fleet_hub.intake.intake import Intake
from fleet_hub.people import People, read_cards
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import AuditLog, read_entries, verify_chain
from fleet_hub.store.database import Database
from fleet_hub.store.erasure_orders import ErasureOrders
from fleet_hub.store.folder import DataFolder
from outrider.verbs.keys import person as add_person
from tests.recorder.support import WALL_NS, drive, run_logs, write_log
from tests.support.fleet import Fleet, make_keys
from tests.support.postgres import MISSING, Postgres
from tests.support.waiting import wait_for
from trainer.release.papers import person_signer, sign_erase_act

SPAN = (WALL_NS + int(10e9), WALL_NS + int(15e9))
NS = 10**9
CANNOT_S = 40.0


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet of two, and somebody who answers for safety."""
    made = make_keys(tmp_path_factory.mktemp("fleet") / "keys")
    add_person("sofia", "safety_officer", made)
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of about 190 records in blocks of 64, in this process."""
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 64)


def act(keys: Path, robot: str = "robot_1", person: str = "boris", signer: str = "", **fields: Any) -> bytes:
    """A signed order for SPAN."""
    values: dict[str, Any] = {"since_ns": SPAN[0], "until_ns": SPAN[1], "signed_wall_ns": time.time_ns()}
    values |= {"robot": robot, "person": person, "why": "request 17"} | fields
    return sign_erase_act(msgspec.convert(values, EraseAct), person_signer(keys, signer or person))


class Desk:
    """A robot's erasures with the hub's side played by a list."""

    def __init__(self, state: Path, keys: Path, robot: str = "robot_1") -> None:
        self.recorder = Recorder(state, robot)
        self.said: list[FromRobot] = []
        self.erasures = Erasures(self.recorder, state, keys / "robots" / robot, self._send)
        self._access = (keys / "hub" / ACCESS_FILE).read_bytes()

    def _send(self, message: FromRobot) -> bool:
        self.said.append(message)
        return True

    def tell(self, paper: bytes, access: bytes = b"") -> list[EraseReport]:
        """Show an order and let it be carried out; what the robot says then."""
        self.said.clear()
        self.erasures.on_order(EraseOrder(paper, access or self._access))
        for _ in range(500):
            self.erasures.step(time.monotonic_ns())
            if not self.erasures.busy:
                self.erasures.step(time.monotonic_ns())  # what is to be said goes out with the next turn
                break
        return [one for one in self.said if isinstance(one, EraseReport)]


@pytest.fixture
def desk(tmp_path: Path, keys: Path) -> Iterator[Desk]:
    """A robot with a log of 30 s."""
    write_log(tmp_path / "state", drive(600))
    made = Desk(tmp_path / "state", keys)
    yield made
    made.recorder.close()


def walls(state: Path) -> list[int]:
    """Wall times of the decisions that are there."""
    return [int(value) for value in load_log(state / "log").decisions["wall_ns"]]


def within(found: list[int]) -> int:
    """How many of them the order is about."""
    return sum(SPAN[0] <= wall_ns <= SPAN[1] for wall_ns in found)


def test_an_order_is_carried_out_and_the_log_goes_on(desk: Desk, tmp_path: Path, keys: Path) -> None:
    state = tmp_path / "state"
    assert within(walls(state)) == 100
    paper = act(keys)
    (report,) = desk.tell(paper)
    assert (report.order, report.code, bool(report.done)) == (digest_hex(paper), "", True)
    desk.recorder.decisions([row.tobytes() for row in drive(20, first_tick=601)])
    desk.recorder.sync()
    assert within(walls(state)) == 0
    assert len(walls(state)) > 400
    found = verify_folder(state / "log")
    assert found.whole, found
    names = [event.name for _, event in load_log(state / "log").events]
    assert names.count("records_erased") == 1


def test_the_same_order_again_takes_nothing_and_says_so(desk: Desk, tmp_path: Path, keys: Path) -> None:
    state, paper = tmp_path / "state", act(keys)
    (first,) = desk.tell(paper)
    desk.recorder.decisions([row.tobytes() for row in drive(600)])  # the same times once more
    desk.recorder.sync()
    before = within(walls(state))
    assert before == 100
    (again,) = desk.tell(paper)
    assert (again.code, again.receipt) == ("order_replayed", first.receipt)
    assert within(walls(state)) == before
    last = [event for _, event in load_log(state / "log").events if event.name == REFUSED][-1]
    assert last.detail["code"] == "order_replayed"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"robot": "robot_2"}, "not_named"),
        ({"person": "vera"}, "access_denied"),
        ({"person": "boris", "signer": "vera"}, "access_denied"),
        ({"events": True}, "access_denied"),
        ({"since_ns": SPAN[1] + 1}, "erasure_span"),
        ({"until_ns": 2**62}, "erasure_span"),
        ("flipped", "access_denied"),
        ("nonsense", "access_denied"),
        ("old access", "access_refused"),
        ("other access", "access_refused"),
    ],
)
def test_what_is_not_in_order_is_refused_by_name(
    desk: Desk, tmp_path: Path, keys: Path, change: Any, code: str
) -> None:
    before = {path.name: path.read_bytes() for path in (tmp_path / "state" / "log").glob("*.oseal")}
    access = b""
    if isinstance(change, dict):
        paper = act(keys, **change)
    elif change == "nonsense":
        paper = b"{}"
    elif change == "flipped":
        good = act(keys)
        place = good.index(b'"sig":"') + 9
        paper = good[:place] + (b"0" if good[place : place + 1] != b"0" else b"1") + good[place + 1 :]
    else:
        paper = act(keys)
        access = (keys / "hub" / ACCESS_FILE).read_bytes()
        if change == "other access":
            access = (make_keys(tmp_path / "others") / "hub" / ACCESS_FILE).read_bytes()
        else:
            (tmp_path / "state" / "slots").mkdir(exist_ok=True)
            (tmp_path / "state" / "slots" / "orders.json").write_text('{"access_version": 99}')
    (report,) = desk.tell(paper, access)
    assert (report.code, report.done) == (code, b"")
    assert {p.name: p.read_bytes() for p in (tmp_path / "state" / "log").glob("*.oseal")} == before


def test_events_go_when_a_safety_officer_says_so(desk: Desk, keys: Path) -> None:
    (report,) = desk.tell(act(keys, person="sofia", events=True))
    assert (report.code, bool(report.done)) == ("", True)


def test_a_full_disk_holds_nothing_up_and_it_goes_on(
    desk: Desk, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("edge_agent.recorder.erasure.thin", full)
        desk.tell(act(keys))
        assert not desk.erasures.busy  # telemetry goes on meanwhile
        desk.erasures.step(time.monotonic_ns())
    reports = [one for one in desk.said if isinstance(one, EraseReport)]
    assert [one.code for one in reports] == ["cannot_erase"]
    assert "No space left" in reports[0].reason
    assert within(walls(state)) == 100
    later_ns = time.monotonic_ns() + 61 * NS
    while not any(isinstance(one, EraseReport) and one.done for one in desk.said):
        desk.erasures.step(later_ns)
    assert within(walls(state)) == 0
    assert [e.name for _, e in load_log(state / "log").events].count(FAILED) == 1
    assert verify_folder(state / "log").whole


def view(fleet: Fleet, robot: str = "robot_1") -> ErasureView:
    """The newest order of a robot."""
    with fleet.client() as client:
        return client.erasures(robot).erasures[0]


def order(fleet: Fleet, **fields: Any) -> str:
    """Give an order at the hub; its id."""
    with fleet.client() as client:
        return client.order_erasure(act(fleet.keys, **fields)).erasures[0].order


@pytest.fixture
def fleet(tmp_path: Path, keys: Path) -> Iterator[Fleet]:
    """A fleet whose processes end with the test."""
    made = Fleet(tmp_path, keys)
    yield made
    made.close()


def at_hub(fleet: Fleet, first_ns: int, last_ns: int) -> int:
    """Decisions of that time in the hub's own log."""
    folders = (fleet.folder / "data" / "telemetry" / "robot_1").glob("*")
    walls_ns = np.concatenate(
        [np.zeros(0, np.int64), *(load_log(one).decisions["wall_ns"] for one in folders)]
    )
    return int(((walls_ns >= first_ns) & (walls_ns <= last_ns)).sum())


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(bool(MISSING), reason=MISSING))]
)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the hub keeps orders; a real server for PostgreSQL."""
    kind = str(request.param)
    if kind == "sqlite":
        yield kind
        return
    server = Postgres()
    monkeypatch.setenv("OUTRIDER_DATABASE", server.make("fleet"))
    yield kind
    server.close()


def test_from_the_hub_to_a_robot_that_was_away_and_back(database: str, fleet: Fleet, keys: Path) -> None:
    fleet.start_hub("--listen", fleet.address)  # with its ingest
    fleet.start_comms()
    fleet.push(40)
    began_ns = time.time_ns()
    fleet.push(60)
    until_ns = time.time_ns()
    time.sleep(0.01)
    fleet.push(20)
    robot_log = fleet.state() / "log"
    wait_for(lambda: at_hub(fleet, 0, 2**62) == 120, "records at the hub", CANNOT_S)
    assert at_hub(fleet, began_ns, until_ns) == 60
    fleet.end_comms()

    told = order(fleet, since_ns=began_ns, until_ns=until_ns)
    with fleet.client() as client, pytest.raises(RefusedByHubError, match="vera is viewer"):
        client.order_erasure(act(keys, person="vera", since_ns=began_ns, until_ns=until_ns))
    wait_for(lambda: view(fleet).hub_state == "erased", "the hub's own erasure", CANNOT_S)
    assert at_hub(fleet, began_ns, until_ns) == 0
    assert at_hub(fleet, 0, 2**62) == 60
    assert (view(fleet).robot_state, view(fleet).hub_records) == ("waiting", 60)
    fleet.kill_hub()
    if database == "sqlite":
        fleet.start_hub("--listen", fleet.address)
    else:
        fleet.start_standby()  # until the lease of the one before has run out
        fleet.wait_until_serving()
    assert view(fleet).robot_state == "waiting"

    fleet.push(10)
    fleet.start_comms()  # days later
    wait_for(lambda: view(fleet).robot_state == "erased", "the robot's receipt", CANNOT_S)
    found = wait_for(
        lambda: (one := view(fleet)).hub_state == "erased" and len(one.hub_receipts) == 2 and one,
        "the hub's second look",
        CANNOT_S,
    )
    assert found.order == told
    assert found.robot_records >= 60  # whole blocks
    data = fleet.folder / "data"
    signed = msgspec.json.decode((data / found.robot_receipt).read_bytes(), type=SignedReceipt)
    assert (signed.receipt.order, signed.receipt.who) == (told, "boris")
    assert all((data / name).is_file() for name in found.hub_receipts)
    left = load_log(robot_log).decisions["wall_ns"]
    assert not ((left >= began_ns) & (left <= until_ns)).any()
    fleet.push(5)
    wait_for(lambda: at_hub(fleet, until_ns + 1, 2**62) == 35, "what came after it", CANNOT_S)
    assert fleet.end_comms() == 0
    verified = run_logs("verify", str(fleet.state()), "--json")
    assert (
        json.loads(verified.stdout)[0]["whole"]
        if verified.stdout.startswith("[")
        else verified.returncode == 0
    )
    entries = read_entries(data)
    verify_chain(entries)
    kinds = [json.loads(entry.body)["type"] for entry in entries]
    assert kinds.count("ErasureOrdered") == kinds.count("RobotErasedRecords") == 1
    assert kinds.count("Erased") == kinds.count("ErasureBegan") == 2
    assert kinds.count("Denied") == 1
    assert not list((data / "erasures").iterdir())


def test_a_refusal_is_shown_and_final(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    with fleet.client() as client:
        with pytest.raises(RefusedByHubError, match="no robot robot_9"):
            client.order_erasure(act(keys, robot="robot_9"))
        with pytest.raises(RefusedByHubError, match="ends after the order was signed"):
            client.order_erasure(act(keys, until_ns=time.time_ns() + 3600 * NS))
        with pytest.raises(RefusedByHubError, match="at another time"):
            client.order_erasure(act(keys, signed_wall_ns=time.time_ns() - 3600 * NS))
        paper = act(keys)
        client.order_erasure(paper)
        with pytest.raises(RefusedByHubError, match="that very order is known"):
            client.order_erasure(paper)
    (fleet.state() / "slots").mkdir(parents=True)
    (fleet.state() / "slots" / "orders.json").write_text('{"access_version": 99}')
    fleet.start_comms()
    wait_for(lambda: view(fleet).robot_state == "refused", "the robot's refusal", CANNOT_S)
    assert view(fleet).robot_code == "access_refused"


def test_the_commands(fleet: Fleet, keys: Path) -> None:
    fleet.start_hub()
    words = ["--keys", str(keys), "--hub", fleet.address]
    span = [
        "--since",
        "2026-11-01T10:00",
        "--until",
        "2026-11-01T10:05",
        "--as",
        "boris",
        "--why",
        "request 17",
    ]
    done = run_logs("erase", "robot_1,robot_2", *span, *words, verb="fleet")
    assert (done.returncode, done.stdout.count("robot  waiting")) == (0, 2)
    listed = run_logs("erasures", "robot_2", *words, "--json", verb="fleet")
    assert [one["robot"] for one in json.loads(listed.stdout)["erasures"]] == ["robot_2"]
    assert run_logs("erase", ",", *span, *words, verb="fleet").returncode == 2
    assert (
        "no key of nobody"
        in run_logs("erase", "robot_1", *span[:5], "nobody", *span[6:], *words, verb="fleet").stderr
    )


def test_a_receipt_counts_when_it_is_the_robots_own(desk: Desk, tmp_path: Path, keys: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    database = Database(folder.database)
    own, trusted = keys / "hub", TrustedKeys.load(keys / "hub" / TRUSTED_FILE)
    orders = ErasureOrders(
        tmp_path / "data", database, AuditLog(database, time.time_ns), People(own, trusted), {"robot_1", "robot_2"},
        read_cards(own, trusted), Intake(folder.telemetry), TripStore(database, folder.telemetry), time.time_ns,
    )  # fmt: skip
    paper, other = act(keys), act(keys, why="another")
    orders.order(paper)
    orders.order(other)
    (good,) = desk.tell(paper)
    own_key, others_key = keys / "robots" / "robot_1", keys / "robots" / "robot_2"
    done = RobotErased(good.order, "robot_1", "ab" * 32, 1, "cd" * 32)
    elsewhere = msgspec.structs.replace(done, order=digest_hex(other))
    forged = sign_as_robot(done, ERASED_TYPE, "robot_1", others_key)
    wrong = sign_as_robot(elsewhere, ERASED_TYPE, "robot_1", own_key)
    signed = msgspec.json.decode(zlib.decompress(good.receipt), type=SignedReceipt)
    lied = msgspec.structs.replace(signed.receipt, records=signed.receipt.records, who="nobody")
    lie = zlib.compress(msgspec.json.encode(SignedReceipt(lied, signed.signature)))
    for robot, report, word in (
        ("robot_2", good, "never told"),
        ("robot_1", EraseReport(good.order, "", "", forged), "has not"),
        ("robot_1", EraseReport(good.order, "", "", wrong), "signed for"),
        ("robot_1", EraseReport(good.order, "", "", good.done, lie), "not the one"),
        ("robot_1", EraseReport(good.order, "", "", good.done, zlib.compress(b"[]")), "is none"),
        ("robot_1", EraseReport(good.order, "", "", good.done, b"noise"), "is none"),
        ("robot_1", EraseReport(digest_hex(other), "", "", good.done, good.receipt), "signed for"),
    ):  # fmt: skip
        with pytest.raises(ErasureError, match=word):
            orders.report(robot, report)
        assert {one.robot_state for one in orders.view().erasures} == {"waiting"}
    orders.report("robot_1", good)
    assert {one.order: one.robot_state for one in orders.view().erasures}[good.order] == "erased"
    assert [digest_hex(one.act) for one in orders.for_robot("robot_1")] == [digest_hex(other)]
    database.close()
    folder.close()


def test_a_thousand_damaged_orders_are_refused_and_change_nothing(
    desk: Desk, tmp_path: Path, keys: Path
) -> None:
    state, paper, draw = tmp_path / "state", act(keys), random.Random(5)
    before = walls(state)
    access = (keys / "hub" / ACCESS_FILE).read_bytes()
    for _ in range(1000):
        data = bytearray(paper)
        place = draw.randrange(len(data))
        if draw.random() < 0.3:
            del data[place : place + draw.randrange(1, 500)]
        elif draw.random() < 0.5:
            data[place:place] = draw.randbytes(draw.randrange(1, 50))
        else:
            data[place] ^= draw.randrange(1, 256)
        desk.erasures.on_order(EraseOrder(bytes(data), access))
        assert not desk.erasures.busy
    assert walls(state) == before
