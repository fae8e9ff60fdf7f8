"""ROS maps become floors whose boxes are the map's occupied cells; bad maps are refused in one clear line."""

import numpy as np
import pytest
from PIL import Image

from navigation import ros_map
from navigation.errors import MapImportError, NavigationError, WarehouseError
from navigation.ros_map import import_map, merge_rectangles, read_pgm
from navigation.route import check_reachable
from navigation.warehouse import StationKind, box_clearance, boxes_of, parse_warehouse
from sim.world.map_image import read_image

RESOLUTION_M = 0.05
FREE, UNKNOWN, OCCUPIED = 254, 205, 0


def hall():
    """8 m by 6 m of free floor in a wall and unknown ground, one shelf; row 0 is the top."""
    pixels = np.full((150, 200), UNKNOWN, dtype=np.uint8)
    pixels[9:133, 18:182] = OCCUPIED
    pixels[11:131, 20:180] = FREE
    pixels[31:41, 60:140] = OCCUPIED
    return pixels


@pytest.fixture
def write(tmp_path):
    def write(pixels, name="map.pgm", **values):
        path = tmp_path / name
        if name.endswith(".pgm"):
            header = f"P5\n# CREATOR: map_saver\n{pixels.shape[1]} {pixels.shape[0]}\n255\n"
            path.write_bytes(header.encode() + pixels.tobytes())
        else:
            Image.fromarray(pixels).save(path)
        document = {
            "image": name, "resolution": RESOLUTION_M, "origin": [-10.0, -5.0, 0.0], "negate": 0,
            "occupied_thresh": 0.65, "free_thresh": 0.25, **values,
        }  # fmt: skip
        (tmp_path / "map.yaml").write_text("\n".join(f"{key}: {value}" for key, value in document.items()))
        return tmp_path / "map.yaml"

    return write


def painted(floor, shape, offset_m):
    """The map that a floor's boxes make, bool[rows, columns], row 0 at the top: True where occupied."""
    y, x = ((np.arange(side) + 0.5) * RESOLUTION_M for side in shape)
    x, y = x - 10.0 - offset_m[0], y - 5.0 - offset_m[1]
    occupied = ~((x > 0) & (x < floor.width_m) & ((y > 0) & (y < floor.height_m))[:, None])
    for x0, y0, x1, y1 in boxes_of(floor.shelves):
        occupied |= ((y > y0) & (y < y1))[:, None] & ((x > x0) & (x < x1))[None, :]
    return occupied[::-1]


def test_boxes_are_the_occupied_cells_and_the_offset_leads_back(write):
    result = import_map(write(hall()))
    floor = result.warehouse
    assert (floor.width_m, floor.height_m) == (8.0, 6.0)
    assert result.offset_m == pytest.approx((-10.0 + 20 * 0.05, -5.0 + 19 * 0.05))
    assert len(floor.shelves) == 1
    assert (painted(floor, (150, 200), result.offset_m) == (hall() != FREE)).all()
    # The shelf is in the upper half of the picture, so it is where y is large.
    assert floor.shelves[0].y_m == pytest.approx(6.0 - 25 * 0.05)


def test_dump_says_where_the_origin_went(write):
    result = import_map(write(hall()))
    text = result.dump("my\nmap.yaml")
    assert text.startswith("# From ROS map my map.yaml, on a grid of 0.05 m.\n")
    assert "\n# ROS map frame = this frame + (-9.000, -4.050) m.\n" in text
    assert parse_warehouse(text) == result.warehouse


@pytest.mark.parametrize("name", ["map.pgm", "map.png", "map.bmp"])
@pytest.mark.parametrize("negate", [0, 1])
@pytest.mark.parametrize("mode", ["trinary", "scale"])
def test_all_forms_of_a_map_give_the_same_floor(write, name, negate, mode):
    pixels = hall()
    if mode == "scale":
        pixels[pixels == UNKNOWN] = 100
    if negate:
        pixels = 255 - pixels
        pixels[pixels == 255 - UNKNOWN] = 127
    floor = import_map(write(pixels, name, negate=negate, mode=mode), read_image=read_image).warehouse
    assert floor == import_map(write(hall())).warehouse


