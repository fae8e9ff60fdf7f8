"""Do gates stop what is worse, and only that? And how soon do robots drive as before?

``python -m benchmarks.rollout_gates [--quick]``

Simulated trips follow what was measured in this project (``/work/shared/FACTS.md``, ``benchmarks.delivery_time``):
15 s on average with a heavy tail (log-normal, coefficient of variation 0.5), 1 in 100 fails and counts with 60 s,
robots differ by 1.5 s. They are not measured in a fleet. What is judged, when and with which consequence is the hub's
own code on a real database; for ``gate.revert_s`` everything is real: hub and comms processes over CURVE, records
through rings and logs, and control's own loader and ladder at 20 Hz.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._report import quick_asked, report
from contracts.observation import OBSERVATION_SIZE
from contracts.plan import Gate, Plan, Release, Stage, Who
from contracts.robot import AMR_SMALL
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.loader import PolicyLoader
from fleet_hub.rollout.gates import judge_gate
from fleet_hub.store.audit import read_entries
from navigation.controllers.dwa import DwaController
from tests.support.fleet import Fleet, make_bundle, make_keys
from tests.support.hub_room import NS, HubRoom
from tests.support.trips import push_trips
from tests.support.waiting import wait_for

CAP_S = 60.0
ROBOTS = 200
CANARIES, CONTROLS = 4, 16
BEFORE = 200
GATES = (
    Gate("delivery_time_s", 3.0),
    Gate("aborted", 0.05),
    Gate("contacts", 0.05),
    Gate("interventions", 0.05),
    Gate("slow_ticks", 0.05),
)
LEVEL = 0.05
POLICIES: dict[str, dict[str, float]] = {
    "good": {},
    "slow": {"mean_s": 22.0},
    "timid": {"mean_s": 25.0, "failing": 0.3},
    "reckless": {"mean_s": 13.0, "contacts": 0.15, "interventions": 0.25},
    "nan": {"drops_after_s": 60.0},
}
"""What differs from a good policy: mean s, share of trips that fail or touch, share of ticks intervened."""
Floats = npt.NDArray[np.float64]


def figures(
    rng: np.random.Generator,
    count: int,
    apart_s: float = 0.0,
    mean_s: float = 15.0,
    failing: float = 0.01,
    contacts: float = 0.02,
    interventions: float = 0.05,
    **_: float,
) -> dict[str, Floats]:
    """Figures of ``count`` trips of one robot, each float64[count] in its own unit."""
    sigma = np.sqrt(np.log(1.0 + 0.5**2))
    times = rng.lognormal(np.log(mean_s) - sigma**2 / 2.0, sigma, count) + apart_s
    failed = (rng.random(count) < failing) | (times >= CAP_S)
    return {
        "delivery_time_s": np.where(failed, CAP_S, times.clip(1.0, CAP_S)),
        "aborted": failed.astype(np.float64),
        "contacts": (rng.random(count) < contacts).astype(np.float64),
        "interventions": rng.beta(2.0, 2.0 / interventions - 2.0, count),
        "slow_ticks": rng.beta(1.0, 99.0, count),
    }


def false_stops(rollouts: int, rounds: int) -> float:
    """Share of rollouts without any difference in which a gate says stop at any of its looks.

    Bounds are the best over all looks, after every round: one look at the end is all looks at once. A stop counts
    even where the gate would have promoted before.
    """
    stopped = 0
    for seed in range(rollouts):
        rng = np.random.default_rng(seed)
        apart = rng.normal(0.0, 1.5, CANARIES + CONTROLS)
        before = [figures(rng, BEFORE, robot) for robot in apart]
        after = [figures(rng, rounds, robot) for robot in apart]
        stopped += any(_stops(gate, before, after) for gate in GATES)
    return stopped / rollouts


def naive_false_stops(rollouts: int, rounds: int) -> float:
    """The same with what is usually done: a two-sample z test at the same level a gate, looked at after every round."""
    stopped, limit = 0, NormalDist().inv_cdf(1.0 - LEVEL / len(GATES))
    for seed in range(rollouts):
        rng = np.random.default_rng(seed)
        robots = [figures(rng, rounds) for _ in range(CANARIES + CONTROLS)]
        for gate in GATES:
            values = np.array([trips[gate.metric] for trips in robots])
            apart = values[:CANARIES].mean(axis=0) - values[CANARIES:].mean(axis=0)
            count = np.arange(1, rounds + 1)
            mean = np.cumsum(apart) / count
            error = np.sqrt((np.cumsum(apart**2) / count - mean**2).clip(1e-12) / count)
            if (mean[30:] / error[30:] > limit).any():
                stopped += 1
                break
    return stopped / rollouts


def _stops(gate: Gate, before: list[dict[str, Floats]], after: list[dict[str, Floats]]) -> bool:
    scale = CAP_S if gate.metric == "delivery_time_s" else 1.0
    then, now = ([trips[gate.metric] / scale for trips in robots] for robots in (before, after))
    view = judge_gate(
        gate, LEVEL / len(GATES), (now[:CANARIES], now[CANARIES:]), (then[:CANARIES], then[CANARIES:])
    )
    return view.low > 0.0


def run_policy(folder: Path, keys: Path, bundle: bytes, policy: str, seed: int) -> tuple[float, float, str]:
    """Exposed share of the fleet, hours until the verdict, and how it ended: the hub's machine with its own clock."""
    rng = np.random.default_rng(seed)
    changes = POLICIES[policy]
    names = tuple(f"robot_{number:03}" for number in range(ROBOTS))
    room = HubRoom(folder, keys, names)
    apart = dict(zip(names, rng.normal(0.0, 1.5, ROBOTS).tolist(), strict=True))
    working = names[: CANARIES + CONTROLS]
    for name in working:
        _add(room, name, room.now_ns - 8_000 * NS, figures(rng, BEFORE, apart[name]))
    room.start(_plan(room, room.release(bundle), names[:CANARIES]))
    room.step()
    for name in names[:CANARIES]:
        for state in ("downloading", "staged", "active"):
            room.report(name, state)
    began_ns, drops_s = room.now_ns, changes.get("drops_after_s")
    while room.rollouts.view(0).stages[0].state == "running":
        for name in working:
            bad = changes if name in names[:CANARIES] else {}
            _add(room, name, room.now_ns + NS, figures(rng, 20, apart[name], **bad))
        room.pass_s(drops_s or 400.0)
        for name in names[:CANARIES]:
            if room.rollouts.view(0).state == "running" and room.states()[name] == "active":
                room.report(name, *(("failed", "dropped") if drops_s else ("soaked", "")))
        room.step()
    view = room.rollouts.view(0)
    exposed = sum(row.state != "waiting" and row.state != "left alone" for row in view.robots)
    hours = (room.now_ns - began_ns) / NS / 3600.0
    room.close()
    shutil.rmtree(folder)
    return exposed / ROBOTS, hours, "promoted" if view.stages[0].state == "passed" else view.reason


