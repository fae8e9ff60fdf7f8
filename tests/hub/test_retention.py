"""What the hub removes: by rules and holds, and on request, for good, with a receipt."""

import json
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from contracts.canonical import digest_hex
from contracts.framelog import (
    Kind,
    LostClass,
    encode_event,
    encode_frame,
    event_now,
    list_segments,
    scan_frames,
)
from contracts.framelog_writer import LogWriter
from contracts.replay import stored_files
from fleet_hub.errors import DataFolderError, RetentionError
from fleet_hub.intake.intake import Intake
from fleet_hub.rollout.events import Erased, decode_entry
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import read_entries, verify_chain
from fleet_hub.store.database import Database
from fleet_hub.store.erasure import erase
from fleet_hub.store.folder import DataFolder
from fleet_hub.store.replay import Ingest
from fleet_hub.store.retention import Retention, load_retention, retain
from fleet_hub.store.tombstones import Tombstone
from outrider.verbs import episodes
from tests.hub.test_store import BEGIN_NS, DAY_NS, LOG, POLICY, ask, trip_rows, write_log
from tests.hub.test_trip_store import as_batch

NS = 10**9
TRIPS = 6
COUNTS = "SELECT (SELECT count(*) FROM decisions), (SELECT count(*) FROM episodes), (SELECT sum(ticks) FROM minutes)"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(episodes.app, list(arguments))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A hub's folder: two robots, six trips of 20 s each, one a minute; in the store, the logs and the trip table."""
    data = tmp_path / "hub"
    folder = DataFolder(data)
    database = Database(folder.database)
    store = TripStore(database, folder.telemetry)
    for robot in ("robot_1", "robot_2"):
        for trip in range(TRIPS):
            write_log(data, trip_rows(trip + 1, BEGIN_NS + trip * 60 * NS, 20), robot, trip * 200 + 1)
            segment = list_segments(folder.telemetry / robot / LOG)[-1]
            store.add(robot, as_batch(segment.path.read_bytes()[segment.data_start :]))
    store.catch_up()
    database.close()
    folder.close()
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
    return data


def wall_bytes(data: Path, robot: str, wall_ns: int) -> int:
    """In how many places of the intake's logs that record's time still stands."""
    needle = int(wall_ns).to_bytes(8, "little")
    return sum(path.read_bytes().count(needle) for path in (data / "telemetry" / robot).rglob("*.olog"))


def test_a_robot_is_erased_everywhere_and_stays_away(data: Path) -> None:
    backup = data.parent / "backup"
    shutil.copytree(data / "telemetry", backup)
    done = run("erase", "--data", str(data), "--robot", "robot_1", "--reason", "request 17", "--json")
    assert done.exit_code == 0, done.output
    receipt = json.loads(done.stdout)
    assert receipt["rows"] == {"decisions": 1200, "episodes": 6, "minutes": 6}
    assert (receipt["records"], receipt["trips"]) == (1200, 6)
    assert ask(data, COUNTS) == [(1200, 6, 1200)]
    assert ask(data, "SELECT DISTINCT robot FROM decisions") == [("robot_2",)]
    assert wall_bytes(data, "robot_1", BEGIN_NS) == 0
    assert wall_bytes(data, "robot_2", BEGIN_NS) > 0
    assert not list((data / "store").rglob("robot_1*"))

    (erased,) = [e for e in map(decode_entry, (a.body for a in read_entries(data))) if isinstance(e, Erased)]
    assert erased.receipt_sha256 == digest_hex(Path(receipt["receipt"]).read_bytes())
    verify_chain(read_entries(data))

    # the store is lost and the logs come back from a backup: what was erased does not
    shutil.rmtree(data / "store")
    shutil.rmtree(data / "telemetry")
    backup.rename(data / "telemetry")
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
    assert ask(data, COUNTS) == [(1200, 6, 1200)]