def test_plain_pgm_with_another_maximum_is_read(tmp_path):
    path = tmp_path / "plain.pgm"
    path.write_text("P2 # by hand\n3 2\n# the largest\n100\n0 50 100\n100 50 0\n")
    assert read_pgm(path) == pytest.approx(np.array([[0, 127.5, 255], [255, 127.5, 0]]))
    path.write_bytes(b"P5 2 1 65535\n\xff\xff\x00\x00")
    assert read_pgm(path).tolist() == [[255.0, 0.0]]


def test_transparent_pixels_are_unknown(write):
    pixels = np.stack([hall()] * 3 + [np.full((150, 200), 255, dtype=np.uint8)], axis=-1)
    pixels[60:80, 60:80, 3] = 0
    floor = import_map(write(pixels, "map.png"), read_image=read_image).warehouse
    assert len(floor.shelves) == 2


def test_only_the_largest_free_area_counts(write):
    pixels = hall()
    pixels[0:8, 0:8] = FREE
    pixels[33:39, 70:130] = FREE
    floor = import_map(write(pixels)).warehouse
    assert floor == import_map(write(hall())).warehouse


def test_picked_stations_are_seeded_and_can_be_worked_from(write):
    path = write(hall())
    floor = import_map(path, seed=1, people=0).warehouse
    assert floor == import_map(path, seed=1, people=0).warehouse
    assert floor.people == 0
    assert floor.stations != import_map(path, seed=2).warehouse.stations
    check_reachable(floor)
    assert all(floor.stations_of(kind) for kind in StationKind)
    assert len(floor.stations) >= 10
    for index, a in enumerate(floor.stations):
        assert box_clearance(floor.boxes(), a.x_m, a.y_m) >= ros_map.STATION_FREE_M
        for b in floor.stations[:index]:
            assert np.hypot(a.x_m - b.x_m, a.y_m - b.y_m) >= ros_map.STATION_SPACING_M - 1e-6


def test_given_stations_are_in_the_maps_frame(write, tmp_path):
    path = tmp_path / "stations.yaml"
    path.write_text(
        "stations:\n- {name: a, kind: pick, x_m: -8.0, y_m: -3.0}\n- {name: b, kind: drop, x_m: -2.0, y_m: 0.5}\n"
    )
    floor = import_map(write(hall()), path).warehouse
    assert [(s.name, s.x_m, s.y_m) for s in floor.stations] == [("a", 1.0, 1.05), ("b", 7.0, 4.55)]
    path.write_text("stations:\n- {name: a, kind: pick, x_m: -20.0, y_m: -3.0}\n")
    with pytest.raises(WarehouseError, match=r"stations\[0\] \(a\)"):
        import_map(write(hall()), path)
    path.write_text("stations: [{name: a}]")
    with pytest.raises(MapImportError, match=r"stations\.yaml"):
        import_map(write(hall()), path)


def test_too_many_rectangles_coarsen_the_grid_until_they_fit_or_are_refused(write, monkeypatch):
    pixels = hall()
    rng = np.random.default_rng(0)
    pixels[rng.integers(60, 130, 60), rng.integers(30, 170, 60)] = OCCUPIED
    fine = import_map(write(pixels))
    assert fine.grid_m == pytest.approx(0.05)
    monkeypatch.setattr(ros_map, "SHELVES_MAX", len(fine.warehouse.shelves) - 1)
    coarse = import_map(write(pixels))
    assert coarse.grid_m > 0.05
    occupied = painted(coarse.warehouse, pixels.shape, coarse.offset_m)
    assert occupied[pixels != FREE].all(), "a coarser grid never opens a way"
    monkeypatch.setattr(ros_map, "SHELVES_MAX", 3)
    with pytest.raises(MapImportError, match=r"at most 3 shelves; clean the map"):
        import_map(write(pixels))


