"""Several floors on one picture, for a look at what a generator makes."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from navigation.warehouse import Warehouse
from sim.errors import SimConfigError
from sim.render.painter import CAPTION_PX, MARGIN_M, WIDTH_MIN_PX, FloorPainter
from sim.render.snapshot import FloorSnapshot

FLOORS_MAX = 64
GAP_PX = 16
PIXELS_MAX = 30_000_000


def paint_sheet(warehouses: list[Warehouse], columns: int = 4, width_px: int = 2400) -> npt.NDArray[np.uint8]:
    """Bare floors side by side, each with its name: uint8[height, width, 3].

    Raises:
        SimConfigError: no floor or too many, or a picture too small or too large.
    """
    if not 1 <= len(warehouses) <= FLOORS_MAX or columns < 1:
        raise SimConfigError(f"{len(warehouses)} floors in {columns} columns; give 1 to {FLOORS_MAX} floors")
    columns = min(columns, len(warehouses))
    tile_px = (width_px - GAP_PX * (columns + 1)) // columns
    if tile_px < WIDTH_MIN_PX:
        raise SimConfigError(f"{width_px} pixels are too few for {columns} floors; each takes {WIDTH_MIN_PX}")
    tile_rows_px = [
        math.ceil(tile_px * (floor.height_m + 2 * MARGIN_M) / (floor.width_m + 2 * MARGIN_M)) + CAPTION_PX + 1
        for floor in warehouses
    ]
    row_px = max(tile_rows_px) + GAP_PX
    height_px = row_px * math.ceil(len(warehouses) / columns) + GAP_PX
    if width_px * height_px > PIXELS_MAX:
        raise SimConfigError(f"{width_px} x {height_px} pixels; at most {PIXELS_MAX} in all are drawn")
    nothing = FloorSnapshot(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, dtype=np.int8))
    sheet = Image.new("RGB", (width_px, height_px), (255, 255, 255))
    for index, floor in enumerate(warehouses):
        tile = Image.fromarray(FloorPainter(floor, tile_px).frame(nothing))
        row, column = divmod(index, columns)
        sheet.paste(tile, (GAP_PX + column * (tile_px + GAP_PX), GAP_PX + row * row_px))
    return np.asarray(sheet)
