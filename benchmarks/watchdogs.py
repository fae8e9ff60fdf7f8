"""From a failure to wheels that stand, end to end: agent, serial link, firmware, PyBullet, each a process of its own.

``python -m benchmarks.watchdogs [--quick] [--trials N]``: the agent's control process is killed, its comms process is
killed (nothing may happen), nothing is killed (how often a robot stops all the same), the line is unplugged, the board
is killed. Real time, one robot, the rules drive. Time in which this machine did not run the board is said beside it,
not taken off; and beside a stop that should not have been, how late a bare timer was that had the priority of control.
``--realtime``: control and that timer under SCHED_FIFO, as control should be on a robot; the boards are anyway.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks._report import report
from contracts.keyring import party_folder
from edge_agent.errors import AgentError
from edge_agent.heartbeat import remove_ring
from edge_agent.realtime import FIFO_PRIORITY, PRIORITY
from edge_agent.ros.client import RobotClient
from firmware_interface.emulator.fleet import BoardFleet
from firmware_interface.emulator.process import Emulator
from firmware_interface.protocol.frames import Fault, StopReason
from navigation.warehouse import load_warehouse
from sim.physics.boards import BoardDrive
from sim.physics.pybullet_physics import WheelReading
from sim.ros.bridge import FloorBridge
from sim.world.library import find_layout
from sim.world.run import FloorRun

ROBOT = "robot_1"
STANDING_RADPS = 0.1
DRIVING_RADPS = 2.0
WAIT_MAX_S = 120.0
QUIET_S = 1.0
"""So long after comms was killed nothing may have stopped."""
CAUSES = ("control killed", "comms killed", "nothing killed", "line unplugged", "board killed")
HARMLESS = ("comms killed", "nothing killed")
COMMS_AGE_S = 3.0
"""Comms is killed when it has started whole, not in the midst of its imports."""
BARE_LATE_MS = 10.0
BARE_BEFORE_NS = 200_000_000
BARE = """
import sys, time
before = time.monotonic_ns()
while True:
    time.sleep(0.005)
    now = time.monotonic_ns()
    if now - before > (5 + float(sys.argv[1])) * 1e6:
        print(now, now - before, flush=True)
    before = now
