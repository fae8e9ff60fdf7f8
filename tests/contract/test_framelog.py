"""The append log: any cut leaves all whole frames; anything else is told."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.decision import DECISION_DTYPE, DECISION_SCHEMA_HASH
from contracts.errors import LogFormatError
from contracts.framelog import (
    PAYLOAD_MAX_BYTES,
    Event,
    Kind,
    SegmentHeader,
    decode_event,
    decode_segment_header,
    encode_event,
    encode_frame,
    encode_segment_header,
    frame_end,
    iterate_frames,
    list_segments,
    scan_frames,
)
from contracts.framelog_writer import LogTail, LogWriter

LOG_ID = "ab" * 16
HEADER = SegmentHeader(DECISION_SCHEMA_HASH, "robot_1", "cd" * 16, LOG_ID, 1, 12)
PAYLOADS = st.lists(st.binary(max_size=60), max_size=12)


def frames_of(payloads: list[bytes], first: int = 1) -> bytes:
    return b"".join(encode_frame(Kind.EVENT, first + n, payload) for n, payload in enumerate(payloads))


@given(PAYLOADS, st.integers(1, 2**40))
def test_frames_come_back(payloads: list[bytes], first: int) -> None:
    data = frames_of(payloads, first)
    assert [frame.payload for frame in iterate_frames(data)] == payloads
    assert scan_frames(data).damage == ""


@given(PAYLOADS.filter(bool), st.data())
def test_one_bit_changed_ends_the_walk_there(payloads: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(frames_of(payloads))
    bit = draw.draw(st.integers(0, len(data) * 8 - 1))
    data[bit // 8] ^= 1 << bit % 8
    whole = list(iterate_frames(bytes(data)))
    assert [frame.payload for frame in whole] == payloads[: len(whole)]
    assert len(whole) < len(payloads)
    assert scan_frames(bytes(data)).damage


def test_torn_at_every_byte(tmp_path: Path) -> None:
    payloads = [b"", b"one", bytes(DECISION_DTYPE.itemsize), b"x" * 40]
    kinds = [Kind.EVENT, Kind.EVENT, Kind.DECISION, Kind.EVENT]
    frames = [encode_frame(kind, n + 1, p) for n, (kind, p) in enumerate(zip(kinds, payloads, strict=True))]
    header = encode_segment_header(HEADER)
    data = header + b"".join(frames)
    ends = [len(header)]
    for frame in frames:
        ends.append(ends[-1] + len(frame))
    for cut in range(len(data) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        path = folder / "00000000.olog"
        path.write_bytes(data[:cut])
        tail = LogTail(folder)
        whole = sum(end <= cut for end in ends[1:])
        assert tail.last_seq == whole
        assert path.exists() == (whole > 0)
        if whole:
            assert path.stat().st_size == ends[whole]
            assert tail.cut_bytes == cut - ends[whole]
        writer = LogWriter(folder, "robot_1", "cd" * 16, LOG_ID, tail.last_seq + 1, tail.next_index)
        writer.append(encode_frame(Kind.EVENT, writer.next_seq, b"new"), 1, 0)
        writer.close()
        assert LogTail(folder).last_seq == whole + 1
        assert LogTail(folder).cut_bytes == 0


def test_segments_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 600)
    writer = LogWriter(tmp_path, "robot_1", "cd" * 16, LOG_ID, 1, 0)
    for seq in range(1, 41):
        writer.append(encode_frame(Kind.EVENT, seq, bytes(60)), 1, 0)
    writer.close()
    segments = list_segments(tmp_path)
    assert len(segments) > 5
    firsts = [segment.header.first_seq for segment in segments if segment.header]
    assert firsts == sorted(firsts)
    assert LogTail(tmp_path).last_seq == 40


def test_a_full_disk_leaves_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(tmp_path, "robot_1", "cd" * 16, LOG_ID, 1, 0)
    writer.append(encode_frame(Kind.EVENT, 1, b"good"), 1, 0)
    real = __import__("os").write
    monkeypatch.setattr(
        "contracts.framelog_writer.os.write", lambda file, data: real(file, data[: len(data) // 2])
    )
    with pytest.raises(OSError, match="disk full"):
        writer.append(encode_frame(Kind.EVENT, 2, b"lost"), 1, 0)
    monkeypatch.undo()
    assert writer.next_seq == 2
    writer.append(encode_frame(Kind.EVENT, 2, b"after"), 1, 0)
    writer.close()
    data = (tmp_path / "00000000.olog").read_bytes()
    decoded = decode_segment_header(data)
    assert decoded
    assert [frame.payload for frame in iterate_frames(data, decoded[1])] == [b"good", b"after"]


def test_gaps_kinds_and_lengths_that_lie() -> None:
    good = frames_of([b"a", b"b"])
    assert scan_frames(good + encode_frame(Kind.EVENT, 4, b"gap")).last_seq == 2
    assert scan_frames(good + encode_frame(Kind.DECISION, 3, b"short")).last_seq == 2
    assert frame_end(good, 0) * 2 == len(good)
    with pytest.raises(ValueError, match="at most"):
        encode_frame(Kind.EVENT, 1, bytes(PAYLOAD_MAX_BYTES + 1))
    assert scan_frames(encode_frame(Kind.EVENT, 1, bytes(PAYLOAD_MAX_BYTES))).frames == 1


def test_foreign_and_newer_segments(tmp_path: Path) -> None:
    (tmp_path / "0.olog").write_bytes(b"something else entirely")
    with pytest.raises(LogFormatError, match="no outrider log segment"):
        list_segments(tmp_path)
    other = SegmentHeader("0" * 64, "robot_1", "cd" * 16, LOG_ID, 1, 0)
    with pytest.raises(LogFormatError, match="expected decision schema"):
        decode_segment_header(encode_segment_header(other))


def test_events_and_golden_bytes() -> None:
    event = Event("swap", 1, 2, {"version": "v2", "ok": True, "ms": 0.5})
    assert decode_event(encode_event(event)) == event
    with pytest.raises(LogFormatError):
        decode_event(b"\xc1")
    assert (
        encode_frame(Kind.EVENT, 1, b"ab").hex()
        == "0b000000" + "81397303" + "02" + "0100000000000000" + "6162"
    )
    assert np.dtype(DECISION_DTYPE).itemsize == 513