def _add(room: HubRoom, robot: str, began_ns: int, trips: dict[str, Floats]) -> None:
    names = list(trips)
    rows = zip(*(trips[name].tolist() for name in names), strict=True)
    room.add_trips(robot, began_ns, *(dict(zip(names, row, strict=True)) for row in rows))


def _plan(room: HubRoom, release: Release, canaries: tuple[str, ...]) -> Plan:
    now = datetime.fromtimestamp(room.now_ns / NS, UTC)
    canary = Stage(
        name="canary", kind="canary", who=Who(robots=canaries), soak_s=300.0, deadline_s=12 * 3600.0,
        minimum_trips=200, gates=GATES,
    )  # fmt: skip
    rest = Stage(name="rest", kind="full", who=Who(rest=True), soak_s=60.0, deadline_s=86_400.0)
    return Plan(
        name="bench", release=release, issued=now, expires=now + timedelta(days=2), stages=(canary, rest),
        level=LEVEL,
    )  # fmt: skip


class Driving(threading.Thread):
    """Control's loader and ladder of one robot at 20 Hz, on noise for observations; when its policy changed."""

    def __init__(self, state: Path, keys: Path) -> None:
        super().__init__(daemon=True)
        self._ladder = Ladder(DwaController(AMR_SMALL, 0.05), 50_000_000, 0.05)
        self._loader = PolicyLoader(state, keys, AMR_SMALL, "ab" * 32, self._ladder, lambda _: None)
        self._observation = np.random.default_rng(0).normal(0.0, 1.0, OBSERVATION_SIZE).astype(np.float32)
        self.changes: list[tuple[str, int]] = []
        self.ending = threading.Event()

    def run(self) -> None:
        self._loader.load_committed()
        self._loader.start()
        while not self.ending.wait(0.05):
            self._ladder.flip(time.monotonic_ns())
            self._ladder.propose(self._observation)
            self._ladder.beside(self._observation, False)
            self._ladder.judge(self._ladder.policy is not None, False, False)
            version = self._ladder.policy.version if self._ladder.policy else ""
            if not self.changes or self.changes[-1][0] != version:
                self.changes.append((version, time.time_ns()))
        self._loader.close()


