"""The control tick against a plain ``session.run`` at the same cadence, interleaved in one process.

``python -m benchmarks.edge_tick [--quick] [--rate 20] [--policy FILE.onnx|FILE.outrider]``. Prints JSON lines.

Each period holds one real tick (``edge_agent.loop``: encoder, policy, monitor, command and record; everything
but ROS) and, half a period later, one ``session.run`` as people write it: default options, a fresh feed.
"""

import argparse
import itertools
import math
import secrets
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks._report import report
from contracts.bundle import POLICY_MEMBER
from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT
from contracts.observation import OBSERVATION_SIZE
from contracts.ring import RingReader, RingWriter
from contracts.robot import AMR_SMALL
from edge_agent.actuate.sink import NoSink
from edge_agent.control import raise_priority
from edge_agent.guard.gate import Gate
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.policy import WARM_RUNS, Policy
from edge_agent.loop import ControlLoop
from edge_agent.observe.slots import Goal, Odometry, Scan, Slots, Way
from edge_agent.tick import TickCore
from navigation.controllers.dwa import DwaController
from navigation.route import Route, cell_costs
from navigation.warehouse import parse_warehouse
from safety.monitor import SafetyMonitor

HIDDEN = 128
SECONDS, SECONDS_QUICK = 120.0, 26.0
SWAPS, SWAP_PAUSE_S = 20, 0.35
SETTLE_TICKS = 20
STAGES = ("encode", "infer", "guard")
NS = 1_000_000_000
Times = npt.NDArray[np.float64]
FLOOR = """
{name: bench, width_m: 12, height_m: 8, people: 0,
 shelves: [{x_m: 6, y_m: 3, length_m: 4, depth_m: 0.8}],
 stations: [{name: p, kind: pick, x_m: 2, y_m: 2}, {name: d, kind: drop, x_m: 10, y_m: 6}]}
"""


def random_policy() -> bytes:
    """An 83-128-128-2 network of random weights within the robot's limits."""
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
        value = ONNX_OUTPUT if layer == len(sizes) - 2 else f"a{layer}"
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [value]))
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


class Bench:
    """A tick core with everything but ROS, fed with scans of the inside of a room."""

    def __init__(self, network: bytes, rate_hz: int) -> None:
        self.network = network
        self.slots = Slots()
        warehouse = parse_warehouse(FLOOR)
        goal = Goal(10.0, 6.0, 1)
        self.slots.goal, self.slots.way = goal, Way(goal, Route(cell_costs(warehouse), goal.x_m, goal.y_m))
        self.ladder = Ladder(DwaController(AMR_SMALL), NS // rate_hz)
        self.ladder.policy = self.make_policy()
        self.gate = Gate(SafetyMonitor(AMR_SMALL))
        self.ring = RingWriter(f"bench-{secrets.token_hex(4)}")
        self.reader = RingReader(self.ring.path.name.removeprefix("outrider-"))
        self.core = TickCore(AMR_SMALL, rate_hz, 1.0, self.slots, self.ladder, self.gate, NoSink(), self.ring)
        self.loop = ControlLoop(self.core, NS // rate_hz)
        self._rng = np.random.default_rng(5)
        self.feed()

    def make_policy(self) -> Policy:
        """A new session, warmed as the loader warms it."""
        policy = Policy(self.network, "ab" * 32, "bench", 1)
        for _ in range(WARM_RUNS):
            policy.run(np.zeros(OBSERVATION_SIZE, dtype=np.float32))
        return policy

    def feed(self) -> None:
        """A new scan and odometry, and comms' part of the ring."""
        ranges = self._rng.uniform(1.5, 9.0, AMR_SMALL.lidar.rays).astype(np.float32)
        ranges[ranges > AMR_SMALL.lidar.range_max_m] = math.inf
        now_ns = time.monotonic_ns()
        self.slots.scan = Scan(ranges, now_ns)
        self.slots.odometry = Odometry((3.0, 4.5, 0.3), (0.4, 0.1), now_ns)
        self.reader.release(self.reader.waiting)

    def wait_tick(self) -> None:
        """Until the next tick is over."""
        ticks = self.core.ticks
        while self.core.ticks == ticks:
            time.sleep(0.001)

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
    ticks, references, stages = [], [], []
    for number in range(SETTLE_TICKS + int(seconds * rate_hz)):
        bench.wait_tick()
        time.sleep(0.4 / rate_hz)
        began_ns = time.monotonic_ns()
        reference.run([ONNX_OUTPUT], {ONNX_INPUT: observation.copy()})
        ended_ns = time.monotonic_ns()
        bench.feed()
        if number >= SETTLE_TICKS and bench.core.latest is not None:
            ticks.append(bench.core.latest.total_ns / 1e3)
            references.append((ended_ns - began_ns) / 1e3)
            stages.append([float(bench.core.record[f"{stage}_us"][0]) for stage in STAGES])
    return np.array(ticks), np.array(references), np.array(stages)


def swap(bench: Bench) -> tuple[int, int]:
    """Ticks missed and ticks without a decision during ``SWAPS`` swaps with loading in the background."""
    missed, ticks, produced = bench.loop.missed, bench.core.ticks, bench.reader.produced

    def load() -> None:
        bench.ladder.incoming = bench.make_policy()

    for _ in range(SWAPS):
        loader = threading.Thread(target=load)
        loader.start()
        end_s = time.monotonic() + SWAP_PAUSE_S
        while time.monotonic() < end_s or loader.is_alive():
            bench.wait_tick()
            bench.feed()
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
    arguments = parser.parse_args()
    raise_priority()
    bench = Bench(read_policy(arguments.policy), arguments.rate)
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
        )
    for stage, times in zip(STAGES, stages.T, strict=True):
        report(f"tick.{stage}.p50_us", np.percentile(times, 50.0), "us", "lower")
    report("tick.missed", missed_measured, "ticks", "lower")
    report("tick.swap_missed", missed, "ticks", "lower")
    report("tick.swap_without_decision", silent, "ticks", "lower")


if __name__ == "__main__":
    main()