@pytest.mark.parametrize("seed", range(5))
def test_rectangles_cover_each_occupied_cell_once(seed):
    rng = np.random.default_rng(seed)
    occupied = rng.random((rng.integers(1, 30), rng.integers(1, 30))) < rng.random()
    covered = np.zeros(occupied.shape, dtype=int)
    for row, column, rows, columns in merge_rectangles(occupied):
        covered[row : row + rows, column : column + columns] += 1
    assert (covered == occupied).all()
    assert len(merge_rectangles(np.ones((20, 30), dtype=bool))) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"origin": [0.0, 0.0, 0.1]}, "origin has yaw 0.1; only 0"),
        ({"origin": "[0.0, .nan, 0.0]"}, "three finite numbers"),
        ({"origin": [0.0, 0.0]}, "origin"),
        ({"resolution": 0.005}, r"resolution is 0.005 m; it must be 0.01 to 0.5"),
        ({"resolution": ".nan"}, "resolution is nan"),
        ({"resolution": 0.02}, "a floor's sides are 4 to 200 m"),
        ({"free_thresh": 0.8}, "must be in order"),
        ({"free_thresh": 0.0}, "must be in order"),
        ({"occupied_thresh": 1.1}, "must be in order"),
        ({"negate": 2}, "negate is 2"),
        ({"mode": "raw"}, "mode is 'raw'"),
        ({"mode": "[1"}, "not valid YAML"),
        ({"colour": "red"}, "colour"),
        ({"image": "none.pgm"}, r"none\.pgm: cannot be read"),
        ({"image": "map.jpg"}, r"map\.jpg: only \.pgm can be read here"),
    ],
)
def test_bad_documents_are_refused(write, values, message):
    with pytest.raises(NavigationError, match=message) as caught:
        import_map(write(hall(), **values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no PGM image"),
        (b"P6 2 2 255\n" + bytes(12), "no PGM image"),
        (b"P5 2", "no PGM image"),
        (b"P5 # no end", "no PGM image"),
        (b"P5 -2 2 255\n" + bytes(4), "no PGM image"),
        (b"P5 2 2 70000\n" + bytes(8), "no PGM image"),
        (b"P5 0 2 255\n", "0 x 2 pixels"),
        (b"P5 99999 99999 255\n" + bytes(4), "99999 x 99999 pixels; a map has 1 to 20000000"),
        (b"P5 2 2 255\n" + bytes(3), "3 pixels of 4; the file is cut short"),
        (b"P5 2 2 255", "0 pixels of 4"),
        (b"P5 2 2 256\n" + bytes(7), "3 pixels of 4"),
        (b"P5 2 2 100\n" + bytes([0, 0, 0, 101]), "outside 0 to 100"),
        (b"P2 2 1 255\n0 x", "no whole number"),
        (b"P2 2 1 255\n0 -1", "outside 0 to 255"),
        (b"P2 2 1 255\n0", "1 pixels of 2"),
    ],
)
def test_bad_images_are_refused(tmp_path, data, message):
    path = tmp_path / "bad.pgm"
    path.write_bytes(data)
    with pytest.raises(MapImportError, match=message) as caught:
        read_pgm(path)
    assert str(path) in str(caught.value)


def test_bad_pictures_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "bad.png"
    path.write_bytes(b"no picture")
    with pytest.raises(MapImportError, match="no image that can be read"):
        read_image(path)
    with pytest.raises(MapImportError, match="cannot be read"):
        read_image(tmp_path / "none.png")
    Image.fromarray(hall()).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MapImportError, match=r"bad\.png"):
        read_image(path)
    monkeypatch.setattr(ros_map, "PIXELS_MAX", 100)
    Image.fromarray(hall()).save(path)
    with pytest.raises(MapImportError, match="200 x 150 pixels; a map has 1 to 100"):
        read_image(path)


def test_map_without_free_floor_is_refused(write):
    with pytest.raises(MapImportError, match="no free place in the map"):
        import_map(write(np.full((150, 200), UNKNOWN, dtype=np.uint8)))


def test_closet_is_refused(write):
    pixels = np.full((120, 120), OCCUPIED, dtype=np.uint8)
    pixels[10:110, 10:30] = FREE
    pixels[10:30, 10:110] = FREE
    pixels[32:109, 32:109] = UNKNOWN
    with pytest.raises(MapImportError, match="room for 0 stations only"):
        import_map(write(pixels))


def test_huge_yaml_is_refused(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_bytes(b"#" * (ros_map.YAML_SIZE_MAX_BYTES + 1))
    with pytest.raises(MapImportError, match="at most 100000 are read"):
        import_map(path)
