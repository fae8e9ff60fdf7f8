"""``outrider logs`` and ``outrider doctor`` on good, torn, sealed, foreign, newer and empty folders."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE, DECISION_SCHEMA_HASH, Reason, Source, Verdict
from contracts.framelog import Kind, SegmentHeader, encode_frame, encode_segment_header
from contracts.framelog_writer import LogWriter
from contracts.record_schema import DECISION_FIELDS, fields_of, schema_hash
from contracts.robot import AMR_SMALL
from edge_agent.config import ControlConfig
from edge_agent.effective import CONFIGS_KEPT, EffectiveConfig, keep_config, read_config
from edge_agent.recorder.configs import CONFIG_EVENT, PART_BYTES
from edge_agent.recorder.reading import load_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.sealed import list_sealed
from safety.settings import SafetySettings
from safety.zones import Zone
from tests.recorder.support import TICK_NS, drive, stop_at, write_log
from tests.recorder.support import run_logs as run


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 decisions at 10 Hz; 25 limited, three ticks missed, a torn tail of seven bytes."""
    folder = tmp_path_factory.mktemp("robot")
    recorder = Recorder(folder, "robot_1")
    records = np.zeros(100, DECISION_DTYPE)
    records["tick"] = np.arange(100) + 500
    records["wall_ns"] = 1_800_000_000_000_000_000 + np.arange(100) * 100_000_000
    records["policy_digest"][10:] = 0xAA
    records["source"] = Source.POLICY
    records["verdict"][:25] = Verdict.LIMIT
    records["reason"][:25] = Reason.OBSTACLE_AHEAD
    records["total_us"] = np.arange(100) + 1
    records["missed_ticks"][50:] = 3
    records["clearance_m"][0] = np.nan
    recorder.event("update_active", digest="aa" * 32, version="v7")
    recorder.decisions([record.tobytes() for record in records])
    recorder.close()
    (path,) = (folder / "log").glob("*.olog")
    with path.open("ab") as file:
        file.write(b"torn!!!")
    return folder


def test_summary(state: Path) -> None:
    (found,) = json.loads(run("summary", str(state), "--json").stdout)
    assert (found["robot"], found["decisions"], found["records"]) == ("robot_1", 100, 102)
    assert found["verdicts"] == {"pass": 75, "limit": 25}
    assert found["reasons"] == {"clear": 75, "obstacle_ahead": 25}
    assert found["policies"][0] == {"digest": "aa" * 32, "version": "v7", "decisions": 90}
    assert (found["missed_ticks"], found["gaps"], found["tick"]["max_us"]) == (3, 0, 100.0)
    assert "torn" in found["damage"][0]
    text = run("summary", str(state)).stdout
    assert "limit 25" in text
    assert "v7 aaaaaaaaaaaa: 90 decisions" in text
    assert "torn       00000000.olog: 7 bytes" in text


def test_a_window_by_tick_and_by_time(state: Path) -> None:
    (found,) = json.loads(run("summary", str(state), "--since", "510", "--until", "519", "--json").stdout)
    assert found["decisions"] == 10
    done = run("summary", str(state), "--since", "soon")
    assert done.returncode == 2
    assert "soon" in done.stderr


def test_show(state: Path) -> None:
    value = json.loads(run("show", str(state), "--tick", "500", "--json").stdout)
    assert (value["verdict"], value["reason"], value["clearance_m"]) == ("limit", "obstacle_ahead", None)
    assert len(value["observation"]["beams"]) == 36
    assert json.loads(run("show", str(state), "--json").stdout)["tick"] == 599
    assert run("show", str(state), "--tick", "7").returncode == 2
    assert run("show", str(state), "100").returncode == 2


