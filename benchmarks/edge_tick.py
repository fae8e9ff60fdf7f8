"""The control tick against a plain ``session.run`` at the same cadence, interleaved in one process.

``python -m benchmarks.edge_tick [--quick] [--rate 20] [--policy FILE.onnx|FILE.outrider]``. Prints JSON lines.

Each period holds one real tick (``edge_agent.loop``: encoder, policy, monitor, command and record; everything
but ROS) and, half a period later, one ``session.run`` as people write it: default options, a fresh feed.
"""

import argparse
import itertools
import secrets
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks._hall import Hall
from benchmarks._report import report
from contracts.bundle import POLICY_MEMBER
from contracts.decision import Verdict
from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT
from contracts.observation import OBSERVATION_SIZE
from contracts.ring import RING_SLOTS, RingReader, RingWriter
from contracts.robot import AMR_SMALL
from edge_agent.guard.gate import Gate
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.policy import WARM_RUNS, Policy
from edge_agent.infer.proposer import Command
from edge_agent.infer.trial import TrialConfig
from edge_agent.loop import ControlLoop
from edge_agent.observe.slots import Goal, Odometry, Scan, Slots, Stamp, Way
from edge_agent.realtime import prepare
from edge_agent.tick import TickCore
from navigation.controllers.dwa import DwaController
from navigation.route import Route, cell_costs
from navigation.warehouse import parse_warehouse
from safety.monitor import SafetyMonitor
from safety.movers import reckon

HIDDEN = 128
SECONDS, SECONDS_QUICK = 120.0, 26.0
SWAPS, SWAP_PAUSE_S = 20, 0.35
DROVE_MIN = 0.9
SETTLE_TICKS = 20
SPREAD = (0.1, 0.2)
STAGES = ("encode", "infer", "guard")
NS = 1_000_000_000
Times = npt.NDArray[np.float64]
FLOOR = """
{name: bench, width_m: 12, height_m: 8, people: 0,
 shelves: [{x_m: 6, y_m: 3, length_m: 4, depth_m: 0.8}],
 stations: [{name: p, kind: pick, x_m: 2, y_m: 2}, {name: d, kind: drop, x_m: 10, y_m: 6}]}
"""


def random_policy(centre: Command = (0.35, 0.8)) -> bytes:
    """An 83-128-128-2 network of random weights that drives in a circle, within ``SPREAD`` of ``centre``."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    sizes = (OBSERVATION_SIZE, HIDDEN, HIDDEN, 2)
    nodes, weights, value = [], [], ONNX_INPUT
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        names = [f"w{layer}", f"b{layer}"]
        for name, shape in zip(names, ((rows, columns), (columns,)), strict=True):
            values = rng.normal(0.0, 0.1, shape).astype(np.float32)
            weights.append(numpy_helper.from_array(values, name))
        nodes.append(helper.make_node("Gemm", [value, *names], [f"h{layer}"]))
        value = f"a{layer}"
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [value]))
    for name, numbers in (("spread", SPREAD), ("centre", centre)):
        weights.append(numpy_helper.from_array(np.array(numbers, dtype=np.float32), name))
    nodes.append(helper.make_node("Mul", [value, "spread"], ["spread_out"]))
    nodes.append(helper.make_node("Add", ["spread_out", "centre"], [ONNX_OUTPUT]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in ((ONNX_INPUT, OBSERVATION_SIZE), (ONNX_OUTPUT, 2))
    ]
    graph = helper.make_graph(nodes, "policy", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def read_policy(path: Path | None) -> bytes:
    """The network to run: a file's, a bundle's, or a random one."""
    if path is None:
        return random_policy()
    if path.suffix == ".onnx":
        return path.read_bytes()
    with zipfile.ZipFile(path) as bundle:
        return bundle.read(POLICY_MEMBER)


class TellingSink:
    """Sends nothing, but says when it was asked to."""

    def __init__(self) -> None:
        self.sent = threading.Event()

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:  # noqa: ARG002
        """A command goes out."""
        self.sent.set()


class Bench:
    """A tick core with everything but ROS, fed with scans of the inside of a room."""

    def __init__(self, network: bytes, rate_hz: int, trial: TrialConfig) -> None:
        self.network = network
        self.slots = Slots()
        warehouse = parse_warehouse(FLOOR)
        goal = Goal(10.0, 6.0, 1)
        self.slots.goal, self.slots.way = goal, Way(goal, Route(cell_costs(warehouse), goal.x_m, goal.y_m))
        self.ladder = Ladder(DwaController(AMR_SMALL, 1.0 / rate_hz), NS // rate_hz, 1.0 / rate_hz, trial)
        self.ladder.policy = self.make_policy()
        self.gate = Gate(SafetyMonitor(AMR_SMALL))
        self.ring = RingWriter(f"bench-{secrets.token_hex(4)}")
        self.reader = RingReader(self.ring.path.name.removeprefix("outrider-"))
        self.sink = TellingSink()
        self.core = TickCore(
            AMR_SMALL, rate_hz, 1.0, self.slots, self.ladder, self.gate, self.sink, self.ring
        )
        self.loop = ControlLoop(self.core, NS // rate_hz)
        self._hall = Hall(AMR_SMALL.lidar.rays, AMR_SMALL.lidar.range_max_m)
        self._pose, self._velocity, self._moved_ns = (6.0, 3.5, 0.3), (0.0, 0.0), time.monotonic_ns()
        self.feed()

    def make_policy(self, network: bytes | None = None) -> Policy:
        """A new session, warmed as the loader warms it."""
        policy = Policy(network or self.network, "ab" * 32, "bench", 1)
        for _ in range(WARM_RUNS):
            policy.run(np.zeros(OBSERVATION_SIZE, dtype=np.float32))
        return policy

    def feed(self) -> None:
        """A new scan, and odometry of a robot that does as it is told."""
        now_ns = time.monotonic_ns()
        elapsed_s, self._moved_ns = (now_ns - self._moved_ns) / NS, now_ns
        self._pose = reckon(*self._pose, elapsed_s, *self._velocity)
        self._velocity = self.core.latest.ruling.command if self.core.latest else (0.0, 0.0)
        x_m, y_m, heading = self._pose
        # The hall's middle is that of the floor.
        ranges = self._hall.scan((x_m - 6.0, y_m - 4.0, heading), now_ns / NS)
        self.slots.scan = Scan(ranges, now_ns)
        self.slots.odometry = Odometry(self._pose, self._velocity, now_ns)

    def drain(self) -> list[bytes]:
        """Comms' part: take the records out of the ring."""
        records = self.reader.peek(RING_SLOTS)
        self.reader.release(len(records))
        return records

    def wait_tick(self) -> None:
        """Until the next command has gone out. Asleep: a thread that polls would take the tick's GIL away."""
        self.sink.sent.clear()
        self.sink.sent.wait()

    def close(self) -> None:
        """End the loop, remove the ring."""
        self.loop.stop()
        self.reader.close()
        self.ring.unlink()
        self.ring.close()


