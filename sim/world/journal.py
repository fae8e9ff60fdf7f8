"""What a run leaves on disk: the floor, deliveries as they end, trajectories, a summary."""

import io
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from contracts.atomic import write_atomically
from navigation.warehouse import Warehouse, dump_warehouse
from sim.errors import SimConfigError
from sim.world.orders import Record
from sim.world.run import FloorRun
from sim.world.state import WorldState

TRAJECTORY_ROWS_MAX = 360_000
"""20 hours at 5 Hz; later rows are dropped and counted."""
TRAJECTORY_INTERVAL_NS = 200_000_000
SUMMARY_FILE, DELIVERIES_FILE, TRAJECTORY_FILE, FLOOR_FILE = (
    "summary.json", "deliveries.jsonl", "trajectory.npz", "floor.yaml",
)  # fmt: skip


class Journal:
    """The folder of one run.

    ``deliveries.jsonl`` has one ``LegRecord`` or ``DeliveryRecord`` a line, there as soon as it ended.
    ``trajectory.npz`` holds ``time_s`` and ``wall_s`` float64[T], ``pose`` float32[T, R, 3], ``speed`` float32[T, R]
    and ``people`` float32[T, P, 2], 5 rows a second; it and ``summary.json`` are written by ``close``.

    Raises:
        SimConfigError: the folder cannot be written.
    """

    def __init__(self, folder: Path, warehouse: Warehouse) -> None:
        self.folder = folder
        self._rows: list[tuple[float, bytes, bytes, bytes, float]] = []
        self._shape: tuple[int, int] = (0, 0)
        self._next_ns = 0
        self.rows_dropped = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / FLOOR_FILE, dump_warehouse(warehouse).encode(), durable=False)
            self._deliveries = (folder / DELIVERIES_FILE).open("wb", buffering=0)
        except OSError as error:
            raise SimConfigError(
                f"cannot write to {folder}: {error.strerror}; choose another --out"
            ) from None

    def records(self, records: list[Record]) -> None:
        """Append what ended."""
        for record in records:
            self._deliveries.write(msgspec.json.encode(record) + b"\n")

    def pose(self, now_ns: int, state: WorldState) -> None:
        """Keep poses of world 0 if 0.2 s have gone by."""
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + TRAJECTORY_INTERVAL_NS
        if len(self._rows) >= TRAJECTORY_ROWS_MAX:
            self.rows_dropped += 1
            return
        self._shape = (state.pose.shape[1], state.person_xy.shape[1])
        self._rows.append(
            (
                now_ns / 1e9,
                state.pose[0].astype(np.float32).tobytes(),
                state.velocity[0, :, 0].astype(np.float32).tobytes(),
                state.person_xy[0].astype(np.float32).tobytes(),
                time.time(),
            )
        )

    def close(self, summary: dict[str, Any]) -> None:
        """Write what is left; files are there whole or not at all."""
        robots, people = self._shape
        count = len(self._rows)

        def column(index: int, shape: tuple[int, ...]) -> np.typing.NDArray[np.float32]:
            joined = b"".join(row[index] for row in self._rows)  # type: ignore[misc]
            return np.frombuffer(joined, dtype=np.float32).reshape(count, *shape)

        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            time_s=np.array([row[0] for row in self._rows]),
            wall_s=np.array([row[4] for row in self._rows]),
            pose=column(1, (robots, 3)),
            speed=column(2, (robots,)),
            people=column(3, (people, 2)),
        )
        write_atomically(self.folder / TRAJECTORY_FILE, buffer.getvalue(), durable=False)
        summary = {**summary, "trajectory_rows_dropped": self.rows_dropped}
        write_atomically(
            self.folder / SUMMARY_FILE, msgspec.json.format(msgspec.json.encode(summary)), durable=False
        )
        os.fsync(self._deliveries.fileno())
        self._deliveries.close()


def run_summary(run: FloorRun, wall_s: float) -> dict[str, Any]:
    """Figures of a run so far."""
    return {
        "floor": run.warehouse.name,
        "physics": run.physics.kind,
        "simulated_s": round(run.now_s, 3),
        "wall_s": round(wall_s, 3),
        "deliveries": sum(desk.delivered for desk in run.desks),
        "robots": {
            desk.name: {"deliveries": desk.delivered, "contacts": msgspec.to_builtins(desk.contacts)}
            for desk in run.desks
        },
    }
