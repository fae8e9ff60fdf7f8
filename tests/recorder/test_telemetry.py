"""Every decision that control made is stored at the hub once, in order, whoever was killed in between."""

import signal
from pathlib import Path

import numpy as np
import pytest

from contracts.framelog import Kind, LostClass, iterate_frames, list_segments
from contracts.messages import Ack
from edge_agent.recorder.reading import Log, find_folders, follow, load_log, open_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.sealed import PartKind, list_sealed, open_sealed
from edge_agent.recorder.sealing import thin
from edge_agent.recorder.summary import summarize
from edge_agent.uplink.uplink import AckedPosition, Uplink, read_acked
from tests.recorder.support import drive, write_log
from tests.support.fleet import Fleet, wait_for


def stored(fleet: Fleet, robot: str = "robot_1") -> int:
    with fleet.client() as client:
        return next(r.records_stored for r in client.fleet().robots if r.robot == robot)


def both(fleet: Fleet) -> tuple[Log, Log]:
    (hub_folder,) = find_folders(fleet.folder / "data" / "telemetry", "robot_1")
    return load_log(fleet.state() / "log"), load_log(hub_folder)


def check_equal(fleet: Fleet) -> None:
    robot, hub = both(fleet)
    assert robot.decisions["tick"].tolist() == list(range(1, fleet.pushed + 1))
    assert hub.decisions.tobytes() == robot.decisions.tobytes()
    assert hub.decision_seqs.tolist() == robot.decision_seqs.tolist()
    assert (hub.events, hub.debug) == (robot.events, robot.debug)
    assert not robot.damage
    assert not hub.damage
    seqs = sorted([*robot.decision_seqs.tolist(), *(seq for seq, _ in robot.events + robot.debug)])
    assert seqs == list(range(1, robot.records + 1))


def test_kills_at_both_ends_lose_double_and_reorder_nothing(fleet: Fleet) -> None:
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms()
    for turn in range(6):
        fleet.push(150, pause_s=0.001)
        if turn % 2:
            fleet.kill_hub()
            fleet.push(50, pause_s=0.001)
            fleet.start_hub()
        else:
            fleet.end_comms(number=signal.SIGKILL)
            fleet.push(50, pause_s=0.001)
            fleet.start_comms()
    wait_for(lambda: stored(fleet) >= fleet.pushed, "everything stored", 30.0)
    assert fleet.end_comms() == 0
    check_equal(fleet)
    assert fleet.ring().dropped == 0
    summary = summarize(both(fleet)[0])
    assert (summary.unsent, summary.gaps) == (0, 0)


def test_offline_first_then_it_catches_up(fleet: Fleet) -> None:
    fleet.ring()
    fleet.start_comms()
    fleet.push(900)
    wait_for(lambda: fleet.ring_waiting() == 0, "the ring drained")
    fleet.push(900)
    wait_for(lambda: fleet.ring_waiting() == 0, "the ring drained")
    fleet.start_hub()
    wait_for(lambda: stored(fleet) >= fleet.pushed, "everything stored")
    assert fleet.end_comms() == 0
    check_equal(fleet)


def test_sigterm_flushes_ring_and_link(fleet: Fleet) -> None:
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms()
    fleet.push(10)
    wait_for(lambda: stored(fleet) >= 10, "the first records")
    fleet.push(300)
    assert fleet.end_comms() == 0
    check_equal(fleet)
    assert summarize(both(fleet)[0]).unsent == 0
    assert fleet.hub_process
    fleet.hub_process.terminate()
    assert fleet.hub_process.wait(timeout=10) == 0


def test_a_log_lost_on_the_robot_begins_anew(fleet: Fleet) -> None:
    """The robot's disk was replaced: a new log id, nothing taken for a duplicate."""
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms()
    fleet.push(50)
    wait_for(lambda: stored(fleet) >= 50, "the first records")
    fleet.end_comms()
    for path in (fleet.state() / "log").iterdir():
        path.unlink()
    before = stored(fleet)
    fleet.start_comms()
    fleet.push(50)
    wait_for(lambda: stored(fleet) >= before + 50, "the records of the new log")
    assert len(find_folders(fleet.folder / "data" / "telemetry")) == 2


def test_following_a_live_log(fleet: Fleet) -> None:
    fleet.ring()
    fleet.start_comms()
    log = fleet.state() / "log"
    wait_for(lambda: list(log.glob("*.olog")), "the log")
    records = follow(log)
    next(records)
    fleet.push(3)
    seen: list[int] = []

    def three() -> bool:
        record = next(records)
        if record and record[1] is Kind.DECISION:
            seen.append(record[0])
        return len(seen) == 3

    wait_for(three, "three records")
    assert np.diff(seen).tolist() == [1, 1]
    assert Path(log).exists()