def measure(bench: Bench, rate_hz: int, seconds: float) -> tuple[Times, Times, Times]:
    """Tick and reference times in us, float64[ticks] each, in pairs; and float64[ticks, 3] of the stages."""
    reference = onnxruntime.InferenceSession(bench.network, providers=["CPUExecutionProvider"])
    observation = np.random.default_rng(9).normal(0, 1, (1, OBSERVATION_SIZE)).astype(np.float32)
    ticks, references, stages, drove = [], [], [], 0
    for number in range(SETTLE_TICKS + int(seconds * rate_hz)):
        bench.wait_tick()
        time.sleep(0.4 / rate_hz)
        began_ns = time.monotonic_ns()
        reference.run([ONNX_OUTPUT], {ONNX_INPUT: observation.copy()})
        ended_ns = time.monotonic_ns()
        bench.feed()
        bench.drain()
        if number >= SETTLE_TICKS and bench.core.latest is not None:
            drove += bench.core.latest.ruling.verdict <= Verdict.LIMIT
            ticks.append(bench.core.latest.total_ns / 1e3)
            references.append((ended_ns - began_ns) / 1e3)
            stages.append([float(bench.core.record[f"{stage}_us"][0]) for stage in STAGES])
    if drove < DROVE_MIN * len(ticks):
        raise SystemExit(
            f"the robot drove in {drove} of {len(ticks)} ticks: the monitor's work was not measured"
        )
    return np.array(ticks), np.array(references), np.array(stages)


def swap(bench: Bench) -> tuple[int, int]:
    """Ticks missed and ticks without a decision during ``SWAPS`` swaps with loading in the background."""
    missed, ticks, produced = bench.loop.missed, bench.core.ticks, bench.reader.produced

    def load() -> None:
        bench.ladder.offer(bench.make_policy())

    for _ in range(SWAPS):
        loader = threading.Thread(target=load)
        loader.start()
        end_s = time.monotonic() + SWAP_PAUSE_S
        while time.monotonic() < end_s or loader.is_alive():
            bench.wait_tick()
            bench.feed()
            bench.drain()
    bench.loop.stop()
    silent = (bench.core.ticks - ticks) - (bench.reader.produced - produced)
    return bench.loop.missed - missed, silent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.edge_tick", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="end within 45 s")
    parser.add_argument("--rate", type=int, default=20, help="ticks a second, a multiple of 10")
    parser.add_argument("--policy", type=Path, help=".onnx or .outrider; without it a random 83-128-128-2")
    parser.add_argument("--no-realtime", dest="realtime", action="store_false", help="without SCHED_FIFO")
    arguments = parser.parse_args()
    done = prepare(arguments.realtime, (), lambda line: print(line, file=sys.stderr))
    bench = Bench(read_policy(arguments.policy), arguments.rate, TrialConfig(1, 2))
    try:
        bench.gate.monitor.armed = True
        bench.loop.start()
        seconds = SECONDS_QUICK if arguments.quick else SECONDS
        ticks, references, stages = measure(bench, arguments.rate, seconds)
        missed_measured = bench.loop.missed
        missed, silent = swap(bench)
    finally:
        bench.close()
    for name, quantile in (("p50", 50.0), ("p99", 99.0), ("p99_9", 99.9)):
        report(
            f"tick.{name}_us",
            np.percentile(ticks, quantile),
            "us",
            "lower",
            np.percentile(references, quantile),
            f"observation, policy and monitor against one session.run, both with {', '.join(done) or 'nothing'}",
        )
    for stage, times in zip(STAGES, stages.T, strict=True):
        report(f"tick.{stage}.p50_us", np.percentile(times, 50.0), "us", "lower")
    report("tick.missed", missed_measured, "ticks", "lower")
    report("tick.swap_missed", missed, "ticks", "lower")
    report("tick.swap_without_decision", silent, "ticks", "lower")


if __name__ == "__main__":
    main()
