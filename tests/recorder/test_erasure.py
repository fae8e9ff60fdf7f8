"""Erasure on the robot: what was asked for is gone, all else is bit for bit there, and the chain holds and says so."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE, Reason
from contracts.framelog import Kind, LostClass, iterate_frames
from edge_agent.recorder import erasure
from edge_agent.recorder.chain import verify_folder
from edge_agent.recorder.erasure import Request, erase, would_erase
from edge_agent.recorder.reading import load_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.sealed import PartKind, list_sealed, open_sealed
from edge_agent.supervisor import take_lock
from edge_agent.uplink.cursor import LogCursor
from tests.recorder.support import WALL_NS, drive, stop_at, write_log
from tests.recorder.support import run_logs as run

BLOCK = 64
SPAN = (WALL_NS + int(10e9), WALL_NS + int(15e9))
REQUEST = Request(*SPAN, "anna", "request 17")
KILLS = int(os.environ.get("OUTRIDER_KILLS", "4"))
CHILD = """
import sys
from pathlib import Path
import contracts.framelog_writer, edge_agent.recorder.sealing as sealing
contracts.framelog_writer.SEGMENT_MAX_BYTES, sealing.BLOCK_RECORDS = 100_000, 64
from edge_agent.recorder.erasure import Request, erase
print("begins", flush=True)
erase(Path(sys.argv[1]), "robot_1", Request(int(sys.argv[2]), int(sys.argv[3]), "anna", "request 17"))
"""


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of about 190 records in blocks of 64."""
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", BLOCK)


def make(state: Path, count: int = 600) -> np.ndarray:
    """A log of 30 s with an incident, its end not sealed yet."""
    rows = drive(count)
    stop_at(rows, 230, Reason.SCAN_STALE)
    write_log(state, rows)
    return rows


def check_gone(state: Path, rows: np.ndarray) -> None:
    """Nothing of the time is there; what is further from it than a block is, bit for bit."""
    left = load_log(state / "log").decisions
    assert not ((left["wall_ns"] >= SPAN[0]) & (left["wall_ns"] <= SPAN[1])).any()
    kept = rows[np.isin(rows["tick"], left["tick"])]
    assert kept.tobytes() == left.tobytes()


def check_far_is_there(state: Path, rows: np.ndarray) -> None:
    """Records further from the time than a block are all there."""
    left = load_log(state / "log").decisions
    first, last = np.flatnonzero((rows["wall_ns"] >= SPAN[0]) & (rows["wall_ns"] <= SPAN[1]))[[0, -1]]
    far = np.r_[rows["tick"][: first - BLOCK], rows["tick"][last + 1 + BLOCK :]]
    assert np.isin(far, left["tick"]).all()


def test_what_was_asked_for_goes_and_the_chain_says_so(tmp_path: Path) -> None:
    rows = make(tmp_path)
    foreseen = would_erase(tmp_path / "log", REQUEST)
    receipt, path = erase(tmp_path, "robot_1", REQUEST)
    check_gone(tmp_path, rows)
    check_far_is_there(tmp_path, rows)
    assert {(b.segment, b.block) for b in foreseen} <= {(b.segment, b.block) for b in receipt.blocks}
    assert (receipt.robot, receipt.who, receipt.why) == ("robot_1", "anna", "request 17")
    assert receipt.records == sum(block.records for block in receipt.blocks) >= 100
    log = load_log(tmp_path / "log")
    assert log.lost[LostClass.ERASED] == receipt.records
    names = [event.name for _, event in log.events]
    assert names.index("erasure_began") < names.index("records_erased")
    found = verify_folder(tmp_path / "log")
    assert found.whole
    assert any("by anna: request 17" in finding.what for finding in found.findings)
    segments = {int(sealed.stem): open_sealed(sealed) for sealed in list_sealed(tmp_path / "log")}
    for block in receipt.blocks:
        assert segments[block.segment].part(block.block, PartKind.SAMPLES) is None
        assert segments[block.segment].digest.hex() == block.seal
    again, _ = erase(tmp_path, "robot_1", REQUEST)
    assert (again.blocks, again.records) == ((), 0)  # once is enough
    assert path.exists()


