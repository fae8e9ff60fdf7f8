"""Routes: a cost-to-go field over a grid, and the points ahead on the way down it.

The field is the fixed point of ``cost[n] = min over neighbours m of cost[m] + step(m, n)`` (Dijkstra 1959);
its value does not depend on the order of relaxation, so a compiled solver gives the same bits.

Costs are one factor a cell, float32[rows, columns], or on a floor with one-way lanes one factor a cell and step,
float32[8, rows, columns]: what it costs to leave the cell by each of ``NEIGHBOURS``. All functions take both.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from navigation.errors import RouteError, WarehouseError
from navigation.warehouse import Warehouse, boxes_of

CELL_M = 0.2
CLEARANCE_HARD_M = 0.32
CLEARANCE_SOFT_M = 0.75
CLEARANCE_SEEN_M = 1.0
COST_NEAR = 8.0
"""Factor on a step through a cell nearer to a box than the hard clearance: passable, to get out again."""
COST_SOFT = 1.5
COST_AGAINST = 30.0
"""Further factor on a step against a lane: a long way round is cheaper, yet who stands in it finds out again."""
PASSAGE_MIN_M = 0.72
"""Width that must stay free beside pallets: robot, and the monitor's margins on both sides."""
CELLS_MAX = 1_010_000
"""Enough for the largest floor that validates, 200 m by 200 m."""
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

Field = npt.NDArray[np.float32]
Pointers = npt.NDArray[np.int32]


def cell_costs(warehouse: Warehouse) -> Field:
    """Cost factor of each cell (and step, where there are lanes); infinite inside a box, 1 far from all.

    Row 0 is y = 0. The outermost ring of cells is always infinite, so that a walk needs no bounds checks.
    Pallets are not on the map: the costs know nothing of them.

    Raises:
        WarehouseError: the floor has more than ``CELLS_MAX`` cells.
    """
    clearance = cell_clearance(warehouse, warehouse.boxes_to_avoid())
    soft = COST_SOFT * (CLEARANCE_SOFT_M - clearance) / (CLEARANCE_SOFT_M - CLEARANCE_HARD_M)
    factor = 1.0 + np.clip(soft, 0.0, COST_SOFT)
    factor[clearance < CLEARANCE_HARD_M] = COST_NEAR
    factor[clearance <= 0.0] = np.inf
    factor[0, :] = factor[-1, :] = factor[:, 0] = factor[:, -1] = np.inf
    costs = factor.astype(np.float32)
    if not warehouse.lanes:
        return costs
    against = steps_against(warehouse, (costs.shape[0], costs.shape[1]))
    return np.where(against, np.float32(COST_AGAINST), np.float32(1.0)) * costs


