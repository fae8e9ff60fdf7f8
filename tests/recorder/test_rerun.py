"""The monitor again over a recorded drive: the agent's own tick, among walls, made the records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE, FLAG_BLENDED, Verdict
from contracts.robot import AMR_SMALL
from contracts.scan import SCAN_DTYPE
from edge_agent.observe.slots import Scan
from edge_agent.recorder.recorder import Recorder
from tests.recorder.support import run_logs
from tests.support.agent import Bench, FakePolicy

WALL_X_M = 5.0
SECONDS = 16


def slot_of(scan: Scan, wall_ns: int) -> bytes:
    """What control would put into the ring."""
    slot = np.zeros(1, SCAN_DTYPE)
    slot["arrived_ns"], slot["wall_ns"], slot["count"] = scan.arrived_ns, wall_ns, scan.ranges_m.size
    slot["angle_min_rad"], slot["angle_step_rad"] = (
        AMR_SMALL.lidar.angle_min_rad,
        AMR_SMALL.lidar.angle_step_rad,
    )
    slot["range_max_m"] = AMR_SMALL.lidar.range_max_m
    slot["ranges_m"][0, : scan.ranges_m.size] = scan.ranges_m
    return slot.tobytes()


@pytest.fixture(scope="module")
def driven() -> tuple[np.ndarray, list[bytes]]:
    """DECISION_DTYPE[n] of a policy that drives at a wall, then loses its lidar; and the scans."""
    bench = Bench(stamped=False)
    bench.ladder.policy = FakePolicy((0.8, 0.05))
    lidar, scans = AMR_SMALL.lidar, []
    angles = lidar.angle_min_rad + lidar.angle_step_rad * np.arange(lidar.rays)
    for tick in range(SECONDS * 20):
        bench.clock.now_ns += 50_000_000
        bench.odometry()
        if tick < SECONDS * 20 - 40:
            bench.clock.now_ns -= 5_000_000
            x_m, _, heading = bench.pose
            with np.errstate(divide="ignore"):
                away_m = (WALL_X_M - x_m) / np.cos(angles + heading)
            bench.scan(np.where((away_m > 0) & (away_m < 8.0), away_m, np.inf).astype(np.float32))
            bench.clock.now_ns += 5_000_000
            assert bench.slots.scan is not None
            scans.append(slot_of(bench.slots.scan, bench.slots.scan.arrived_ns + bench.wall_apart_ns))
        else:
            scans.append(b"")
        bench.run()
        bench.velocity = bench.sink.commands[-1]
    rows = np.array(bench.ring.records[-len(scans) :], DECISION_DTYPE)
    assert {Verdict.PASS, Verdict.LIMIT, Verdict.STOP} <= set(rows["verdict"].tolist())
    return rows, scans


def replayed(folder: Path, rows: np.ndarray, scans: list[bytes], *options: str) -> tuple[int, dict[str, Any]]:
    recorder = Recorder(folder, "robot_1")
    for row, scan in zip(rows, scans, strict=True):
        recorder.scans([scan] if scan else [])
        recorder.decisions([row.tobytes()])
    recorder.close()
    done = run_logs("replay", str(folder), "--json", *options)
    return done.returncode, json.loads(done.stdout)["monitor"]


def test_the_monitor_rules_the_same_again(tmp_path: Path, driven: tuple[np.ndarray, list[bytes]]) -> None:
    code, found = replayed(tmp_path, *driven)
    assert (code, found["differs"]) == (0, [])
    assert found["same"] == found["compared"] > 100
    assert sum(found["left_out"].values()) + found["compared"] == len(driven[0])
    assert "no zones" in found["monitor"]
    plain = run_logs("replay", str(tmp_path))
    assert "decisions the same" in plain.stdout
    assert "cannot     arming" in plain.stdout


def test_a_ruling_that_was_changed_shows(tmp_path: Path, driven: tuple[np.ndarray, list[bytes]]) -> None:
    rows = driven[0].copy()
    limited = np.flatnonzero((rows["verdict"] == Verdict.LIMIT) & (rows["tick"] > 90))[0]
    rows["final_command"][limited] = rows["raw_command"][limited]
    code, found = replayed(tmp_path, rows, driven[1])
    assert code == 1
    assert [one["tick"] for one in found["differs"]] == [int(rows["tick"][limited])]
    assert found["compared"] - found["same"] == 1


def test_what_cannot_be_run_again_is_left_out_by_name(
    tmp_path: Path, driven: tuple[np.ndarray, list[bytes]]
) -> None:
    rows, scans = driven[0].copy(), list(driven[1])
    blended = int((rows["flags"][60:-1] & FLAG_BLENDED != 0).sum())  # the last one has no scan
    plain = np.flatnonzero(rows["flags"] & FLAG_BLENDED == 0)
    rows["flags"][plain[plain > 60][5]] |= FLAG_BLENDED
    scans[-1] = b""
    rows["mono_ns"][-1] += 10**9  # a gap, and no scan after it
    _, found = replayed(tmp_path, rows, scans)
    left = found["left_out"]
    assert left["without a raw scan"] == 1
    assert sum(count for why, count in left.items() if why.startswith("blended")) == blended + 1
    assert sum(count for why, count in left.items() if "first 3 s" in why) == 60


def test_without_raw_scans_nothing_is_compared_and_it_says_so(
    tmp_path: Path, driven: tuple[np.ndarray, list[bytes]]
) -> None:
    code, found = replayed(tmp_path, driven[0], [b""] * len(driven[0]))
    assert (code, found["compared"], found["left_out"]) == (0, 0, {"without a raw scan": len(driven[0])})
    done = run_logs("replay", str(tmp_path), "--no-monitor")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    (tmp_path / "control.json").write_text("{}")
    done = run_logs("replay", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
