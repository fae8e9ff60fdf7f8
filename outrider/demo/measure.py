"""What the robots' own logs and the floor's journal say about the drive. Pure: files in, figures out."""

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import (
    FLAG_ARMED,
    FLAG_PROBATION,
    FLAG_RETURNED,
    FLAG_SWAPPED,
    Reason,
    Source,
    Verdict,
    digest_runs,
    in_words,
)
from edge_agent.recorder.reading import Log
from sim.world.orders import ContactCount, DeliveryRecord, LegEnd, LegRecord, Record

RULE_BASED = "rule-based"


class Driven(msgspec.Struct, frozen=True):
    """One controller's part of the drive; times are simulation time in s."""

    name: str
    trips: int
    trips_given_up: int
    trip_s: float | None
    made_good_mps: float | None
    """Way driven per time, over all trips: trips differ in length, this does not mind."""
    deliveries: int
    delivery_s: float | None
    contacts_moving: int
    contacts_standing: int


class Swap(msgspec.Struct, frozen=True):
    """The first tick of a policy on a robot."""

    robot: str
    version: str
    tick: int
    wall_ns: int
    missed_ticks: int
    """Deadlines skipped from 20 ticks before the swap to 20 ticks after it."""
    machine_missed: int
    """Deadlines that a bare timer of the same cadence and priority skipped in the same time."""
    gap_ms: float
    """Longest time between two decisions in that window."""


class Ticks(msgspec.Struct, frozen=True):
    """Tick latency of all robots: observation, inference, monitor and command, without the ROS hop."""

    count: int
    p50_us: float
    p99_us: float
    p99_9_us: float
    missed: int
    late_p99_us: float


class Guarded(msgspec.Struct, frozen=True):
    """What trials and monitor did, in ticks of all robots."""

    probation: int
    returned: int
    """Times that the policy before came back."""
    by_reason: dict[str, int]
    """Ticks in which the monitor reduced or stopped a robot that was armed, by its reason; the most frequent first."""
    armed: int


def read_records(path: Path) -> list[Record]:
    """``deliveries.jsonl`` of a floor."""
    decoder = msgspec.json.Decoder(LegRecord | DeliveryRecord)
    return [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]


def driver_of(log: Log, versions: dict[str, str], start_s: float, end_s: float) -> str | None:
    """Who drove a robot between two wall times: a version, or the rule-based controller; None where it changed.

    Ticks in which nobody was asked, as the one between two goals, say nothing.
    """
    first, last = np.searchsorted(log.decisions["wall_ns"], [int(start_s * 1e9), int(end_s * 1e9)])
    rows = log.decisions[first:last]
    rows = rows[rows["source"] != Source.NONE]
    names = set()
    for source in np.unique(rows["source"]).tolist():
        if source not in (Source.POLICY, Source.RECOVERY):
            names.add(RULE_BASED)
            continue
        digests = rows["policy_digest"][rows["source"] == source]
        names |= {versions.get(digest, "?") for _, _, digest in digest_runs(digests)}
    return names.pop() if len(names) == 1 else None


def split_by_driver(
    records: list[Record],
    logs: dict[str, Log],
    versions: dict[str, str],
    sim_s: npt.NDArray[np.float64],
    wall_s: npt.NDArray[np.float64],
) -> list[Driven]:
    """Trips and deliveries by who drove them; those with a swap in their middle count for nobody.

    Args:
        records: of the floor.
        logs: each robot's.
        versions: version by bundle digest.
        sim_s, wall_s: float64[n], simulation time and wall time at the same moments.
    """
    names = [RULE_BASED, *versions.values()]
    trips: dict[str, list[LegRecord]] = {name: [] for name in names}
    orders: dict[str, list[DeliveryRecord]] = {name: [] for name in names}
    for record in records:
        start, end = np.interp([record.start_s, record.end_s], sim_s, wall_s)
        driver = driver_of(logs[record.robot], versions, start, end)
        if driver not in trips:
            continue
        if isinstance(record, LegRecord):
            trips[driver].append(record)
        elif record.delivered:
            orders[driver].append(record)
    return [_driven(name, trips[name], orders[name]) for name in names]


