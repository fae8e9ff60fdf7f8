"""Decision records as columns: the schema of the store's Parquet files, and the rows of each kind.

Column names say their unit and are those of ``outrider logs grep --columns``, but the observation stays one vector.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.decision import DECISION_DTYPE, DIGESTS, VECTORS, Verdict, digest_runs
from contracts.observation import OBSERVATION_SIZE
from fleet_hub.observe.drift import Drift
from fleet_hub.rollout.trips import Records, Trip, end_ns, intervened

MINUTE_NS = 60 * 10**9
_OBSERVATION = pa.list_(pa.float32(), OBSERVATION_SIZE)
_OWNER = [("robot", pa.string()), ("log_id", pa.string())]


def _decision_schema() -> pa.Schema:
    fields = [*_OWNER, ("seq", pa.int64())]
    for name in DECISION_DTYPE.names or ():
        if name in VECTORS:
            fields += [(flat, pa.float32()) for flat in VECTORS[name]]
        elif name == "observation":
            fields.append((name, _OBSERVATION))
        elif name in DIGESTS:
            fields.append((name, pa.string()))
        else:
            fields.append((name, pa.from_numpy_dtype(DECISION_DTYPE[name])))
    return pa.schema(fields)


SCHEMAS: dict[str, pa.Schema] = {
    "decisions": _decision_schema(),
    "episodes": pa.schema(
        [
            *_OWNER, ("first_seq", pa.int64()), ("last_seq", pa.int64()), ("start_wall_ns", pa.int64()),
            ("end_wall_ns", pa.int64()), ("policy_digest", pa.string()), ("outcome", pa.string()),
            ("time_s", pa.float64()), ("contact", pa.bool_()), ("near_miss", pa.bool_()),
            ("interventions", pa.float64()), ("slow_ticks", pa.float64()), ("fallbacks", pa.float64()),
        ]
    ),
    "minutes": pa.schema(
        [
            *_OWNER, ("minute_wall_ns", pa.int64()), ("policy_digest", pa.string()), ("ticks", pa.int64()),
            ("interventions", pa.int64()), ("stops", pa.int64()), ("latency_p50_us", pa.float64()),
            ("latency_max_us", pa.int64()), ("late_max_us", pa.int64()), ("trips", pa.int64()),
            ("trips_arrived", pa.int64()), ("trips_time_s", pa.float64()),
            ("entropy_ticks", pa.int64()), ("entropy_mean_nats", pa.float64()),
            ("drift_ticks", pa.int64()), ("drift_mean", pa.float64()),
        ]
    ),
}  # fmt: skip
"""Of ``episodes``: shares of the trip's ticks; of ``minutes``: counts of ticks, and sums over trips that ended.

``entropy_ticks`` and ``drift_ticks`` are those that have such a number; the means are over them.
"""


def decision_table(
    robot: str, log_id: str, digest: str, records: Records, seqs: npt.NDArray[np.int64]
) -> pa.Table:
    """DECISION_DTYPE[n] of one policy and their sequence numbers int64[n] as a table."""
    columns: list[Any] = [_same(robot, len(records)), _same(log_id, len(records)), pa.array(seqs)]
    for name in DECISION_DTYPE.names or ():
        values = records[name]
        if name in VECTORS:
            columns += [pa.array(np.ascontiguousarray(values[:, i])) for i in range(len(VECTORS[name]))]
        elif name == "observation":
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, OBSERVATION_SIZE))
        elif name == "policy_digest":
            columns.append(_same(digest, len(records)))
        elif name in DIGESTS:
            columns.append(_texts(values))
        else:
            columns.append(pa.array(np.ascontiguousarray(values)))
    return pa.Table.from_arrays(columns, schema=SCHEMAS["decisions"])


def episode_table(robot: str, log_id: str, trips: list[Trip]) -> pa.Table:
    """Trips as a table; the share of ticks with an intervention, 0 or 1 as a flag."""
    rows = [
        {
            "robot": robot, "log_id": log_id, "first_seq": trip.first_seq, "last_seq": trip.last_seq,
            "start_wall_ns": trip.began_wall_ns, "end_wall_ns": end_ns(trip), "policy_digest": trip.policy,
            "outcome": "aborted" if trip.aborted else "arrived", "time_s": trip.delivery_time_s,
            "contact": bool(trip.contacts), "near_miss": bool(trip.near_misses),
            "interventions": trip.interventions, "slow_ticks": trip.slow_ticks, "fallbacks": trip.fallbacks,
        }
        for trip in trips
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMAS["episodes"])


def minute_table(
    robot: str, log_id: str, digest: str, records: Records, trips: list[Trip], drift: Drift | None = None
) -> pa.Table:
    """Figures of each minute (UTC, the robot's clock) of one policy's DECISION_DTYPE[n] and trips."""
    strange = _novelty(drift, records)
    minutes = records["wall_ns"] // MINUTE_NS
    ended = np.array([end_ns(trip) // MINUTE_NS for trip in trips], dtype=np.int64)
    took = intervened(records)
    rows = []
    for minute in np.unique(np.concatenate([minutes, ended])).tolist():
        here = minutes == minute
        own = [trip for trip, at in zip(trips, ended.tolist(), strict=True) if at == minute]
        total_us = records["total_us"][here]
        rows.append(
            {
                "robot": robot, "log_id": log_id, "minute_wall_ns": minute * MINUTE_NS, "policy_digest": digest,
                "ticks": int(here.sum()), "interventions": int(took[here].sum()),
                "stops": int((records["verdict"][here] >= Verdict.STOP).sum()),
                "latency_p50_us": float(np.median(total_us)) if len(total_us) else 0.0,
                "latency_max_us": int(total_us.max(initial=0)),
                "late_max_us": int(records["late_us"][here].max(initial=0)),
                "trips": len(own), "trips_arrived": sum(not trip.aborted for trip in own),
                "trips_time_s": sum(trip.delivery_time_s for trip in own),
                **_mean("entropy_ticks", "entropy_mean_nats", records["entropy_nats"][here]),
                **_mean("drift_ticks", "drift_mean", strange[here]),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMAS["minutes"])


def _novelty(drift: Drift | None, records: Records) -> npt.NDArray[np.float64]:
    """How strange what each record saw is to its policy, float64[n]; NaN where nobody can say."""
    if drift is None:
        return np.full(len(records), np.nan)
    return np.where(records["observation"].any(axis=1), drift.of(records["observation"]), np.nan)


def _mean(count_name: str, mean_name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    """How many of the values there are, and their mean; no mean of none."""
    known = values[np.isfinite(values)]
    return {count_name: len(known), mean_name: float(known.mean(dtype=np.float64)) if len(known) else None}


def as_today(kind: str, table: pa.Table) -> pa.Table:
    """A table that an older outrider wrote, with the columns that came since: nulls."""
    for field in SCHEMAS[kind]:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(SCHEMAS[kind].names)


def _texts(digests: npt.NDArray[np.uint8]) -> Any:
    """Digests uint8[n, 8] as text."""
    runs = [pa.repeat(text, stop - start) for start, stop, text in digest_runs(digests)]
    return pa.concat_arrays(runs) if runs else pa.array([], pa.string())


def _same(value: str, count: int) -> Any:
    return pa.repeat(value, count)
