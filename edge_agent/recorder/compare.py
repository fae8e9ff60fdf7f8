"""Two runs side by side: what is different, in figures, and the first tick at which they part."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import FLAG_ARMED, Reason, Source, Verdict
from edge_agent.recorder.incidents import Before, find_onsets
from edge_agent.recorder.reading import Log

PARTING_FIELDS = ("policy_digest", "source", "verdict", "reason", "final_command")
HOUR_NS = 3600 * 10**9
Rows = npt.NDArray[np.void]


class Difference(msgspec.Struct, frozen=True):
    """One figure of both runs; None where a run has none."""

    figure: str
    first: float | None
    second: float | None


class Comparison(msgspec.Struct, frozen=True):
    """Two runs. ``parted_tick``: the first tick of both at which they decide otherwise; None: never, or none common."""

    figures: tuple[Difference, ...]
    common_ticks: int
    parted_tick: int | None
    parted_field: str


def compare(first: Log, second: Log) -> Comparison:
    """Figures of two logs next to each other."""
    figures = [
        Difference(name, _number(figure, first.decisions), _number(figure, second.decisions))
        for name, figure in _FIGURES.items()
    ]
    figures += _shares("verdict", Verdict, first.decisions, second.decisions)
    figures += _shares("reason", Reason, first.decisions, second.decisions)
    figures += _shares("source", Source, first.decisions, second.decisions)
    figures.append(Difference("events", float(len(first.events)), float(len(second.events))))
    return Comparison(tuple(figures), *_parting(first.decisions, second.decisions))


def _number(figure: Callable[[Rows], Any], rows: Rows) -> float | None:
    if not len(rows):
        return None
    value = float(figure(rows))
    return value if np.isfinite(value) else None


def _hours(rows: Rows) -> float:
    return max(int(rows["wall_ns"].max()) - int(rows["wall_ns"].min()), 1) / HOUR_NS


def _clearance(rows: Rows) -> Any:
    seen = rows["clearance_m"][(rows["flags"] & FLAG_ARMED != 0) & (rows["clearance_m"] > 0)]
    return np.percentile(seen, 1) if len(seen) else np.nan


_FIGURES: dict[str, Callable[[Rows], Any]] = {
    "decisions": len,
    "duration_s": lambda rows: _hours(rows) * 3600,
    "armed_share": lambda rows: (rows["flags"] & FLAG_ARMED != 0).mean(),
    "trips": lambda rows: len(np.unique(rows["trip"])),
    "incidents_per_h": lambda rows: len(find_onsets(rows, Before())[0]) / _hours(rows),
    "speed_mean_mps": lambda rows: np.nanmean(np.abs(rows["final_command"][:, 0])),
    "clearance_p1_m": _clearance,
    "tick_p50_us": lambda rows: np.percentile(rows["total_us"], 50),
    "tick_p99_us": lambda rows: np.percentile(rows["total_us"], 99),
    "late_p99_us": lambda rows: np.percentile(rows["late_us"], 99),
    "infer_p99_us": lambda rows: np.percentile(rows["infer_us"], 99),
}


def _shares(field: str, kind: Any, first: Rows, second: Rows) -> list[Difference]:
    """The share of each value that either run has."""
    found = []
    for number in np.union1d(first[field], second[field]).tolist():
        name = kind(number).name.lower() if number in set(kind) else f"unknown_{number}"
        shares = [float((rows[field] == number).mean()) if len(rows) else None for rows in (first, second)]
        found.append(Difference(f"{field}.{name}", shares[0], shares[1]))
    return found


def _parting(first: Rows, second: Rows) -> tuple[int, int | None, str]:
    ticks, left, right = np.intersect1d(first["tick"], second["tick"], return_indices=True)
    if not len(ticks):
        return 0, None, ""
    best: tuple[int, str] | None = None
    for field in PARTING_FIELDS:
        one, other = (
            np.ascontiguousarray(rows[field][place]).view(np.uint8).reshape(len(ticks), -1)
            for rows, place in ((first, left), (second, right))
        )
        parted = np.flatnonzero((one != other).any(axis=1))
        if len(parted) and (best is None or int(ticks[parted[0]]) < best[0]):
            best = int(ticks[parted[0]]), field
    return len(ticks), best[0] if best else None, best[1] if best else ""