@contextmanager
def live_fleet(folder: Path, robots: tuple[str, ...]) -> Iterator[tuple[Fleet, list[Driving]]]:
    """A hub, a comms process a robot, and their controls."""
    fleet = Fleet(folder, make_keys(folder / "keys", ",".join(robots)))
    fleet.start_hub()
    controls = [Driving(fleet.state(robot), fleet.keys / "robots" / robot) for robot in robots]
    try:
        for robot, control in zip(robots, controls, strict=True):
            fleet.ring(robot)
            fleet.start_comms(robot)
            control.start()
        yield fleet, controls
    finally:
        for control in controls:
            control.ending.set()
            control.join()
        fleet.close()


def revert_s(folder: Path) -> float:
    """From the gate's stop to the first tick of the policy before, on the slower of two canaries, s."""
    robots = tuple(f"robot_{number}" for number in range(1, 5))
    with live_fleet(folder, robots) as (fleet, controls):
        for version, counter in (("v1", 1), ("v2", 2)):
            digest = fleet.release(make_bundle(fleet.keys, version=version, release_counter=counter))
            if version == "v1":
                fleet.start_rollout(digest)
                _wait(fleet, lambda view: view.state == "finished")
        for robot in robots:
            push_trips(fleet, robot, 40, 10.0, time.time() - 3600.0, 1)
        with fleet.client() as client:
            info = next(found for found in client.releases() if found.digest == digest)
        release = Release(digest, info.policy_name, info.version, info.release_counter, info.size_bytes)
        now = datetime.now(UTC)
        canary = Stage(
            name="canary", kind="canary", who=Who(robots=robots[:2]), soak_s=1.0, deadline_s=600.0,
            minimum_trips=10_000, gates=(Gate("delivery_time_s", 5.0),),
        )  # fmt: skip
        rest = Stage(name="rest", kind="full", who=Who(rest=True), soak_s=1.0, deadline_s=600.0)
        fleet.start_plan(
            Plan(
                name="b", release=release, issued=now, expires=now + timedelta(hours=1), stages=(canary, rest)
            )
        )
        _wait(fleet, lambda view: all(row.state in ("active", "soaked") for row in view.robots[:2]))
        for robot in robots:
            push_trips(fleet, robot, 60, 45.0 if robot in robots[:2] else 10.0, time.time() + 1.0, 1000)
        _wait(fleet, lambda view: [row.state for row in view.robots[:2]] == ["reverted"] * 2)
        wait_for(
            lambda: all(control.changes[-1][0] == "v1" for control in controls[:2]), "the tick before", 30.0
        )
        entries = read_entries(folder / "data")
        stopped_ns = next(entry.wall_ns for entry in entries if '"Stopped"' in entry.body)
        return max(control.changes[-1][1] - stopped_ns for control in controls[:2]) / 1e9


def _wait(fleet: Fleet, done: Any) -> None:
    with fleet.client() as client:
        wait_for(lambda: done(client.rollout()), "the rollout's next step", 60.0)


def main() -> None:
    """Measure and report."""
    quick = quick_asked(__doc__ or "")
    rounds = 150 if quick else 400
    about = f"200 rollouts without a difference, {len(GATES)} gates looked at after every round of {rounds}; "
    about += "reference: a z test looked at as often"
    naive = naive_false_stops(200, rounds)
    report("gate.false_stop_rate", false_stops(200, rounds), "share", "lower", naive, about)
    with tempfile.TemporaryDirectory() as folder:
        keys = make_keys(Path(folder) / "keys", "robot_000")
        bundle = make_bundle(keys)
        seeds = range(1 if quick else 5)
        exposed, promoted = 0.0, 0.0
        for policy in POLICIES:
            runs = [run_policy(Path(folder) / "room", keys, bundle, policy, seed) for seed in seeds]
            if policy == "good":
                promoted = sum(ended == "promoted" for _, _, ended in runs) / len(runs)
            else:
                exposed = max(exposed, *(share for share, _, _ in runs))
            hours = max(hours for _, hours, _ in runs)
            report(f"gate.{policy}_verdict_h", hours, "h", "lower", about=f"the slowest; {runs[0][2]}")
        about = f"of {ROBOTS} robots; the largest over slow, timid, reckless, NaN, {len(seeds)} seeds each"
        report("gate.bad_policy_exposed_fraction", exposed, "share", "lower", about=about)
        report("gate.good_promoted_fraction", promoted, "share", "higher")
        took_s = revert_s(Path(folder) / "live")
        report(
            "gate.revert_s", took_s, "s", "lower", about="from the gate's stop; two canaries, real processes"
        )


if __name__ == "__main__":
    main()
