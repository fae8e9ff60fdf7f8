"""SQL over the replay store, read-only: one SELECT at a time, on the files that the catalogue names and on no others.

Tables: ``decisions``, ``episodes`` (trips), ``minutes`` (rollups) and ``policies``, the last joined to the others.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from contracts.replay import KINDS, WALL_MAX_NS, StoredPolicy, oldest_file, stored_files, stored_policies
from fleet_hub.errors import QueryRefusedError
from fleet_hub.store.columns import MINUTE_NS, SCHEMAS

LIMIT_MAX = 1_000_000
QUERY_MAX_S = 120.0
MEMORY_MAX = "1GB"
THREADS = 2
EXPORT_BATCH_ROWS = 16_384
_POLICY = "policy_name, policy_version, training_run_digest"
_VIEWS = {
    "decisions": "SELECT *, make_timestamp_ns(wall_ns) AS wall FROM stored_decisions",
    "episodes": (
        "SELECT concat_ws('/', robot, log_id, first_seq) AS episode, e.*, make_timestamp_ns(start_wall_ns) AS "
        f"start_wall, make_timestamp_ns(end_wall_ns) AS end_wall, {_POLICY} "
        "FROM stored_episodes e LEFT JOIN policies USING (policy_digest)"
    ),
    "minutes": (
        "SELECT robot, minute_wall_ns, policy_digest, sum(ticks)::BIGINT AS ticks, "
        "sum(interventions)::BIGINT AS interventions, sum(stops)::BIGINT AS stops, "
        "sum(latency_p50_us * ticks) / sum(ticks) AS latency_p50_us, max(latency_max_us) AS latency_max_us, "
        "max(late_max_us) AS late_max_us, sum(trips)::BIGINT AS trips, "
        "sum(trips_arrived)::BIGINT AS trips_arrived, sum(trips_time_s) AS trips_time_s, "
        "sum(entropy_ticks)::BIGINT AS entropy_ticks, "
        "sum(entropy_mean_nats * entropy_ticks) / nullif(sum(entropy_ticks), 0) AS entropy_mean_nats, "
        "sum(drift_ticks)::BIGINT AS drift_ticks, "
        "sum(drift_mean * drift_ticks) / nullif(sum(drift_ticks), 0) AS drift_mean, "
        "make_timestamp_ns(minute_wall_ns) AS minute FROM stored_minutes GROUP BY ALL"
    ),
}
"""A minute that two batches share has two rows in the files: counts add up, its median is weighted by ticks."""


class Answer(NamedTuple):
    """Rows of a query."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool
    """Whether the limit cut some off."""


