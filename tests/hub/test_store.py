"""The replay store: real logs, a real hub over CURVE, real kills; what is in the files is what the robots said."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Reason, Source
from contracts.errors import StoreFormatError
from contracts.framelog import Kind, encode_frame
from contracts.framelog_writer import LogWriter
from contracts.replay import stored_files, stored_policies
from fleet_hub.errors import DataFolderError, QueryRefusedError, StoreBusyError
from fleet_hub.observe.drift import Drift
from fleet_hub.store.query import ReplayStore
from fleet_hub.store.replay import Ingest
from navigation.novelty import Novelty, drift_reference
from outrider.verbs import episodes
from tests.support.fleet import Fleet, make_bundle
from tests.support.trips import push_trips
from tests.support.waiting import wait_for
from trainer.episodes.store import EpisodeDataset, NoEpisodesError

LOG = "ab" * 16
MINUTE_NS = 60 * 10**9
DAY_NS = 86_400 * 10**9
BEGIN_NS = 20_000 * DAY_NS
POLICY = bytes(range(32))
KILLS = int(os.environ.get("OUTRIDER_KILLS", "3"))
STALLS_MAX = 20


def trip_rows(trip: int, begin_ns: int, seconds: int, rate_hz: int = 10) -> np.ndarray:
    """A trip that arrives: DECISION_DTYPE[n]; every tenth tick the monitor takes all speed away."""
    count = seconds * rate_hz
    rows = np.zeros(count, DECISION_DTYPE)
    rows["tick"] = np.arange(count) + trip * 10_000
    rows["wall_ns"] = rows["mono_ns"] = begin_ns + np.arange(count) * 10**9 // rate_hz
    rows["trip"], rows["flags"], rows["mode"] = trip, FLAG_ARMED, Mode.CONTROLLER
    rows["source"], rows["goal"], rows["clearance_m"] = Source.POLICY, (10.0, 0.0), 1.0
    rows["raw_command"] = rows["final_command"] = (1.0, 0.0)
    rows["final_command"][::10], rows["reason"][::10] = 0.0, Reason.OBSTACLE_AHEAD
    rows["total_us"] = np.arange(count) % 100
    rows["policy_digest"] = np.frombuffer(POLICY, np.uint8)
    rows["observation"] = np.linspace(0.0, 1.0, 83, dtype=np.float32)
    rows["observation"][:, 80] = np.linspace(10.0, 1.0, count)
    rows["pose"][-1] = (10.0, 0.0, 0.0)
    return rows


def write_log(
    data: Path, rows: np.ndarray, robot: str = "robot_1", first_seq: int = 1, segments: int = 1
) -> None:
    """Append rows to a log of the intake, as so many segments."""
    folder = data / "telemetry" / robot / LOG
    begun = len(list(folder.glob("*.olog"))) if folder.is_dir() else 0
    for index, part in enumerate(np.array_split(rows, segments)):
        writer = LogWriter(folder, robot, LOG, LOG, first_seq, begun + index)
        frames = [encode_frame(Kind.DECISION, first_seq + n, row.tobytes()) for n, row in enumerate(part)]
        writer.append(b"".join(frames), len(part), time.time_ns())
        writer.close()
        first_seq += len(part)


def ask(data: Path, sql: str) -> list[tuple]:
    with ReplayStore(data / "store") as store:
        return store.query(sql).rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five trips of 20 s, one over midnight, in one log of three segments."""
    begins = [BEGIN_NS - (3 - n) * 30 * 10**9 - 10 * 10**9 for n in range(5)]
    write_log(tmp_path, np.concatenate([trip_rows(n + 1, at, 20) for n, at in enumerate(begins)]), segments=3)
    return tmp_path


