"""The hub's intake without sockets: what is acknowledged, what is refused, one sync for many logs."""

import os
import select
from pathlib import Path

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE
from contracts.framelog import (
    RUN_MAX,
    Frame,
    Kind,
    LostClass,
    decisions_in,
    encode_event,
    encode_frame,
    event_now,
    iterate_frames,
    list_segments,
    scan_frames,
    walk_runs,
)
from contracts.messages import Records
from fleet_hub.errors import IntakeError
from fleet_hub.intake.group_sync import FolderSync
from fleet_hub.intake.intake import GROUP_MIN, Intake

LOG = "cd" * 16


def frames(first_seq: int, kinds: str) -> list[bytes]:
    """One frame a letter: d(ecision), e(vent), l(ost), s(can)."""
    made = []
    for seq, kind in enumerate(kinds, start=first_seq):
        row = np.zeros(1, DECISION_DTYPE)
        row["tick"] = seq
        payloads = {
            "d": (Kind.DECISION, row.tobytes()),
            "e": (Kind.EVENT, encode_event(event_now("swap", seq, seq, number=seq))),
            "l": (Kind.LOST, bytes([LostClass.SAMPLE])),
            "s": (Kind.SCAN, bytes(40)),
        }
        made.append(encode_frame(payloads[kind][0], seq, payloads[kind][1]))
    return made


def batch(first_seq: int, kinds: str = "d" * 10, log_id: str = LOG) -> Records:
    return Records(log_id, first_seq, len(kinds), b"".join(frames(first_seq, kinds)))


MIXED = "ddedddlledsd" + "d" * 40 + "l" * 30 + "eed"


def test_runs_say_the_same_as_frames_one_by_one() -> None:
    for kinds in (MIXED, "d" * (RUN_MAX + 3), "dl" * 20, "l"):
        parts = frames(5, kinds)
        data = b"".join(parts)
        runs = list(walk_runs(data))
        assert sum(run.frames for run in runs) == len(kinds)
        assert [data[r.start + n * r.stride :][: r.stride] for r in runs for n in range(r.frames)] == parts
        assert [frame.seq for frame in iterate_frames(data)] == list(range(5, 5 + len(kinds)))
        ticks = [tick for rows, _ in decisions_in(data) for tick in rows["tick"].tolist()]
        seqs = [seq for _, numbers in decisions_in(data) for seq in numbers.tolist()]
        assert ticks == seqs == [5 + n for n, kind in enumerate(kinds) if kind == "d"]


@pytest.mark.parametrize("place", [0, 1, 17, 39, 40])
def test_a_run_ends_before_the_first_damage(place: int) -> None:
    parts = frames(1, "d" * 41)
    for at in (0, 4, 8, 9, 30, len(parts[0]) - 1):  # length, checksum, kind, number, payload
        data = bytearray(b"".join(parts))
        data[place * len(parts[0]) + at] ^= 1
        assert sum(run.frames for run in walk_runs(bytes(data))) == place
    skipped = b"".join(parts[:place] + parts[place + 1 :])
    assert sum(run.frames for run in walk_runs(skipped)) == (place if place else 40)
    torn = b"".join(parts)[: (place + 1) * len(parts[0]) - 1]
    assert sum(run.frames for run in walk_runs(torn)) == place


@pytest.mark.parametrize("robots", [1, GROUP_MIN - 1, GROUP_MIN, 40])
def test_what_is_acknowledged_is_what_is_there(tmp_path: Path, robots: int) -> None:
    intake = Intake(tmp_path)
    for number in range(robots):
        intake.append(f"robot_{number}", batch(1, MIXED), 0)
        assert intake.durable_seq(f"robot_{number}", LOG) == 0
    assert len(intake.commit()) == robots
    assert intake.commit() == []
    again = Intake(tmp_path)
    assert {again.durable_seq(f"robot_{n}", LOG) for n in range(robots)} == {len(MIXED)}
    (segment,) = list_segments(tmp_path / "robot_0" / LOG)
    assert segment.path.read_bytes()[segment.data_start :] == batch(1, MIXED).frames
    again.close()
    intake.close()


