"""``outrider logs`` on good, torn, foreign and empty folders; MCAP that the public reader opens."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from contracts.decision import DECISION_DTYPE, Reason, Source, Verdict
from edge_agent.recorder.reading import load_log
from edge_agent.recorder.recorder import Recorder


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outrider.cli", "logs", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


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


def test_mcap_opens_in_the_public_reader(state: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mcap"
    assert run("export", "--mcap", str(output), str(state)).returncode == 0
    with output.open("rb") as file:
        reader = make_reader(file)
        messages = [
            (channel.topic, json.loads(message.data)) for _, channel, message in reader.iter_messages()
        ]
        summary = reader.get_summary()
    assert summary
    assert {schema.name for schema in summary.schemas.values()} == {"outrider.Decision", "outrider.Event"}
    decisions = [value for topic, value in messages if topic == "/outrider/decision"]
    assert [value["tick"] for value in decisions] == list(range(500, 600))
    assert sum(topic == "/outrider/event" for topic, _ in messages) == 2


@pytest.mark.parametrize("command", [["summary"], ["show"], ["follow"], ["export", "--mcap", "/dev/null"]])
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


def test_the_budget_removes_only_what_the_hub_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 4000)
    recorder = Recorder(tmp_path, "robot_1", budget_bytes=20_000)
    record = np.zeros(1, DECISION_DTYPE).tobytes()
    for _ in range(60):
        recorder.decisions([record])
    recorder.maintain(10**12)
    assert recorder.over_budget
    recorder.decisions([record])
    assert recorder.lost_records == 1
    recorder.acked_seq = 40
    recorder.maintain(2 * 10**12)
    assert not recorder.over_budget
    log = load_log(tmp_path / "log")
    assert int(log.decision_seqs[0]) <= 41
    assert np.diff(log.decision_seqs.astype(np.int64)).tolist() == [1] * (len(log.decisions) - 1)
    recorder.close()