@pytest.mark.parametrize("command", [
        ["summary"], ["show"], ["follow"], ["incidents"], ["verify"], ["grep", "--where", "armed"],
        ["export", "--mcap", "/dev/null"], ["replay", "--bundle", "/dev/null"], ["ui"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_empty_foreign_and_missing_folders(command: list[str], tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "x.olog").write_bytes(b"something else")
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (foreign, empty, tmp_path / "missing"):
        done = run(*command, str(folder))
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("outrider: ")
        assert done.stderr.count("\n") == 1


def test_a_disk_that_refuses_is_counted_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path, "robot_1")
    record = np.zeros(1, DECISION_DTYPE).tobytes()
    recorder.decisions([record])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("contracts.framelog_writer.os.write", full)
        recorder.decisions([record, record])
        recorder.sync()
    assert (recorder.disk_errors, recorder.lost_records, recorder.last_seq) == (2, 3, 2)
    recorder.sync()
    recorder.close()
    log = load_log(tmp_path / "log")
    assert len(log.decisions) == 1
    assert [event.name for _, event in log.events] == ["recorder_opened", "records_lost"]


def test_the_budget_drops_by_class_and_never_an_incident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 60)
    recorder = Recorder(tmp_path, "robot_1", budget_bytes=750_000)
    rows = drive(6000)
    stop_at(rows, 2400)
    for start in range(0, 6000, 20):
        recorder.debug("turn", worst_us=start)
        recorder.decisions([row.tobytes() for row in rows[start : start + 20]])
        while recorder.seal_some():
            pass
        if start == 3000:
            recorder.acked_seq = 1000
    before = recorder.used_bytes()
    recorder.maintain(10**12)
    assert recorder.used_bytes() < 750_000 < before
    assert not recorder.over_budget
    assert recorder.lost_records == 0
    recorder.close()
    log = load_log(recorder.folder)
    gone = [event.detail for _, event in log.events if event.name == "records_dropped"]
    assert [detail["kind"] for detail in gone] == ["debug", "acknowledged", "sample"]
    assert not log.debug or log.debug[0][0] > gone[0]["last_seq"]
    around = np.abs(np.arange(6000) - 2400) * TICK_NS <= 29 * 10**9
    assert np.isin(rows["tick"][around], log.decisions["tick"]).all()
    assert set(log.decisions["tick"].tolist()) < set(rows["tick"].tolist())
    dropped = sum(int(detail["count"]) for detail in gone)
    assert dropped == sum(log.lost.values()) == recorder.last_seq - log.records
    assert json.loads(run("verify", str(tmp_path), "--json").stdout)[0]["whole"]
    text = run("summary", str(tmp_path)).stdout
    assert "records (sample)" in text
    assert "incidents  1" in text


def test_where_nothing_may_go_only_incidents_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 10**7)
    recorder = Recorder(tmp_path, "robot_1", budget_bytes=20_000)
    rows = drive(1000)
    stop_at(rows, 300)
    records = [row.tobytes() for row in rows]
    recorder.decisions(records[:60])
    recorder.maintain(10**12)
    assert recorder.over_budget
    recorder.decisions(records[60:100])
    assert recorder.lost_records == 40
    recorder.decisions(records[290:320])  # the incident in it opens the log again, for half a minute
    recorder.decisions(records[320:330])
    recorder.decisions(records[990:])
    assert recorder.lost_records == 50
    recorder.close()
    ticks = load_log(recorder.folder).decisions["tick"].tolist()
    assert ticks == [*range(1, 61), *range(291, 331)]


def test_a_full_disk_makes_room_from_what_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system refuses with ENOSPC until something is deleted; nothing of an incident goes."""
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 60)
    rows = drive(2000)
    stop_at(rows, 1000)
    recorder = Recorder(tmp_path, "robot_1")
    records = [row.tobytes() for row in rows]
    for start in range(0, 1900, 20):
        recorder.decisions(records[start : start + 20])
    while recorder.seal_some():
        pass
    limit, real = recorder.used_bytes(), __import__("os").write

    def full(file: int, data: bytes) -> int:
        if recorder.used_bytes() + len(data) > limit:
            raise OSError(28, "No space left on device")
        return int(real(file, data))

    monkeypatch.setattr("contracts.framelog_writer.os.write", full)
    recorder.decisions(records[1900:1920])
    assert recorder.lost_records == 0
    recorder.close()
    log = load_log(recorder.folder)
    assert "records_dropped" in [event.name for _, event in log.events]
    assert {1001, 1920} <= set(log.decisions["tick"].tolist())
    seqs = sorted([*log.decision_seqs.tolist(), *(seq for seq, _ in log.events)])
    assert len(set(seqs)) == len(seqs)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 decisions in sealed and live segments; stops at ticks 201 and 451."""
    folder = tmp_path_factory.mktemp("sealed")
    rows = drive(600)
    stop_at(rows, 200)
    stop_at(rows, 450, Reason.RUNAWAY)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
        patched.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 64)
        write_log(folder, rows)
    assert len(list_sealed(folder / "log")) == 3
    return folder


