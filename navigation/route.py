"""Routes: a cost-to-go field over a grid, and the points ahead on the way down it.

The field is the fixed point of ``cost[n] = min over neighbours m of cost[m] + step(m, n)`` (Dijkstra 1959);
its value does not depend on the order of relaxation, so a compiled solver gives the same bits.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from navigation.errors import RouteError, WarehouseError
from navigation.warehouse import Warehouse

CELL_M = 0.2
CLEARANCE_HARD_M = 0.32
CLEARANCE_SOFT_M = 0.75
COST_NEAR = 8.0
"""Factor on a step through a cell nearer to a box than the hard clearance: passable, to get out again."""
COST_SOFT = 1.5
CELLS_MAX = 1_010_000
"""Enough for the largest floor that validates, 200 m by 200 m."""
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

Field = npt.NDArray[np.float32]
Pointers = npt.NDArray[np.int32]


def cell_costs(warehouse: Warehouse) -> Field:
    """Cost factor of each cell, float32[rows, columns]; infinite inside a box, 1 far from all.

    Row 0 is y = 0. The outermost ring of cells is always infinite, so that a walk needs no bounds checks.
    """
    columns = math.ceil(warehouse.width_m / CELL_M) + 2
    rows = math.ceil(warehouse.height_m / CELL_M) + 2
    if rows * columns > CELLS_MAX:
        raise WarehouseError(f"{warehouse.name}: {rows * columns} cells; a floor has at most {CELLS_MAX}")
    x = (np.arange(columns) - 0.5) * CELL_M
    y = (np.arange(rows) - 0.5) * CELL_M
    clearance = np.full((rows, columns), np.inf)
    for x_min, y_min, x_max, y_max in warehouse.boxes():
        dx = np.maximum(np.maximum(x_min - x, x - x_max), 0.0)
        dy = np.maximum(np.maximum(y_min - y, y - y_max), 0.0)
        np.minimum(clearance, np.hypot(dx[None, :], dy[:, None]), out=clearance)
    soft = COST_SOFT * (CLEARANCE_SOFT_M - clearance) / (CLEARANCE_SOFT_M - CLEARANCE_HARD_M)
    factor = 1.0 + np.clip(soft, 0.0, COST_SOFT)
    factor[clearance < CLEARANCE_HARD_M] = COST_NEAR
    factor[clearance <= 0.0] = np.inf
    factor[0, :] = factor[-1, :] = factor[:, 0] = factor[:, -1] = np.inf
    return factor.astype(np.float32)


def step_lengths(dtype: type = np.float32) -> npt.NDArray[np.float32]:
    """Length in m of the step to each of the eight ``NEIGHBOURS``."""
    return np.array([CELL_M * math.hypot(*neighbour) for neighbour in NEIGHBOURS], dtype=dtype)


def cell_of(x_m: float, y_m: float, shape: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell that holds a point (map frame, m), clipped to the inside of the grid."""
    row = min(max(int(y_m / CELL_M) + 1, 1), shape[0] - 2)
    column = min(max(int(x_m / CELL_M) + 1, 1), shape[1] - 2)
    return row, column


def cost_to_go(costs: Field, x_m: float, y_m: float) -> Field:
    """Cost from each cell to the goal at ``x_m, y_m``: float32[rows, columns], infinite where cut off.

    Raises:
        RouteError: the goal is inside a wall or shelf.
    """
    row, column = cell_of(x_m, y_m, costs.shape)
    if not np.isfinite(costs[row, column]):
        raise RouteError(f"goal ({x_m:.2f}, {y_m:.2f}) is inside a wall or shelf; choose a free place")
    rows, columns = costs.shape
    field = np.full(costs.shape, np.inf, dtype=np.float32)
    field[row, column] = 0.0
    inner = np.s_[1 : rows - 1, 1 : columns - 1]
    lengths = step_lengths()
    weights = [lengths[k] * costs[inner] for k in range(8)]
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
    lengths = step_lengths()
    best = field[inner].copy()
    goal = best == 0.0
    best[:] = np.inf
    for k, (dr, dc) in enumerate(NEIGHBOURS):
        candidate = field[1 + dr : rows - 1 + dr, 1 + dc : columns - 1 + dc] + lengths[k] * costs[inner]
        better = (candidate < best) & ~goal
        best[better] = candidate[better]
        pointers[inner][better] = pointers_shift(rows, columns, dr, dc)[better]
    return pointers


def pointers_shift(rows: int, columns: int, dr: int, dc: int) -> Pointers:
    """Flat indices of the inner cells' neighbours at offset ``dr, dc``."""
    flat = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    return flat[1 + dr : rows - 1 + dr, 1 + dc : columns - 1 + dc]


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
    row = min(max(int(y_m / 0.2) + 1, 1), rows - 2)
    column = min(max(int(x_m / 0.2) + 1, 1), columns - 2)
    here = row * columns + column
    best = here
    left_m = math.inf
    for dr in range(-1, 2):
        for dc in range(-1, 2):
            cell = here + dr * columns + dc
            cost = field[cell]
            if cost < math.inf:
                dx = (column + dc - 0.5) * 0.2 - x_m
                dy = (row + dr - 0.5) * 0.2 - y_m
                total = cost + math.sqrt(dx * dx + dy * dy)
                if total < left_m:
                    left_m = total
                    best = cell
    count = len(distances_m)
    if left_m == math.inf:
        for k in range(count):
            points[2 * k] = goal_x_m
            points[2 * k + 1] = goal_y_m
        return left_m
    at_x, at_y = x_m, y_m
    travelled = 0.0
    cell = best
    filled = 0
    while filled < count:
        at_goal = pointers[cell] == cell
        if at_goal:
            to_x, to_y = goal_x_m, goal_y_m
        else:
            to_x = (cell % columns - 0.5) * 0.2
            to_y = (cell // columns - 0.5) * 0.2
        dx, dy = to_x - at_x, to_y - at_y
        length = math.sqrt(dx * dx + dy * dy)
        while filled < count and travelled + length >= distances_m[filled]:
            along = (distances_m[filled] - travelled) / length if length > 0.0 else 0.0
            points[2 * filled] = at_x + along * dx
            points[2 * filled + 1] = at_y + along * dy
            filled += 1
        travelled += length
        at_x, at_y = to_x, to_y
        if at_goal:
            break
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
        self.rows, self.columns = (int(side) for side in costs.shape)
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
    """Check that every station can be driven to from every other.

    Raises:
        WarehouseError: naming the first station that is cut off.
    """
    where = where or warehouse.name
    costs = cell_costs(warehouse)
    passable = np.where(costs >= COST_NEAR, np.float32(np.inf), costs)
    first = warehouse.stations[0]
    try:
        field = cost_to_go(passable, first.x_m, first.y_m)
    except RouteError:
        raise WarehouseError(f"{where}: station {first.name} stands too close to a shelf; move it") from None
    for station in warehouse.stations:
        if not np.isfinite(field[cell_of(station.x_m, station.y_m, costs.shape)]):
            raise WarehouseError(
                f"{where}: station {station.name} cannot be reached from {first.name}; widen the aisle between them"
            )
