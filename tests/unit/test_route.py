"""Routes lead to the goal from everywhere, and the compiled solver gives the same bits as the written one."""

import math

import msgspec
import numpy as np
import pytest

from contracts.observation import CARROT_DISTANCES_M
from navigation.errors import RouteError, WarehouseError
from navigation.route import (
    CELL_M,
    COST_AGAINST,
    NEIGHBOURS,
    Route,
    cell_costs,
    cell_of,
    cells_to_drive,
    check_reachable,
    cost_to_go,
    next_cells,
    steps_against,
)
from navigation.warehouse import SIDE_MAX_M, Lane, Shelf, Station, StationKind, Warehouse
from sim.world import floors
from sim.world.floors import compiled_cost_to_go
from sim.world.generate import Family, generate_warehouse

FLOOR = generate_warehouse(2)
COSTS = cell_costs(FLOOR)
GOAL = FLOOR.stations[0]


@pytest.fixture(scope="module")
def route():
    return Route(COSTS, GOAL.x_m, GOAL.y_m)


@pytest.mark.parametrize("family", [Family.ROWS, Family.ONE_WAY])
@pytest.mark.parametrize("seed", range(3))
def test_compiled_field_has_the_same_bits(seed, family):
    floor = generate_warehouse(seed, family=family)
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


STATIONS = (Station("west", StationKind.PICK, 1.0, 5.0), Station("east", StationKind.DROP, 19.0, 5.0))
ISLAND = Shelf(10.0, 5.0, 12.0, 4.0)
"""Two aisles lead past it, from y = 0 to 3 and from 7 to 10."""
EASTWARD = Lane(10.0, 1.5, 12.0, 3.0, 0.0)
WESTWARD = Lane(10.0, 8.5, 12.0, 3.0, math.pi)


def ring(lanes=(EASTWARD, WESTWARD), **values):
    return Warehouse("ring", 20.0, 10.0, (ISLAND,), STATIONS, lanes=lanes, **values)


def aisle_of(floor, start, goal):
    """The y where the route from one station to the other passes the middle of the island."""
    route = Route(cell_costs(floor), goal.x_m, goal.y_m)
    path = path_from(route, start.x_m, start.y_m)
    return path[np.abs(path[:, 0] - 10.0).argmin(), 1]


def test_route_goes_along_the_lanes_there_and_back():
    west, east = STATIONS
    for floor, there_south in (
        (ring(), True),
        (ring((msgspec.structs.replace(EASTWARD, heading_rad=math.pi),)), False),
    ):
        assert (aisle_of(floor, west, east) < 3.0) == there_south
        check_reachable(floor)
    assert aisle_of(ring(), east, west) > 7.0
    # Both ways are as long: without lanes both directions choose the same.
    assert (aisle_of(ring(()), west, east) < 3.0) == (aisle_of(ring(()), east, west) < 3.0)


def test_who_stands_in_a_lane_gets_out_against_it_at_a_price():
    blocked = Shelf(15.0, 1.5, 0.6, 3.0)
    floor = msgspec.structs.replace(ring(), shelves=(ISLAND, blocked))
    route = Route(cell_costs(floor), 1.0, 5.0)
    left_m = route.ahead(12.0, 1.5, (), [])
    assert 8.0 * COST_AGAINST / 2 < left_m < math.inf
    path = path_from(route, 12.0, 1.5)
    assert path[-1].tolist() == [1.0, 5.0]


def test_every_step_of_a_route_keeps_to_the_lanes():
    floor = generate_warehouse(6, family=Family.ONE_WAY)
    costs = cell_costs(floor)
    shape = costs.shape[1:]
    against = steps_against(floor, shape)
    assert against.any()
    for station in floor.stations:
        field = cost_to_go(costs, station.x_m, station.y_m)
        pointers = next_cells(field, costs).reshape(-1)
        for other in floor.stations:
            row, column = cell_of(other.x_m, other.y_m, shape)
            while pointers[row * shape[1] + column] != row * shape[1] + column:
                there = divmod(int(pointers[row * shape[1] + column]), shape[1])
                assert not against[NEIGHBOURS.index((there[0] - row, there[1] - column)), row, column]
                row, column = there