def _driven(name: str, trips: list[LegRecord], orders: list[DeliveryRecord]) -> Driven:
    touched = ContactCount()
    for trip in trips:
        touched.add(trip.contacts)
    return Driven(
        name=name,
        trips=len(trips),
        trips_given_up=sum(trip.end is LegEnd.GIVEN_UP for trip in trips),
        trip_s=_mean([trip.end_s - trip.start_s for trip in trips]),
        made_good_mps=sum(trip.distance_m for trip in trips)
        / sum(trip.end_s - trip.start_s for trip in trips)
        if trips
        else None,
        deliveries=len(orders),
        delivery_s=_mean([order.end_s - order.start_s for order in orders]),
        contacts_moving=touched.static_moving + touched.person_moving + touched.robot_moving,
        contacts_standing=touched.static_standing + touched.person_standing + touched.robot_standing,
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def read_timer(path: Path) -> npt.NDArray[np.int64]:
    """The bare timer's skips, int64[n, 2]: wall time in ns, deadlines skipped."""
    rows = [msgspec.json.decode(line, type=dict[str, int]) for line in path.read_bytes().splitlines()]
    return np.array([[row["wall_ns"], row["skipped"]] for row in rows], dtype=np.int64).reshape(-1, 2)


def find_swaps(logs: dict[str, Log], versions: dict[str, str], timer: npt.NDArray[np.int64]) -> list[Swap]:
    """Every swap on every robot, in order of time; ``timer`` as ``read_timer`` gives it."""
    swaps = []
    for robot, log in logs.items():
        rows = log.decisions
        for index in np.flatnonzero(rows["flags"] & FLAG_SWAPPED).tolist():
            first, last = max(0, index - 20), min(len(rows) - 1, index + 20)
            window = rows[first : last + 1]
            during = (timer[:, 0] >= window["wall_ns"][0]) & (timer[:, 0] <= window["wall_ns"][-1])
            swaps.append(
                Swap(
                    robot=robot,
                    version=_version_from(rows["policy_digest"][index : last + 1], versions),
                    tick=int(rows[index]["tick"]),
                    wall_ns=int(rows[index]["wall_ns"]),
                    missed_ticks=int(window["missed_ticks"][-1]) - int(window["missed_ticks"][0]),
                    machine_missed=int(timer[during, 1].sum()),
                    gap_ms=float(np.diff(window["mono_ns"]).max()) / 1e6 if len(window) > 1 else 0.0,
                )
            )
    return sorted(swaps, key=lambda swap: swap.wall_ns)


def _version_from(digests: npt.NDArray[np.void], versions: dict[str, str]) -> str:
    """Of the first of these ticks in which a policy was asked; in the tick of a swap it may not have been."""
    found = (versions.get(digest.tobytes().hex()) for digest in digests)
    return next((version for version in found if version), "?")


def guarded(logs: dict[str, Log]) -> Guarded:
    """Probation, returns, and why the monitor stepped in."""
    rows = np.concatenate([log.decisions for log in logs.values()])
    stepped_in = rows[(rows["flags"] & FLAG_ARMED > 0) & (rows["verdict"] > Verdict.PASS)]
    reasons, counts = np.unique(stepped_in["reason"], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Guarded(
        probation=int((rows["flags"] & FLAG_PROBATION > 0).sum()),
        returned=int((rows["flags"] & FLAG_RETURNED > 0).sum()),
        by_reason={in_words(Reason(int(reasons[k]))): int(counts[k]) for k in order},
        armed=int((rows["flags"] & FLAG_ARMED > 0).sum()),
    )


def tick_latency(logs: dict[str, Log]) -> Ticks:
    """Latency over all decisions that had a policy or controller behind them."""
    rows = np.concatenate([log.decisions[log.decisions["source"] != Source.NONE] for log in logs.values()])
    total = rows["total_us"] if len(rows) else np.zeros(1)
    late = rows["late_us"] if len(rows) else np.zeros(1)
    missed = sum(int(log.decisions["missed_ticks"].max(initial=0)) for log in logs.values())
    p50, p99, p99_9 = np.percentile(total, [50, 99, 99.9])
    return Ticks(len(rows), float(p50), float(p99), float(p99_9), missed, float(np.percentile(late, 99)))