def test_a_stretch_of_time_is_erased_and_the_rest_is_whole(data: Path) -> None:
    since, until = (
        BEGIN_NS + 70 * NS,
        BEGIN_NS + 125 * NS,
    )  # the end of the second trip, the start of the third
    receipt, _ = erase(data, Tombstone("robot_1", since, until), "anna", "a test")
    assert receipt.rows["decisions"] == 100 + 51
    assert receipt.rows["episodes"] == 2
    assert receipt.trips == 2
    left = ask(data, f"SELECT count(*) FROM decisions WHERE wall_ns BETWEEN {since} AND {until}")
    assert left == [(151,)]  # robot_2's
    assert ask(data, "SELECT count(*) FROM decisions") == [(2400 - 151,)]
    assert ask(data, "SELECT count(*) FROM episodes WHERE robot = 'robot_1'") == [(4,)]
    again, _ = erase(data, Tombstone("robot_1", since, until), "anna", "once more")
    assert (sum(again.rows.values()), again.records, again.trips) == (0, 0, 0)


def test_numbers_stay_so_that_no_robot_sends_again(data: Path) -> None:
    erase(data, Tombstone("robot_1"), "anna", "a test")
    intake = Intake(data / "telemetry")
    assert intake.durable_seq("robot_1", LOG) == 1200
    intake.close()
    for segment in list_segments(data / "telemetry" / "robot_1" / LOG):
        bytes_ = segment.path.read_bytes()
        assert scan_frames(bytes_, segment.data_start).damage == ""
        assert bytes([LostClass.ERASED]) == bytes_[-1:]


def test_events_go_by_their_own_time(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    writer = LogWriter(folder.telemetry / "robot_1" / LOG, "robot_1", LOG, LOG, 1, 0)
    for number, wall_ns in enumerate((10, 20, 30), start=1):
        event = encode_event(event_now("swap", wall_ns, wall_ns, person="somebody"))
        writer.append(encode_frame(Kind.EVENT, number, event), 1, 0)
    writer.close()
    folder.close()
    receipt, _ = erase(tmp_path, Tombstone("robot_1", 15, 25), "anna", "a test")
    assert receipt.records == 1
    assert next((tmp_path / "telemetry").rglob("*.olog")).read_bytes().count(b"somebody") == 2


def test_a_running_hub_is_left_alone(data: Path) -> None:
    folder = DataFolder(data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet")}
    with pytest.raises(DataFolderError, match="another hub uses"):
        erase(data, Tombstone("robot_1"), "anna", "a test")
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet")} == before
    folder.close()
    assert not read_entries(data)


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--robot", "robot_9", "--reason", "x"), 1, "no records"),
        (("--robot", "../robot_1", "--reason", "x"), 2, "name"),
        (("--robot", "robot_1", "--reason", " "), 2, "reason"),
        (
            ("--robot", "robot_1", "--reason", "x", "--since", "2026-01-02", "--until", "2026-01-01"),
            2,
            "after",
        ),
        (("--robot", "robot_1", "--reason", "x", "--since", "yesterday"), 2, "expected a time"),
    ],
)
def test_bad_requests_erase_nothing(data: Path, options: tuple[str, ...], code: int, word: str) -> None:
    done = run("erase", "--data", str(data), *options)
    assert done.exit_code == code
    assert word in done.output
    assert ask(data, "SELECT count(*) FROM decisions") == [(2400,)]
    assert not read_entries(data)


def rules(**changes: object) -> Retention:
    return msgspec.convert({"rules": [{"data": "decisions", "days_max": 1}]} | changes, Retention)