def test_every_record_once_with_its_lineage(data: Path) -> None:
    with Ingest(data) as ingest:
        found = ingest.run(all_now=True)
        assert (found.records, found.episodes, found.missing) == (1000, 5, 0)
        assert ingest.run(all_now=True).files == 0
    assert ask(data, "SELECT count(*), count(DISTINCT seq), min(seq), max(seq) FROM decisions") == [
        (1000, 1000, 1, 1000)
    ]
    files = stored_files(data / "store", "decisions")
    assert {file.day for file in files} == {"2024-10-03", "2024-10-04"}
    assert {file.policy_digest for file in files} == {POLICY.hex()}
    assert sum(file.rows for file in files) == 1000
    trips = ask(data, "SELECT robot, outcome, time_s, interventions, last_seq - first_seq FROM episodes")
    assert len(trips) == 5
    assert set(trips) == {("robot_1", "arrived", 19.9, 0.1, 199)}
    (row,) = ask(data, "SELECT observation, total_us, final_speed_mps FROM decisions WHERE seq = 42")
    expected = trip_rows(1, 0, 20)[41]
    np.testing.assert_array_equal(np.array(row[0], np.float32), expected["observation"])
    assert row[1:] == (41, float(expected["final_command"][0]))


def test_minutes_tell_entropy_and_drift_of_those_ticks_that_have_them(tmp_path: Path) -> None:
    rows = trip_rows(1, BEGIN_NS, 20)
    rows["entropy_nats"] = np.where(np.arange(200) < 50, 0.5, np.nan)
    rows["config_digest"] = np.frombuffer(bytes.fromhex("00112233aabbccdd"), np.uint8)
    write_log(tmp_path, rows[:150], segments=2)
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
    asked = "SELECT entropy_ticks, entropy_mean_nats, drift_ticks, drift_mean FROM minutes"
    assert ask(tmp_path, asked) == [(50, 0.5, 0, None)]  # no bundle here says what is usual
    asked = (
        "SELECT DISTINCT config_digest FROM decisions WHERE entropy_nats > 0.4 AND NOT isnan(entropy_nats)"
    )
    assert ask(tmp_path, asked) == [("00112233aabbccdd",)]


NEW_COLUMNS = {
    "decisions": ["config_digest", "entropy_nats"],
    "minutes": ["entropy_ticks", "entropy_mean_nats", "drift_ticks", "drift_mean"],
    "episodes": [],
}


def test_a_store_that_an_older_outrider_began_answers_beside_what_is_new(tmp_path: Path) -> None:
    write_log(tmp_path, trip_rows(1, BEGIN_NS, 20))
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
    for kind, names in NEW_COLUMNS.items():
        for file in stored_files(tmp_path / "store", kind):
            path = tmp_path / "store" / file.path
            pq.write_table(pq.read_table(path, partitioning=None).drop_columns(names), path)
    asked = "SELECT count(*), sum(ticks), max(entropy_mean_nats), max(drift_mean) FROM minutes"
    assert ask(tmp_path, asked) == [(1, 200, None, None)]
    late = trip_rows(2, BEGIN_NS + 60 * 10**9, 20)
    late["entropy_nats"] = 0.75
    write_log(tmp_path, late, robot="robot_0")  # sorted before the older one
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
        (older,) = stored_files(tmp_path / "store", "minutes", "robot_1")
        assert ask(tmp_path, asked) == [(2, 400, 0.75, None)]
        fresh = ingest.replace(older, pq.read_table(tmp_path / "store" / older.path, partitioning=None))
    assert fresh is not None
    assert ask(tmp_path, asked) == [(2, 400, 0.75, None)]
    assert ask(tmp_path, "SELECT count(*), count(entropy_nats) FROM decisions") == [(400, 200)]


def test_the_hub_reckons_drift_as_the_robot_does() -> None:
    rng = np.random.default_rng(0)
    reference = drift_reference(rng.normal(1.0, 0.5, (500, 83)).astype(np.float32))
    seen = rng.normal(1.2, 0.9, (40, 83)).astype(np.float32)
    robots = Novelty(reference)
    np.testing.assert_allclose(Drift(reference).of(seen), [robots.of(row) for row in seen], atol=1e-4)
    seen[3, 5] = np.nan
    assert np.isnan(Drift(reference).of(seen)[3])


def test_minutes_add_up(data: Path) -> None:
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
    ticks, interventions, worst, trips = ask(
        data, "SELECT sum(ticks), sum(interventions), max(latency_max_us), sum(trips) FROM minutes"
    )[0]
    assert (ticks, interventions, worst, trips) == (1000, 100, 99, 5)
    per_minute = ask(data, "SELECT minute_wall_ns, ticks FROM minutes")
    direct = ask(data, f"SELECT wall_ns // {MINUTE_NS} * {MINUTE_NS}, count(*) FROM decisions GROUP BY 1")
    assert sorted(per_minute) == sorted(direct)


