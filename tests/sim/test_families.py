"""Each family of floors is valid, has what it is named for, and gets harder with its difficulty."""

import functools
import itertools
import math

import msgspec
import numpy as np
import pytest

from navigation.route import cell_clearance, check_reachable
from navigation.warehouse import (
    StationKind,
    box_clearance,
    boxes_of,
    dump_warehouse,
    parse_warehouse,
    validate_warehouse,
)
from sim.errors import GenerateError
from sim.world.floors import Floors
from sim.world.generate import Family, GenerateConfig, generate_mixed, generate_warehouse
from sim.world.layout_config import (
    DIFFICULTY_EFFECTS,
    FAMILY_ABOUT,
    FAMILY_CONFIGS,
    DoorsConfig,
    OneWayConfig,
    at_difficulty,
)
from sim.world.pallets import PASSAGE_M, STATION_GAP_M

SEEDS = range(8)
DIFFICULTIES = (0.0, 0.5, 1.0)


@functools.cache
def floors_of(family, difficulty, seeds=SEEDS):
    return [generate_warehouse(seed, family=family, difficulty=difficulty) for seed in seeds]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("family", Family)
def test_floor_is_valid(family, difficulty):
    for seed, floor in enumerate(floors_of(family, difficulty, range(4))):
        validate_warehouse(floor, floor.name)
        check_reachable(floor)
        assert parse_warehouse(dump_warehouse(floor)) == floor
        assert floor == generate_warehouse(seed, family=family, difficulty=difficulty)
        for a, b in itertools.combinations(floor.stations, 2):
            assert math.hypot(a.x_m - b.x_m, a.y_m - b.y_m) > 1.0
        for kind, least in ((StationKind.PICK, 6), (StationKind.DROP, 3), (StationKind.CHARGE, 4)):
            assert len(floor.stations_of(kind)) >= least


@pytest.mark.parametrize("family", Family)
def test_simulation_can_work_on_it(family):
    floors = Floors(floors_of(family, 1.0, range(2)))
    for index, floor in enumerate(floors.warehouses):
        clear = [box_clearance(floor.boxes(), x, y) for x, y in floors.spawn_xy[index].tolist()]
        assert min(clear) >= 0.5
        size = int(floors.rows[index] * floors.columns[index])
        for number, station in enumerate(floor.stations):
            start = int(floors.route_at[index, number])
            field = floors.field[start : start + size].reshape(floors.rows[index], floors.columns[index])
            rows, columns = ((floors.spawn_xy[index][:, axis] / 0.2).astype(int) + 1 for axis in (1, 0))
            assert np.isfinite(field[rows, columns]).all(), station.name


def narrowest_m(floor):
    """Twice the median clearance of pick stations: how wide it is where work is done."""
    mapped = floor.mapped_boxes()
    return 2 * np.median([box_clearance(mapped, s.x_m, s.y_m) for s in floor.stations_of(StationKind.PICK)])


def test_narrow_aisles_are_narrow_but_not_too():
    for floor in floors_of(Family.NARROW_AISLES, 1.0):
        for pick in floor.stations_of(StationKind.PICK):
            assert 2 * box_clearance(floor.mapped_boxes(), pick.x_m, pick.y_m) >= 1.25
        assert narrowest_m(floor) < 1.5


def test_cross_aisles_have_more_crossings_than_rows():
    def blocks_a_square_metre(family):
        floors = floors_of(family, 0.5)
        return np.mean([len(floor.shelves) / (floor.width_m * floor.height_m) for floor in floors])

    assert blocks_a_square_metre(Family.CROSS_AISLES) > 1.4 * blocks_a_square_metre(Family.ROWS)


