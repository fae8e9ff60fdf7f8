"""A log as tables: decisions in one file, events in another beside it; CSV for people, Parquet for programs."""

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

from edge_agent.errors import ToolMissingError
from edge_agent.recorder.flat import table_of
from edge_agent.recorder.reading import Log

ROWS_AT_ONCE = 10_000


def events_path(output: Path) -> Path:
    """Where the events go: ``run.csv`` and ``run.events.csv``."""
    return output.with_name(f"{output.stem}.events{output.suffix}")


def _events(log: Log) -> dict[str, list[Any]]:
    rows = [(seq, e.wall_ns, e.mono_ns, e.name, json.dumps(e.detail)) for seq, e in log.events]
    names = ("seq", "wall_ns", "mono_ns", "name", "detail")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def export_csv(log: Log, output: Path) -> int:
    """Write decisions and events; returns how many records. OSError when the disk refuses."""
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        for start in range(0, max(len(log.decisions), 1), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            table = table_of(log.decisions[rows], log.decision_seqs[rows])
            if not start:
                writer.writerow(table)
            writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    events = _events(log)
    with events_path(output).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(events)
        writer.writerows(zip(*events.values(), strict=True))
    return len(log.decisions) + len(log.events)


def export_parquet(log: Log, output: Path) -> int:
    """The same as Parquet (zstd); raises ToolMissingError without pyarrow, OSError."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ToolMissingError("Parquet needs pyarrow: pip install 'outrider[tech]'; --csv works without it")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(dict(table_of(log.decisions, log.decision_seqs)))
    meta = {"robot": log.robot, "log_id": log.headers[-1].log_id if log.headers else ""}
    pyarrow.parquet.write_table(table.replace_schema_metadata(meta), output, compression="zstd")
    pyarrow.parquet.write_table(pyarrow.table(_events(log)), events_path(output), compression="zstd")
    return len(log.decisions) + len(log.events)
