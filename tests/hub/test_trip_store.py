"""Trips at the hub survive its restart: none is lost, none is counted twice."""

from pathlib import Path

import numpy as np

from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Source
from contracts.framelog import Kind, encode_frame, iterate_frames
from contracts.framelog_writer import LogWriter
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


def test_a_robot_standing_at_its_goal_has_not_arrived_again_after_a_restart(tmp_path: Path) -> None:
    """The hub is stopped between the arrival and the next records, and again in the middle of the next trip."""
    log = tmp_path / "telemetry" / "robot_1" / LOG
    writer = LogWriter(log, "robot_1", "0" * 32, LOG, 1, 0)
    database = Database(tmp_path / "hub.sqlite")
    parts = [one_trip(1, 20, 5, 1), one_trip(1, 1, 5, 26), one_trip(2, 15, 3, 32)]
    ended = []
    for frames in parts:
        writer.append(frames, len(list(iterate_frames(frames))), 0)
        writer.sync()
        store = TripStore(database, tmp_path / "telemetry")  # a hub that has just started
        ended.append(store.add("robot_1", LOG, frames))
    trips = TripStore(database, tmp_path / "telemetry").since("robot_1", 0)
    assert [trip.last_seq - trip.first_seq + 1 for trip in trips] == [20, 15], ended
    database.close()