def test_lanes_lie_along_free_aisles_there_and_back():
    headings = []
    for floor in floors_of(Family.ONE_WAY, 0.8):
        assert floor.lanes
        headings.append(
            len({round(math.cos(lane.heading_rad) + 2 * math.sin(lane.heading_rad)) for lane in floor.lanes})
        )
        for lane in floor.lanes:
            along_x = abs(math.cos(lane.heading_rad)) > 0.9
            assert along_x == (lane.length_m > lane.depth_m), "a lane runs along its longer side"
            x0, y0, x1, y1 = boxes_of([lane])[0]
            for sx0, sy0, sx1, sy1 in floor.mapped_boxes():
                assert min(x1, sx1) - max(x0, sx0) < 0.01 or min(y1, sy1) - max(y0, sy0) < 0.01
    assert max(headings) == 2


def test_dead_ends_are_closed_at_one_end():
    closed = [
        sum(0.59 < min(s.length_m, s.depth_m) < 0.61 for s in floor.shelves)
        for floor in floors_of(Family.DEAD_ENDS, 1.0)
    ]
    assert np.mean(closed) > 2
    easy = [
        sum(0.59 < min(s.length_m, s.depth_m) < 0.61 for s in floor.shelves)
        for floor in floors_of(Family.DEAD_ENDS, 0.0)
    ]
    assert np.mean(easy) < np.mean(closed)


def test_docks_hold_the_drop_stations_between_stub_walls():
    for floor in floors_of(Family.DOCKS, 0.5):
        drops = floor.stations_of(StationKind.DROP)
        stubs = [s for s in floor.shelves if min(s.length_m, s.depth_m) == 0.2]
        assert len(stubs) == len(drops) + 1
        boxes = boxes_of(stubs)
        for drop in drops:
            beside = ((boxes[:, 0] <= drop.x_m) & (drop.x_m <= boxes[:, 2])) | (
                (boxes[:, 1] <= drop.y_m) & (drop.y_m <= boxes[:, 3])
            )
            assert beside.sum() >= 2


@pytest.mark.parametrize(("difficulty", "doors"), [(0.0, 2), (1.0, 1)])
def test_doors_are_the_only_ways_between_rooms(difficulty, doors):
    for floor in floors_of(Family.DOORS, difficulty):
        walls = boxes_of([s for s in floor.shelves if min(s.length_m, s.depth_m) == 0.2])
        along = 0 if walls[0, 2] - walls[0, 0] > walls[0, 3] - walls[0, 1] else 1
        side_m = (floor.width_m, floor.height_m)[along]
        lines = {}
        for wall in walls:
            lines.setdefault(round(wall[1 - along], 3), []).append((wall[along], wall[along + 2]))
        assert lines
        for pieces in lines.values():
            pieces.sort()
            gaps = [b[0] - a[1] for a, b in itertools.pairwise(pieces)]
            assert len(gaps) == doors
            assert all(1.39 <= gap <= 1.83 for gap in gaps)
            assert pieces[0][0] == pytest.approx(0.0, abs=0.002)
            assert pieces[-1][1] == pytest.approx(side_m, abs=0.002)


def test_open_floor_is_open():
    def open_share(family):
        shares = []
        for floor in floors_of(family, 0.5):
            clearance = cell_clearance(floor, floor.boxes())
            shares.append((clearance > 0.9).mean())
        return np.mean(shares)

    assert open_share(Family.OPEN_FLOOR) > 1.3 * open_share(Family.ROWS)


@pytest.mark.parametrize("family", Family)
def test_difficulty_adds_people_and_pallets_that_can_be_passed(family):
    easy, hard = floors_of(family, 0.0), floors_of(family, 1.0)
    assert np.mean([f.people for f in easy]) + 1 < np.mean([f.people for f in hard])
    assert not any(floor.pallets for floor in easy)
    assert np.mean([len(floor.pallets) for floor in hard]) > 4
    for floor in hard:
        for index, pallet in enumerate(boxes_of(floor.pallets)):
            for station in floor.stations:
                assert box_clearance(pallet[None], station.x_m, station.y_m) >= STATION_GAP_M
            other = np.delete(floor.boxes(), len(floor.mapped_boxes()) + index, axis=0)
            grown = pallet + np.array([-1, -1, 1, 1]) * (PASSAGE_M - 1e-6)
            overlap = (other[:, :2] < grown[2:]) & (other[:, 2:] > grown[:2])
            near = other[overlap.all(axis=1)]
            # What is near lies on one side of it: there it was put down, the three others are free.
            sides = (
                near[:, 2] <= pallet[0],
                near[:, 3] <= pallet[1],
                near[:, 0] >= pallet[2],
                near[:, 1] >= pallet[3],
            )
            assert any(side.all() for side in sides)


