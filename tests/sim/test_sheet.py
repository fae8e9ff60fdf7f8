"""Lanes, pallets and walls are drawn, in films, stills and on the sheet of families."""

import io

import numpy as np
import pytest
from PIL import Image

from navigation.warehouse import Lane, Shelf, Station, StationKind, Warehouse
from sim.errors import SimConfigError
from sim.render import snapshot as look
from sim.render.chart import floor_png
from sim.render.sheet import paint_sheet

STATIONS = (Station("p", StationKind.PICK, 1.0, 1.0), Station("d", StationKind.DROP, 9.0, 7.0))
FLOOR = Warehouse(
    "floor", 10.0, 8.0, (Shelf(3.0, 6.0, 3.0, 0.2), Shelf(3.0, 4.0, 3.0, 1.0)), STATIONS,
    pallets=(Shelf(6.0, 6.0, 1.2, 0.8),), lanes=(Lane(5.0, 2.0, 8.0, 1.6, 0.0),),
)  # fmt: skip


def count(picture, colour, x_m, y_m, half_m):
    """Pixels of a colour in the square about a place on the floor, as a share of the square."""
    zoom = picture.shape[1] / (FLOOR.width_m + 0.6)
    column, row = (x_m + 0.3) * zoom, (FLOOR.height_m + 0.3 - y_m) * zoom
    half = half_m * zoom
    part = picture[int(row - half) : int(row + half), int(column - half) : int(column + half)].astype(int)
    return (np.abs(part - colour).sum(axis=2) < 12).mean()


def test_sheet_shows_lanes_pallets_and_walls_where_they_are():
    picture = paint_sheet([FLOOR], width_px=832)[16:, 16:-16]
    assert count(picture, look.LANE, 5.0, 2.0, 0.7) > 0.5
    assert 0.02 < count(picture, look.LANE_ARROW, 5.0, 2.0, 0.7) < 0.5
    assert count(picture, look.PALLET, 6.0, 6.0, 0.35) > 0.5
    assert count(picture, look.WALL, 3.0, 6.0, 0.05) > 0.8
    assert count(picture, look.SHELF, 3.0, 4.3, 0.1) > 0.5
    assert count(picture, look.PALLET, 8.0, 4.0, 0.5) == count(picture, look.LANE, 8.0, 4.0, 0.5) == 0.0


def test_chart_shows_them_too():
    with Image.open(io.BytesIO(floor_png(FLOOR, width_px=700))) as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    for colour in (look.LANE, look.LANE_ARROW, look.PALLET, look.WALL, look.SHELF):
        assert (np.abs(picture - colour).sum(axis=2) < 12).sum() > 100


def test_arrows_stand_along_the_lane():
    points = np.array(look.lane_arrows(Lane(5.0, 4.0, 1.0, 7.5, 1.57)))
    assert points == pytest.approx(np.array([[5.0, 1.5], [5.0, 4.0], [5.0, 6.5]]))


@pytest.mark.parametrize(
    ("floors", "columns", "width_px", "message"),
    [
        (0, 4, 800, "give 1 to 64"),
        (65, 4, 800, "give 1 to 64"),
        (2, 0, 800, "columns"),
        (4, 4, 600, "too few"),
        (64, 1, 4000, "in all"),
    ],
)
def test_wrong_sheets_are_refused(floors, columns, width_px, message):
    with pytest.raises(SimConfigError, match=message):
        paint_sheet([FLOOR] * floors, columns, width_px)