def test_erased_records_stay_erased_for_the_hub_and_the_log_goes_on(tmp_path: Path) -> None:
    rows = make(tmp_path)
    erase(tmp_path, "robot_1", REQUEST)
    recorder = Recorder(tmp_path, "robot_1")
    assert recorder.last_decision == rows[-1].tobytes()  # no decision is taken twice out of the ring
    recorder.decisions([row.tobytes() for row in drive(30, first_tick=601)])
    recorder.sync()
    cursor = LogCursor(recorder.folder)
    cursor.seek(recorder.log_id, 1)
    lost = last = 0
    while (read := cursor.read(recorder.last_seq, 1000, 10**6))[1]:
        for frame in iterate_frames(read[2]):
            assert frame.seq == last + 1
            last = frame.seq
            if frame.kind is Kind.LOST:
                assert frame.payload[0] == LostClass.ERASED
                lost += 1
            elif frame.kind is Kind.DECISION:
                wall_ns = int(np.frombuffer(frame.payload, DECISION_DTYPE)["wall_ns"][0])
                assert frame.seq > 600 or not SPAN[0] <= wall_ns <= SPAN[1]
    assert (last, lost >= 100) == (recorder.last_seq, True)
    recorder.close()


def test_events_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    make(tmp_path)
    before = [(seq, event.name) for seq, event in load_log(tmp_path / "log").events]
    erase(tmp_path, "robot_1", Request(0, 2**62, "anna", "all of it"))
    log = load_log(tmp_path / "log")
    assert len(log.decisions) == 0
    assert [(seq, event.name) for seq, event in log.events][: len(before)] == before
    erase(tmp_path, "robot_1", Request(0, time.time_ns(), "anna", "events too", events=True))
    assert not {seq for seq, _ in before} & {seq for seq, _ in load_log(tmp_path / "log").events}
    assert verify_folder(tmp_path / "log").whole


def test_cut_short_between_files_and_receipt_it_shows_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make(tmp_path)

    def cut(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "write_atomically", cut)
        with pytest.raises(OSError, match="No space"):
            erase(tmp_path, "robot_1", REQUEST)
    found = verify_folder(tmp_path / "log")
    assert not found.whole
    assert any("no receipt says by whom" in finding.what for finding in found.findings)
    receipt, _ = erase(tmp_path, "robot_1", REQUEST)
    assert receipt.records >= 100
    check_gone(tmp_path, rows)
    assert verify_folder(tmp_path / "log").whole


def test_killed_at_any_moment_every_segment_is_whole(tmp_path: Path) -> None:
    """``OUTRIDER_KILLS=100`` for more of them."""
    draw = random.Random(6)
    rows = make(tmp_path, 1200)
    span = [str(SPAN[0]), str(SPAN[1] + int(30e9))]
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), *span], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "begins\n"
        time.sleep(draw.uniform(0.0, 0.12))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for path in list_sealed(tmp_path / "log"):
            assert not open_sealed(path).damage
        left = load_log(tmp_path / "log").decisions
        assert rows[np.isin(rows["tick"], left["tick"])].tobytes() == left.tobytes()
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), *span], check=True, capture_output=True)
    check_gone(tmp_path, rows)
    assert verify_folder(tmp_path / "log").whole


@pytest.mark.parametrize("change", ["who", "signature", "gone", "nonsense"])
def test_a_receipt_that_was_changed_or_taken_away_breaks_the_chain(tmp_path: Path, change: str) -> None:
    make(tmp_path)
    _, path = erase(tmp_path, "robot_1", REQUEST)
    value = json.loads(path.read_text())
    if change == "who":
        value["receipt"]["who"] = "boris"
    elif change == "signature":
        value["signature"] = "00" * 64
    path.write_text("nonsense" if change == "nonsense" else json.dumps(value))
    if change == "gone":
        path.unlink()
    found = verify_folder(tmp_path / "log")
    assert not found.whole
    assert any("no receipt" in finding.what for finding in found.findings)


def test_the_command(tmp_path: Path) -> None:
    rows = make(tmp_path)
    since, until = (datetime.fromtimestamp(ns / 1e9, UTC).isoformat() for ns in SPAN)
    words = ["--since", since, "--until", until, "--who", "anna", "--why", "request 17"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()}
    done = run("erase", str(tmp_path), *words, "--dry-run")
    assert (done.returncode, "records would go" in done.stdout) == (0, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before
    lock = take_lock(tmp_path, "robot_1")
    refused = run("erase", str(tmp_path), *words)
    os.close(lock)
    assert (refused.returncode, "already runs" in refused.stderr) == (2, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before
    done = run("erase", str(tmp_path), *words, "--json")
    assert json.loads(done.stdout)["who"] == "anna"
    check_gone(tmp_path, rows)
    assert run("verify", str(tmp_path)).returncode == 0
    assert "erased" in run("summary", str(tmp_path)).stdout
    turned = run("erase", str(tmp_path), "--since", until, "--until", since, "--who", "a", "--why", "b")
    assert turned.returncode == 2
    (tmp_path / "log_key.pem").unlink()
    assert "a copy of a log" in run("erase", str(tmp_path), *words).stderr