class ReplayStore:
    """A store as it is now: files that come later are seen by the next one. A context manager.

    What an older outrider wrote has NULL in the columns that came since.
    """

    def __init__(self, store: Path, robot: str = "", since_ns: int = 0, until_ns: int = WALL_MAX_NS) -> None:
        """Open DATA/store; robot and time leave out files (not rows) that hold nothing of theirs.

        Raises:
            StoreFormatError: There is no store, or not one of ours.
        """
        self._connection = duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY_MAX})
        self._connection.execute("SET temp_directory = ''; SET parquet_metadata_cache = true")
        policies = [msgspec.structs.asdict(policy) for policy in stored_policies(store)]
        schema = pa.schema(
            [
                (n, pa.int64() if n == "release_counter" else pa.string())
                for n in StoredPolicy.__struct_fields__
            ]
        )
        self._connection.register("policies", pa.Table.from_pylist(policies, schema=schema))
        self._waiting = {
            kind: [str(store / file.path) for file in stored_files(store, kind, robot, since_ns, until_ns)]
            for kind in KINDS
        }
        self._old = {kind: _lacks_columns(store, kind) for kind in KINDS}
        folders = ", ".join(_quoted(str((store / kind).resolve()) + "/") for kind in KINDS)
        self._connection.execute(
            f"SET allowed_directories = [{folders}]; SET enable_external_access = false; SET lock_configuration = true"
        )

    def _add(self, kind: str, paths: list[str]) -> None:
        if paths:
            mixed = self._old[kind]
            source = (
                f"SELECT * FROM read_parquet([{', '.join(map(_quoted, paths))}], hive_partitioning = true, "
                f"hive_types = {{'day': DATE, 'policy': VARCHAR}}, union_by_name = {str(mixed).lower()})"
            )
            if mixed:
                self._connection.register(f"today_{kind}", SCHEMAS[kind].empty_table())
                source += f" UNION ALL BY NAME SELECT * FROM today_{kind}"
            self._connection.execute(f"CREATE VIEW stored_{kind} AS {source}")
        else:
            self._connection.register(f"stored_{kind}", SCHEMAS[kind].empty_table())
        self._connection.execute(f"CREATE VIEW {kind} AS {_VIEWS[kind]}")

    def query(self, sql: str, limit: int = 1000) -> Answer:
        """The first ``limit`` rows of a SELECT.

        Raises:
            QueryRefusedError: Not one reading statement, not SQL, or longer than QUERY_MAX_S.
        """
        limit = min(limit, LIMIT_MAX)
        with self._reading(sql) as connection:
            found = connection.execute(sql)
            columns = [str(column[0]) for column in found.description or ()]
            rows = found.fetchmany(limit + 1)
        return Answer(columns, rows[:limit], len(rows) > limit)

    @contextmanager
    def _reading(self, sql: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection, for one SELECT; what is read of it inside counts towards QUERY_MAX_S too."""
        timer = threading.Timer(QUERY_MAX_S, self._connection.interrupt)
        timer.start()
        try:
            named = [kind for kind in self._waiting if kind in sql.lower()]
            for kind in named:  # a table costs time to open: only those that are asked for
                self._add(kind, self._waiting.pop(kind))
            kinds = [statement.type.name for statement in self._connection.extract_statements(sql)]
            if kinds != ["SELECT"]:
                raise QueryRefusedError(
                    f"expected one SELECT, came {' and '.join(kinds[:4]) or 'nothing'}; the store is only read"
                )
            yield self._connection
        except duckdb.InterruptException:
            raise QueryRefusedError(
                f"not done within {QUERY_MAX_S:.0f} s; ask for less time or fewer robots"
            ) from None
        except duckdb.Error as error:
            raise QueryRefusedError(" ".join(str(error).split())[:500]) from None
        finally:
            timer.cancel()

    def sample(self, count: int, seed: int, where: str = "true") -> Answer:
        """``count`` episodes drawn at random: the same seed draws the same ones of the same store."""
        return self.query(
            f"SELECT * FROM episodes WHERE ({where}) ORDER BY md5(concat_ws(':', {int(seed)}, episode)) "
            f"LIMIT {int(count)}",
            count,
        )

    def export(self, path: Path, where: str = "true") -> int:
        """Write every decision of the episodes ``where`` holds for, as .parquet or .csv; returns their number.

        Raises:
            QueryRefusedError: A bad condition, or another kind of file. Nothing has been written.
            OSError: The disk refused; there is no half file.
        """
        if path.suffix not in (".parquet", ".csv"):
            raise QueryRefusedError(f"expected a file .parquet or .csv, came {path.name}")
        sql = (
            f"SELECT e.episode, e.outcome, d.* EXCLUDE (day, policy) FROM (SELECT * FROM episodes WHERE ({where})) e "
            "JOIN decisions d ON d.robot = e.robot AND d.log_id = e.log_id AND d.seq BETWEEN e.first_seq AND "
            "e.last_seq ORDER BY e.episode, d.seq"
        )
        if path.suffix == ".csv":
            sql = f"SELECT * REPLACE (array_to_string(observation, ' ') AS observation) FROM ({sql})"
        fresh = path.with_name(f".{path.name}.tmp")
        rows = 0
        try:
            with self._reading(sql) as connection:
                reader = connection.sql(sql).to_arrow_reader(EXPORT_BATCH_ROWS)
                kind = pq.ParquetWriter if path.suffix == ".parquet" else csv.CSVWriter
                with kind(fresh, reader.schema) as writer:
                    for batch in reader:
                        writer.write_batch(batch)
                        rows += batch.num_rows
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)
        return rows

    def fleet_chart(self, since_ns: int, until_ns: int) -> Answer:
        """Of each minute, the whole fleet: robots, ticks, interventions, latency, trips; what a chart needs."""
        return self.query(
            "SELECT minute, count(DISTINCT robot) AS robots, sum(ticks) AS ticks, sum(interventions) AS interventions, "
            "median(latency_p50_us) AS latency_p50_us, max(latency_max_us) AS latency_max_us, sum(trips) AS trips "
            f"FROM minutes WHERE minute_wall_ns BETWEEN {int(since_ns)} AND {int(until_ns)} "
            "GROUP BY minute ORDER BY minute",
            LIMIT_MAX,
        )

    def robot_minute(self, robot: str, minute_wall_ns: int) -> Answer:
        """Every decision of one robot in the minute that begins at ``minute_wall_ns``."""
        return self.query(
            "SELECT tick, wall_ns, policy_digest, verdict, reason, pose_x_m, pose_y_m, speed_mps, raw_speed_mps, "
            "raw_turn_rate_radps, final_speed_mps, final_turn_rate_radps, clearance_m, total_us FROM decisions "
            f"WHERE robot = {_quoted(robot)} AND wall_ns >= {int(minute_wall_ns)} "
            f"AND wall_ns < {int(minute_wall_ns) + MINUTE_NS} ORDER BY wall_ns",
            LIMIT_MAX,
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> "ReplayStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lacks_columns(store: Path, kind: str) -> bool:
    """Whether an older outrider wrote files of a kind here. Only asked of one: to open all costs too much."""
    path = oldest_file(store, kind)
    try:
        return bool(path) and not set(SCHEMAS[kind].names) <= set(pq.read_schema(store / path).names)
    except (OSError, pa.ArrowException):
        return True


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