@pytest.mark.parametrize(("turn_rad", "free"), [(0.0, 5), (math.pi / 2, 5), (math.pi / 4, 5), (0.1, 4)])
def test_lane_forbids_what_lies_beyond_90_degrees(turn_rad, free):
    floor = ring((msgspec.structs.replace(EASTWARD, heading_rad=turn_rad),))
    against = steps_against(floor, cell_costs(floor).shape[1:])
    row, column = cell_of(10.0, 1.5, against.shape[1:])
    assert (~against[:, row, column]).sum() == free
    assert not against[:, cell_of(10.0, 3.2, against.shape[1:])[0], column].any()


def test_lanes_without_a_way_back_are_refused():
    both_east = (EASTWARD, msgspec.structs.replace(WESTWARD, heading_rad=0.0))
    with pytest.raises(WarehouseError, match="station west cannot be reached from east"):
        check_reachable(ring(both_east))
    both_west = (WESTWARD, msgspec.structs.replace(EASTWARD, heading_rad=math.pi))
    with pytest.raises(WarehouseError, match="station east cannot be reached from west"):
        check_reachable(ring(both_west))


def test_pallets_may_block_one_way_but_not_both():
    south, north = Shelf(10.0, 1.5, 1.0, 3.0), Shelf(10.0, 8.5, 1.0, 3.0)
    check_reachable(ring((), pallets=(south,)))
    with pytest.raises(WarehouseError, match=r"leave 0\.72 m beside the pallets"):
        check_reachable(ring((), pallets=(south, north)))
    with pytest.raises(WarehouseError, match="east cannot be reached"):
        check_reachable(ring(pallets=(south,)))


@pytest.mark.parametrize(("gap_m", "taken"), [(0.60, False), (0.95, True)])
def test_pallet_must_leave_a_robots_width(gap_m, taken):
    depth_m = 3.0 - gap_m
    pallets = (Shelf(10.0, depth_m / 2, 1.0, depth_m), Shelf(10.0, 10.0 - depth_m / 2, 1.0, depth_m))
    if taken:
        check_reachable(ring((), pallets=pallets))
    else:
        with pytest.raises(WarehouseError, match="beside the pallets"):
            check_reachable(ring((), pallets=pallets))


def test_routes_do_not_know_pallets_but_spawns_do():
    bare, full = ring(()), ring((), pallets=(Shelf(10.0, 1.5, 1.0, 3.0),))
    assert cell_costs(full).tobytes() == cell_costs(bare).tobytes()
    assert not cells_to_drive(full)[cell_of(10.0, 1.5, cell_costs(full).shape)]
    known = floors.Floors([bare, full])
    assert known.box_count.tolist() == [5, 6]
    assert known.mapped.tolist() == [5, 5]
    spawn = known.spawn_xy[1]
    assert np.abs(spawn[spawn[:, 1] < 3.0][:, 0] - 10.0).min() >= 0.5 + floors.SPAWN_PALLET_M - 1e-9


def test_nobody_starts_in_a_closed_room():
    walls = (Shelf(8.0, 5.0, 0.1, 4.0), Shelf(12.0, 5.0, 0.1, 4.0), Shelf(10.0, 3.05, 3.9, 0.1))
    walls += (Shelf(10.0, 6.95, 3.9, 0.1),)
    floor = Warehouse("closed", 20.0, 10.0, walls, STATIONS)
    spawn = floors.Floors([floor]).spawn_xy[0]
    assert not ((np.abs(spawn[:, 0] - 10.0) < 2.0) & (np.abs(spawn[:, 1] - 5.0) < 2.0)).any()
    assert Route(cell_costs(floor), 1.0, 5.0).ahead(10.0, 5.0, (), []) == math.inf, "thin walls have no holes"


def test_compiled_route_ahead_gives_the_same_points(route):
    field, pointers = np.array(route.field, dtype=np.float32), np.array(route.pointers, dtype=np.int32)
    distances = np.array(CARROT_DISTANCES_M)
    for x_m, y_m in free_places(50):
        points, compiled = [0.0] * 6, np.zeros(6)
        left_m = route.ahead(x_m, y_m, CARROT_DISTANCES_M, points)
        args = (pointers, field, route.rows, route.columns, x_m, y_m, *route.goal_m, distances)
        assert floors.route_ahead(*args, compiled) == pytest.approx(left_m, rel=1e-6)
        assert compiled.tolist() == pytest.approx(points, abs=1e-9)