"""
"""A timer of 5 ms and nothing else: what it is late, this machine was."""


class Trial(NamedTuple):
    """``asked_ms``: until the board asks its wheels for zero; None where the board itself died, or nothing stopped."""

    cause: str
    asked_ms: float | None
    standing_ms: float | None
    from_radps: float
    stall_ms: float
    restarted: bool
    """The wheels turned again though nobody had armed."""
    why: str = ""
    """What the board said of a stop that should not have been."""
    bare_ms: float = 0.0
    """The longest that the bare timer did not run, from 200 ms before that stop on."""


class Watched(BoardDrive):
    """Keeps when the wheels turned how fast."""

    def __init__(self, run: FloorRun, boards: BoardFleet) -> None:
        super().__init__(run, boards)
        self.seen: list[tuple[int, float]] = []

    def after_step(self) -> WheelReading:
        """As it is, with a note of it."""
        reading = super().after_step()
        self.seen.append((time.monotonic_ns(), float(abs(reading.wheels_radps[0]).max())))
        return reading


def hurry(pid: int, realtime: bool) -> None:
    """Give a process the priority of control (``edge_agent.realtime``), where that is permitted."""
    with suppress(PermissionError):
        if realtime:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        else:
            os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)


class Bare:
    """The bare timer, and when it was late."""

    def __init__(self, path: Path, realtime: bool) -> None:
        self._path = path
        with path.open("wb") as out:
            command = [sys.executable, "-S", "-c", BARE, str(BARE_LATE_MS)]
            self._process = subprocess.Popen(command, stdout=out)
        hurry(self._process.pid, realtime)

    def gap_ms(self, stop_ns: int) -> float:
        """The longest time without it, from shortly before a stop until that is over."""
        time.sleep(BARE_BEFORE_NS / 1e9)
        found = [tuple(map(int, line.split())) for line in self._path.read_text().splitlines()]
        near = [gap for at, gap in found if at > stop_ns - BARE_BEFORE_NS and at - gap <= stop_ns]
        return max(near, default=0) / 1e6

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Rig:
    """The floor in this process, the agent and the board in theirs."""

    def __init__(self, folder: Path, realtime: bool) -> None:
        self._bare = Bare(folder / "bare.txt", realtime)
        layout = find_layout(Path("small"))
        self.run = FloorRun(load_warehouse(layout), 3, 1, "wheeled")
        self.fleet = BoardFleet(self.run.names, folder / "ports")
        self.drive = Watched(self.run, self.fleet)
        self.bridge = FloorBridge(self.run, boards=self.drive)
        self.ended = threading.Event()
        outrider = [sys.executable, "-m", "outrider.cli"]
        subprocess.run(
            [*outrider, "keys", "init", str(folder / "keys"), "--robots", ROBOT],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.state = folder / "state"
        self.agent = subprocess.Popen(
            [*outrider, "agent", "run", "--robot", ROBOT, "--layout", str(layout), "--state", str(self.state),
             "--keys", str(party_folder(folder / "keys", "robots", ROBOT)), "--no-hub",
             "--serial", self.fleet.ports[ROBOT], *(["--realtime"] if realtime else [])],
        )  # fmt: skip
        self.client = RobotClient(ROBOT, 5.0)

    def child(self, name: str) -> psutil.Process:
        """The agent's control or comms process."""
        for process in psutil.Process(self.agent.pid).children():
            with suppress(psutil.Error):
                if f"edge_agent.{name}" in process.cmdline():
                    return process
        raise RuntimeError(f"the agent has no {name} process now")

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        end_s = time.monotonic() + WAIT_MAX_S
        while not holds():
            if time.monotonic() > end_s:
                raise RuntimeError(f"waited {WAIT_MAX_S:g} s for {what}")
            time.sleep(0.02)

    def speed(self) -> float:
        return self.drive.seen[-1][1] if self.drive.seen else 0.0

    def get_going(self) -> None:
        """Arm, again where that was refused or did not hold, until the wheels turn."""

        def going() -> bool:
            if self.speed() >= DRIVING_RADPS:
                return True
            board = self.fleet.emulator(ROBOT)
            armed = board is not None and [e for e in board.events if e["event"] == "state"][-1:]
            if not armed or armed[0]["state"] != 1:
                with suppress(AgentError):
                    if armed and armed[0]["state"] == 3:
                        self.client.reset("watchdogs")
                    self.client.arm("watchdogs")
                time.sleep(0.5)
            return False

        self.wait("the robot to drive", going)

    def try_one(self, cause: str, rng: random.Random) -> Trial:
        """One trial; the robot drives before it."""
        self.get_going()
        time.sleep(rng.uniform(0.0, 0.1))
        if cause == "comms killed":
            self.wait("comms to run", self._comms_runs)
        board, before = self.fleet.emulator(ROBOT), self.speed()
        if board is None or before < DRIVING_RADPS:
            return self.try_one(cause, rng)
        mark, failed_ns = board.mark(), self._fail(cause, board)
        if cause in HARMLESS:
            return self._nothing_happens(cause, board, mark, failed_ns, before)
        self.wait("the wheels to stand", lambda: self._standing_ns(failed_ns) is not None)
        standing_ns = self._standing_ns(failed_ns)
        assert standing_ns is not None
        events = board.events[mark:]
        asked = [e["us"] for e in events if e["event"] == "asked" and e["on"] == 0]
        stalls = [e["gap_us"] for e in events if e["event"] == "stall" and e["us"] * 1000 <= standing_ns]
        time.sleep(QUIET_S)
        if cause == "line unplugged":
            board.control("plug")
        restarted = any(
            radps > DRIVING_RADPS
            for at_ns, radps in list(self.drive.seen)
            if at_ns > standing_ns + 200_000_000
        )
        return Trial(
            cause,
            asked[0] / 1000.0 - failed_ns / 1e6 if asked else None,
            (standing_ns - failed_ns) / 1e6,
            before,
            sum(stalls) / 1000.0,
            restarted,
        )

    def _comms_runs(self) -> bool:
        with suppress(RuntimeError, psutil.Error):
            return time.time() - self.child("comms").create_time() > COMMS_AGE_S
        return False

    def _nothing_happens(
        self, cause: str, board: Emulator, mark: int, failed_ns: int, before_radps: float
    ) -> Trial:
        """The robot drives on, or why not."""
        time.sleep(QUIET_S)
        events = board.events[mark:]
        states = [event for event in events if event["event"] == "state"]
        stalled_ms = sum(event["gap_us"] for event in events if event["event"] == "stall") / 1000.0
        if not states:
            return Trial(cause, None, None, before_radps, stalled_ms, False)
        stop_ns = int(states[0]["us"]) * 1000
        return Trial(
            cause,
            None,
            (stop_ns - failed_ns) / 1e6,
            before_radps,
            stalled_ms,
            False,
            json.dumps(states[:1]),
            self._bare.gap_ms(stop_ns),
        )

    def _standing_ns(self, after_ns: int) -> int | None:
        return next(
            (at for at, radps in list(self.drive.seen) if at > after_ns and radps < STANDING_RADPS), None
        )

    def _fail(self, cause: str, board: Emulator) -> int:
        """Make it happen; when it did, monotonic ns."""
        if cause == "nothing killed":
            return time.monotonic_ns()
        process = self.child(cause.split()[0]) if cause.split()[0] in ("control", "comms") else board.process
        failed_ns = time.monotonic_ns()
        if cause == "line unplugged":
            board.control("unplug")
        else:
            process.kill()
        return failed_ns

    def close(self) -> None:
        """End everything."""
        self._bare.close()
        self.agent.terminate()
        self.agent.wait(30)
        with suppress(OSError):
            remove_ring(json.loads((self.state / "control.json").read_bytes())["ring_name"])
        self.client.__exit__(None, None, None)
        self.bridge.close()
        self.fleet.close()


