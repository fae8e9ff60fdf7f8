"""Stored logs whose segments' headers are damaged: the hub goes on, keeps what is whole, and says what is missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE
from contracts.framelog import (
    Kind,
    encode_frame,
    iterate_frames,
    list_segments,
)
from contracts.messages import Records
from fleet_hub.errors import IntakeError
from fleet_hub.intake.intake import Intake
from fleet_hub.rollout.events import LogMended

LOG, ROBOT = "ef" * 16, "robot_1"
SEGMENTS, EACH = 3, 40


def frame(seq: int) -> bytes:
    """Record ``seq``."""
    row = np.zeros(1, DECISION_DTYPE)
    row["tick"] = seq
    return encode_frame(Kind.DECISION, seq, row.tobytes())


def batch(first_seq: int, count: int) -> Records:
    """As a robot sends them."""
    return Records(LOG, first_seq, count, b"".join(map(frame, range(first_seq, first_seq + count))))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A stored log of three segments, 40 records each, all acknowledged."""
    for number in range(SEGMENTS):
        intake = Intake(tmp_path)
        intake.append(ROBOT, batch(1 + number * EACH, EACH), 0)
        assert intake.commit() == [(ROBOT, LOG, (number + 1) * EACH)]
        intake.close()
    return tmp_path / ROBOT / LOG


def spoil(path: Path, at: int, with_bytes: bytes | None = None) -> bytes:
    """Change one byte, or some; what the file held before."""
    before = path.read_bytes()
    data = bytearray(before)
    data[at : at + (len(with_bytes) if with_bytes else 1)] = with_bytes or bytes([data[at] ^ 0x40])
    path.write_bytes(bytes(data))
    return before


def stored(log: Path) -> list[int]:
    """Numbers of all records that can be read, over all segments."""
    return [
        frame.seq for s in list_segments(log) for frame in iterate_frames(s.path.read_bytes(), s.data_start)
    ]


def reopened(log: Path) -> tuple[Intake, list[LogMended]]:
    told: list[LogMended] = []
    return Intake(log.parents[1], told.append), told


@pytest.mark.parametrize("number", range(SEGMENTS))
def test_a_bad_byte_in_a_header_loses_nothing(log: Path, number: int) -> None:
    path = sorted(log.glob("*.olog"))[number]
    length = list_segments(log)[number].data_start
    for at in (0, 7, 9, 13, 17, length - 1):  # magic, format, length, checksum, body
        before = spoil(path, at)
        intake, told = reopened(log)
        assert intake.durable_seq(ROBOT, LOG) == SEGMENTS * EACH, at
        assert [(event.file, event.kept, event.missing_first) for event in told] == [(path.name, EACH, 0)]
        assert stored(log) == list(range(1, SEGMENTS * EACH + 1))
        assert not list(log.glob("*.damaged"))
        intake.close()
        path.write_bytes(before)


def test_a_log_of_a_newer_outrider_is_left_as_it_is(log: Path) -> None:
    path = sorted(log.glob("*.olog"))[1]
    spoil(path, 7, b"3")
    before = path.read_bytes()
    intake, told = reopened(log)
    with pytest.raises(IntakeError, match="newer outrider"):
        intake.durable_seq(ROBOT, LOG)
    assert told == []
    assert path.read_bytes() == before
    intake.close()


@pytest.mark.parametrize("garbage", [b"no log at all, " * 3000, b"\0" * 40_000, b""])
def test_where_the_last_segment_is_gone_the_robot_is_asked_again(log: Path, garbage: bytes) -> None:
    path = sorted(log.glob("*.olog"))[-1]
    path.write_bytes(garbage)
    intake, told = reopened(log)
    last = (SEGMENTS - 1) * EACH
    assert intake.durable_seq(ROBOT, LOG) == last
    if garbage:  # an empty file is what a crash leaves
        ((event, aside),) = zip(told, log.glob("*.damaged"), strict=True)
        assert (event.file, event.kept, event.missing_first, event.missing_last) == (
            path.name,
            0,
            last + 1,
            0,
        )
        assert aside.read_bytes() == garbage
    intake.append(ROBOT, batch(last + 1, EACH), 0)
    assert intake.commit() == [(ROBOT, LOG, SEGMENTS * EACH)]
    assert stored(log) == list(range(1, SEGMENTS * EACH + 1))
    intake.close()
    assert Intake(log.parents[1]).durable_seq(ROBOT, LOG) == SEGMENTS * EACH


def test_where_frames_are_damaged_too_what_is_whole_before_them_stays(log: Path) -> None:
    path = sorted(log.glob("*.olog"))[-1]
    start, stride = list_segments(log)[-1].data_start, len(frame(1))
    spoil(path, start + 10 * stride + 30)
    before = spoil(path, 12)
    intake, told = reopened(log)
    kept = (SEGMENTS - 1) * EACH + 10
    assert intake.durable_seq(ROBOT, LOG) == kept
    assert [(e.kept, e.missing_first, e.missing_last) for e in told] == [(10, kept + 1, 0)]
    (aside,) = log.glob("*.damaged")
    assert aside.read_bytes()[20:] == before[20:], "what lies behind the damage is kept for whoever looks"
    intake.append(ROBOT, batch(kept + 1, EACH - 10), 0)
    intake.commit()
    assert stored(log) == list(range(1, SEGMENTS * EACH + 1))
    intake.close()


