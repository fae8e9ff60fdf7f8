"""A set of floors as flat arrays that compiled code can work on: boxes, stations, and the way to each station."""

import heapq

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from navigation import route
from navigation.route import (
    CELL_M,
    NEIGHBOURS,
    cell_clearance,
    cell_costs,
    cell_of,
    cells_to_drive,
    next_cells,
    step_lengths,
)
from navigation.warehouse import StationKind, Warehouse, boxes_of
from sim.errors import SimConfigError

# ``route.route_ahead`` calls it, so the compiler has to know it (docs/adr/0001).
register_jitable(route.entry_cell)
route_ahead = numba.njit(cache=True)(route.route_ahead)

KINDS = (StationKind.PICK, StationKind.DROP, StationKind.CHARGE)
SPAWN_COST_MAX = 1.6
SPAWN_PALLET_M = 0.6
SPAWN_CELLS = 512


@numba.njit(cache=True)
def solve_cost_to_go(costs, row, column, row_steps, column_steps, lengths):  # type: ignore[no-untyped-def]
    """The fixed point that ``navigation.route.cost_to_go`` defines, by Dijkstra's algorithm. Same bits.

    ``costs`` is float32[1, rows, columns], or float32[8, rows, columns] where there are lanes.
    """
    kinds, rows, columns = costs.shape
    field = np.full((rows, columns), np.inf, dtype=np.float32)
    field[row, column] = 0.0
    heap = [(np.float32(0.0), row * columns + column)]
    while len(heap) > 0:
        cost, cell = heapq.heappop(heap)
        r, c = cell // columns, cell % columns
        if cost > field[r, c]:
            continue
        for k in range(8):
            nr, nc = r - row_steps[k], c - column_steps[k]
            if nr < 1 or nc < 1 or nr > rows - 2 or nc > columns - 2:
                continue
            there = np.float32(cost + np.float32(lengths[k] * costs[k % kinds, nr, nc]))
            if there < field[nr, nc]:
                field[nr, nc] = there
                heapq.heappush(heap, (there, nr * columns + nc))
    return field


class Floors:
    """``F`` floors, padded to common sizes.

    Attributes:
        boxes: float64[F, B, 4]; box_count int64[F].
        mapped: int64[F], how many of them the map knows; the rest are pallets.
        rows, columns: int64[F] of each floor's grid.
        station_xy: float64[F, S, 2]; station_kind int8[F, S] (index into ``KINDS``), -1 where there is none.
        station_count: int64[F].
        route_at: int64[F, S], where a station's field begins in ``field`` and ``pointers``.
        field: float32[*], cost to go; pointers int32[*], next cell.
        spawn_xy: float64[F, SPAWN_CELLS, 2], free places to start from.
    """

    def __init__(self, warehouses: list[Warehouse], seed: int = 0) -> None:
        if not warehouses:
            raise SimConfigError("no floor given; at least one warehouse is needed")
        self.warehouses = warehouses
        count = len(warehouses)
        boxes = [warehouse.boxes() for warehouse in warehouses]
        stations = max(len(warehouse.stations) for warehouse in warehouses)
        self.boxes = np.zeros((count, max(map(len, boxes)), 4))
        self.box_count = np.array([len(box) for box in boxes], dtype=np.int64)
        self.mapped = np.array([len(warehouse.mapped_boxes()) for warehouse in warehouses], dtype=np.int64)
        self.rows = np.zeros(count, dtype=np.int64)
        self.columns = np.zeros(count, dtype=np.int64)
        self.station_xy = np.zeros((count, stations, 2))
        self.station_kind = np.full((count, stations), -1, dtype=np.int8)
        self.station_count = np.zeros(count, dtype=np.int64)
        self.route_at = np.zeros((count, stations), dtype=np.int64)
        self.spawn_xy = np.zeros((count, SPAWN_CELLS, 2))
        fields: list[npt.NDArray[np.float32]] = []
        pointers: list[npt.NDArray[np.int32]] = []
        rng = np.random.default_rng(seed)
        start = 0
        for index, warehouse in enumerate(warehouses):
            self.boxes[index, : len(boxes[index])] = boxes[index]
            costs = cell_costs(warehouse)
            self.rows[index], self.columns[index] = costs.shape[-2:]
            self.station_count[index] = len(warehouse.stations)
            free = _spawn_cells(warehouse, costs)
            self.spawn_xy[index] = (free[rng.integers(len(free), size=SPAWN_CELLS)][:, ::-1] - 0.5) * CELL_M
            for number, station in enumerate(warehouse.stations):
                self.station_xy[index, number] = station.x_m, station.y_m
                self.station_kind[index, number] = KINDS.index(station.kind)
                field = compiled_cost_to_go(costs, station.x_m, station.y_m)
                self.route_at[index, number] = start
                fields.append(field.reshape(-1))
                pointers.append(next_cells(field, costs).reshape(-1))
                start += field.size
        self.field = np.concatenate(fields)
        self.pointers = np.concatenate(pointers)


def _spawn_cells(warehouse: Warehouse, costs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Rows and columns of places to start from, int64[n, 2]: far from all boxes, not in a pocket without a way out.

    Raises:
        SimConfigError: there is none.
    """
    free = cells_to_drive(warehouse) & (costs.reshape(-1, *costs.shape[-2:]).min(axis=0) < SPAWN_COST_MAX)
    if warehouse.pallets:
        free &= cell_clearance(warehouse, boxes_of(warehouse.pallets)) >= SPAWN_PALLET_M
    cells = np.argwhere(free)
    if len(cells) == 0:
        raise SimConfigError(f"{warehouse.name}: no free place to start from; widen the aisles")
    return cells


def compiled_cost_to_go(costs: npt.NDArray[np.float32], x_m: float, y_m: float) -> npt.NDArray[np.float32]:
    """``navigation.route.cost_to_go``, compiled: the same bits, ten times sooner."""
    rows, columns = costs.shape[-2:]
    row, column = cell_of(x_m, y_m, (rows, columns))
    steps = np.array(NEIGHBOURS, dtype=np.int64)
    field: npt.NDArray[np.float32] = solve_cost_to_go(
        costs.reshape(-1, rows, columns), row, column, steps[:, 0], steps[:, 1], step_lengths()
    )
    return field
