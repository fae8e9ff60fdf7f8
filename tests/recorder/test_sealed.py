"""Sealed segments: the same bits back, whole blocks out of any cut, and every change is found and named."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contracts.decision import DECISION_DTYPE
from contracts.errors import KeyFileError, LogFormatError
from contracts.framelog import Kind, LostClass, iterate_frames, list_segments
from edge_agent.recorder.chain import verify_folder
from edge_agent.recorder.columns import LAG_MAX, decode_columns, encode_columns
from edge_agent.recorder.key import KEY_FILE, load_or_make_key
from edge_agent.recorder.reading import load_log, open_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.sealed import PartKind, list_sealed, open_sealed
from edge_agent.recorder.sealing import Sealer, thin
from edge_agent.uplink.cursor import LogCursor
from tests.recorder.support import drive, stop_at, write_log


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of about 190 records in blocks of 64."""
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 64)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(DECISION_DTYPE.itemsize))))
@settings(max_examples=30, deadline=None)
def test_any_bits_come_back(data: np.ndarray) -> None:
    rows = np.frombuffer(data.tobytes(), DECISION_DTYPE)
    columns, stored = encode_columns(rows)
    assert decode_columns(columns, stored, len(rows), DECISION_DTYPE).tobytes() == rows.tobytes()


@pytest.mark.parametrize("lag", [1, 2, LAG_MAX])
def test_the_beams_before_cost_nothing(lag: int) -> None:
    rows = drive(600)
    rows["observation"][:, 36:72] = 0
    rows["observation"][lag:, 36:72] = rows["observation"][:-lag, :36]
    columns, stored = encode_columns(rows)
    before = next(column for column in columns if (column.field, column.start) == ("observation", 36))
    assert (before.lag, before.size < 200) == (lag, True)
    part = decode_columns(columns, stored, len(rows), DECISION_DTYPE, ["observation", "tick"])
    assert part["observation"].tobytes() == rows["observation"].tobytes()
    assert part.dtype.names == ("tick", "observation")


def test_what_was_written_is_read_sealed_or_not(tmp_path: Path) -> None:
    rows = drive(500)
    stop_at(rows, 300)
    recorder = write_log(tmp_path, rows)
    sealed, live = list_sealed(recorder.folder), list_segments(recorder.folder)
    assert len(sealed) == 2
    assert len(live) == 1
    index = open_log(recorder.folder)
    assert [(i.tick, i.what) for i in index.incidents] == [(301, "stop: scan stale")]
    log = index.load()
    assert log.decisions.tobytes() == rows.tobytes()
    seqs = sorted([*log.decision_seqs.tolist(), *(seq for seq, _ in log.events + log.debug)])
    assert seqs == list(range(1, recorder.last_seq + 1))
    assert [event.name for _, event in log.events] == ["recorder_opened", "segment_sealed", "segment_sealed"]
    blocks = [block for path in sealed for block in open_sealed(path).blocks]
    first, last = blocks[1].tick
    assert first == blocks[0].tick[1] + 1
    assert blocks[0].policies == (rows["policy_digest"][0].tobytes(),)
    assert blocks[1].total_us_max == rows["total_us"][first - 1 : last].max()


def test_cut_at_every_byte_all_whole_blocks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 11_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 7)
    write_log(tmp_path / "state", drive(60))
    path = list_sealed(tmp_path / "state" / "log")[0]
    whole, data = open_sealed(path), path.read_bytes()
    ends = [whole.offsets[n] + sum(part.size for part in block.parts) for n, block in enumerate(whole.blocks)]
    header_end = data.index(b"BLCK")
    cut = tmp_path / path.name
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        if size < header_end:
            with pytest.raises(LogFormatError, match="cut"):
                open_sealed(cut)
            continue
        found = open_sealed(cut)
        kept = sum(end <= size for end in ends)
        assert len(found.blocks) == kept
        assert "signature is gone" in found.damage
        for block in range(kept)[-1:]:
            assert found.decisions(block).tobytes() == whole.decisions(block).tobytes()


