"""Trips at the hub survive its restart: none is lost, none is counted twice."""

from pathlib import Path
from typing import Any

import numpy as np

from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Source
from contracts.framelog import Kind, encode_frame, iterate_frames
from contracts.framelog_writer import LogWriter
from contracts.messages import Records
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.database import Database

GOAL = (10.0, 0.0)
LOG = "1" * 32


def one_trip(trip: int, ticks: int, standing: int, first_seq: int) -> bytes:
    """Frames of a trip that arrives after ``ticks`` seconds, and of the robot that stands at its goal after."""
    rows = np.zeros(ticks + standing, DECISION_DTYPE)
    rows["wall_ns"] = rows["mono_ns"] = (np.arange(len(rows)) + first_seq) * 10**9
    rows["trip"], rows["flags"], rows["mode"] = trip, FLAG_ARMED, Mode.CONTROLLER
    rows["source"], rows["goal"], rows["clearance_m"] = Source.POLICY, GOAL, 1.0
    rows["raw_command"] = rows["final_command"] = (1.0, 0.0)
    rows["pose"][ticks - 1 :] = (*GOAL, 0.0)
    return b"".join(
        encode_frame(Kind.DECISION, first_seq + index, row.tobytes()) for index, row in enumerate(rows)
    )


def as_batch(frames: bytes) -> Records:
    """As a robot sends them."""
    numbers = [frame.seq for frame in iterate_frames(frames)]
    return Records(LOG, numbers[0], len(numbers), frames)


def test_a_robot_standing_at_its_goal_has_not_arrived_again_after_a_restart(tmp_path: Path) -> None:
    """The hub is stopped between the arrival and the next records, and again in the middle of the next trip."""
    log = tmp_path / "telemetry" / "robot_1" / LOG
    writer = LogWriter(log, "robot_1", "0" * 32, LOG, 1, 0)
    database = Database(tmp_path / "hub.sqlite")
    parts = [one_trip(1, 20, 5, 1), one_trip(1, 1, 5, 26), one_trip(2, 15, 3, 32)]
    for frames in parts:
        batch = as_batch(frames)
        writer.append(frames, batch.count, 0)
        writer.sync()
        store = TripStore(database, tmp_path / "telemetry")  # a hub that has just started
        store.add("robot_1", batch)
        store.catch_up()
    trips = TripStore(database, tmp_path / "telemetry").since("robot_1", 0)
    assert [trip.last_seq - trip.first_seq + 1 for trip in trips] == [20, 15]
    database.close()


def test_batches_that_wait_are_looked_through_as_they_came(tmp_path: Path, monkeypatch: Any) -> None:
    """Some of it sent twice: whoever asks finds the same trips, however much was looked through at once."""
    pieces = [one_trip(1, 20, 5, 1), one_trip(2, 15, 3, 26), one_trip(3, 12, 2, 44)]
    sent = [pieces[0], pieces[1], pieces[0], pieces[1], pieces[2]]
    found = []
    for waiting_bytes in (1, 30_000, 10**9):
        monkeypatch.setattr("fleet_hub.rollout.trip_store.WAITING_MAX_BYTES", waiting_bytes)
        database = Database(tmp_path / f"{waiting_bytes}.sqlite")
        store = TripStore(database, tmp_path / "telemetry")
        for frames in sent:
            store.add("robot_1", as_batch(frames))
            store.add("robot_2", as_batch(frames))
        ended = store.since("robot_1", 0)
        assert store.since("robot_2", 0) == ended
        found.append(ended)
        database.close()
    assert [trip.last_seq - trip.first_seq + 1 for trip in found[0]] == [20, 15, 12]
    assert found[0] == found[1] == found[2]


def test_what_waits_has_a_bound_over_all_robots(tmp_path: Path, monkeypatch: Any) -> None:
    """Reading the database behind the store's back: beyond the bound all trips are in it without being asked for."""
    frames = one_trip(1, 20, 5, 1)
    monkeypatch.setattr("fleet_hub.rollout.trip_store.WAITING_MAX_BYTES", 3 * len(frames))
    database = Database(tmp_path / "hub.sqlite")
    store = TripStore(database, tmp_path / "telemetry")
    kept = []
    for robot in range(4):
        store.add(f"robot_{robot}", as_batch(frames))
        kept.append(database.rows("SELECT COUNT(*) FROM trip")[0][0])
    assert kept == [0, 0, 3, 3]
    database.close()