@pytest.mark.parametrize(("place", "records"), [(0, 1), (10, 1), (10, 12), (EACH - 2, 1)])
def test_damage_before_whole_records_is_named_and_a_copy_stays(log: Path, place: int, records: int) -> None:
    path = sorted(log.glob("*.olog"))[-1]
    at, stride = list_segments(log)[-1].data_start + place * len(frame(1)), len(frame(1))
    spoil(path, at + 20, b"\xaa" * ((records - 1) * stride + 30))
    damaged = path.read_bytes()
    intake, told = reopened(log)
    kept = (SEGMENTS - 1) * EACH + place
    assert intake.durable_seq(ROBOT, LOG) == kept
    assert [(e.file, e.kept, e.missing_first, e.missing_last) for e in told] == [
        (path.name, place, kept + 1, 0)
    ]
    (aside,) = log.glob("*.damaged")
    assert aside.read_bytes() == damaged
    intake.append(ROBOT, batch(kept + 1, EACH - place), 0)
    intake.commit()
    assert stored(log) == list(range(1, SEGMENTS * EACH + 1))
    intake.close()


def test_a_disk_without_room_for_the_copy_leaves_the_damaged_end_as_it_is(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted(log.glob("*.olog"))[-1]
    spoil(path, list_segments(log)[-1].data_start + 5 * len(frame(1)) + 40)
    damaged = path.read_bytes()

    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        intake, told = reopened(log)
        with pytest.raises(IntakeError, match="look at that folder"):
            intake.durable_seq(ROBOT, LOG)
    assert (path.read_bytes(), told) == (damaged, [])
    assert intake.durable_seq(ROBOT, LOG) == (SEGMENTS - 1) * EACH + 5
    intake.close()


@pytest.mark.parametrize("tail", ["half", "zeros", "garbage"])
def test_a_torn_tail_is_cut_off_without_a_word(log: Path, tail: str) -> None:
    path, after = sorted(log.glob("*.olog"))[-1], frame(SEGMENTS * EACH + 1)
    whole = path.read_bytes()
    path.write_bytes(whole + {"half": after[:-20], "zeros": b"\0" * 4096, "garbage": b"\x5a" * 9000}[tail])
    intake, told = reopened(log)
    assert intake.durable_seq(ROBOT, LOG) == SEGMENTS * EACH
    assert told == []
    assert not list(log.glob("*.damaged"))
    assert path.read_bytes() == whole
    intake.close()


def test_what_is_missing_in_the_middle_is_named_and_the_rest_stays(log: Path) -> None:
    path = sorted(log.glob("*.olog"))[1]
    path.write_bytes(b"\xff" * 30_000)
    intake, told = reopened(log)
    assert intake.durable_seq(ROBOT, LOG) == SEGMENTS * EACH
    assert [(e.file, e.kept, e.missing_first, e.missing_last) for e in told] == [
        (path.name, 0, EACH + 1, 2 * EACH)
    ]
    assert stored(log) == [*range(1, EACH + 1), *range(2 * EACH + 1, 3 * EACH + 1)]
    intake.close()
    again, nothing = reopened(log)
    assert (again.durable_seq(ROBOT, LOG), nothing) == (SEGMENTS * EACH, [])
    again.close()


@pytest.mark.parametrize("fails", ["os.fsync", "os.link", "os.rename"])
def test_a_disk_that_refuses_the_mending_leaves_the_file_as_it_is(
    log: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the hub goes on where it stopped, once it can."""
    path = sorted(log.glob("*.olog"))[-1]
    spoil(path, list_segments(log)[-1].data_start + 5 * len(frame(1)) + 40)
    spoil(path, 20)
    damaged = path.read_bytes()

    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fails, refuse)
        intake, told = reopened(log)
        with pytest.raises(IntakeError, match="look at that folder"):
            intake.durable_seq(ROBOT, LOG)
    assert path.read_bytes() == damaged
    assert told == []
    assert intake.durable_seq(ROBOT, LOG) == (SEGMENTS - 1) * EACH + 5
    assert [event.kept for event in told] == [5]
    assert len(list(log.glob("*.damaged"))) == 1
    intake.close()


def lie_about(field: slice, value: bytes) -> Callable[[bytes], bytes]:
    """A frame that says something else, and has the checksum for it or not."""

    def changed(data: bytes) -> bytes:
        return data[: field.start] + value + data[field.stop :]

    return changed


@pytest.mark.parametrize(
    "lie",
    [
        lie_about(slice(0, 4), (9).to_bytes(4, "little")),
        lie_about(slice(0, 4), (2**32 - 1).to_bytes(4, "little")),
        lie_about(slice(0, 4), (0).to_bytes(4, "little")),
        lie_about(slice(9, 17), (2**64 - 1).to_bytes(8, "little")),
        lie_about(slice(8, 9), b"\x09"),
    ],
)
@pytest.mark.parametrize("place", [0, 7, EACH - 1])
def test_a_record_that_lies_about_itself_leaves_what_is_stored_as_it_is(
    log: Path, lie: Callable[[bytes], bytes], place: int
) -> None:
    parts = [frame(SEGMENTS * EACH + 1 + n) for n in range(EACH)]
    parts[place] = lie(parts[place])
    before = {path: path.read_bytes() for path in log.iterdir()}
    intake = Intake(log.parents[1])
    with pytest.raises(IntakeError, match="send them again"):
        intake.append(ROBOT, Records(LOG, SEGMENTS * EACH + 1, EACH, b"".join(parts)), 0)
    assert intake.commit() == [(ROBOT, LOG, SEGMENTS * EACH)]
    assert {path: path.read_bytes() for path in log.iterdir()} == before
    intake.close()
