"""Every way a warehouse file can be wrong is refused in one line that names the place and what to do."""

import msgspec
import pytest

from navigation.errors import WarehouseError
from navigation.warehouse import (
    FILE_SIZE_MAX_BYTES,
    LANES_MAX,
    PALLETS_MAX,
    SHELVES_MAX,
    SIDE_MAX_M,
    SIDE_MIN_M,
    STATION_CLEARANCE_MIN_M,
    STATIONS_MAX,
    ZONES_MAX,
    Lane,
    Shelf,
    SpeedZone,
    Station,
    StationKind,
    Warehouse,
    box_clearance,
    dump_warehouse,
    load_warehouse,
    parse_warehouse,
    validate_warehouse,
)

PICK = Station("pick_1", StationKind.PICK, 2.0, 2.0)
DROP = Station("drop_1", StationKind.DROP, 8.0, 8.0)
FLOOR = Warehouse("floor", 10.0, 10.0, (Shelf(5.0, 5.0, 2.0, 1.0),), (PICK, DROP))

PALLET = Shelf(7.0, 3.0, 1.2, 0.8)
LANE = Lane(5.0, 7.0, 8.0, 2.0, 0.0)


def changed(**values):
    return msgspec.structs.replace(FLOOR, **values)


def station(**values):
    return changed(stations=(msgspec.structs.replace(PICK, **values), DROP))


def shelf(**values):
    return changed(shelves=(msgspec.structs.replace(FLOOR.shelves[0], **values),))


