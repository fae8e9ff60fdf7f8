"""Every decision that control made is stored at the hub once, in order, whoever was killed in between."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from contracts.framelog import Event, Kind, LostClass, iterate_frames, list_segments
from contracts.messages import Ack, AskStored, FromRobot, Records, Stored
from edge_agent.recorder.reading import Log, find_folders, follow, load_log, open_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.sealed import PartKind, list_sealed, open_sealed
from edge_agent.recorder.sealing import thin
from edge_agent.recorder.summary import summarize
from edge_agent.uplink.audit import Audit, proof
from edge_agent.uplink.uplink import AckedPosition, Uplink, read_acked
from tests.recorder.support import ENDS_MAX, drive, end_with_all_at_the_hub, settled, write_log
from tests.support.fleet import Fleet
from tests.support.waiting import wait_for

NS = 10**9


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
        # One that starts on a busy machine may take longer than the ring has room for.
        wait_for(lambda: fleet.ring_waiting() < 500, "comms drains the ring")
    end_with_all_at_the_hub(fleet)
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
    end_with_all_at_the_hub(fleet)
    check_equal(fleet)


def test_sigterm_flushes_ring_and_link(fleet: Fleet) -> None:
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms()
    for _ in range(ENDS_MAX):  # it has 3 s to flush, in which this machine may stand still
        wait_for(lambda: settled(fleet), "the records before")
        fleet.push(300)
        assert fleet.end_comms() == 0
        assert fleet.ring_waiting() == 0
        robot, hub = both(fleet)
        if hub.records == robot.records:
            break
        fleet.start_comms()
    check_equal(fleet)
    assert summarize(both(fleet)[0]).unsent == 0
    assert fleet.hub_process
    fleet.hub_process.terminate()
    assert fleet.hub_process.wait(timeout=100) == 0


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
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms()
    wait_for(lambda: stored(fleet) > recorder.last_seq, "everything at the hub")
    end_with_all_at_the_hub(fleet)
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
    end_with_all_at_the_hub(fleet)
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


def failures(fleet: Fleet) -> list[Event]:
    return [event for _, event in load_log(fleet.state() / "log").events if event.name == "hub_audit_failed"]


def test_a_hub_must_prove_what_it_acknowledged(fleet: Fleet) -> None:
    """Real hub, real comms that asks often: what the hub has passes, what was changed under it does not."""
    fleet.ring()
    fleet.start_hub()
    fleet.start_comms(audit_interval_s=1.0)
    fleet.push(100)
    wait_for(lambda: stored(fleet) >= 100, "stored")
    time.sleep(1.5)
    assert failures(fleet) == []  # asked by now, and proved
    (path,) = (fleet.folder / "data" / "telemetry" / "robot_1").glob("*/*.olog")

    def caught() -> bool:
        """Whether the robot has found out; else more is lost, for each audit asks about something of its own."""
        began, before = path.stat().st_size, stored(fleet)
        fleet.push(30)
        wait_for(lambda: stored(fleet) >= before + 30, "stored")
        with path.open("r+b") as file:  # a disk that lies: acknowledged, and not there
            file.seek(began)
            file.write(bytes(path.stat().st_size - began))
        time.sleep(0.7)
        return bool(failures(fleet))

    wait_for(caught, "an audit that fails")
    (incident,) = [i for i in open_log(fleet.state() / "log").incidents if "hub audit failed" in i.what][:1]
    assert incident.tick == 0


def test_audits_draw_ask_and_judge() -> None:
    asked: list[AskStored] = []
    notes: list[str] = []

    def send(message: FromRobot) -> bool:
        assert isinstance(message, AskStored)
        asked.append(message)
        return True

    audit = Audit(send, lambda name, **_: notes.append(name), seed=1, interval_s=1.0)
    batches = [Records("ab" * 16, 1 + 10 * n, 10, bytes([n]) * 50) for n in range(20)]
    audit.step(0, "ab" * 16, 0)
    for batch in batches:
        audit.sent(batch)
    audit.step(NS, "ab" * 16, 0)
    assert asked == []  # nothing is acknowledged yet
    audit.step(NS, "ab" * 16, 200)
    audit.step(2 * NS, "ab" * 16, 200)
    assert len(asked) == 1  # it waits for the answer
    audit.step(40 * NS, "ab" * 16, 200)
    first, again = asked
    assert (first.first_seq, first.nonce != again.nonce) == (again.first_seq, True)
    kept = batches[(again.first_seq - 1) // 10]
    audit.answered(Stored(first.nonce, 10, proof(first.nonce, kept.frames), 0), 41 * NS)
    assert audit.passed == 0  # an answer to an older question is none
    audit.answered(Stored(again.nonce, 10, proof(again.nonce, kept.frames), 0), 41 * NS)
    assert (audit.passed, audit.failed, notes) == (1, 0, [])
    for wrong in ("count", "proof", "erased"):
        audit.sent(batches[0])
        audit.step(now := (100 + 10 * len(asked)) * NS, "ab" * 16, 200)
        nonce = asked[-1].nonce
        said = proof(nonce, b"other" if wrong != "count" else batches[0].frames)
        audit.answered(Stored(nonce, 9 if wrong == "count" else 10, said, 3 if wrong == "erased" else 0), now)
    assert (audit.passed, audit.failed, notes) == (1, 2, ["hub_audit_failed"] * 2)
    audit.sent(batches[3])
    audit.step(1000 * NS, "cd" * 16, 200)  # another log has begun: nobody can ask about the old one
    assert len(asked) == 5
    drawn = set()
    for seed in range(60):
        audit = Audit(send, print, seed, 0.1)
        for batch in batches:
            audit.sent(batch)
        audit.step(0, "ab" * 16, 0)
        audit.step(NS, "ab" * 16, 200)
        drawn.add(asked[-1].first_seq)
    assert len(drawn) > 10  # any batch may be asked for
