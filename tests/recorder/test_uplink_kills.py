"""Hub and agent killed at random while records are sent: none lost, doubled or out of order.

``OUTRIDER_UPLINK_KILLS=1000 pytest -s tests/recorder/test_uplink_kills.py`` is the campaign (``make campaign``); it
prints what it did, and the seed that repeats its draws.
"""

import os
import random
import signal
import time

from edge_agent.recorder.reading import find_folders, load_log
from tests.recorder.support import end_with_all_at_the_hub
from tests.support.fleet import Fleet
from tests.support.waiting import wait_for

KILLS = int(os.environ.get("OUTRIDER_UPLINK_KILLS", "10"))
SEED = int(os.environ.get("OUTRIDER_SEED", "6"))
ROBOTS = ("robot_1", "robot_2")
PUSHED_MAX = 120
"""Decisions of a robot between two kills; the ring has room for 1,024, so that none of them may be missing."""


def check(fleet: Fleet, ticks: dict[str, list[int]]) -> int:
    """Hold what the hub has against what each robot's control made; how many records there are."""
    records = 0
    for robot in ROBOTS:
        (own,) = find_folders(fleet.state(robot) / "log")
        (hub_folder,) = find_folders(fleet.folder / "data" / "telemetry", robot)
        log, hub = load_log(own), load_log(hub_folder)
        assert hub.decisions["tick"].tolist() == ticks[robot], f"{robot}: {len(hub.decisions)} decisions"
        assert hub.decisions.tobytes() == log.decisions.tobytes()
        assert (hub.events, hub.debug) == (log.events, log.debug)
        seqs = sorted([*hub.decision_seqs.tolist(), *(seq for seq, _ in hub.events + hub.debug)])
        assert seqs == list(range(1, len(seqs) + 1))
        assert not hub.damage
        assert not hub.lost
        records += hub.records
    return records


def test_random_kills_of_hub_and_agent_lose_double_and_reorder_nothing(fleet: Fleet) -> None:
    draw = random.Random(SEED)
    ticks: dict[str, list[int]] = {robot: [] for robot in ROBOTS}
    began_s = time.monotonic()
    for robot in ROBOTS:
        fleet.ring(robot)
    fleet.start_hub()
    for robot in ROBOTS:
        fleet.start_comms(robot)
    killed = dict.fromkeys(("hub", *ROBOTS), 0)
    for kill in range(KILLS):
        for robot in ROBOTS:
            first = fleet.pushed + 1
            fleet.push(draw.randrange(1, PUSHED_MAX), robot, draw.choice((0.0, 0.0005)))
            ticks[robot] += range(first, fleet.pushed + 1)
        time.sleep(draw.uniform(0.0, 0.4))
        # Each must be killed in the short form too.
        who = list(killed)[kill] if kill < len(killed) else draw.choice(list(killed))
        killed[who] += 1
        if who == "hub":
            fleet.kill_hub()
            time.sleep(draw.uniform(0.0, 0.3))
            fleet.start_hub()
        else:
            fleet.end_comms(who, signal.SIGKILL)
            time.sleep(draw.uniform(0.0, 0.3))
            fleet.start_comms(who)
        for robot in ROBOTS:  # an agent that starts again drains its ring before it is full
            wait_for(lambda robot=robot: fleet.ring_waiting(robot) < 500, f"{robot} drains its ring")
    for robot in ROBOTS:
        fleet.push(1, robot)  # who takes it out of the ring is up and running
        ticks[robot].append(fleet.pushed)
        end_with_all_at_the_hub(fleet, robot)
        assert fleet.ring(robot).dropped == 0
    records = check(fleet, ticks)
    took_s = time.monotonic() - began_s
    print(
        f"\n{KILLS} kills {killed}, {records} records, none lost, doubled or out of order; {took_s:.0f} s, seed {SEED}"
    )