@pytest.mark.parametrize("cut", [1, 100, 199, 200, 201, 450, 999])
def test_a_trip_over_two_batches_is_one_episode(tmp_path: Path, cut: int) -> None:
    rows = np.concatenate([trip_rows(n + 1, BEGIN_NS + n * 30 * 10**9, 20) for n in range(5)])
    write_log(tmp_path, rows[:cut])
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
        write_log(tmp_path, rows[cut:], first_seq=cut + 1)
        ingest.run(all_now=True)
    assert ask(tmp_path, "SELECT count(*) FROM decisions") == [(1000,)]
    assert ask(tmp_path, "SELECT first_seq FROM episodes ORDER BY 1") == [
        (1,),
        (201,),
        (401,),
        (601,),
        (801,),
    ]


def test_many_small_minutes_become_one_file(tmp_path: Path) -> None:
    for robot in range(1, 12):
        write_log(tmp_path, trip_rows(1, BEGIN_NS, 80, 5), robot=f"robot_{robot}")
    asked = "SELECT robot, minute_wall_ns, ticks, trips FROM minutes ORDER BY ALL"
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
        (merged,) = stored_files(tmp_path / "store", "minutes", "robot_7")
        before = ask(tmp_path, asked)
        assert merged.rows == len(before) == 22
        write_log(tmp_path, trip_rows(2, BEGIN_NS + 80 * 10**9, 20, 5), robot="robot_1", first_seq=401)
        ingest.run(all_now=True)
        left = {str(path.relative_to(tmp_path / "store")) for path in tmp_path.glob("store/minutes/*/*/*")}
        assert left == {file.path for file in stored_files(tmp_path / "store", "minutes")}
    assert len(left) == 2
    after = ask(tmp_path, asked)
    assert [row for row in after if row[0] != "robot_1"] == [row for row in before if row[0] != "robot_1"]
    assert [row[2:] for row in after if row[0] == "robot_1"] == [(300, 0), (200, 2)]


@pytest.mark.parametrize("idle", [10, 7_000])
def test_what_is_left_of_a_trip_is_no_episode(tmp_path: Path, idle: int) -> None:
    """A robot that stands at its goal over the batch's end, longer than what is read again, did not arrive twice."""
    rows = trip_rows(1, BEGIN_NS, 20)
    after = np.repeat(rows[-1:], 2 * idle)
    after["wall_ns"] = after["mono_ns"] = after["mono_ns"] + (1 + np.arange(2 * idle)) * 10**8
    write_log(tmp_path, np.concatenate([rows, after[:idle]]))
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
        write_log(tmp_path, after[idle:], first_seq=201 + idle)
        assert ingest.run(all_now=True).records == idle
    assert ask(tmp_path, "SELECT first_seq, last_seq FROM episodes") == [(1, 200)]


def test_a_live_segment_waits(tmp_path: Path) -> None:
    """What is still being written is left, and so is a minute that is under way, until a batch is worth a file."""
    now_ns = time.time_ns()
    write_log(tmp_path, trip_rows(1, now_ns - 20 * 10**9, 20))
    with Ingest(tmp_path) as ingest:
        assert ingest.run().files == 0
        assert ingest.run(wall_ns=now_ns + 3600 * 10**9).records == 200


def test_lost_numbers_are_counted(tmp_path: Path) -> None:
    rows = trip_rows(1, BEGIN_NS, 20)
    write_log(tmp_path, rows[:50])
    write_log(tmp_path, rows[60:], first_seq=61)
    with Ingest(tmp_path) as ingest:
        found = ingest.run(all_now=True)
    assert (found.records, found.missing) == (190, 10)