def test_where_one_sync_for_all_fails_each_log_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet_hub.intake.group_sync._syncfs", lambda: None)
    synced: list[int] = []
    monkeypatch.setattr("contracts.framelog_writer.os.fdatasync", synced.append)
    intake = Intake(tmp_path)
    for number in range(6):
        intake.append(f"robot_{number}", batch(1), 0)
    assert len(intake.commit()) == 6
    assert len(synced) == 6
    intake.close()


def stored(robot: Path) -> list[Frame]:
    """All frames of the robot's log, over its segments."""
    return [f for s in list_segments(robot / LOG) for f in iterate_frames(s.path.read_bytes(), s.data_start)]


def wait_for_group(intake: Intake) -> list[tuple[str, str, int]]:
    """As the hub does: sleep until the intake has something to tell."""
    readable, _, _ = select.select([intake.sync_descriptor], [], [], 60.0)
    assert readable
    return intake.commit_beside()


def test_a_group_is_acknowledged_as_far_as_it_was_written_when_its_sync_began(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    robots = [f"robot_{number}" for number in range(GROUP_MIN)]
    for robot in robots:
        intake.append(robot, batch(1), 0)
    assert intake.commit_beside() == []
    intake.append(robots[0], batch(11), 0)
    assert intake.durable_seq(robots[0], LOG) == 0
    assert wait_for_group(intake) == [(robot, LOG, 10) for robot in robots] + [(robots[0], LOG, 20)]
    assert not select.select([intake.sync_descriptor], [], [], 0.0)[0]
    assert intake.commit_beside() == intake.commit() == []
    intake.close()


def test_a_hub_that_ends_in_the_middle_of_a_groups_sync_has_stored_it(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    for number in range(GROUP_MIN):
        intake.append(f"robot_{number}", batch(1, MIXED), 0)
    assert intake.commit_beside() == []
    intake.close()
    again = Intake(tmp_path)
    assert [again.durable_seq(f"robot_{n}", LOG) for n in range(GROUP_MIN)] == [len(MIXED)] * GROUP_MIN
    again.close()


def test_a_disk_error_of_a_group_is_not_asked_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of a lost write once. Where a log's own sync fails, too, what it may have lost is sent again."""
    answers = [-1, 0, 0, 0]
    monkeypatch.setattr("fleet_hub.intake.group_sync._syncfs", lambda: lambda _: answers.pop(0))
    intake = Intake(tmp_path)
    for number in range(GROUP_MIN):
        intake.append(f"robot_{number}", batch(1), 0)
    broken = list_segments(tmp_path / "robot_2" / LOG)[0].path.stat().st_ino
    real = os.fdatasync

    def fdatasync(file: int) -> None:
        if os.fstat(file).st_ino == broken:
            raise OSError(5, "Input/output error")
        real(file)

    monkeypatch.setattr("contracts.framelog_writer.os.fdatasync", fdatasync)
    assert intake.commit_beside() == []
    acknowledged = wait_for_group(intake)
    assert [robot for robot, _, _ in acknowledged] == ["robot_0", "robot_1", "robot_3"]
    monkeypatch.setattr("contracts.framelog_writer.os.fdatasync", real)
    assert intake.durable_seq("robot_2", LOG) == 0
    with pytest.raises(IntakeError, match="expected record 1 next, came 11; go back"):
        intake.append("robot_2", batch(11), 0)
    assert intake.commit() == [("robot_2", LOG, 0)]
    intake.append("robot_2", batch(1), 0)
    assert intake.commit() == [("robot_2", LOG, 10)]
    assert [frame.seq for frame in stored(tmp_path / "robot_2")] == list(range(1, 11))
    intake.close()


@pytest.mark.parametrize("synced", [0, 10, 30])
def test_what_a_full_segment_may_have_lost_is_not_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: int
) -> None:
    """The sync between two segments fails: the log goes on where it is known to be whole."""
    size = len(batch(1).frames)
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 4 * size)
    monkeypatch.setattr("fleet_hub.intake.intake.OVERRUN_BYTES", 0)
    intake, real = Intake(tmp_path), os.fdatasync

    def fdatasync(_: int) -> None:
        raise OSError(5, "Input/output error")

    for n in range(3):
        intake.append("robot_1", batch(1 + 10 * n), 0)
        if 10 * (n + 1) <= synced:
            intake.commit()
    monkeypatch.setattr("contracts.framelog_writer.os.fdatasync", fdatasync)
    if synced < 30:
        with pytest.raises(IntakeError, match="the hub's disk refused"):
            intake.append("robot_1", batch(31), 0)
    monkeypatch.setattr("contracts.framelog_writer.os.fdatasync", real)
    assert intake.durable_seq("robot_1", LOG) == synced
    for first_seq in range(synced + 1, 60, 10):
        intake.append("robot_1", batch(first_seq), 0)
    assert intake.commit() == [("robot_1", LOG, 60)]
    assert [frame.seq for frame in stored(tmp_path / "robot_1")] == list(range(1, 61))
    intake.close()