def test_rows_get_narrower_with_difficulty():
    widths = [np.mean([narrowest_m(f) for f in floors_of(Family.ROWS, d)]) for d in DIFFICULTIES]
    assert widths[0] >= widths[1] > widths[2]


@pytest.mark.parametrize("family", Family)
def test_config_changes_continuously_and_holds_in_the_middle(family):
    config = FAMILY_CONFIGS[family]
    assert at_difficulty(config, 0.5) == msgspec.structs.replace(config, pallets=0)
    for low in np.linspace(0.0, 0.99, 34):
        a, b = (at_difficulty(config, d) for d in (low, low + 0.01))
        for name in DIFFICULTY_EFFECTS:
            before, after = (np.atleast_1d(getattr(c, name, 0.0)) for c in (a, b))
            step = 1.0 if name == "people" else 0.012 * max(np.abs(before).max(), 0.1) + 0.02
            assert np.abs(after - before).max() <= step


def test_every_effect_is_one_on_a_setting():
    names = {name for config in FAMILY_CONFIGS.values() for name in config.__struct_fields__}
    assert set(DIFFICULTY_EFFECTS) <= names
    assert set(FAMILY_CONFIGS) == set(FAMILY_ABOUT) == set(Family)


def test_mixed_floors_take_turns():
    floors = generate_mixed(10, 50, difficulty_range=(0.2, 0.9))
    assert floors[:3] == generate_mixed(3, 50, difficulty_range=(0.2, 0.9))
    assert len({floor.hash() for floor in floors}) == 10
    for index, (floor, family) in enumerate(zip(floors, itertools.cycle(Family), strict=False)):
        name, seed, difficulty = floor.name.rsplit("-", 2)
        assert (name, int(seed)) == (family, 50 + index)
        again = generate_warehouse(50 + index, family=family, difficulty=float(difficulty[1:]))
        assert 0.2 <= float(difficulty[1:]) <= 0.9
        assert msgspec.structs.replace(again, name=floor.name) == floor


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"difficulty": -0.01}, "difficulty is -0.01; it must be 0 to 1"),
        ({"difficulty": 1.01}, "difficulty"),
        ({"difficulty": math.nan}, "difficulty is nan"),
        ({"family": Family.DOORS, "config": GenerateConfig()}, "family doors takes a DoorsConfig"),
        ({"config": OneWayConfig()}, "family rows takes a GenerateConfig"),
        ({"family": Family.DOORS, "config": DoorsConfig(height_m=(4.0, 4.2))}, "give the config more room"),
    ],
)
def test_wrong_arguments_are_refused(values, message):
    with pytest.raises(GenerateError, match=message):
        generate_warehouse(0, **values)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0, 0), "0 floors"),
        ((3, 0, ()), "of at least one"),
        ((3, -1), "seed is -1"),
        ((3, 0, (Family.ROWS,), (0.6, 0.4)), "in order"),
        ((3, 0, (Family.ROWS,), (0.6, 1.4)), "in order"),
    ],
)
def test_wrong_mixtures_are_refused(args, message):
    with pytest.raises(GenerateError, match=message):
        generate_mixed(*args)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (OneWayConfig, {"lane_share": 1.2}),
        (DoorsConfig, {"door_m": (2.0, 1.5)}),
        (GenerateConfig, {"pick_clearance_m": 0.2}),
        (GenerateConfig, {"missing_share": -0.1}),
    ],
)
def test_wrong_configs_are_refused(kind, values):
    with pytest.raises(ValueError, match=next(iter(values))):
        kind(**values)
