"""Raw scans around incidents: written on the robot, sealed, shown, exported, and never sent."""

from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from contracts.errors import LogFormatError
from contracts.framelog import Kind, LostClass, iterate_frames
from contracts.ring import SCAN_SLOTS, SCANS, RingReader, RingWriter
from contracts.scan import RANGES_MAX, SCAN_DTYPE, decode_scan, trimmed
from edge_agent.recorder.budget import make_room
from edge_agent.recorder.chain import verify_folder
from edge_agent.recorder.incidents import WINDOW_NS
from edge_agent.recorder.reading import open_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.scans import ScanMemory
from edge_agent.recorder.summary import summarize
from edge_agent.uplink.cursor import LogCursor
from tests.recorder.support import TICK_NS, WALL_NS, drive, run_logs, stop_at

RAYS = 90
NS = 1_000_000_000
BEGAN_NS = 10**12
"""When ``drive`` begins."""


def scan_at(mono_ns: int, value_m: float = 2.0) -> bytes:
    """A slot of the ring: RAYS returns at ``value_m``, one of them not a number."""
    slot = np.zeros(1, SCAN_DTYPE)
    slot["arrived_ns"], slot["wall_ns"] = mono_ns, mono_ns - BEGAN_NS + WALL_NS
    slot["angle_min_rad"], slot["angle_step_rad"] = -np.pi, 2 * np.pi / RAYS
    slot["range_max_m"], slot["count"] = 10.0, RAYS
    slot["ranges_m"][0, :RAYS] = value_m
    slot["ranges_m"][0, 3] = np.nan
    return slot.tobytes()


def record(state: Path, ticks: int = 2400, stop: int = 1400, seal: bool = True) -> Recorder:
    """Two minutes at 20 Hz with a scan each 0.1 s and an incident; the scan says which second it is from."""
    recorder, rows = Recorder(state, "robot_1"), drive(ticks)
    stop_at(rows, stop)
    for start in range(0, ticks, 2):
        recorder.decisions([row.tobytes() for row in rows[start : start + 2]])
        at_ns = int(rows["mono_ns"][start]) + TICK_NS // 2
        recorder.scans([scan_at(at_ns, 1.0 + (at_ns - BEGAN_NS) / NS / 100)])
    recorder.begin_new_log() if seal else None
    while seal and recorder.seal_some():
        pass
    recorder.close()
    return recorder


@pytest.mark.parametrize("seal", [True, False])
def test_half_a_minute_before_and_after_an_incident_is_written_once(tmp_path: Path, seal: bool) -> None:
    recorder = record(tmp_path, seal=seal)
    index = open_log(recorder.folder)
    scans = [scan for _, scan in index.scans()]
    at_s = (np.array([scan.arrived_ns for scan in scans]) - BEGAN_NS) / NS
    assert at_s[0] == pytest.approx(40.0, abs=0.2)
    assert at_s[-1] == pytest.approx(100.0, abs=0.2)
    assert len(scans) == pytest.approx(600, abs=3)
    assert (np.diff(at_s) > 0).all()
    assert np.isnan(scans[0].ranges_m[3])
    assert scans[0].ranges_m[4] == np.float32(1.0 + at_s[0] / 100)
    summary = summarize(index.load())
    assert (summary.scans, summary.gaps, summary.lost) == (len(scans), 0, {})
    assert verify_folder(recorder.folder).whole


def test_a_decision_finds_the_scan_it_was_made_from(tmp_path: Path) -> None:
    index = open_log(record(tmp_path).folder)
    rows = index.load().decisions
    near, far = rows[1400], rows[100]
    scan = index.scan_of(near)
    assert scan is not None
    assert 0 <= int(near["mono_ns"]) - scan.arrived_ns <= 100_000_000
    assert index.scan_of(far) is None