def test_incidents(sealed: Path) -> None:
    found = json.loads(run("incidents", str(sealed), "--json").stdout)
    assert [(one["tick"], one["what"]) for one in found] == [
        (201, "stop: scan stale"),
        (451, "stop: runaway"),
    ]
    assert "2 incidents" in run("incidents", str(sealed)).stdout


@pytest.mark.parametrize(
    ("where", "ticks"),
    [
        ("verdict>=stop and reason=scan_stale", range(201, 211)),
        ("verdict=stop and not (reason=scan_stale or reason=60 and tick<455)", range(455, 461)),
        ("policy_digest=aa and tick<3", range(1, 3)),
        ("policy_digest!=aa or tick<=1", range(1, 2)),
        ("not armed", range(0)),
        ("final_speed_mps=0 and tick>450", range(451, 461)),
    ],
)
def test_grep(sealed: Path, where: str, ticks: range) -> None:
    done = run("grep", str(sealed), "--where", where, "--json")
    assert [json.loads(line)["tick"] for line in done.stdout.splitlines()] == list(ticks), done.stderr
    assert done.returncode == (0 if ticks else 1)


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("verdict>=", "the end"), ("speed>1", "did you mean"), ("tick > 1 tick < 3", "expected 'and' or 'or'"),
        ("(tick>1", "')'"), ("verdict=fly", "one of pass"), ("__import__('os')", "cannot read"), ("", "--columns"),
        ("(" * 99 + "armed" + ")" * 99, "brackets"), ("tick>1" + " or tick>1" * 200, "at most"),
        ("policy_digest>aa", "hexadecimal"),
    ],
)  # fmt: skip
def test_conditions_that_cannot_be_read(sealed: Path, where: str, word: str) -> None:
    done = run("grep", str(sealed), "--where", where)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert word in done.stderr