def test_age_and_holds(data: Path) -> None:
    now_ns = BEGIN_NS + 2 * DAY_NS
    hold = {"name": "accident 7", "kind": "legal", "robot": "robot_2"}
    (would,) = retain(data, rules(holds=[hold]), now_ns, dry_run=True)
    assert (would.removed_files, would.held_files) == (1, 1)
    assert ask(data, "SELECT count(*) FROM decisions") == [(2400,)]
    assert retain(data, rules(holds=[hold]), now_ns) == [would]
    assert ask(data, COUNTS) == [(1200, 12, 2400)]
    assert not list((data / "store" / "decisions").rglob("robot_1*"))
    with Ingest(data) as ingest:
        assert ingest.run(all_now=True).files == 0, "what went by age is not taken again"
    training = {"name": "run 3", "kind": "training", "policy_digest": POLICY.hex()[:12]}
    assert retain(data, rules(holds=[training]), now_ns)[0].held_files == 1
    other = {"name": "run 4", "kind": "training", "policy_digest": "ff" * 32}
    assert retain(data, rules(holds=[other]), now_ns)[0].removed_files == 1


def test_the_boundary_of_age(data: Path) -> None:
    (file, _) = stored_files(data / "store", "decisions")
    assert retain(data, rules(), file.last_wall_ns + DAY_NS)[0].removed_files == 0
    assert retain(data, rules(), file.last_wall_ns + DAY_NS + 1)[0].removed_files == 2


def test_size_takes_the_oldest_first(data: Path) -> None:
    write_log(data, trip_rows(9, BEGIN_NS + DAY_NS // 2, 20), "robot_3")
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
    sizes = {file.robot: file.size_bytes for file in stored_files(data / "store", "decisions")}
    asked = [{"data": "decisions", "gigabytes_max": (sizes["robot_3"] + 1) / 1e9}]
    assert retain(data, rules(rules=asked), BEGIN_NS + DAY_NS)[0].removed_files == 2
    assert ask(data, "SELECT DISTINCT robot FROM decisions") == [("robot_3",)]


def test_of_the_logs_only_what_was_taken_goes_and_the_end_stays(data: Path) -> None:
    now_ns = time.time_ns() + 10 * DAY_NS
    asked = rules(rules=[{"data": "records", "days_max": 1}])
    assert retain(data, asked, now_ns)[0].removed_files == 4
    logs = {robot: list_segments(data / "telemetry" / robot / LOG) for robot in ("robot_1", "robot_2")}
    assert [len(found) for found in logs.values()] == [4, 4]
    intake = Intake(data / "telemetry")
    assert intake.durable_seq("robot_1", LOG) == 1200
    intake.close()
    folder = data / "telemetry" / "robot_1" / LOG
    for number in range(6, 12):
        writer = LogWriter(folder, "robot_1", LOG, LOG, 1201 + (number - 6) * 200, number)
        rows = trip_rows(number + 20, BEGIN_NS, 20)
        frames = [
            encode_frame(Kind.DECISION, writer.next_seq + n, row.tobytes()) for n, row in enumerate(rows)
        ]
        writer.append(b"".join(frames), 200, time.time_ns())
        writer.close()
    assert retain(data, asked, now_ns)[0].removed_files == 4, "what nobody ingested stays"
    assert len(list_segments(folder)) == 6
    with Ingest(data) as ingest:
        assert ingest.run(all_now=True).missing == 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("rules: []", "length"),
        ("rules: [{data: decisions, days_max: 0}]", "days_max"),
        ("rules: [{data: videos}]", "videos"),
        ("rules: [{data: decisions}, {data: decisions}]", "two rules"),
        ("rules: [{data: decisions, weeks_max: 1}]", "weeks_max"),
        ("rules: [{data: decisions}]\nholds: [{name: a, kind: legal, since: 2026-01-01T00:00:00}]", "zone"),
        ("rules: [{data: decisions}]\nholds: [{name: a, kind: whim}]", "whim"),
        ("rules: [", "docs/operations/store.md"),
    ],
)
def test_bad_rules_remove_nothing(data: Path, text: str, word: str) -> None:
    path = data.parent / "rules.yaml"
    path.write_text(text)
    with pytest.raises(RetentionError, match=word):
        load_retention(path)
    done = run("retain", "--data", str(data), "--rules", str(path))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert run("retain", "--data", str(data), "--rules", os.devnull).exit_code == 1
    assert ask(data, COUNTS) == [(2400, 12, 2400)]