def test_raw_scans_are_never_sent(tmp_path: Path) -> None:
    for state, seal in ((tmp_path / "a", True), (tmp_path / "b", False)):
        recorder = record(state, seal=seal)
        log_id = open_log(recorder.folder).headers[0].log_id
        cursor, kinds, seqs = LogCursor(recorder.folder), [], []
        cursor.seek(log_id, 1)
        while (batch := cursor.read(2**63, 500, 128 * 1024))[1]:
            for frame in iterate_frames(batch[2]):
                kinds.append(frame.kind)
                seqs.append(frame.seq)
                assert frame.kind is not Kind.LOST or frame.payload == bytes([LostClass.WITHHELD])
        assert seqs == list(range(1, len(seqs) + 1))
        assert Kind.SCAN not in kinds
        assert kinds.count(Kind.LOST) == pytest.approx(600, abs=3)
        assert kinds.count(Kind.DECISION) == 2400


def test_incidents_that_overlap_write_no_scan_twice() -> None:
    memory, written = ScanMemory(), []
    for tick in range(1000):
        written += memory.take([scan_at(BEGAN_NS + tick * NS // 10)])
        if tick in (400, 500):
            written += memory.incident(BEGAN_NS + tick * NS // 10)
    times = [decode_scan(payload).arrived_ns for payload in written]
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == (BEGAN_NS + 10 * NS, BEGAN_NS + 80 * NS)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(trimmed(scan_at(0)))
    monkeypatch.setattr("edge_agent.recorder.scans.MEMORY_MAX_BYTES", 10 * size)
    memory = ScanMemory()
    for tick in range(100):
        assert memory.take([scan_at(tick * NS // 10)]) == []
    assert len(memory.incident(10 * NS)) == 10
    assert WINDOW_NS == 30 * NS


def test_the_budget_takes_scans_last_and_incidents_never(tmp_path: Path) -> None:
    recorder = record(tmp_path)
    gone = make_room(recorder.folder, 10**9, "", 0)
    assert [one.kind for one in gone][-1] is LostClass.SCAN
    index = open_log(recorder.folder)
    log = index.load()
    assert list(index.scans()) == []
    assert log.lost[LostClass.SCAN] == pytest.approx(600, abs=3)
    stopped = log.decisions[log.decisions["verdict"] >= 2]
    assert len(stopped) == 10
    assert summarize(log).gaps == 0
    assert verify_folder(recorder.folder).whole


def test_a_used_up_budget_leaves_scans_out_and_counts_them(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "robot_1")
    recorder.over_budget = True
    recorder.scans([scan_at(BEGAN_NS)])
    rows = drive(40)
    stop_at(rows, 20)
    recorder.decisions([row.tobytes() for row in rows])
    recorder.close()
    assert (recorder.scans_left_out, recorder.lost_records) == (1, 0)


def test_mcap_carries_them_as_laser_scans(tmp_path: Path) -> None:
    record(tmp_path)
    out = tmp_path / "run.mcap"
    assert run_logs("export", str(tmp_path), "--mcap", str(out)).returncode == 0
    with out.open("rb") as file:
        found = [m for _, channel, m in make_reader(file).iter_messages(topics=["/robot_1/scan"])]
    assert len(found) == pytest.approx(600, abs=3)
    cut = run_logs("export", str(tmp_path), "--mcap", str(out), "--since", "1390", "--until", "1410")
    assert cut.returncode == 0
    with out.open("rb") as file:
        assert 8 <= len(list(make_reader(file).iter_messages(topics=["/robot_1/scan"]))) <= 12


@pytest.mark.parametrize("count", [RANGES_MAX + 1, 5, RAYS + 1])
def test_a_scan_that_lies_about_its_length_is_refused(count: int) -> None:
    payload = trimmed(scan_at(0))
    lying = payload[:36] + count.to_bytes(4, "little") + payload[40:]
    with pytest.raises(LogFormatError, match="damaged"):
        decode_scan(lying)
    with pytest.raises(LogFormatError, match="expected"):
        decode_scan(payload[:20])


def test_the_ring_of_scans_lies_beside_that_of_decisions() -> None:
    name = "scan-test"
    writer = RingWriter(name, SCANS)
    try:
        slot = np.frombuffer(scan_at(5), SCAN_DTYPE).copy()
        assert [writer.push(slot) for _ in range(SCAN_SLOTS + 1)] == [True] * SCAN_SLOTS + [False]
        reader = RingReader(name, SCANS)
        assert reader.peek(1) == [slot.tobytes()]
        reader.close()
    finally:
        writer.close()
        writer.unlink()