def test_verify_names_what_was_edited(sealed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sealed, copy)
    key = json.loads(run("verify", str(copy), "--json").stdout)[0]["key"]
    assert run("verify", str(copy), "--key", key).returncode == 0
    assert run("verify", str(copy), "--key", "ab" * 32).returncode == 1
    assert run("verify", str(copy), "--key", "short").returncode == 2
    path = list_sealed(copy / "log")[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    done = run("verify", str(copy))
    assert done.returncode == 1
    assert f"broken  {path.name}" in done.stdout
    assert run("doctor", str(copy), verb="doctor").returncode == 2  # no such argument: usage
    assert run(str(copy), verb="doctor").returncode == 2
    assert "not whole" not in run("summary", str(copy)).stderr


def test_diff(sealed: Path, state: Path, tmp_path: Path) -> None:
    assert run("diff", str(sealed), str(sealed)).returncode == 0
    rows = drive(600)
    stop_at(rows, 200)
    write_log(tmp_path, rows)
    done = run("diff", str(sealed), str(tmp_path), "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["common_ticks"], value["parted_tick"]) == (1, 600, 451)
    shares = {row["figure"]: (row["first"], row["second"]) for row in value["figures"]}
    assert shares["verdict.stop"] == (pytest.approx(20 / 600), pytest.approx(10 / 600))
    assert "part at" in run("diff", str(sealed), str(state)).stdout


def test_newer_formats_are_told_from_foreign_ones(tmp_path: Path) -> None:
    for suffix, magic in ((".olog", b"OUTRLOG9"), (".oseal", b"OUTRSEL9")):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        (folder / f"00000000{suffix}").write_bytes(magic + bytes(200))
        done = run("summary", str(folder))
        assert done.returncode == 2
        assert "newer outrider" in done.stderr


def test_one_bad_byte_in_a_live_header_costs_that_segment_and_nothing_else(
    sealed: Path, tmp_path: Path
) -> None:
    """Before: neither could the log be read, nor would the robot record again."""
    state = tmp_path / "state"
    shutil.copytree(sealed, state)
    before = Recorder(state, "robot_1")
    log_id = before.log_id
    before.decisions([np.zeros(1, DECISION_DTYPE).tobytes()] * 3)
    before.close()
    live = max((state / "log").glob("*.olog"))
    data = bytearray(live.read_bytes())
    data[40] ^= 1
    live.write_bytes(data)
    read = run("summary", str(state))
    assert (read.returncode, read.stderr) == (0, "")
    assert f"torn       {live.name}: the header's checksum does not fit" in read.stdout
    checked = run("verify", str(state))
    assert checked.returncode == 1
    assert f"broken  {live.name}: the header's checksum does not fit" in checked.stdout
    recorder = Recorder(state, "robot_1")
    assert recorder.log_id != log_id  # how far the old one's numbers went is not known any more
    recorder.decisions([np.ones(1, DECISION_DTYPE).tobytes()])
    recorder.close()
    assert live.with_suffix(".damaged").read_bytes() == data
    assert (recorder.folder / f"{int(live.stem) + 1:08d}.olog").exists()
    assert f"segment damaged {live.stem}.damaged" in run("incidents", str(state)).stdout


def test_a_log_without_decisions(tmp_path: Path) -> None:
    Recorder(tmp_path, "robot_1").close()
    for command in (["summary"], ["incidents"], ["verify"], ["diff", str(tmp_path)]):
        done = run(*command, str(tmp_path))
        assert (done.returncode, done.stderr) == (0, ""), command
    assert run("show", str(tmp_path)).returncode == 2
    assert run("grep", str(tmp_path), "--where", "armed").returncode == 1


SAMPLES = Path(__file__).parent / "samples"


def test_yesterdays_records_stay_readable(tmp_path: Path) -> None:
    """One committed file of each version: schema 1 and 2 in format 1, 2 in format 2, today's; live and sealed."""
    first = load_log(_alone(tmp_path, "first_schema.olog"))
    assert (first.robot, len(first.decisions), first.damage) == ("robot_1", 58, [])
    assert first.decisions["mode"].tolist() == [0] * 58
    assert np.isnan(first.decisions["other_command"]).all()
    assert np.diff(first.decisions["tick"]).tolist() == [1] * 57
    second = load_log(_alone(tmp_path, "second_schema.olog"))
    assert (second.robot, len(second.decisions), second.decisions["mode"].tolist()) == (
        "robot_2",
        40,
        [1] * 40,
    )
    assert second.decisions["observation"][:, :36].max() > 1.0
    before = drive(40, seed=4)
    before["config_digest"], before["entropy_nats"] = 0, np.nan
    today = drive(40, seed=4)
    for name, expected in (
        ("format_2.olog", before), ("sealed_1.oseal", before),
        ("third_schema.olog", today), ("sealed_third.oseal", today),
    ):  # fmt: skip
        log = load_log(_alone(tmp_path, name))
        assert log.decisions.tobytes() == expected.tobytes(), name
    assert json.loads(run("verify", str(tmp_path / "sealed_1.oseal"), "--json").stdout)[0]["whole"]


def _alone(folder: Path, name: str) -> Path:
    """The sample in a folder of its own, under a segment's name."""
    place = folder / name
    place.mkdir(exist_ok=True)
    shutil.copy(SAMPLES / name, place / f"00000000{Path(name).suffix}")
    return place


def test_an_old_segment_is_gone_on_from_and_sent_in_todays_schema(tmp_path: Path) -> None:
    from contracts.framelog import iterate_frames
    from edge_agent.uplink.cursor import LogCursor

    log = tmp_path / "log"
    log.mkdir()
    shutil.copy(SAMPLES / "first_schema.olog", log / "00000000.olog")
    old = load_log(log).decisions
    recorder = Recorder(tmp_path, "robot_1")
    new = drive(5)
    recorder.decisions([row.tobytes() for row in new])
    for _ in range(2):  # live, then sealed
        cursor = LogCursor(recorder.folder)
        cursor.seek(recorder.log_id, 1)
        payloads = []
        while (read := cursor.read(recorder.last_seq, 1000, 10**6))[1]:
            payloads += [frame.payload for frame in iterate_frames(read[2]) if frame.kind is Kind.DECISION]
        assert b"".join(payloads) == old.tobytes() + new.tobytes()
        while recorder.seal_some():
            pass
    assert len(list_sealed(log)) == 1
    recorder.close()


def test_records_that_lie_about_their_length_end_the_walk(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "robot_1", "cd" * 16, "ab" * 16, 1, 0)
    good = encode_frame(Kind.DECISION, 1, drive(1)[0].tobytes())
    lie = (10_000).to_bytes(4, "little") + good[4:]
    writer.append(good + lie, 2, 0)
    writer.close()
    log = load_log(tmp_path)
    assert len(log.decisions) == 1
    assert "torn or damaged" in log.damage[0]


def test_doctor(sealed: Path, tmp_path: Path) -> None:
    done = run(str(sealed), "--json", verb="doctor")
    value = json.loads(done.stdout)
    found = {finding["about"]: finding for finding in value["findings"]}
    assert (done.returncode, value["verdict"], value["robot"]) == (1, "look", "robot_1")
    assert found["log chain"]["level"] == found["clock"]["level"] == "well"
    assert "stop: runaway" in [f["what"] for f in value["findings"] if f["about"] == "last faults"][-1]
    assert found["keys"]["level"] == "unknown"
    assert "rules drive" in found["update slots"]["what"]
    done = run(str(tmp_path / "missing"), verb="doctor")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    rows = drive(300)
    rows["wall_ns"] -= 1_780_000_000_000_000_000
    stop_at(rows, 250, Reason.SCAN_STALE, 50)
    write_log(tmp_path / "ill", rows)
    done = run(str(tmp_path / "ill"), verb="doctor")
    assert done.returncode == 2
    assert "was never set" in done.stdout
    assert "do not drive" in done.stdout


def test_figures_for_prometheus(tmp_path: Path) -> None:
    rows = drive(60)
    stop_at(rows, 40)
    rows["missed_ticks"], rows["total_us"][7] = 4, 2500
    recorder = Recorder(tmp_path, "robot_1")
    recorder.decisions([row.tobytes() for row in rows])
    recorder.maintain(10**12)
    text = (tmp_path / "metrics.prom").read_text()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['outrider_decisions_total{robot="robot_1",verdict="stop"}'] == "10"
    assert values['outrider_decisions_total{robot="robot_1",verdict="pass"}'] == "50"
    assert values['outrider_incidents_total{robot="robot_1"}'] == "1"
    assert values['outrider_missed_ticks_total{robot="robot_1"}'] == "4"
    assert values['outrider_tick_worst_seconds{robot="robot_1"}'] == "0.0025"
    assert values['outrider_policy_info{robot="robot_1",policy="aaaaaaaaaaaa"}'] == "1"
    assert values['outrider_config_info{robot="robot_1",config="c0c0c0c0c0c0c0c0"}'] == "1"
    assert float(values['outrider_policy_entropy_nats{robot="robot_1"}']) == pytest.approx(1.2, abs=0.1)
    assert values['outrider_uplink_audits_failed_total{robot="robot_1"}'] == "0"
    assert values['outrider_erasures_refused_total{robot="robot_1"}'] == "0"
    assert text.count("# TYPE") == text.count("# HELP") == 17
    recorder.close()
    (_, debug), *_ = load_log(recorder.folder).debug
    assert debug.detail["incidents_total"] == 1


def test_a_header_that_lies_about_its_fields_is_refused(tmp_path: Path) -> None:
    good = SegmentHeader(DECISION_SCHEMA_HASH, "robot_1", "cd" * 16, "ab" * 16, 1, 0, DECISION_FIELDS)
    lies = {
        "do not fit its schema hash": DECISION_FIELDS[:-1],
        "has type": (("tick", "O", ()),),
        "of different names": (("tick", "<u8", ()), ("tick", "<u8", ())),
        "at most": (("tick", "<f8", (16_000,)),),
    }
    for number, (words, fields) in enumerate(lies.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        header = encode_segment_header(msgspec.structs.replace(good, fields=fields))
        (folder / "00000000.olog").write_bytes(header)
        done = run("summary", str(folder))
        assert done.returncode == 2
        assert words in done.stderr


def test_records_with_a_field_from_tomorrow_are_read_by_name(tmp_path: Path) -> None:
    """A newer schema in a format we know: what it added is left out, all else is there."""
    rows = drive(20)
    dtype = np.dtype([("battery_v", "<f4"), *((n, k, s) for n, k, s in DECISION_FIELDS)])
    newer = np.zeros(20, dtype)
    for name in rows.dtype.names or ():
        newer[name] = rows[name]
    header = SegmentHeader(schema_hash(dtype), "robot_1", "cd" * 16, "ab" * 16, 1, 0, fields_of(dtype))
    frames = [encode_frame(Kind.DECISION, 1 + n, row.tobytes()) for n, row in enumerate(newer)]
    (tmp_path / "00000000.olog").write_bytes(encode_segment_header(header) + b"".join(frames))
    assert load_log(tmp_path).decisions.tobytes() == rows.tobytes()


def test_the_settings_behind_a_decision_are_found_in_its_log(tmp_path: Path) -> None:
    zones = tuple(Zone("speed_limit", ((0.0, 0.0), (1.0, 0.0), (1.0, float(n + 1))), 0.5) for n in range(200))
    config = ControlConfig(robot_id="robot_1", state_dir="", keys_dir="", layout_path="", ring_name="r")
    small, large = (
        EffectiveConfig.of(config, AMR_SMALL, "ab" * 32, SafetySettings("amr_small", zones=own))
        for own in ((), zones)
    )
    assert len(large.text()) > PART_BYTES
    rows = drive(40)
    rows["config_digest"][:20] = np.frombuffer(keep_config(tmp_path, small), np.uint8)
    rows["config_digest"][20:] = np.frombuffer(keep_config(tmp_path, large), np.uint8)
    log = write_log(tmp_path, rows).folder
    assert len([e for _, e in load_log(log).events if e.name == CONFIG_EVENT]) > 2
    digests = [bytes(row["config_digest"]).hex() for row in rows[[0, -1]]]
    assert [line.split()[0] for line in run("config", str(log)).stdout.splitlines()] == digests
    for digest, effective in zip(digests, (small, large), strict=True):
        assert run("config", str(log), digest[:10]).stdout.encode().rstrip() == effective.text()
    assert run("config", str(log), "77").returncode == 2
    other = EffectiveConfig.of(
        msgspec.structs.replace(config, robot_id="robot_2", state_dir="/elsewhere"), AMR_SMALL, "ab" * 32,
        SafetySettings("amr_small"),
    )  # fmt: skip
    assert other.text() == small.text()  # the same settings: the same digest, on whichever robot


def test_only_the_newest_settings_are_kept_and_a_changed_file_is_none(tmp_path: Path) -> None:
    config = ControlConfig(robot_id="robot_1", state_dir="", keys_dir="", layout_path="", ring_name="r")
    for rate in range(CONFIGS_KEPT + 3):
        again = msgspec.structs.replace(config, rate_hz=10 + rate)
        digest = keep_config(
            tmp_path, EffectiveConfig.of(again, AMR_SMALL, "ab" * 32, SafetySettings("amr_small"))
        )
    kept = list((tmp_path / "config").iterdir())
    assert len(kept) == CONFIGS_KEPT
    path = tmp_path / "config" / f"{digest.hex()}.json"
    assert read_config(tmp_path, digest) == path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"amr", b"xyz"))
    assert read_config(tmp_path, digest) is None
