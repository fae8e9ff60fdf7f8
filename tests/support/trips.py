"""Trips as a robot would record them, pushed through its ring in no time: the stamps say how long they took."""

import time
import zlib

import numpy as np

from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Source
from tests.support.fleet import Fleet
from tests.support.waiting import WAIT_MAX_S


def push_trips(fleet: Fleet, robot: str, count: int, seconds: float, at_s: float, trip: int) -> None:
    """``count`` trips of about ``seconds`` one after the other from wall time ``at_s`` on, recorded at 1 Hz."""
    rng = np.random.default_rng(zlib.crc32(f"{robot}{trip}".encode()))
    for number in range(count):
        ticks = max(3, round(seconds * rng.uniform(0.8, 1.2)))
        rows = np.zeros(ticks + 1, DECISION_DTYPE)
        rows["wall_ns"] = ((at_s + np.arange(ticks + 1)) * 1e9).astype(np.int64)
        rows["mono_ns"] = rows["wall_ns"]
        rows["trip"], rows["flags"], rows["mode"] = trip + number, FLAG_ARMED, Mode.CONTROLLER
        rows["source"], rows["goal"], rows["clearance_m"] = Source.POLICY, (10.0, 0.0), 1.0
        rows["raw_command"] = rows["final_command"] = (1.0, 0.0)
        rows["pose"][-1] = (10.0, 0.0, 0.0)
        at_s += ticks + 1
        for index in range(len(rows)):
            until = time.monotonic() + WAIT_MAX_S
            while not fleet.ring(robot).push(rows[index : index + 1]):
                assert time.monotonic() < until, "comms does not empty the ring"
                time.sleep(0.005)
