"""The black box: what recording costs a tick, how small a shift becomes, how fast it opens and jumps to an incident.

``python -m benchmarks.recorder [--quick]``. Prints JSON lines.

The records are real ones: the agent's own tick (encoder, a shipped policy, monitor, record) drives a robot of the
compiled simulation among people at 50 Hz, with a lidar of 25 Hz and 1 cm of noise. ``DRIVEN_S`` of it are written again
and again, with the clock going on, until a shift of 8 h is full (``--quick``: half an hour; a figure scaled to 8 h says
so); no block holds two of them, so that compression cannot gain by it.
"""

import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._report import quick_asked, report
from contracts.decision import DECISION_DTYPE
from contracts.ring import RingWriter
from contracts.robot import AMR_SMALL
from edge_agent.actuate.record import Recorder as TickRecorder
from edge_agent.guard.gate import Gate
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.policy import Policy
from edge_agent.infer.trial import TrialConfig
from edge_agent.loop import WARM_RUNS
from edge_agent.observe.slots import Goal, Odometry, Scan, Slots, Stamp, Way
from edge_agent.realtime import prepare
from edge_agent.recorder.pages import Pages
from edge_agent.recorder.reading import open_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.tick import TickCore
from navigation.controllers.dwa import DwaController
from navigation.route import Route, cell_costs
from safety.monitor import SafetyMonitor
from sim.simulation import Simulation, SimulationConfig
from sim.world.generate import generate_mixed

RATE_HZ = 50
LIDAR_EVERY = 2
"""Ticks from one scan to the next: 25 Hz."""
LIDAR_NOISE_M = 0.01
DRIVEN_S, DRIVEN_S_QUICK, DENSE_S = 1200, 120, 60
SHIFT_S, SHIFT_S_QUICK = 8 * 3600, 1800
BATCH = 50
TICKS_TIMED, TICKS_TIMED_QUICK = 3000, 600
SETTLE_TICKS = 50
FAULT_EVERY_S, FAULT_S = 60, 0.5
JUMPS = 50
FLOOR_SEED = 11
NS = 1_000_000_000
WALL_NS = 1_790_000_000 * NS
POLICY = Path(__file__).resolve().parents[1] / "trainer" / "policies" / "seed-0.onnx"
Rows = npt.NDArray[np.void]


class _KeepingRing:
    """Takes records as a ring does, and keeps them."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def push(self, record: Rows) -> bool:
        """Keep one."""
        self.records.append(record.tobytes())
        return True

    def touch(self, record: Rows) -> None:
        """Not needed here."""

    def beat(self, now_ns: int) -> None:
        """Not needed here."""


class _Sink:
    """Remembers the last command."""

    def __init__(self) -> None:
        self.command = (0.0, 0.0)

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:  # noqa: ARG002
        """A command goes out."""
        self.command = (speed_mps, turn_rate_radps)


class _Clock:
    """Simulated time that goes on by real time within a tick, so that latencies are real ones."""

    def __init__(self) -> None:
        self.now_ns = 1000 * NS
        self._began_ns = time.monotonic_ns()

    def tick(self) -> None:
        """The next tick begins."""
        self.now_ns += NS // RATE_HZ
        self._began_ns = time.monotonic_ns()

    def __call__(self) -> int:
        return self.now_ns + time.monotonic_ns() - self._began_ns


class Robot:
    """A robot of the compiled simulation that delivers among people, driven by the agent's own tick."""

    def __init__(self, ring: Any, lidar_every: int = LIDAR_EVERY) -> None:
        self._warehouse = generate_mixed(1, FLOOR_SEED)[0]
        config = SimulationConfig(
            worlds=1, robots=3, robots_rule_based=2, people=5, control_hz=RATE_HZ, guarded=False
        )
        self._simulation = Simulation([self._warehouse], config, seed=3)
        self._slots, self._sink, self._clock = Slots(), _Sink(), _Clock()
        ladder = Ladder(
            DwaController(AMR_SMALL, 1.0 / RATE_HZ), NS // RATE_HZ, 1.0 / RATE_HZ, TrialConfig(1, 2)
        )
        ladder.policy = Policy(POLICY.read_bytes(), "ab" * 32, "bench", 1)
        self._gate = Gate(SafetyMonitor(AMR_SMALL))
        self.core = TickCore(
            AMR_SMALL, RATE_HZ, 1.0, self._slots, ladder, self._gate, self._sink, ring, self._clock,
            lambda: WALL_NS + self._clock.now_ns,
        )  # fmt: skip
        self._lidar_every, self._noise = lidar_every, np.random.default_rng(5)
        self._costs = cell_costs(self._warehouse)
        self._routes: dict[int, Route] = {}
        self._goal, self._trip, self._ticks = -1, 0, 0
        self._action, self._command = np.zeros((1, 3, 2), np.float32), np.zeros((1, 3, 2))

    def sense(self) -> None:
        """What the sensors bring before the next tick; the lidar falls silent once every ``FAULT_EVERY_S``."""
        self._clock.tick()
        simulation, slots = self._simulation, self._slots
        silent = self._ticks % (FAULT_EVERY_S * RATE_HZ) < FAULT_S * RATE_HZ and self._ticks > RATE_HZ
        if self._ticks % self._lidar_every == 0 and not silent:
            slots.scan = Scan(_scan(simulation.ranges[0, 0], self._noise), self._clock.now_ns - 5_000_000)
        x, y, heading = simulation.state.pose[0, 0].tolist()
        speed, turn = simulation.state.velocity[0, 0].tolist()
        slots.odometry = Odometry((x, y, heading), (speed, turn), self._clock.now_ns - 2_000_000)
        if int(simulation.goal[0, 0]) != self._goal:
            self._goal, self._trip = int(simulation.goal[0, 0]), self._trip + 1
            station = self._warehouse.stations[self._goal]
            slots.goal = Goal(station.x_m, station.y_m, self._trip)
            if self._goal not in self._routes:
                self._routes[self._goal] = Route(self._costs, station.x_m, station.y_m)
            slots.way = Way(slots.goal, self._routes[self._goal])
        self._gate.monitor.armed = True  # whoever stands by arms it again after each incident

    def tick(self) -> None:
        """One tick of the agent."""
        self.core.tick(self._clock.now_ns, 0)

    def move(self) -> None:
        """The world goes on."""
        self._ticks += 1
        self._command[0, 0] = self._sink.command
        self._simulation.step(self._action, self._command)