def test_killed_between_files_and_catalogue(data: Path) -> None:
    """``kill -9`` while the files are renamed and the catalogue does not know them: next time, each record once."""
    with Ingest(data):
        pass
    with closing(sqlite3.connect(data / "store" / "catalogue.sqlite")) as holder:
        holder.execute("BEGIN IMMEDIATE")  # the child writes its files, then waits here
        command = [sys.executable, "-m", "outrider.cli", "episodes", "ingest", "--all", "--data", str(data)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        left = wait_for(
            lambda: (f := list((data / "store").glob("minutes/*/*/*"))) and len(f) == 2 and f, "files"
        )
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        holder.rollback()
    assert ask(data, "SELECT count(*) FROM decisions") == [(0,)]  # nobody reads what is not named
    stray = left[0].with_name("robot_9-left.parquet")
    stray.write_bytes(b"half a file")
    with Ingest(data) as ingest:
        assert not left[0].exists()
        assert not stray.exists()
        assert ingest.run(all_now=True).records == 1000
    assert ask(data, "SELECT count(*), count(DISTINCT seq) FROM decisions") == [(1000, 1000)]
    assert ask(data, "SELECT count(*) FROM episodes") == [(5,)]


def kill_an_ingest(data: Path, more: int, draw: random.Random) -> int:
    """``kill -9`` soon after there are more files than that; how many logs are in the store then."""
    command = [sys.executable, "-m", "outrider.cli", "episodes", "ingest", "--all", "--data", str(data)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = data / "store" / "decisions"
    wait_for(lambda: child.poll() is not None or len(list(folder.rglob("*.parquet"))) > more, "new files")
    time.sleep(draw.uniform(0.0, 0.05))
    child.kill()
    child.wait()
    return int(ask(data, "SELECT count(*) FROM decisions")[0][0]) // 200


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """``kill -9`` at random moments of an ingest of many logs; ``OUTRIDER_KILLS=100`` for more of them."""
    for robot in range(1, 41):
        write_log(tmp_path, trip_rows(1, BEGIN_NS, 20), robot=f"robot_{robot}")
    draw, landed = random.Random(6), [40]
    for _ in range(STALLS_MAX):
        landed = [kill_an_ingest(tmp_path, 1, draw)]
        if landed[0] < 40:
            break
        shutil.rmtree(
            tmp_path / "store"
        )  # this machine stood still, and the kill came after the end: once more
    for _ in range(KILLS - 1):
        landed.append(kill_an_ingest(tmp_path, landed[-1] + 1, draw))
    assert landed == sorted(landed)
    assert 0 < landed[0] < 40  # the first kill did come in between
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
    sql = "SELECT count(*), count(DISTINCT (robot, seq)), count(DISTINCT robot) FROM decisions"
    assert ask(tmp_path, sql) == [(8000, 8000, 40)]
    assert ask(tmp_path, "SELECT count(*), count(DISTINCT robot) FROM episodes") == [(40, 40)]


def test_one_writer(data: Path) -> None:
    with Ingest(data), pytest.raises(StoreBusyError, match="another process"):
        Ingest(data)


REFUSED = {
    "COPY (SELECT 1) TO '{x}'": "came COPY",
    "CREATE TABLE t AS SELECT 1": "came CREATE",
    "DELETE FROM decisions": "came DELETE",
    "ATTACH '{x}'": "came ATTACH",
    "SET lock_configuration = false": "came SET",
    "INSTALL httpfs": "came LOAD",
    "SELECT 1; DROP VIEW decisions": "came SELECT and DROP",
    "": "came nothing",
    "SELEC 1": "syntax error",
    "SELECT nothing FROM episodes": "nothing",
    "SELECT * FROM read_csv('/etc/passwd')": "disabled by configuration",
    "SELECT * FROM read_text('{catalogue}')": "disabled by configuration",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_nothing_but_reading(data: Path, sql: str) -> None:
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
    before = {path: path.stat().st_size for path in data.rglob("*.parquet")}
    asked = sql.format(x=data / "x", catalogue=data / "store" / "catalogue.sqlite")
    with ReplayStore(data / "store") as store, pytest.raises(QueryRefusedError, match=REFUSED[sql]):
        store.query(asked)
    assert not (data / "x").exists()
    assert {path: path.stat().st_size for path in data.rglob("*.parquet")} == before


def test_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="no telemetry"):
        Ingest(tmp_path)
    with pytest.raises(StoreFormatError, match="episodes ingest"):
        ReplayStore(tmp_path / "store")
    (tmp_path / "telemetry").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "catalogue.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(DataFolderError, match="no catalogue"):
        Ingest(tmp_path)
    with pytest.raises(StoreFormatError, match="no catalogue"):
        ReplayStore(tmp_path / "store")


def test_a_foreign_log_harms_no_other(data: Path) -> None:
    bad = data / "telemetry" / "robot_2" / LOG
    bad.mkdir(parents=True)
    (bad / "00000000.olog").write_bytes(b"something else")
    with Ingest(data) as ingest:
        found = ingest.run(all_now=True)
    assert found.records == 1000
    assert ["robot_2" in line and "right folder" in line for line in found.unreadable] == [True]


def test_training_reads_the_same(data: Path) -> None:
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
    episodes_ = EpisodeDataset(data, robot="robot_1", policy_digest=POLICY.hex()[:12])
    assert len(episodes_) == 5
    rows = trip_rows(3, 0, 20)
    for index in range(5):  # the third lies in two segments, the fourth in two days
        episode = episodes_.episode(index)
        np.testing.assert_array_equal(episode.observations, rows["observation"])
        np.testing.assert_array_equal(episode.commands, rows["raw_command"])
        np.testing.assert_array_equal(episode.admitted, rows["final_command"])
    step = 9.0 / 199 - 0.3 * 0.1  # 9 m of route over 199 ticks of 0.1 s
    np.testing.assert_allclose(episode.rewards[:-1], step, atol=1e-5)
    assert episode.rewards[-1] == 10.0
    item = episodes_[0]
    assert tuple(item["observations"].shape) == (200, 83)
    assert item["arrived"] is True
    with pytest.raises(NoEpisodesError, match="robot_7"):
        EpisodeDataset(data, robot="robot_7")


def outrider(data: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(episodes.app, [*words, "--data", str(data)])
    assert done.exit_code == code, done.output
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
    return done.output


def test_the_command_line(data: Path) -> None:
    assert "1000 records, 5 episodes" in outrider(data, "ingest", "--all")
    found = json.loads(
        outrider(data, "query", "SELECT seq FROM decisions ORDER BY 1", "--json", "--limit", "3")
    )
    assert found == {"columns": ["seq"], "rows": [[1], [2], [3]], "more": True}
    drawn = [outrider(data, "sample", "--count", "2", "--seed", seed, "--json") for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]
    for name in ("out.parquet", "out.csv"):
        assert "400 decisions" in outrider(data, "export", str(data / name), "--where", "first_seq <= 201")
    assert (data / "out.csv").read_text().count("\n") == 401
    assert "nope" in outrider(data, "export", str(data / "bad.csv"), "--where", "nope > 1", code=1)
    assert ".parquet or .csv" in outrider(data, "export", str(data / "bad.txt"), code=1)
    assert not list(data.glob("*bad*"))
    assert "came DROP" in outrider(data, "query", "DROP TABLE x", code=1)
    assert "2026-11-23T10:00" in outrider(data, "query", "SELECT 1", "--since", "yesterday", code=2)
    late = outrider(data, "query", "SELECT count(*) FROM decisions", "--since", "2026-01-01", "--json")
    assert json.loads(late)["rows"] == [[0]]


def test_from_robot_to_training_run(fleet: Fleet) -> None:
    """Ring, log, uplink over CURVE, intake, Parquet, and back to the bundle's training run; the hub runs on."""
    fleet.start_hub()
    digest = fleet.release(make_bundle(fleet.keys))
    fleet.ring()
    fleet.start_comms()
    push_trips(fleet, "robot_1", 3, 10.0, time.time() - 3600.0, 1)
    fleet.push(5)
    data = fleet.folder / "data"

    def ingested() -> bool:
        with Ingest(data) as ingest:
            ingest.run(all_now=True)
        return ask(data, "SELECT count(*) FROM episodes") == [(3,)]

    wait_for(ingested, "three episodes in the store")
    assert [policy.policy_digest for policy in stored_policies(data / "store")] == [""]
    row = np.zeros(1, DECISION_DTYPE)
    row["policy_digest"] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    row["wall_ns"] = row["mono_ns"] = time.time_ns()
    assert fleet.ring().push(row)
    asked = (
        "SELECT policy_version, training_run_digest FROM decisions JOIN policies USING (policy_digest) "
        "WHERE policy_version != ''"
    )
    wait_for(lambda: ingested() and ask(data, asked) == [("v1", "cd" * 32)], "the training run of a record")
