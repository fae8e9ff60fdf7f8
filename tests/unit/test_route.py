"""Routes lead to the goal from everywhere, and the compiled solver gives the same bits as the written one."""

import math

import numpy as np
import pytest

from contracts.observation import CARROT_DISTANCES_M
from navigation.errors import RouteError, WarehouseError
from navigation.route import CELL_M, Route, cell_costs, cell_of, check_reachable, cost_to_go
from navigation.warehouse import SIDE_MAX_M, Shelf, Station, StationKind, Warehouse
from sim.world.floors import compiled_cost_to_go
from sim.world.generate import generate_warehouse

FLOOR = generate_warehouse(2)
COSTS = cell_costs(FLOOR)
GOAL = FLOOR.stations[0]


@pytest.fixture(scope="module")
def route():
    return Route(COSTS, GOAL.x_m, GOAL.y_m)


@pytest.mark.parametrize("seed", range(4))
def test_compiled_field_has_the_same_bits(seed):
    floor = generate_warehouse(seed)
    costs = cell_costs(floor)
    for station in (floor.stations[0], floor.stations[-1]):
        written = cost_to_go(costs, station.x_m, station.y_m)
        assert compiled_cost_to_go(costs, station.x_m, station.y_m).tobytes() == written.tobytes()


def free_places(count):
    cells = np.argwhere(COSTS < 2.0)
    rng = np.random.default_rng(0)
    chosen = cells[rng.integers(len(cells), size=count)]
    return ((chosen[:, ::-1] - 1 + rng.random((count, 2))) * CELL_M).tolist()


def path_from(route, x_m, y_m):
    """The route as vertices, by following the pointers: an independent walk."""
    row, column = cell_of(x_m, y_m, (route.rows, route.columns))
    around = [(row + i) * route.columns + column + j for i in (-1, 0, 1) for j in (-1, 0, 1)]

    def centre(cell):
        return (cell % route.columns - 0.5) * CELL_M, (cell // route.columns - 0.5) * CELL_M

    cell = min(around, key=lambda c: route.field[c] + math.dist(centre(c), (x_m, y_m)))
    path = [(x_m, y_m)]
    while route.pointers[cell] != cell:
        path.append(centre(cell))
        cell = route.pointers[cell]
        assert len(path) < len(route.field)
    return np.array([*path, route.goal_m])


def test_every_free_place_leads_to_the_goal(route):
    assert np.isfinite(np.array(route.field).reshape(COSTS.shape)[np.inf > COSTS]).all()
    for x_m, y_m in free_places(200):
        path = path_from(route, x_m, y_m)
        assert path[-1].tolist() == [GOAL.x_m, GOAL.y_m]
        assert np.hypot(*np.diff(path, axis=0).T).max() < 3 * CELL_M
        assert route.polyline(x_m, y_m)[-1] == pytest.approx([GOAL.x_m, GOAL.y_m], abs=0.5)


def test_carrots_lie_at_their_arc_lengths(route):
    for x_m, y_m in free_places(200):
        points = [0.0] * 6
        route.ahead(x_m, y_m, CARROT_DISTANCES_M, points)
        path = path_from(route, x_m, y_m)
        lengths = np.concatenate([[0.0], np.hypot(*np.diff(path, axis=0).T).cumsum()])
        expected = np.stack(
            [np.interp(CARROT_DISTANCES_M, lengths, path[:, axis]) for axis in (0, 1)], axis=1
        )
        assert np.array(points).reshape(3, 2) == pytest.approx(expected, abs=1e-6)


def test_driving_along_the_route_lowers_its_cost(route):
    for x_m, y_m in free_places(50):
        left_m = route.ahead(x_m, y_m, (), [])
        points = [0.0] * 2
        assert left_m >= math.dist((x_m, y_m), route.goal_m) - 2 * CELL_M
        if left_m > 1.0:
            route.ahead(x_m, y_m, (0.6,), points)
            assert route.ahead(*points, (), []) < left_m


def test_goal_in_a_shelf_is_refused():
    shelf = FLOOR.shelves[0]
    with pytest.raises(RouteError, match="inside a wall or shelf; choose a free place"):
        Route(COSTS, shelf.x_m, shelf.y_m)


def test_place_that_is_cut_off_has_no_route():
    wall = Shelf(5.0, 5.0, 0.6, 10.0)
    stations = (Station("p", StationKind.PICK, 2.0, 5.0), Station("d", StationKind.DROP, 8.0, 5.0))
    floor = Warehouse("halves", 10.0, 10.0, (wall,), stations)
    points = [0.0] * 6
    route = Route(cell_costs(floor), 2.0, 5.0)
    assert route.ahead(8.0, 5.0, CARROT_DISTANCES_M, points) == math.inf
    assert points == [2.0, 5.0] * 3
    assert route.polyline(8.0, 5.0).tolist() == [[8.0, 5.0]]
    with pytest.raises(WarehouseError, match="station d cannot be reached from p; widen the aisle"):
        check_reachable(floor)


def test_huge_floor_is_refused():
    with pytest.raises(WarehouseError, match="at most"):
        cell_costs(Warehouse("huge", 400.0, 400.0, (), ()))
    largest = Warehouse("largest", SIDE_MAX_M, SIDE_MAX_M, (), ())
    assert cell_costs(largest).size > 1_000_000
