"""The newest hour, summed up for the hub's metrics: STORE/figures.json, written by the ingest every ``FIGURES_S``.

It is the union of the store's rollups and of what the store has not taken yet (``live``).
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from contracts.atomic import write_atomically
from contracts.replay import StoredFile, stored_files, stored_policies
from fleet_hub.observe.rollup import FIGURES_FILE, ROWS_MAX, RobotSums, StoreFigures
from fleet_hub.rollout.trips import TRIP_MAX_S
from fleet_hub.store.columns import as_today
from fleet_hub.store.live import LiveFigures

WINDOW_S = 3600
FIGURES_S = 20.0
AHEAD_MAX_S = 300
"""A robot whose clock is further ahead than that is left out: the window would be of its time alone."""
_NS = 10**9
Key = tuple[str, str]
"""Robot and policy digest."""


def gather(store: Path, now_wall_ns: int, live: LiveFigures | None = None) -> StoreFigures:
    """Sums over minutes and trips of the WINDOW_S before the newest; raises StoreFormatError, OSError.

    Args:
        store: STORE.
        now_wall_ns: the hub's time.
        live: what the store has not taken yet, up to date; None for the store alone.
    """
    latest = now_wall_ns + AHEAD_MAX_S * _NS
    minutes = [file for file in stored_files(store, "minutes") if file.first_wall_ns <= latest]
    newest = max((min(file.last_wall_ns, latest) for file in minutes), default=0)
    newest = max(newest, live.newest_wall_ns) if live else newest
    since = newest - WINDOW_S * _NS
    sums: dict[Key, dict[str, Any]] = {}
    fresh = (live.minutes(since, latest), live.trips(since, latest)) if live else ((), ())
    for row in chain(_rows(store, "minutes", "minute_wall_ns", since, latest), fresh[0]):
        _add(_of(sums, row), _minute(row), row["latency_max_us"])
    for row in chain(_rows(store, "episodes", "end_wall_ns", since, latest), fresh[1]):
        _add(_of(sums, row), _trip(row), 0)
    versions = {policy.policy_digest: policy.policy_version for policy in stored_policies(store)}
    found = [
        RobotSums(robot=robot, policy=versions.get(digest) or digest[:12], **values)
        for (robot, digest), values in sorted(sums.items())
    ]
    return StoreFigures(newest, WINDOW_S, tuple(found[:ROWS_MAX]), max(len(found) - ROWS_MAX, 0))


def write_figures(store: Path, figures: StoreFigures) -> None:
    """Replace STORE/figures.json; raises OSError."""
    write_atomically(store / FIGURES_FILE, msgspec.json.encode(figures), durable=False)


def _rows(store: Path, kind: str, column: str, since_ns: int, until_ns: int) -> Iterable[dict[str, Any]]:
    files: list[StoredFile] = stored_files(store, kind, since_ns=since_ns, until_ns=until_ns)
    for file in files:
        within = [(column, ">=", since_ns), (column, "<=", until_ns)]
        table = pq.read_table(store / file.path, partitioning=None, filters=within)
        yield from as_today(kind, table).to_pylist()


def _of(sums: dict[Key, dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    return sums.setdefault((row["robot"], row["policy_digest"]), {"latency_max_us": 0})


def _minute(row: dict[str, Any]) -> dict[str, float]:
    entropy_ticks, drift_ticks = row["entropy_ticks"] or 0, row["drift_ticks"] or 0
    return {
        "ticks": row["ticks"], "interventions": row["interventions"], "stops": row["stops"],
        "latency_us": row["latency_p50_us"] * row["ticks"], "entropy_ticks": entropy_ticks,
        "entropy_nats": (row["entropy_mean_nats"] or 0.0) * entropy_ticks, "drift_ticks": drift_ticks,
        "drift": (row["drift_mean"] or 0.0) * drift_ticks,
    }  # fmt: skip


def _trip(row: dict[str, Any]) -> dict[str, float]:
    arrived = row["outcome"] == "arrived"
    return {
        "trips": 1, "trips_arrived": int(arrived), "trips_touched": int(row["contact"]),
        "arrived_s": row["time_s"] if arrived else 0.0, "capped_s": row["time_s"] if arrived else TRIP_MAX_S,
    }  # fmt: skip


def _add(into: dict[str, Any], values: dict[str, float], latency_max_us: int) -> None:
    for name, value in values.items():
        into[name] = into.get(name, 0) + value
    into["latency_max_us"] = max(into["latency_max_us"], latency_max_us)
