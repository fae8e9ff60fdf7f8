"""The replay store: one chart of the whole fleet, and one robot's minute out of a day of many.

``python -m benchmarks.store_queries [--quick]``. Generated rows go through the ingest's own writer: 24 M of them (20
robots, 6.7 h at 50 Hz), 1.2 M with ``--quick``. Observations repeat, so that they fit a disk; neither query reads them.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._report import quick_asked, report
from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Reason, Source
from contracts.replay import WALL_MAX_NS, stored_files
from fleet_hub.store.columns import MINUTE_NS
from fleet_hub.store.query import Answer, ReplayStore
from fleet_hub.store.replay import Ingest, Ingested
from fleet_hub.store.segments import Stretch

ROBOTS, RATE_HZ, TRIP_S = 20, 50, 30
ROWS, ROWS_QUICK = 24_000_000, 1_200_000
BATCH_ROWS = 126_000
"""About what eight segments hold; whole minutes."""
BEGIN_NS = 20_000 * 86_400 * 10**9
TURNS = 15
LOG = "ab" * 16


def rows_of(robot: int, first: int, count: int) -> np.ndarray:
    """DECISION_DTYPE[count] from tick ``first`` on: trips of 30 s, of two policies."""
    rng = np.random.default_rng((robot, first))
    rows = np.zeros(count, DECISION_DTYPE)
    rows["tick"] = tick = np.arange(first, first + count)
    rows["wall_ns"] = rows["mono_ns"] = BEGIN_NS + tick * (10**9 // RATE_HZ)
    rows["trip"], rows["flags"], rows["mode"] = 1 + tick // (TRIP_S * RATE_HZ), FLAG_ARMED, Mode.CONTROLLER
    rows["source"], rows["goal"] = Source.POLICY, (10.0, 0.0)
    rows["pose"] = rng.normal(0.0, 1.0, (count, 3))
    rows["pose"][tick % (TRIP_S * RATE_HZ) == TRIP_S * RATE_HZ - 1] = (10.0, 0.0, 0.0)
    rows["clearance_m"] = rng.uniform(0.1, 3.0, count)
    rows["raw_command"] = rows["final_command"] = rng.normal(0.5, 0.2, (count, 2))
    took = rng.random(count) < 0.01
    rows["final_command"][took], rows["reason"][took] = 0.0, Reason.OBSTACLE_AHEAD
    rows["total_us"], rows["late_us"] = rng.gamma(4.0, 100.0, count), rng.gamma(2.0, 30.0, count)
    rows["policy_digest"] = 1 + robot % 2
    return rows


def fill(data: Path, rows: int) -> None:
    """A store of so many decisions."""
    (data / "telemetry").mkdir()
    each, found = rows // ROBOTS, Ingested()
    with Ingest(data) as ingest:
        for robot in range(ROBOTS):
            for first in range(0, each, BATCH_ROWS):
                count = min(BATCH_ROWS, each - first)
                seqs = np.arange(first + 1, first + count + 1)
                stretch = Stretch(rows_of(robot, first, count), seqs, seqs)
                ingest._write(f"robot_{robot}", LOG, stretch, first, first + count, found)
        ingest.run()  # no logs are left to take: merges the minutes
    assert found.records == each * ROBOTS


def times_ms(ask: Callable[[int], int]) -> tuple[float, float]:
    """Median and worst of TURNS calls after a first one; every call must find rows."""
    took = []
    for turn in range(TURNS + 1):
        began_s = time.perf_counter()
        assert ask(turn) > 0
        took.append(1e3 * (time.perf_counter() - began_s))
    return statistics.median(took[1:]), max(took[1:])


def main() -> None:
    """Measure and print."""
    rows = ROWS_QUICK if quick_asked(__doc__.splitlines()[0]) else ROWS
    data = Path(tempfile.mkdtemp(prefix="outrider-store-"))
    minutes = rows // ROBOTS // RATE_HZ // 60
    draw = np.random.default_rng(1)

    def ask(
        question: Callable[[ReplayStore], Answer],
        robot: str = "",
        since_ns: int = 0,
        until_ns: int = WALL_MAX_NS,
    ) -> int:
        with ReplayStore(data / "store", robot, since_ns, until_ns) as store:
            return len(question(store).rows)

    def minute(_turn: int, narrowed: bool) -> int:
        robot, at_ns = f"robot_{draw.integers(ROBOTS)}", BEGIN_NS + int(draw.integers(minutes)) * MINUTE_NS
        files = (robot, at_ns, at_ns + MINUTE_NS) if narrowed else ()
        found = ask(lambda store: store.robot_minute(robot, at_ns), *files)
        assert found == 60 * RATE_HZ
        return found

    try:
        began_s = time.perf_counter()
        fill(data, rows)
        filled_s = time.perf_counter() - began_s
        files = stored_files(data / "store", "decisions")
        chart, chart_worst = times_ms(lambda _: ask(lambda store: store.fleet_chart(0, WALL_MAX_NS)))
        direct = (
            f"SELECT wall_ns // {MINUTE_NS}, count(DISTINCT robot), count(*), median(total_us), max(total_us) "
            "FROM decisions GROUP BY 1 ORDER BY 1"
        )
        began_s = time.perf_counter()
        ask(lambda store: store.query(direct))
        direct_ms = 1e3 * (time.perf_counter() - began_s)
        one, one_worst = times_ms(lambda turn: minute(turn, True))
        every, _ = times_ms(lambda turn: minute(turn, False))
    finally:
        shutil.rmtree(data)
    about = f"median of {TURNS}, store opened each time, page cache warm; {rows / 1e6:g} M rows in {len(files)} files"
    report(
        "query.fleet_chart_ms", chart, "ms", "lower", direct_ms,
        f"{minutes} minutes from the rollups, {about}; worst {chart_worst:.0f}; reference: from the decisions",
    )  # fmt: skip
    report(
        "query.robot_minute_ms", one, "ms", "lower", every,
        f"{60 * RATE_HZ} decisions, {about}; worst {one_worst:.0f}; reference: all files opened (no --robot, --since)",
    )  # fmt: skip
    report(
        "store.rows_per_s",
        rows / filled_s,
        "rows/s",
        "higher",
        None,
        "written, synced and catalogued, one process",
    )
    megabytes = sum(file.size_bytes for file in files) / 1e6
    report(
        "store.bytes_per_row",
        1e6 * megabytes / rows,
        "B",
        "lower",
        DECISION_DTYPE.itemsize,
        "generated rows: no figure for real ones",
    )


if __name__ == "__main__":
    main()
