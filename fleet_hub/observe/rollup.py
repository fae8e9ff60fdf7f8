"""How each policy does at each site, summed up by the ingest from its rollups; the hub reads it for its metrics.

No Arrow here: the hub's process does without. ``store.figures`` writes the file.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

FIGURES_FILE = "figures.json"
FIGURES_MAX_BYTES = 8 * 1024**2
ROWS_MAX = 16_384
"""Robots times policies; more are counted, not kept."""
POLICIES_MAX, COHORTS_MAX = 16, 16
"""As labels; the rest is "other"."""
OTHER, NO_SITE, NO_POLICY = "other", "none", "none"
Text = Annotated[str, msgspec.Meta(max_length=128)]


class RobotSums(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One robot under one policy in the window."""

    robot: Text
    policy: Text
    """Version, else the digest's beginning; "" where the rules drove."""
    ticks: int = 0
    interventions: int = 0
    stops: int = 0
    latency_us: float = 0.0
    """Median of each minute, times its ticks."""
    latency_max_us: int = 0
    entropy_ticks: int = 0
    entropy_nats: float = 0.0
    drift_ticks: int = 0
    drift: float = 0.0
    trips: int = 0
    trips_arrived: int = 0
    trips_touched: int = 0
    arrived_s: float = 0.0
    """Time of the trips that arrived."""
    capped_s: float = 0.0
    """Time of all, in which one that did not arrive took the longest a trip may take."""


class StoreFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the newest rollups say."""

    newest_wall_ns: int
    """The newest record, or minute's beginning, that is in them."""
    window_s: int
    sums: Annotated[tuple[RobotSums, ...], msgspec.Meta(max_length=ROWS_MAX)] = ()
    left_out: int = 0


class PolicyFigures(msgspec.Struct, frozen=True):
    """A policy's sums at one site."""

    policy: str
    cohort: str
    sums: RobotSums


def read_figures(path: Path) -> StoreFigures | None:
    """The newest figures; None where there are none, or none that are whole."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FIGURES_MAX_BYTES), type=StoreFigures)
    except (OSError, msgspec.MsgspecError):
        return None


def by_policy_and_cohort(figures: StoreFigures, sites: Mapping[str, str]) -> tuple[PolicyFigures, ...]:
    """Sums by policy and site (the cohort): at most POLICIES_MAX by COHORTS_MAX and what is left of each."""
    ticks: dict[str, int] = defaultdict(int)
    robots: dict[str, int] = defaultdict(int)
    for one in figures.sums:
        ticks[one.policy or NO_POLICY] += one.ticks
        robots[sites.get(one.robot, "") or NO_SITE] += 1
    policies = sorted(ticks, key=lambda name: (-ticks[name], name))[:POLICIES_MAX]
    cohorts = sorted(robots, key=lambda name: (-robots[name], name))[:COHORTS_MAX]
    found: dict[tuple[str, str], RobotSums] = {}
    for one in figures.sums:
        policy, cohort = one.policy or NO_POLICY, sites.get(one.robot, "") or NO_SITE
        key = (policy if policy in policies else OTHER, cohort if cohort in cohorts else OTHER)
        found[key] = _sum(found[key], one) if key in found else one
    return tuple(PolicyFigures(*key, sums) for key, sums in sorted(found.items()))


def _sum(first: RobotSums, second: RobotSums) -> RobotSums:
    added = {
        name: getattr(first, name) + getattr(second, name)
        for name in RobotSums.__struct_fields__
        if name not in ("robot", "policy", "latency_max_us")
    }
    worst = max(first.latency_max_us, second.latency_max_us)
    return msgspec.structs.replace(first, **added, latency_max_us=worst)


class RollupReader:
    """The file as it is now: read anew whenever it has been replaced."""

    def __init__(self, path: Path, sites: Mapping[str, str]) -> None:
        """Nothing is read yet; ``sites`` are the robots' of the fleet."""
        self._path, self._sites = path, sites
        self._seen = (0, 0)
        self._newest_ns = 0
        self._policies: tuple[PolicyFigures, ...] = ()

    def policies(self) -> tuple[PolicyFigures, ...]:
        """By policy and site; the last ones known where the file is unreadable."""
        try:
            found = self._path.stat()
        except OSError:
            return self._policies
        if (found.st_ino, found.st_mtime_ns) != self._seen:
            self._seen = (found.st_ino, found.st_mtime_ns)
            if (figures := read_figures(self._path)) is not None:
                self._newest_ns = figures.newest_wall_ns
                self._policies = by_policy_and_cohort(figures, self._sites)
        return self._policies

    def age_s(self, now_wall_ns: int) -> float | None:
        """Of the newest minute that ``policies`` knew of; None without any."""
        return max(now_wall_ns - self._newest_ns, 0) / 1e9 if self._newest_ns else None
