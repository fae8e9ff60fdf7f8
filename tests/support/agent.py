"""For tests of the agent: a tick core in memory with a clock that is set by hand, and a real agent."""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from contracts.decision import Source
from contracts.robot import AMR_SMALL
from edge_agent.errors import RobotSilentError
from edge_agent.guard.gate import Gate
from edge_agent.heartbeat import remove_ring
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.trial import TrialConfig
from edge_agent.observe.intake import Intake
from edge_agent.observe.slots import Goal, Slots, Stamp, Way
from edge_agent.tick import TickCore
from navigation.controllers.dwa import DwaController
from navigation.novelty import Novelty
from navigation.route import Route, cell_costs
from navigation.warehouse import load_warehouse
from safety.monitor import SafetyMonitor
from tests.support.domain import domain_id
from tests.support.waiting import WAIT_MAX_S, wait_for

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = ROOT / "sim" / "world" / "library" / "small.yaml"
RATE_HZ = 20
PERIOD_NS = 1_000_000_000 // RATE_HZ
START = (1.5, 2.0, 0.0)
GOAL = (8.0, 4.2)
NO_ODOMETRY = "no odometry that says it stands"


_NO_CLOCK: Any = None


class FakePolicy:
    """A policy that answers what the test says, or raises it."""

    def __init__(self, answer: Any = (0.5, 0.0), version: str = "v1", spend_ns: int = 0) -> None:
        self.answer, self.version, self.release_counter = answer, version, 1
        self.digest = f"{sum(version.encode()):064x}"
        self.digest_bytes = np.frombuffer(bytes.fromhex(self.digest), dtype=np.uint8)
        self.novelty: Novelty | None = None
        self.entropy_nats = math.nan
        self.spend_ns, self.clock = spend_ns, _NO_CLOCK
        self.calls = 0

    def run(self, _: npt.NDArray[np.float32]) -> tuple[float, float]:
        """The answer, after ``spend_ns`` on the clock."""
        self.calls += 1
        if self.clock is not None:
            self.clock.now_ns += self.spend_ns
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: tuple[float, float] = self.answer
        return answer