def cell_clearance(warehouse: Warehouse, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distance in m from each cell's centre to the nearest of ``boxes`` float64[n, 4]: float64[rows, columns].

    Infinite from ``CLEARANCE_SEEN_M`` on: nobody asks for more, and large maps have thousands of boxes. A box
    thinner than a cell counts as one cell thick, or it could stand unseen between two centres.

    Raises:
        WarehouseError: the floor has more than ``CELLS_MAX`` cells.
    """
    columns = math.ceil(warehouse.width_m / CELL_M) + 2
    rows = math.ceil(warehouse.height_m / CELL_M) + 2
    if rows * columns > CELLS_MAX:
        raise WarehouseError(f"{warehouse.name}: {rows * columns} cells; a floor has at most {CELLS_MAX}")
    x = (np.arange(columns) - 0.5) * CELL_M
    y = (np.arange(rows) - 0.5) * CELL_M
    clearance = np.full((rows, columns), np.inf)
    missing = np.maximum(CELL_M - (boxes[:, 2:] - boxes[:, :2]), 0.0) / 2
    for x_min, y_min, x_max, y_max in boxes + np.hstack([-missing, missing]):
        dx = np.maximum(np.maximum(x_min - x, x - x_max), 0.0)
        dy = np.maximum(np.maximum(y_min - y, y - y_max), 0.0)
        near_x, near_y = np.flatnonzero(dx < CLEARANCE_SEEN_M), np.flatnonzero(dy < CLEARANCE_SEEN_M)
        if near_x.size and near_y.size:
            window = np.s_[near_y[0] : near_y[-1] + 1, near_x[0] : near_x[-1] + 1]
            distance = np.hypot(dx[None, window[1]], dy[window[0], None])
            np.minimum(clearance[window], distance, out=clearance[window])
    return clearance


def steps_against(warehouse: Warehouse, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Whether leaving a cell by each of ``NEIGHBOURS`` goes against a lane it is in: bool[8, rows, columns]."""
    against = np.zeros((8, *shape), dtype=np.bool_)
    x = (np.arange(shape[1]) - 0.5) * CELL_M
    y = (np.arange(shape[0]) - 0.5) * CELL_M
    for lane, (x_min, y_min, x_max, y_max) in zip(warehouse.lanes, boxes_of(warehouse.lanes), strict=True):
        inside = ((y >= y_min) & (y <= y_max))[:, None] & ((x >= x_min) & (x <= x_max))[None, :]
        for k, (dr, dc) in enumerate(NEIGHBOURS):
            # A heading a rounding error off the grid still lets one drive across.
            if dc * math.cos(lane.heading_rad) + dr * math.sin(lane.heading_rad) < -1e-3:
                against[k] |= inside
    return against


def step_lengths(dtype: type = np.float32) -> npt.NDArray[np.float32]:
    """Length in m of the step to each of the eight ``NEIGHBOURS``."""
    return np.array([CELL_M * math.hypot(*neighbour) for neighbour in NEIGHBOURS], dtype=dtype)


def cell_of(x_m: float, y_m: float, shape: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell that holds a point (map frame, m), clipped to the inside of the grid."""
    row = min(max(int(y_m / CELL_M) + 1, 1), shape[0] - 2)
    column = min(max(int(x_m / CELL_M) + 1, 1), shape[1] - 2)
    return row, column


def step_costs(costs: Field) -> Field:
    """Cost of leaving each inner cell by each of ``NEIGHBOURS``: float32[8, rows - 2, columns - 2]."""
    weights: Field = step_lengths()[:, None, None] * costs[..., 1:-1, 1:-1]
    return weights


def cost_to_go(costs: Field, x_m: float, y_m: float) -> Field:
    """Cost from each cell to the goal at ``x_m, y_m``: float32[rows, columns], infinite where cut off.

    Raises:
        RouteError: the goal is inside a wall or shelf.
    """
    rows, columns = costs.shape[-2:]
    row, column = cell_of(x_m, y_m, (rows, columns))
    if not np.isfinite(costs[..., row, column]).any():
        raise RouteError(f"goal ({x_m:.2f}, {y_m:.2f}) is inside a wall or shelf; choose a free place")
    field = np.full((rows, columns), np.inf, dtype=np.float32)
    field[row, column] = 0.0
    inner = np.s_[1 : rows - 1, 1 : columns - 1]
    weights = step_costs(costs)
    candidate = np.empty((rows - 2, columns - 2), dtype=np.float32)
    for _ in range(rows * columns):
        before = field[inner].copy()
        for k, (dr, dc) in enumerate(NEIGHBOURS):
            np.add(field[1 + dr : rows - 1 + dr, 1 + dc : columns - 1 + dc], weights[k], out=candidate)
            np.minimum(field[inner], candidate, out=field[inner])
        if np.array_equal(before, field[inner]):
            break
    return field


def next_cells(field: Field, costs: Field) -> Pointers:
    """For each cell the flat index of its cheapest neighbour, or its own where it is the goal or cut off."""
    rows, columns = field.shape
    pointers = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    inner = np.s_[1 : rows - 1, 1 : columns - 1]
    weights = step_costs(costs)
    best = field[inner].copy()
    goal = best == 0.0
    best[:] = np.inf
    for k, (dr, dc) in enumerate(NEIGHBOURS):
        candidate = field[1 + dr : rows - 1 + dr, 1 + dc : columns - 1 + dc] + weights[k]
        better = (candidate < best) & ~goal
        best[better] = candidate[better]
        pointers[inner][better] = pointers_shift(rows, columns, dr, dc)[better]
    return pointers


def pointers_shift(rows: int, columns: int, dr: int, dc: int) -> Pointers:
    """Flat indices of the inner cells' neighbours at offset ``dr, dc``."""
    flat = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    return flat[1 + dr : rows - 1 + dr, 1 + dc : columns - 1 + dc]


def entry_cell(field: Any, rows: int, columns: int, x_m: float, y_m: float) -> tuple[int, float]:
    """The cell about ``x_m, y_m`` from which the way is cheapest, and that cost; compiled like ``route_ahead``."""
    row = min(max(int(y_m / CELL_M) + 1, 1), rows - 2)
    column = min(max(int(x_m / CELL_M) + 1, 1), columns - 2)
    here = row * columns + column
    best = here
    left_m = math.inf
    for dr in range(-1, 2):
        dy = (row + dr - 0.5) * CELL_M - y_m
        for dc in range(-1, 2):
            cell = here + dr * columns + dc
            cost = field[cell]
            # Its cost alone is as much already: no need of the way to it.
            if cost < left_m:
                dx = (column + dc - 0.5) * CELL_M - x_m
                total = cost + math.sqrt(dx * dx + dy * dy)
                if total < left_m:
                    left_m = total
                    best = cell
    return best, left_m


def route_ahead(
    pointers: Any,
    field: Any,
    rows: int,
    columns: int,
    x_m: float,
    y_m: float,
    goal_x_m: float,
    goal_y_m: float,
    distances_m: Any,
    points: Any,
) -> float:
    """Points on the route ahead, and the cost that is left. Plain scalar code: ``sim`` compiles this very text.

    What it calls has to be made known to the compiler: ``sim.world.floors`` does that.

    Args:
        pointers: int32[rows * columns], from ``next_cells``, flat (an array, or a list of the same).
        field: float32[rows * columns], from ``cost_to_go``, flat.
        rows, columns: of the grid.
        x_m, y_m: where the robot is, map frame.
        goal_x_m, goal_y_m: where it goes.
        distances_m: increasing distances along the route, float64[n].
        points: out, float64[2 n], x and y in turn, map frame, m; the goal where the route is shorter.

    Returns:
        Cost of the route that is left, in m of free floor; infinite where there is none.
    """
    cell, left_m = entry_cell(field, rows, columns, x_m, y_m)
    at_x, at_y = x_m, y_m
    travelled = 0.0
    count = len(distances_m)
    filled = 0
    at_goal = left_m == math.inf
    while filled < count and not at_goal:
        at_goal = pointers[cell] == cell
        if at_goal:
            to_x, to_y = goal_x_m, goal_y_m
        else:
            to_x = (cell % columns - 0.5) * CELL_M
            to_y = (cell // columns - 0.5) * CELL_M
        dx, dy = to_x - at_x, to_y - at_y
        length = math.sqrt(dx * dx + dy * dy)
        while filled < count and travelled + length >= distances_m[filled]:
            along = (distances_m[filled] - travelled) / length if length > 0.0 else 0.0
            points[2 * filled] = at_x + along * dx
            points[2 * filled + 1] = at_y + along * dy
            filled += 1
        travelled += length
        at_x, at_y = to_x, to_y
        cell = pointers[cell]
    while filled < count:
        points[2 * filled] = goal_x_m
        points[2 * filled + 1] = goal_y_m
        filled += 1
    return left_m


class Route:
    """The way to one goal, ready to be asked from anywhere on the floor.

    Raises:
        RouteError: the goal is inside a wall or shelf.
    """

    def __init__(self, costs: Field, goal_x_m: float, goal_y_m: float) -> None:
        field = cost_to_go(costs, goal_x_m, goal_y_m)
        self.rows, self.columns = (int(side) for side in costs.shape[-2:])
        self.field: list[float] = field.reshape(-1).tolist()
        self.pointers: list[int] = next_cells(field, costs).reshape(-1).tolist()
        self.goal_m = (goal_x_m, goal_y_m)

    def ahead(self, x_m: float, y_m: float, distances_m: Sequence[float], points: list[float]) -> float:
        """Fill ``points`` (x and y in turn, map frame, m) at ``distances_m`` along the route; return its cost."""
        return float(
            route_ahead(
                self.pointers,
                self.field,
                self.rows,
                self.columns,
                x_m,
                y_m,
                *self.goal_m,
                distances_m,
                points,
            )
        )

    def polyline(
        self, x_m: float, y_m: float, spacing_m: float = 0.4, points_max: int = 500
    ) -> npt.NDArray[np.float64]:
        """The whole route as points float64[n, 2] in the map frame, for drawing."""
        left_m = self.ahead(x_m, y_m, (), [])
        if not math.isfinite(left_m):
            return np.array([[x_m, y_m]])
        count = min(points_max, max(2, math.ceil(left_m / spacing_m) + 1))
        points = [0.0] * (2 * count)
        self.ahead(x_m, y_m, [k * spacing_m for k in range(count)], points)
        return np.array(points).reshape(count, 2)


def check_reachable(warehouse: Warehouse, where: str = "") -> None:
    """Check that every station can be driven to from every other: along the lanes, and past the pallets.

    Raises:
        WarehouseError: naming the first station that is cut off, and by what.
    """
    where = where or warehouse.name
    clearance = cell_clearance(warehouse, warehouse.boxes_to_avoid())
    against = steps_against(warehouse, (clearance.shape[0], clearance.shape[1]))
    _check_connected(warehouse, clearance >= CLEARANCE_HARD_M, against, where, "widen the aisle between them")
    if warehouse.pallets:
        clearance = cell_clearance(warehouse, warehouse.boxes_to_avoid(pallets=True))
        advice = f"leave {PASSAGE_MIN_M} m beside the pallets"
        _check_connected(warehouse, clearance >= PASSAGE_MIN_M / 2, against, where, advice)


def cells_to_drive(warehouse: Warehouse) -> npt.NDArray[np.bool_]:
    """Cells beside all boxes and pallets from which a robot gets to the first station: bool[rows, columns]."""
    free = cell_clearance(warehouse, warehouse.boxes_to_avoid(pallets=True)) >= CLEARANCE_HARD_M
    free[0, :] = free[-1, :] = free[:, 0] = free[:, -1] = False
    first = warehouse.stations[0]
    against = steps_against(warehouse, (free.shape[0], free.shape[1]))
    return _reached(free, against, cell_of(first.x_m, first.y_m, (free.shape[0], free.shape[1])), False)


def _check_connected(
    warehouse: Warehouse, free: npt.NDArray[np.bool_], against: npt.NDArray[np.bool_], where: str, advice: str
) -> None:
    """Every station must be reached from the first (stepping forward) and reach it (stepping back)."""
    free[0, :] = free[-1, :] = free[:, 0] = free[:, -1] = False
    cells = [
        cell_of(station.x_m, station.y_m, (free.shape[0], free.shape[1])) for station in warehouse.stations
    ]
    first = warehouse.stations[0].name
    if not free[cells[0]]:
        raise WarehouseError(f"{where}: station {first} stands too close to a shelf or pallet; move it")
    there, back = (_reached(free, against, cells[0], forward) for forward in (True, False))
    for station, cell in zip(warehouse.stations, cells, strict=True):
        if not there[cell]:
            raise WarehouseError(f"{where}: station {station.name} cannot be reached from {first}; {advice}")
        if not back[cell]:
            raise WarehouseError(f"{where}: station {first} cannot be reached from {station.name}; {advice}")


def _reached(
    free: npt.NDArray[np.bool_], against: npt.NDArray[np.bool_], start: tuple[int, int], forward: bool
) -> npt.NDArray[np.bool_]:
    """Free cells that ``start`` leads to, or that lead to it: bool[rows, columns]. A ring of frontiers at a time."""
    columns = free.shape[1]
    left = free.ravel().copy()
    barred = against.reshape(8, -1)
    frontier = np.array([start[0] * columns + start[1]])
    left[frontier] = False
    while frontier.size:
        found = []
        for k, (dr, dc) in enumerate(NEIGHBOURS):
            if forward:
                cells = frontier[~barred[k, frontier]] + (dr * columns + dc)
            else:
                cells = frontier - (dr * columns + dc)
                cells = cells[~barred[k, cells]]
            cells = cells[left[cells]]
            left[cells] = False
            found.append(cells)
        frontier = np.concatenate(found)
    return free & ~left.reshape(free.shape)