def test_a_segment_may_outgrow_its_size_only_while_it_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(batch(1).frames)
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 4 * size)
    monkeypatch.setattr("fleet_hub.intake.intake.OVERRUN_BYTES", 3 * size)

    def segments(commit_each: bool) -> list[int]:
        intake = Intake(tmp_path / str(commit_each))
        for n in range(12):
            intake.append("robot_1", batch(1 + 10 * n), 0)
            if commit_each:
                intake.commit()
        intake.close()
        found = list_segments(tmp_path / str(commit_each) / "robot_1" / LOG)
        return [scan_frames(s.path.read_bytes(), s.data_start).frames // 10 for s in found]

    assert segments(True) == [3, 3, 3, 3]  # three and a header
    assert segments(False) == [6, 6]


def test_old_kernels_do_not_tell_of_lost_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for release, told in (("5.7.19", False), ("4.19.0-x", False), ("5.8.0", True), ("6.1.0-13-amd64", True)):
        monkeypatch.setattr("platform.release", lambda release=release: release)
        sync = FolderSync(tmp_path)
        assert sync.all() is told
        sync.close()


def test_doubled_records_are_dropped_and_gaps_and_lies_refused(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    intake.append("robot_1", batch(1), 0)
    intake.append("robot_1", batch(6), 0)
    intake.append("robot_1", batch(3, "d" * 4), 0)
    assert (intake.stored, intake.duplicates) == (15, 5 + 4)
    good = batch(16)
    for wrong in (
        batch(17),
        Records(LOG, 16, 9, good.frames),
        Records(LOG, 15, 10, good.frames),
        Records(LOG, 16, 10, good.frames[:-1]),
        Records(LOG, 16, 10, good.frames[:100] + b"\xff" + good.frames[101:]),
    ):
        with pytest.raises(IntakeError):
            intake.append("robot_1", wrong, 0)
    intake.append("robot_1", good, 0)
    assert intake.commit() == [("robot_1", LOG, 25)]
    (segment,) = list_segments(tmp_path / "robot_1" / LOG)
    assert segment.path.read_bytes()[segment.data_start :] == b"".join(frames(1, "d" * 25))
    intake.close()


def test_stored_frames_are_read_back_over_segments_and_end_at_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 30_000)
    monkeypatch.setattr("fleet_hub.intake.intake.OVERRUN_BYTES", 0)
    intake = Intake(tmp_path)
    sent = [batch(1 + 20 * n, MIXED[:20]) for n in range(12)]
    for one in sent:
        intake.append("robot_1", one, 0)
    intake.commit()
    folder = tmp_path / "robot_1" / LOG
    assert len(list(folder.glob("*.olog"))) > 3
    for one in sent:
        assert intake.stored_frames("robot_1", LOG, one.first_seq, one.count) == one.frames
    across = intake.stored_frames("robot_1", LOG, 15, 20)
    assert [frame.seq for frame in iterate_frames(across)] == list(range(15, 35))
    assert intake.stored_frames("robot_1", LOG, 10_000, 5) == b""
    assert intake.stored_frames("robot_2", LOG, 1, 5) == b""
    path = list_segments(folder)[1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    short = [o for o in sent if intake.stored_frames("robot_1", LOG, o.first_seq, o.count) != o.frames]
    assert short
    intake.close()