def measure(
    trials: int, folder: Path, seconds_max: float, causes: tuple[str, ...], realtime: bool
) -> list[Trial]:
    """``trials`` of each cause, or as many as the time allows."""
    rig, found, rng = Rig(folder, realtime), [], random.Random(1)
    end_s = time.monotonic() + seconds_max

    def work() -> None:
        try:
            for _ in range(trials):
                for cause in causes:
                    if time.monotonic() < end_s:
                        found.append(rig.try_one(cause, rng))
                        print(json.dumps(found[-1]._asdict()), file=sys.stderr, flush=True)
        finally:
            rig.ended.set()

    thread = threading.Thread(target=work)
    try:
        thread.start()
        rig.bridge.run(rig.ended.is_set)
        thread.join()
    finally:
        rig.close()
    return found


def _reasons(stopping: list[Trial]) -> str:
    """Why it stopped, in the board's words."""
    found = [json.loads(trial.why)[0] for trial in stopping]
    names = [
        str(Fault(event["faults"]).name) if event["faults"] else StopReason(event["reason"]).name
        for event in found
    ]
    late_ms = max((trial.bare_ms for trial in stopping), default=0.0)
    return (
        f"; stopped by: {', '.join(names).lower()}; a bare timer was {late_ms:.0f} ms late then"
        if names
        else ""
    )


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within about 45 s: one trial of each")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=900.0, help="no new trial after so long")
    parser.add_argument("--realtime", action="store_true", help="control under SCHED_FIFO")
    parser.add_argument("--only", choices=CAUSES, nargs="+", default=CAUSES, help="these causes")
    arguments = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    with tempfile.TemporaryDirectory(prefix="outrider-watchdogs-") as folder:
        trials = 1 if arguments.quick else arguments.trials
        seconds = 30.0 if arguments.quick else arguments.seconds
        found = measure(trials, Path(folder), seconds, tuple(arguments.only), arguments.realtime)
    for cause in arguments.only:
        mine = [trial for trial in found if trial.cause == cause]
        name = cause.replace(" ", "_")
        stopping = [trial for trial in mine if trial.standing_ms is not None]
        if cause in HARMLESS:
            report(
                f"watchdogs.{name}.stops",
                len(stopping),
                "stops",
                "lower",
                about=f"{len(mine)} trials{_reasons(stopping)}",
            )
            continue
        asked = [trial.asked_ms for trial in stopping if trial.asked_ms is not None]
        about = (
            f"{len(mine)} trials, {sum(trial.restarted for trial in mine)} restarted by themselves,"
            f" board stalled at most {max((trial.stall_ms for trial in mine), default=0.0):.0f} ms"
        )
        if asked:
            report(f"watchdogs.{name}.zero_asked_ms_max", max(asked), "ms", "lower", about=about)
        if stopping:
            worst = max(trial.standing_ms or 0.0 for trial in stopping)
            report(f"watchdogs.{name}.standing_ms_max", worst, "ms", "lower", about=about)


if __name__ == "__main__":
    main()