def drive(seconds: int, lidar_every: int = LIDAR_EVERY) -> Rows:
    """DECISION_DTYPE[seconds * RATE_HZ], as fast as it goes."""
    ring = _KeepingRing()
    robot = Robot(ring, lidar_every)
    for _ in range(seconds * RATE_HZ):
        robot.sense()
        robot.tick()
        robot.move()
    return np.frombuffer(b"".join(ring.records), DECISION_DTYPE)


def _scan(ranges: npt.NDArray[np.float32], noise: np.random.Generator) -> npt.NDArray[np.float32]:
    seen = (ranges + noise.normal(0.0, LIDAR_NOISE_M, ranges.shape)).astype(np.float32)
    seen[ranges >= AMR_SMALL.lidar.range_max_m] = math.inf
    return np.maximum(seen, np.float32(AMR_SMALL.lidar.range_min_m))


def write_shift(state: Path, driven: Rows, seconds: int) -> tuple[float, float]:
    """Write ``seconds`` through the real recorder, sealing as it goes; MB on disk when all is sealed, and CPU s."""
    recorder, began_s = Recorder(state, "robot_1"), time.process_time()
    rows, span_ns = driven.copy(), len(driven) * NS // RATE_HZ
    now_ns = time.monotonic_ns()
    for turn in range(seconds * RATE_HZ // len(rows)):
        rows["tick"] = driven["tick"] + turn * len(rows)
        for name in ("mono_ns", "wall_ns"):
            rows[name] = driven[name] + turn * span_ns
        records = [rows[place].tobytes() for place in range(len(rows))]
        for start in range(0, len(records), BATCH):
            now_ns += BATCH * NS // RATE_HZ
            recorder.decisions(records[start : start + BATCH])
            recorder.maintain(now_ns)
    recorder.close()
    Recorder(state, "robot_1").close()  # a restart: what was live is finished now
    last = Recorder(state, "robot_1")
    while last.seal_some():
        pass
    last.close()
    return last.used_bytes() / 1e6, time.process_time() - began_s


def time_opening(folder: Path) -> tuple[float, list[float]]:
    """Seconds to open a log and have all incidents; ms of each jump to the next one, its decision included."""
    began_s = time.perf_counter()
    index = open_log(folder)
    incidents = index.incidents
    opened_s = time.perf_counter() - began_s
    pages, jumps = Pages(index), []
    for place in np.linspace(0, len(incidents) - 1, JUMPS).astype(int).tolist() if incidents else ():
        at_ns = incidents[place].wall_ns - 1
        began_s = time.perf_counter()
        found = index.next_incident(at_ns)
        assert found is not None
        row = pages.row_of(found)
        record = pages.rows(row, row + 1)
        jumps.append(1e3 * (time.perf_counter() - began_s))
        assert not found.tick or int(record["tick"][0]) == found.tick
    return opened_s, jumps


DRAIN = """
import sys, time
from pathlib import Path
from contracts.ring import RING_SLOTS, RingReader
from edge_agent.recorder.recorder import Recorder
ring, recorder = RingReader(sys.argv[1]), Recorder(Path(sys.argv[2]), "robot_1")
print("ready", flush=True)
while True:
    time.sleep(0.02)
    records = ring.peek(RING_SLOTS)
    recorder.decisions(records)
    ring.release(len(records))
    recorder.maintain(time.monotonic_ns())
"""


class _Begin(TickRecorder):
    """Says when a tick's recording began."""

    began_ns = 0

    def decided(self, *arguments: Any) -> None:
        """The first of the calls."""
        self.began_ns = time.perf_counter_ns()
        super().decided(*arguments)


class _End(RingWriter):
    """Says when it ended."""

    ended_ns = 0

    def beat(self, now_ns: int) -> None:
        """The last of the calls."""
        super().beat(now_ns)
        self.ended_ns = time.perf_counter_ns()


def time_ticks(scratch: Path, count: int) -> tuple[list[float], list[float]]:
    """us that recording takes of each tick, at 50 Hz in real time, with a process that drains, writes and syncs beside.

    The second list: a bare copy of the record and one ``os.write``, just after the tick.
    """
    name = f"bench-{secrets.token_hex(4)}"
    logged: list[float] = []
    bare: list[float] = []
    ring, recorder = _End(name), _Begin()
    robot = Robot(ring)
    robot.core._recorder = recorder
    comms = subprocess.Popen(
        [sys.executable, "-c", DRAIN, name, str(scratch / "timed")], stdout=subprocess.PIPE, text=True
    )
    plain = os.open(scratch / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    space = bytearray(DECISION_DTYPE.itemsize)
    try:
        assert comms.stdout is not None
        comms.stdout.readline()
        for _ in range(SETTLE_TICKS + count):
            robot.sense()
            time.sleep(0.8 / RATE_HZ)
            for _ in range(WARM_RUNS):
                robot.core.warm()  # as the control loop does before each tick at this rate
            robot.tick()
            logged.append((ring.ended_ns - recorder.began_ns) / 1e3)
            data = robot.core.record.data.cast("B")
            began_ns = time.perf_counter_ns()
            space[:] = data
            os.write(plain, space)
            bare.append((time.perf_counter_ns() - began_ns) / 1e3)
            robot.move()
        dropped = ring.dropped
    finally:
        comms.kill()
        comms.wait()
        os.close(plain)
        ring.unlink()
        ring.close()
    if dropped:
        raise SystemExit(
            f"the ring dropped {dropped} records: comms did not keep up, the figure is worth nothing"
        )
    return logged[SETTLE_TICKS:], bare[SETTLE_TICKS:]


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__.splitlines()[0])
    done = prepare(True, (), lambda line: print(line, file=sys.stderr))
    shift_s = SHIFT_S_QUICK if quick else SHIFT_S
    driven = drive(DRIVEN_S_QUICK if quick else DRIVEN_S)
    scratch = Path(tempfile.mkdtemp(prefix="outrider-recorder-"))
    try:
        logged, bare = time_ticks(scratch, TICKS_TIMED_QUICK if quick else TICKS_TIMED)
        megabytes, cpu_s = write_shift(scratch / "shift", driven, shift_s)
        opened_s, jumps = time_opening(scratch / "shift" / "log")
        dense = drive(DENSE_S, lidar_every=1)
        dense_mb, _ = write_shift(scratch / "dense", dense, DENSE_S)
    finally:
        shutil.rmtree(scratch)
    about = f"{shift_s / 3600:g} h at {RATE_HZ} Hz"
    scaled = "" if shift_s == SHIFT_S else ", scaled to 8 h"
    raw_mb = SHIFT_S * RATE_HZ * DECISION_DTYPE.itemsize / 1e6
    report(
        "record.p99_us", np.percentile(logged, 99), "us", "lower", np.percentile(bare, 99),
        "of each tick, to fill a record and push it, comms beside it; against a bare copy and os.write; with "
        + (", ".join(done) or "nothing"),
    )  # fmt: skip
    report("record.p50_us", np.percentile(logged, 50), "us", "lower", np.percentile(bare, 50))
    report(
        "record.mb_per_8h", megabytes * SHIFT_S / shift_s, "MB", "lower", raw_mb,
        f"{about}, sealed, index and signatures included, lidar at 25 Hz{scaled}; reference: the bare records",
    )  # fmt: skip
    report(
        "record.mb_per_8h_lidar_50hz", dense_mb * SHIFT_S / DENSE_S, "MB", "lower", raw_mb,
        f"the same with another noisy scan in every tick, {DENSE_S} s scaled to 8 h",
    )  # fmt: skip
    report(
        "record.seal_core_share",
        cpu_s / shift_s,
        "share",
        "lower",
        None,
        f"CPU of recording and sealing {about}",
    )
    report(
        "log.open_s",
        opened_s,
        "s",
        "lower",
        None,
        f"{about}, index and all incidents, files in the page cache",
    )
    report(
        "log.next_incident_ms", max(jumps, default=math.nan), "ms", "lower", None,
        f"{about}, the slowest of {len(jumps)} jumps, its decision read",
    )  # fmt: skip


if __name__ == "__main__":
    main()