class Clock:
    """Monotonic time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


class ListRing:
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[npt.NDArray[np.void]] = []

    def push(self, record: npt.NDArray[np.void]) -> bool:
        self.records.append(record[0].copy())
        return True

    def touch(self, record: npt.NDArray[np.void]) -> None:
        pass

    def beat(self, now_ns: int) -> None:
        pass


class ListSink:
    """Keeps every command."""

    def __init__(self) -> None:
        self.commands: list[tuple[float, float]] = []
        self.stamps: list[Stamp] = []
        self.error: Exception | None = None

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        if self.error:
            raise self.error
        self.commands.append((speed_mps, turn_rate_radps))
        self.stamps.append(stamp)


_ROUTE: list[Route] = []


class Bench:
    """A tick core with everything around it in memory."""

    def __init__(self, trial: TrialConfig | None = None, stamped: bool = True) -> None:
        if not _ROUTE:
            _ROUTE.append(Route(cell_costs(load_warehouse(LAYOUT)), *GOAL))
        self.clock, self.ring, self.sink, self.slots = Clock(), ListRing(), ListSink(), Slots()
        self.gate = Gate(SafetyMonitor(AMR_SMALL))
        self.ladder = Ladder(DwaController(AMR_SMALL, 1 / RATE_HZ), PERIOD_NS, 1 / RATE_HZ, trial, self.clock)
        self.wall_apart_ns = 7_000_000_000
        """Wall time, which the sensors stamp with, less monotonic time; a test may set the clock."""
        self.core = TickCore(
            AMR_SMALL, RATE_HZ, 1.0, self.slots, self.ladder, self.gate, self.sink, self.ring, self.clock,
            lambda: self.clock.now_ns + self.wall_apart_ns, stamped=stamped,
        )  # fmt: skip
        self.intake = Intake(self.slots, AMR_SMALL, self._route)
        self.velocity, self.pose, self._moved_ns = (0.0, 0.0), START, self.clock.now_ns
        self.intake.goal("map", *GOAL)
        self.drive(1)
        assert self.gate.arm() == ""

    def _route(self, goal: Goal) -> None:
        self.slots.way = Way(goal, _ROUTE[0])

    @property
    def stamp(self) -> Stamp:
        """What a sensor stamps its messages with now: the wall clock, far from our monotonic one."""
        return divmod(self.clock.now_ns + self.wall_apart_ns, 1_000_000_000)

    def scan(self, ranges: npt.NDArray[np.float32] | None = None) -> None:
        """A scan arrives; without ``ranges`` nothing is in reach."""
        lidar = AMR_SMALL.lidar
        if ranges is None:
            ranges = np.full(lidar.rays, np.inf, dtype=np.float32)
        self.intake.scan(
            ranges,
            lidar.angle_min_rad,
            lidar.angle_step_rad,
            lidar.range_max_m,
            self.stamp,
            self.clock.now_ns,
        )

    def odometry(self) -> None:
        """Odometry arrives, from where the robot has got to at its velocity."""
        elapsed_s = (self.clock.now_ns - self._moved_ns) / 1e9
        self._moved_ns = self.clock.now_ns
        speed, turn_rate = self.velocity
        if abs(speed) < 10.0 and math.isfinite(turn_rate):
            x_m, y_m, heading = self.pose
            ahead = speed * elapsed_s
            self.pose = (
                x_m + ahead * math.cos(heading), y_m + ahead * math.sin(heading), heading + turn_rate * elapsed_s
            )  # fmt: skip
        half = 0.5 * self.pose[2]
        rotation = (0.0, 0.0, math.sin(half), math.cos(half))
        self.intake.odometry("map", self.pose[:2], rotation, self.velocity, self.clock.now_ns, self.stamp)

    def tick(self, fresh: bool = True) -> npt.NDArray[np.void]:
        """One period passes, ``fresh`` data arrive, one tick runs; its record."""
        self.clock.now_ns += PERIOD_NS
        if fresh:
            self.scan()
            self.odometry()
        return self.run()

    def run(self) -> npt.NDArray[np.void]:
        """One tick, now."""
        self.core.tick(self.clock.now_ns, 0)
        return self.ring.records[-1]

    def drive(self, ticks: int) -> npt.NDArray[np.void]:
        """Ticks with fresh data in which the base follows the commands; the last record."""
        for _ in range(ticks):
            record = self.tick()
            self.velocity = self.sink.commands[-1]
        return record

    @property
    def source(self) -> Source:
        """Who proposed the last command."""
        return Source(int(self.ring.records[-1]["source"]))


class LiveAgent:
    """``outrider agent run`` and a fake robot as processes, and a client in this one."""

    def __init__(self, folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        draw = random.SystemRandom()
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id()))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self.robot = f"robot_{os.getpid()}_{draw.randrange(10**6)}"
        self.state, self._keys = folder / "state", keys / "robots" / "robot_1"
        self.process: subprocess.Popen[str] | None = None
        self._robot_process: subprocess.Popen[str] | None = None
        self.commands: list[tuple[int, float, float]] = []
        self._clients: list[Any] = []

    def command(self, *more: str) -> list[str]:
        """The command line of the agent."""
        return [
            sys.executable, "-m", "outrider.cli", "agent", "run", "--robot", self.robot,
            "--layout", str(LAYOUT), "--state", str(self.state), "--keys", str(self._keys), "--no-hub", *more,
        ]  # fmt: skip

    def start(self) -> None:
        """Start agent and robot; wait until the robot hears commands and the agent hears scans."""
        self.process = subprocess.Popen(self.command(), stderr=subprocess.PIPE, text=True, cwd=ROOT)
        numbers = [str(number) for number in (*START[:2], *GOAL)]
        command = [sys.executable, "-m", "tests.support.fake_robot", self.robot, *numbers]
        self._robot_process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        threading.Thread(target=self._listen, args=(self._robot_process.stdout,), daemon=True).start()
        wait_for(lambda: len(self.commands) > 10, "commands to the robot")
        wait_for(lambda: self.status()["safety"].reason_text == "not armed", "a scan at the agent")

    def _listen(self, lines: Any) -> None:
        for line in lines:
            at_ns, speed, turn_rate = line.split()
            self.commands.append((int(at_ns), float(speed), float(turn_rate)))

    def order(self, word: str) -> int:
        """Tell the fake robot; returns the monotonic time in ns."""
        assert self._robot_process is not None
        assert self._robot_process.stdin is not None
        self._robot_process.stdin.write(word + "\n")
        self._robot_process.stdin.flush()
        return time.monotonic_ns()

    def client(self) -> Any:
        """One ROS client for the whole test."""
        from edge_agent.ros.client import RobotClient

        if not self._clients:
            self._clients.append(RobotClient(self.robot, WAIT_MAX_S))
        return self._clients[0]

    def status(self) -> dict[str, Any]:
        """Safety, decision and policy status."""
        found: dict[str, Any] = self.client().status()
        return found

    def settled(self, ask: Callable[[], Any]) -> Any:
        """What ``ask`` is answered, asked again where a busy machine had not brought the odometry in time."""
        return wait_for(lambda: NO_ODOMETRY not in str(answer := ask()) and answer, "an answer with odometry")

    def arm(self) -> None:
        """Arm, once the robot stands, and wait until it drives."""

        def armed() -> bool:
            try:
                answer = self.client().arm("test")
            except RobotSilentError:  # it asked one that was killed, and that DDS still knows of
                return False
            passing = "moves" in answer.message or NO_ODOMETRY in answer.message  # or it is late
            assert answer.success or passing, answer.message
            return bool(answer.success)

        wait_for(armed, "arming", 2.0 * WAIT_MAX_S)
        wait_for(lambda: self.commands[-1][1] > 0.2, "driving")

    def child(self, name: str) -> psutil.Process:
        """The running control or comms process."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)

        def find() -> psutil.Process | None:
            for child in parent.children():
                with contextlib.suppress(psutil.Error):  # one that has just ended is not the one
                    if f"edge_agent.{name}" in child.cmdline():
                        return child
            return None

        found: psutil.Process = wait_for(find, f"{name} runs")
        return found

    def control_config(self) -> dict[str, Any]:
        """What the supervisor wrote for control."""
        config: dict[str, Any] = json.loads((self.state / "control.json").read_text())
        return config

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the agent; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_MAX_S)

    def close(self) -> None:
        """End every process this test started."""
        for client in self._clients:
            client.__exit__(None, None, None)
        if self.process is not None:
            if self.process.poll() is None:
                self.end()
            assert self.process.stderr is not None
            self.process.stderr.close()
            remove_ring(self.control_config()["ring_name"])  # a killed supervisor leaves it
        if self._robot_process is not None:
            assert self._robot_process.stdin is not None
            self._robot_process.stdin.close()
            try:
                self._robot_process.wait(5)
            except subprocess.TimeoutExpired:
                self._robot_process.kill()
                self._robot_process.wait()
            assert self._robot_process.stdout is not None
            self._robot_process.stdout.close()