def test_the_cursor_sends_the_same_frames(tmp_path: Path) -> None:
    rows = drive(500)
    live = write_log(tmp_path / "live", rows, seal=False)
    recorder = write_log(tmp_path / "sealed", rows)

    def frames(folder: Path, log_id: str, last_seq: int) -> list[bytes]:
        cursor, found = LogCursor(folder), []
        cursor.seek(log_id, 2)
        while True:
            first, count, data = cursor.read(last_seq, 50, 20_000)
            if not count:
                return found
            assert first + count == cursor.next_seq
            found += [frame.payload for frame in iterate_frames(data) if frame.kind is Kind.DECISION]

    expected = [row.tobytes() for row in rows]
    assert frames(live.folder, live.log_id, live.last_seq) == expected
    assert frames(recorder.folder, recorder.log_id, recorder.last_seq) == expected


def test_a_cursor_goes_on_while_its_segment_is_sealed(tmp_path: Path) -> None:
    rows = drive(300)
    recorder = Recorder(tmp_path, "robot_1")
    recorder.decisions([row.tobytes() for row in rows[:150]])
    cursor = LogCursor(recorder.folder)
    cursor.seek(recorder.log_id, 1)
    assert cursor.read(recorder.last_seq, 40, 10**6)[1] == 40
    recorder.decisions([row.tobytes() for row in rows[150:]])
    while recorder.seal_some():
        pass
    count = 40
    while (taken := cursor.read(recorder.last_seq, 40, 10**6)[1]) > 0:
        count += taken
    assert count == recorder.last_seq
    recorder.close()


def test_a_changed_bit_is_found_and_named(tmp_path: Path) -> None:
    write_log(tmp_path, drive(800))
    folder = tmp_path / "log"
    assert verify_folder(folder).whole
    path = list_sealed(folder)[1]
    data, segment = path.read_bytes(), open_sealed(path)
    for place, words in (
        (segment.offsets[1] + 5, "block 1 (samples, records"),
        (len(data) - 40, "its first 3 blocks are whole"),
    ):
        changed = bytearray(data)
        changed[place] ^= 4
        path.write_bytes(changed)
        found = verify_folder(folder)
        assert not found.whole
        broken = [finding for finding in found.findings if finding.state == "broken"]
        assert broken[0].segment == path.name
        assert words in broken[0].what
        log = load_log(folder)
        assert len(log.decisions) == 800 - (segment.blocks[1].decisions if place < len(data) - 40 else 0)
        assert log.damage
    path.write_bytes(data)
    assert verify_folder(folder).whole


def test_missing_exchanged_and_forged_segments_are_found(tmp_path: Path) -> None:
    write_log(tmp_path / "a", drive(800))
    folder = tmp_path / "a" / "log"
    first, second, third, *_ = list_sealed(folder)
    known = verify_folder(folder).key
    hidden = second.read_bytes()
    second.unlink()
    assert [
        "one between them is missing" in f.what for f in verify_folder(folder).findings if f.state == "broken"
    ] == [True]
    write_log(tmp_path / "b", drive(800, seed=7))  # another robot, another key
    second.write_bytes((tmp_path / "b" / "log" / second.name).read_bytes())
    words = " ".join(f.what for f in verify_folder(folder).findings if f.state == "broken")
    assert "sealed with another key" in words
    assert "does not follow 00000000.oseal" in words
    second.write_bytes(hidden)
    assert verify_folder(folder, known).whole
    forged = verify_folder(tmp_path / "b" / "log", known)
    assert not forged.whole
    first.unlink()
    found = verify_folder(folder)
    assert found.whole
    assert "the chain begins here" in " ".join(f.what for f in found.findings if f.state == "note")
    third.rename(third.with_name("00000009.oseal"))
    assert "renamed" in " ".join(f.what for f in verify_folder(folder).findings)


