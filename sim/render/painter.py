"""The floor from above as pixels: drawn with Pillow at twice the size, then halved. Some 20 ms a frame."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from navigation.warehouse import Warehouse, boxes_of
from sim.errors import SimConfigError
from sim.render import snapshot as look
from sim.render.chart import station_label
from sim.render.snapshot import Colour, FloorSnapshot
from sim.world.state import PERSON_RADIUS_M

SCALE = 2
RAY_ALPHA = 28
MARGIN_M = 0.3
CAPTION_PX = 26
WIDTH_MIN_PX, WIDTH_MAX_PX = 160, 4096

Point = tuple[float, float]
Frame = npt.NDArray[np.uint8]


class FloorPainter:
    """Paints snapshots of one warehouse; walls, shelves and stations are painted once.

    Raises:
        SimConfigError: a width out of range.
    """

    def __init__(self, warehouse: Warehouse, width_px: int = 960) -> None:
        if not WIDTH_MIN_PX <= width_px <= WIDTH_MAX_PX:
            raise SimConfigError(f"width is {width_px} pixels; it must be {WIDTH_MIN_PX} to {WIDTH_MAX_PX}")
        self._warehouse = warehouse
        self._zoom = SCALE * width_px / (warehouse.width_m + 2 * MARGIN_M)
        height_px = math.ceil((warehouse.height_m + 2 * MARGIN_M) * self._zoom / SCALE) + CAPTION_PX
        # Video codecs want even sides.
        self.size_px = (width_px - width_px % 2, height_px + height_px % 2)
        self._font = ImageFont.load_default(size=0.36 * self._zoom)
        self._caption_font = ImageFont.load_default(size=13 * SCALE)
        self._background = self._paint_background()

    def frame(self, snapshot: FloorSnapshot, trails: list[list[Point]] | None = None) -> Frame:
        """One picture, uint8[height, width, 3]."""
        picture = self._background.copy()
        self._paint_rays(picture, snapshot)
        draw = ImageDraw.Draw(picture)
        for robot, trail in enumerate(trails or []):
            self._paint_trail(draw, trail, look.robot_colour(robot))
        for robot, route in enumerate(snapshot.routes):
            self._paint_route(draw, [(x, y) for x, y in route.tolist()], look.robot_colour(robot))
        for robot, goal in enumerate(snapshot.goals_xy):
            self._ring(draw, goal, 0.42, look.robot_colour(robot), 0.07)
        for x, y in snapshot.people_xy.tolist():
            self._disc(draw, (x, y), PERSON_RADIUS_M + 0.04, (255, 255, 255))
            self._disc(draw, (x, y), PERSON_RADIUS_M, look.PERSON)
            self._disc(draw, (x, y), 0.42 * PERSON_RADIUS_M, (250, 226, 222))
        for robot in range(len(snapshot.pose)):
            self._paint_robot(draw, snapshot, robot)
        self._paint_caption(draw, snapshot)
        return np.asarray(picture.resize(self.size_px, Image.Resampling.BOX))

    def _at(self, x_m: float, y_m: float) -> Point:
        return (x_m + MARGIN_M) * self._zoom, (self._warehouse.height_m + MARGIN_M - y_m) * self._zoom

    def _box(self, box: list[float]) -> list[float]:
        left, top = self._at(box[0], box[3])
        right, bottom = self._at(box[2], box[1])
        return [left, top, right, bottom]

    def _disc(self, draw: ImageDraw.ImageDraw, centre: Point, radius_m: float, colour: Colour) -> None:
        x, y = self._at(*centre)
        draw.circle((x, y), radius_m * self._zoom, fill=colour)

    def _ring(
        self, draw: ImageDraw.ImageDraw, centre: Point, radius_m: float, colour: Colour, thick_m: float
    ) -> None:
        x, y = self._at(*centre)
        draw.circle((x, y), radius_m * self._zoom, outline=colour, width=max(1, round(thick_m * self._zoom)))

    def _paint_background(self) -> Image.Image:
        warehouse = self._warehouse
        picture = Image.new("RGB", (self.size_px[0] * SCALE, self.size_px[1] * SCALE), (255, 255, 255))
        draw = ImageDraw.Draw(picture)
        draw.rectangle(self._box([0, 0, warehouse.width_m, warehouse.height_m]), fill=look.FLOOR)
        for x in range(1, math.ceil(warehouse.width_m)):
            draw.line([self._at(x, 0), self._at(x, warehouse.height_m)], fill=look.GRID, width=SCALE)
        for y in range(1, math.ceil(warehouse.height_m)):
            draw.line([self._at(0, y), self._at(warehouse.width_m, y)], fill=look.GRID, width=SCALE)
        self._paint_lanes(draw)
        for areas, colour in ((warehouse.keep_out, look.KEEP_OUT), (warehouse.speed_zones, look.SLOW)):
            for box in boxes_of(areas).tolist():
                draw.rectangle(self._box(box), outline=colour, width=2 * SCALE)
        self._paint_stations(draw)
        for index, box in enumerate(warehouse.mapped_boxes().tolist()):
            if index < 4 or look.is_wall(box):
                draw.rectangle(self._box(box), fill=look.WALL)
            else:
                self._paint_shelf(draw, box)
        for box in boxes_of(warehouse.pallets).tolist():
            self._paint_pallet(draw, box)
        return picture

    def _paint_lanes(self, draw: ImageDraw.ImageDraw) -> None:
        for lane, box in zip(self._warehouse.lanes, boxes_of(self._warehouse.lanes).tolist(), strict=True):
            draw.rectangle(self._box(box), fill=look.LANE)
            cosine, sine = math.cos(lane.heading_rad), math.sin(lane.heading_rad)
            for x, y in look.lane_arrows(lane):
                shape = (
                    (0.5, 0.0),
                    (0.1, 0.22),
                    (0.1, 0.07),
                    (-0.5, 0.07),
                    (-0.5, -0.07),
                    (0.1, -0.07),
                    (0.1, -0.22),
                )
                arrow = [self._at(x + a * cosine - b * sine, y + a * sine + b * cosine) for a, b in shape]
                draw.polygon(arrow, fill=look.LANE_ARROW)

    def _paint_pallet(self, draw: ImageDraw.ImageDraw, box: list[float]) -> None:
        x0, y0, x1, y1 = box
        edge = max(1, round(0.045 * self._zoom))
        draw.rectangle(self._box(box), fill=look.PALLET, outline=look.PALLET_EDGE, width=edge)
        for ends in (((x0, y0), (x1, y1)), ((x0, y1), (x1, y0))):
            draw.line([self._at(*end) for end in ends], fill=look.PALLET_EDGE, width=edge)

    def _paint_stations(self, draw: ImageDraw.ImageDraw) -> None:
        for station in self._warehouse.stations:
            colour = look.STATION_COLOURS[station.kind]
            pale = tuple(round(0.84 * f + 0.16 * c) for f, c in zip(look.FLOOR, colour, strict=True))
            x, y, side = station.x_m, station.y_m, 0.38
            draw.rounded_rectangle(
                self._box([x - side, y - side, x + side, y + side]), 0.1 * self._zoom,
                fill=pale, outline=colour,
                width=max(1, round(0.05 * self._zoom)),
            )  # fmt: skip
            draw.text(self._at(x, y), station_label(station.name), fill=colour, font=self._font, anchor="mm")

    def _paint_shelf(self, draw: ImageDraw.ImageDraw, box: list[float]) -> None:
        x0, y0, x1, y1 = box
        edge = max(1, round(0.045 * self._zoom))
        draw.rectangle(self._box(box), fill=look.SHELF, outline=look.SHELF_EDGE, width=edge)
        # Boards every metre and a spine, so that a shelf reads as one.
        long_x = x1 - x0 >= y1 - y0
        length = (x1 - x0) if long_x else (y1 - y0)
        bays = max(1, round(length))
        for k in range(1, bays):
            along = k / bays
            if long_x:
                ends = [self._at(x0 + along * length, y0), self._at(x0 + along * length, y1)]
            else:
                ends = [self._at(x0, y0 + along * length), self._at(x1, y0 + along * length)]
            draw.line(ends, fill=look.SHELF_BOARD, width=edge)
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        spine = [(x0, middle_y), (x1, middle_y)] if long_x else [(middle_x, y0), (middle_x, y1)]
        draw.line([self._at(*point) for point in spine], fill=look.SHELF_EDGE, width=edge)

    def _paint_rays(self, picture: Image.Image, snapshot: FloorSnapshot) -> None:
        if snapshot.ranges_m is None:
            return
        draw = ImageDraw.Draw(picture)
        for robot in range(len(snapshot.pose)):
            colour = look.robot_colour(robot)
            ends = [self._at(x, y) for x, y in snapshot.ray_ends(robot).tolist()]
            left, top = (math.floor(min(end[axis] for end in ends)) for axis in (0, 1))
            right, bottom = (math.ceil(max(end[axis] for end in ends)) + 1 for axis in (0, 1))
            fan = Image.new("L", (right - left, bottom - top), 0)
            ImageDraw.Draw(fan).polygon([(x - left, y - top) for x, y in ends], fill=RAY_ALPHA)
            picture.paste(colour, (left, top), fan)
            seen = snapshot.ranges_m[robot] < snapshot.range_max_m
            for (x, y), hit in zip(ends, seen.tolist(), strict=True):
                if hit:
                    draw.circle((x, y), 0.045 * self._zoom, fill=colour)

    def _paint_trail(self, draw: ImageDraw.ImageDraw, trail: list[Point], colour: Colour) -> None:
        count = len(trail)
        for k in range(1, count):
            share = 0.25 + 0.6 * k / count
            faded = tuple(round((1 - share) * f + share * c) for f, c in zip(look.FLOOR, colour, strict=True))
            draw.line(
                [self._at(*trail[k - 1]), self._at(*trail[k])], fill=faded, width=round(0.07 * self._zoom)
            )

    def _paint_route(self, draw: ImageDraw.ImageDraw, route: list[Point], colour: Colour) -> None:
        pale = tuple(round(0.25 * f + 0.75 * c) for f, c in zip(look.FLOOR, colour, strict=True))
        for k in range(0, len(route) - 1, 2):
            draw.line(
                [self._at(*route[k]), self._at(*route[k + 1])], fill=pale, width=round(0.06 * self._zoom)
            )

    def _paint_robot(self, draw: ImageDraw.ImageDraw, snapshot: FloorSnapshot, robot: int) -> None:
        x, y, heading = snapshot.pose[robot].tolist()
        radius, colour = snapshot.radius_m, look.robot_colour(robot)
        touching = bool(snapshot.contact[robot])
        self._disc(
            draw, (x, y), radius + (0.12 if touching else 0.05), look.PERSON if touching else (255, 255, 255)
        )
        self._disc(draw, (x, y), radius, colour)
        nose = [
            (x + 0.9 * radius * math.cos(heading + turn), y + 0.9 * radius * math.sin(heading + turn))
            if turn is not None
            else (x - 0.1 * radius * math.cos(heading), y - 0.1 * radius * math.sin(heading))
            for turn in (0.0, 2.45, None, -2.45)
        ]
        draw.polygon([self._at(*point) for point in nose], fill=(255, 255, 255))
        centre = self._at(x, y + radius + 0.28)
        draw.text(
            centre, str(robot + 1), fill=colour, font=self._font, anchor="mm",
            stroke_width=2 * SCALE, stroke_fill=(255, 255, 255),
        )  # fmt: skip

    def _paint_caption(self, draw: ImageDraw.ImageDraw, snapshot: FloorSnapshot) -> None:
        y = (self.size_px[1] - CAPTION_PX / 2) * SCALE
        left = MARGIN_M * self._zoom
        right = self.size_px[0] * SCALE - left
        draw.text(
            (left, y),
            snapshot.caption or self._warehouse.name,
            fill=look.INK,
            font=self._caption_font,
            anchor="lm",
        )
        if len(snapshot.pose) == 0:
            return
        draw.text(
            (right, y), f"{snapshot.time_s:.1f} s", fill=look.FAINT_INK, font=self._caption_font, anchor="rm"
        )