def test_a_robot_set_back_behind_the_hub_begins_a_new_log(fleet: Fleet) -> None:
    """An old copy of the disk: what the hub has already must not take the numbers of new records."""
    fleet.ring()
    fleet.start_hub()
    for _ in range(2):
        fleet.start_comms()
        fleet.push(50)
        wait_for(lambda: stored(fleet) >= fleet.pushed, "the records")
        fleet.end_comms()
    (fleet.state() / "log" / "00000001.olog").unlink()
    before = stored(fleet)
    fleet.start_comms()
    wait_for(lambda: len(find_folders(fleet.folder / "data" / "telemetry")) == 2, "a second log at the hub")
    fleet.push(50)
    wait_for(lambda: stored(fleet) >= before + 50, "the records of the new log")
    folders = find_folders(fleet.folder / "data" / "telemetry")
    ticks = sorted(tick for folder in folders for tick in load_log(folder).decisions["tick"].tolist())
    assert ticks == list(range(1, 151))


def test_days_offline_sealed_and_thinned_then_the_hub_has_all_that_is_left(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the robot dropped for room arrives as lost, under its own numbers: the hub sees no gap it cannot explain."""
    monkeypatch.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 100_000)
    monkeypatch.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 64)
    rows = drive(900)
    recorder = write_log(fleet.state(), rows)
    path = list_sealed(recorder.folder)[1]
    thin(open_sealed(path), {1: {PartKind.SAMPLES: LostClass.SAMPLE}})
    fleet.start_hub()
    fleet.start_comms()
    wait_for(lambda: stored(fleet) > recorder.last_seq, "everything at the hub")
    assert fleet.end_comms() == 0
    robot, hub = both(fleet)
    assert hub.decisions.tobytes() == robot.decisions.tobytes()
    assert hub.decision_seqs.tolist() == robot.decision_seqs.tolist()
    assert (hub.events, hub.debug) == (robot.events, robot.debug)
    assert hub.lost == robot.lost == {LostClass.SAMPLE: 900 - len(robot.decisions)}
    assert 0 < hub.lost[LostClass.SAMPLE] <= 64
    assert summarize(hub).gaps == 0


def test_a_hub_that_acknowledged_what_it_does_not_have_is_noticed_and_gets_it_again(fleet: Fleet) -> None:
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms()
    fleet.push(300)
    wait_for(lambda: stored(fleet) >= 300, "everything stored")
    wait_for(
        lambda: (read_acked(fleet.state() / "log") or AckedPosition("", 0)).acked_seq >= 300, "the acks noted"
    )
    fleet.kill_hub()
    (path,) = (fleet.folder / "data" / "telemetry" / "robot_1").glob("*/*.olog")
    whole = path.read_bytes()
    (segment,) = list_segments(path.parent)
    kept = [frame.seq for frame in iterate_frames(whole[: len(whole) // 2], segment.data_start)][-1]
    with path.open("r+b") as file:  # its disk lied, or an older copy came back
        file.truncate(len(whole) // 2)
    fleet.end_comms(number=signal.SIGKILL)  # the one that comes after knows from disk what was promised
    fleet.start_hub()
    fleet.start_comms()
    wait_for(lambda: stored(fleet) >= 300, "what was forgotten is there again")
    wait_for(
        lambda: [e for _, e in both(fleet)[1].events if e.name == "hub_forgot"], "the hub knows of it, too"
    )
    assert fleet.end_comms() == 0
    check_equal(fleet)
    (forgot,) = [event for _, event in both(fleet)[0].events if event.name == "hub_forgot"]
    assert forgot.detail["first_seq"] == kept + 1
    assert any("hub forgot" in incident.what for incident in open_log(fleet.state() / "log").incidents)


def test_a_hub_that_acknowledges_the_future_is_told_of_and_not_believed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "robot_1")
    uplink = Uplink(recorder, lambda _: True)
    uplink.on_welcome(0)
    last = recorder.last_seq
    for _ in range(3):
        uplink.on_ack(Ack(recorder.log_id, last + 1000))
    assert recorder.acked_seq <= recorder.last_seq
    assert [e.name for _, e in load_log(recorder.folder).events].count("hub_acked_unwritten") == 1
    recorder.close()