def test_good_floor_is_taken():
    validate_warehouse(FLOOR, "floor.yaml")


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        (changed(width_m=SIDE_MIN_M - 0.01), r"width_m is 3\.99; it must be 4\.0 to 200\.0"),
        (changed(height_m=SIDE_MAX_M + 0.01), r"height_m is 200\.01; it must be 4\.0 to 200\.0"),
        (changed(width_m=float("nan")), r"width_m is nan"),
        (changed(people=-1), r"people is -1; it must be 0 to 100"),
        (changed(people=101), r"people is 101; it must be 0 to 100"),
        (changed(shelves=FLOOR.shelves * (SHELVES_MAX + 1)), r"at most 2000 shelves and 200 stations"),
        (changed(stations=(PICK,) * (STATIONS_MAX + 1)), r"at most 2000 shelves and 200 stations"),
        (shelf(length_m=0.0), r"shelves\[0\] has a size or place that is not a number above 0\.05"),
        (shelf(depth_m=float("inf")), r"shelves\[0\] has a size"),
        (shelf(x_m=float("nan")), r"shelves\[0\] has a size or place"),
        (shelf(x_m=9.5), r"shelves\[0\] reaches outside the floor; move or shorten it"),
        (
            changed(shelves=(FLOOR.shelves[0], Shelf(6.5, 5.4, 2.0, 1.0))),
            r"shelves\[0\] and shelves\[1\] overlap",
        ),
        (station(x_m=float("inf")), r"stations\[0\] \(pick_1\) has a place that is not finite"),
        (station(heading_rad=float("nan")), r"stations\[0\] \(pick_1\) has a place that is not finite"),
        (
            station(name="drop_1"),
            r"stations\[1\] \(drop_1\): the name is taken; station names must be unique",
        ),
        (
            station(x_m=5.0, y_m=5.0),
            r"0\.00 m from a wall, shelf, pallet or keep_out area; a robot needs 0\.45 m; move the station",
        ),
        (station(x_m=-1.0), r"a robot needs 0\.45 m; move the station"),
        (station(kind=StationKind.CHARGE), r"no station of kind 'pick'; add at least one"),
        (changed(pallets=(PALLET,) * (PALLETS_MAX + 1)), r"at most 200 pallets and 200 lanes"),
        (changed(lanes=(LANE,) * (LANES_MAX + 1)), r"at most 200 pallets and 200 lanes"),
        (changed(pallets=(Shelf(7.0, 3.0, 1.2, float("nan")),)), r"pallets\[0\] has a size or place"),
        (changed(pallets=(PALLET, Shelf(9.9, 3.0, 1.2, 0.8))), r"pallets\[1\] reaches outside the floor"),
        (changed(pallets=(Shelf(5.9, 5.0, 1.2, 0.8),)), r"shelves\[0\] and pallets\[0\] overlap"),
        (changed(pallets=(PALLET, PALLET)), r"pallets\[0\] and pallets\[1\] overlap"),
        (changed(pallets=(Shelf(2.0, 2.0, 1.2, 0.8),)), r"\(pick_1\): 0\.00 m from a wall, shelf, pallet"),
        (changed(lanes=(Lane(5.0, 9.5, 8.0, 2.0, 0.0),)), r"lanes\[0\] reaches outside the floor"),
        (changed(lanes=(Lane(5.0, 7.0, 8.0, 0.0, 0.0),)), r"lanes\[0\] has a size or place"),
        (changed(lanes=(Lane(5.0, 7.0, 8.0, 2.0, float("inf")),)), r"lanes\[0\] has a heading_rad"),
        (changed(keep_out=(PALLET,) * (ZONES_MAX + 1)), r"at most 50 keep_out rectangles and speed_zones"),
        (changed(keep_out=(Shelf(9.9, 3.0, 1.2, 0.8),)), r"keep_out\[0\] reaches outside the floor"),
        (changed(keep_out=(Shelf(2.0, 2.0, 1.2, 0.8),)), r"\(pick_1\): 0\.00 m from a .* keep_out area"),
        (changed(speed_zones=(SpeedZone(7.0, 3.0, 1.2, 0.8, 0.0),)), r"speed_zones\[0\] has speed_mps 0\.0"),
        (changed(speed_zones=(SpeedZone(7.0, 3.0, 1.2, 0.0, 0.5),)), r"speed_zones\[0\] has a size"),
        (changed(stations=(PICK,)), r"no station of kind 'drop'; add at least one"),
    ],
)
def test_wrong_floor_is_refused(floor, message):
    with pytest.raises(WarehouseError, match=message) as caught:
        validate_warehouse(floor, "floor.yaml")
    assert str(caught.value).startswith("floor.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("beyond_m", "taken"), [(1e-6, True), (-1e-3, False)])
def test_station_clearance_has_a_sharp_limit(beyond_m, taken):
    floor = station(x_m=STATION_CLEARANCE_MIN_M + beyond_m)
    if taken:
        validate_warehouse(floor, "floor")
    else:
        with pytest.raises(WarehouseError, match="move the station"):
            validate_warehouse(floor, "floor")


def test_shelves_that_touch_do_not_overlap():
    validate_warehouse(changed(shelves=(Shelf(5.0, 5.0, 1.0, 1.0), Shelf(6.0, 5.0, 1.0, 1.0))), "floor")


def test_boxes_are_walls_shelves_then_pallets_and_the_map_knows_no_pallets():
    floor = changed(pallets=(PALLET,), lanes=(LANE,))
    validate_warehouse(floor, "floor")
    assert floor.boxes()[-1] == pytest.approx([6.4, 2.6, 7.6, 3.4])
    assert floor.boxes()[:-1].tolist() == floor.mapped_boxes().tolist() == FLOOR.boxes().tolist()


def test_pallets_and_lanes_come_back_from_a_file_and_change_the_hash():
    floor = changed(pallets=(PALLET,), lanes=(LANE,))
    assert parse_warehouse(dump_warehouse(floor)) == floor
    assert (
        len({floor.hash(), FLOOR.hash(), changed(lanes=(LANE,)).hash(), changed(pallets=(PALLET,)).hash()})
        == 4
    )


def test_floor_from_before_pallets_and_lanes_keeps_file_and_hash():
    assert "pallets" not in dump_warehouse(FLOOR)
    assert FLOOR.hash() == "61dc460d081935d33bb14cd09b6354ad71a192cd55f608492d37a248e5044d3e"


def test_lanes_may_cross():
    validate_warehouse(changed(lanes=(LANE, Lane(5.0, 5.0, 1.0, 9.0, 1.5708))), "floor")


def test_file_that_cannot_be_read_is_refused(tmp_path):
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_bytes(b"#" * (FILE_SIZE_MAX_BYTES + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    for path, message in [
        (large, "at most 1000000"),
        (binary, "cannot be read"),
        (tmp_path / "none.yaml", "cannot be read"),
        (tmp_path, "cannot be read"),
    ]:
        with pytest.raises(WarehouseError, match=message) as caught:
            load_warehouse(path)
        assert str(path) in str(caught.value)


def test_clearance_is_to_the_nearest_box():
    boxes = FLOOR.boxes()
    assert box_clearance(boxes, 5.0, 5.0) == 0.0
    assert box_clearance(boxes, 1.0, 4.0) == pytest.approx(1.0)
    assert box_clearance(boxes, 5.0, 6.5) == pytest.approx(1.0)
    assert box_clearance(boxes, 3.7, 4.1) == pytest.approx(0.5)