def test_dropped_parts_leave_the_seal_whole_and_the_numbers_complete(tmp_path: Path) -> None:
    recorder = write_log(tmp_path, drive(400))
    path = list_sealed(recorder.folder)[0]
    before = path.stat().st_size
    thinned = thin(open_sealed(path), {1: {PartKind.SAMPLES: LostClass.SAMPLE}})
    assert path.stat().st_size < before
    assert len(thinned.decisions(1)) == 0
    assert len(thinned.decisions(2)) > 40
    assert verify_folder(recorder.folder).whole
    assert verify_folder(recorder.folder).dropped == 64
    cursor = LogCursor(recorder.folder)
    cursor.seek(recorder.log_id, 1)
    kinds = []
    while (read := cursor.read(recorder.last_seq, 4096, 10**6))[1]:
        kinds += [frame.kind for frame in iterate_frames(read[2])]
    assert len(kinds) == recorder.last_seq
    assert kinds.count(Kind.LOST) == 64
    assert load_log(recorder.folder).lost == {LostClass.SAMPLE: 64}


def test_killed_while_sealing_loses_nothing(tmp_path: Path) -> None:
    """kill -9 at random moments of a process that does nothing but seal, so many steps and then stands still."""
    rows = drive(3000)
    recorder = write_log(tmp_path, rows, seal=False)
    live = len(list_segments(recorder.folder))
    script = (
        "import sys; from pathlib import Path\n"
        "import contracts.framelog_writer\nimport edge_agent.recorder.sealing as s\n"
        "s.BLOCK_RECORDS = 64\n"
        "from edge_agent.recorder.key import load_or_make_key\n"
        f"state = Path({str(tmp_path)!r})\n"
        "sealer = s.Sealer(state / 'log', load_or_make_key(state), lambda segment: None)\n"
        "print('ready', flush=True)\n"
        "for _ in range(int(sys.stdin.readline())): sealer.step(None)\n"
        "sys.stdin.readline()\n"
    )
    rng = np.random.default_rng(0)
    for steps in rng.integers(1, 13, 6):  # all segments take more than 80
        command = [sys.executable, "-c", script]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0.0, 0.12))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdin.close()
        process.stdout.close()
        assert load_log(recorder.folder).decisions.tobytes() == rows.tobytes()
        assert list_segments(recorder.folder), "in the midst of it"
    sealer = Sealer(recorder.folder, load_or_make_key(tmp_path), lambda _: None)
    while sealer.step(None):
        pass
    assert len(list_sealed(recorder.folder)) == live
    assert not list_segments(recorder.folder)
    assert verify_folder(recorder.folder).whole
    assert load_log(recorder.folder).decisions.tobytes() == rows.tobytes()
    again = Recorder(tmp_path, "robot_1")
    assert (again.last_seq, again.last_decision) == (recorder.last_seq + 1, rows[-1].tobytes())
    again.close()


def test_the_key_is_made_once_and_kept_to_oneself(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path)
    path = tmp_path / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make_key(tmp_path).public == key.public
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="readable by others"):
        load_or_make_key(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"no key")
    with pytest.raises(KeyFileError, match="no Ed25519 key"):
        load_or_make_key(tmp_path)


def test_a_damaged_newest_seal_does_not_keep_a_robot_from_recording(tmp_path: Path) -> None:
    recorder = write_log(tmp_path, drive(500))
    for live in list_segments(recorder.folder):
        live.path.unlink()
    newest = list_sealed(recorder.folder)[-1]
    newest.write_bytes(b"OUTRSEL1" + bytes(300))
    again = Recorder(tmp_path, "robot_1")
    assert again.log_id != recorder.log_id
    again.decisions([row.tobytes() for row in drive(300, seed=3)])
    while again.seal_some():
        pass
    again.close()
    assert again.disk_errors == 0
    broken = [finding for finding in verify_folder(recorder.folder).findings if finding.state == "broken"]
    assert broken[0].segment == newest.name
    log = load_log(recorder.folder)
    assert newest.name in log.damage[0]
    assert len(log.decisions) > 300
