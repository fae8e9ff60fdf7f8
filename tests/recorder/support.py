"""Logs for tests, written by the real recorder."""

import importlib
import subprocess
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typer.testing import CliRunner

from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Reason, Source, Verdict
from edge_agent.recorder.reading import find_folders, load_log
from edge_agent.recorder.recorder import Recorder
from tests.support.fleet import Fleet
from tests.support.waiting import wait_for

WALL_NS = 1_790_000_000_000_000_000
TICK_NS = 50_000_000
DIGEST = bytes([0xAA]) * 32
ENDS_MAX = 5
CONFIG = bytes([0xC0]) * 8


def run_logs(*arguments: str, verb: str = "logs") -> subprocess.CompletedProcess[str]:
    """``outrider logs ...`` (or another verb), in this process."""
    app = importlib.import_module(f"outrider.verbs.{verb}").app
    done = CliRunner().invoke(app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def drive(count: int, seed: int = 0, first_tick: int = 1) -> npt.NDArray[np.void]:
    """DECISION_DTYPE[count] of an armed robot at 20 Hz that wanders: every field has something in it."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, DECISION_DTYPE)
    rows["tick"] = np.arange(count) + first_tick
    rows["mono_ns"] = np.arange(count) * TICK_NS + 10**12 + rng.integers(0, 50_000, count)
    rows["wall_ns"] = rows["mono_ns"] - 10**12 + WALL_NS
    rows["policy_digest"] = np.frombuffer(DIGEST, np.uint8)
    rows["source"], rows["flags"], rows["mode"] = Source.POLICY, FLAG_ARMED, Mode.CONTROLLER
    steps = rng.normal(0.0, 0.02, (count, 36)).astype(np.float32)
    rows["observation"][:, :36] = np.abs(np.cumsum(steps, axis=0) + 3.0)
    rows["observation"][2:, 36:72] = rows["observation"][:-2, :36]
    rows["observation"][:, 72:] = rng.normal(0.0, 1.0, (count, 11))
    rows["raw_command"] = rng.normal(0.5, 0.1, (count, 2))
    rows["final_command"] = rows["raw_command"]
    rows["other_command"], rows["other_reduction"] = np.nan, np.nan
    rows["config_digest"] = np.frombuffer(CONFIG, np.uint8)
    rows["entropy_nats"] = 1.2 + 0.1 * np.sin(np.arange(count))
    rows["clearance_m"] = 1.0 + rng.random(count)
    rows["velocity"] = rows["observation"][:, 81:]
    rows["scan_age_us"] = rng.integers(1_000, 30_000, count)
    rows["total_us"] = rng.integers(300, 900, count)
    return rows


def stop_at(
    rows: npt.NDArray[np.void], row: int, reason: Reason = Reason.SCAN_STALE, count: int = 10
) -> None:
    """Make an incident: ``count`` ticks stopped from ``row`` on."""
    rows["verdict"][row : row + count], rows["reason"][row : row + count] = Verdict.STOP, reason
    rows["final_command"][row : row + count] = 0.0


def write_log(
    state: Path,
    rows: npt.NDArray[np.void],
    seal: bool = True,
    robot: str = "robot_1",
    batch: int = 20,
) -> Recorder:
    """Record everything, seal what is finished, close."""
    recorder = Recorder(state, robot)
    records = [row.tobytes() for row in rows]
    now_ns = time.monotonic_ns()
    for start in range(0, len(records), batch):
        recorder.decisions(records[start : start + batch])
        if seal:
            recorder.maintain(now_ns + start * TICK_NS)
    while seal and recorder.seal_some():
        pass
    recorder.close()
    return recorder


def settled(fleet: Fleet, robot: str = "robot_1") -> bool:
    """Whether comms is there, has taken everything out of the ring, and the hub has all of that."""
    with fleet.client() as client:
        status = next(one for one in client.fleet().robots if one.robot == robot)
    if not status.online or fleet.ring_waiting(robot):
        return False
    return load_log(fleet.state(robot) / "log").records <= status.durable_seq


def end_with_all_at_the_hub(fleet: Fleet, robot: str = "robot_1") -> None:
    """End comms, which has 3 s for its last words: where the machine stood still in them, it gets others."""
    for _ in range(ENDS_MAX):
        wait_for(lambda: settled(fleet, robot), f"everything of {robot} at the hub")
        assert fleet.end_comms(robot) == 0
        (hub_folder,) = find_folders(fleet.folder / "data" / "telemetry", robot)
        if load_log(hub_folder).records == load_log(fleet.state(robot) / "log").records:
            return
        fleet.start_comms(robot)
    raise AssertionError(f"comms ended {ENDS_MAX} times before the hub had its last words")
