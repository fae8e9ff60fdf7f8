"""Pictures out of characters: what the lidar saw, as dots of braille; numbers over time, as bars."""

import math
from collections.abc import Sequence
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character (U+2800 on), by row and column of its dot."""


class Canvas:
    """``columns`` x ``lines`` characters of 2 x 4 dots each; x grows to the right, y down."""

    def __init__(self, columns: int, lines: int) -> None:
        self.width, self.height = 2 * columns, 4 * lines
        self._cells = [[0] * columns for _ in range(lines)]

    def dot(self, x: float, y: float) -> None:
        """Set one dot; outside it is lost."""
        column, row = math.floor(x), math.floor(y)
        if 0 <= column < self.width and 0 <= row < self.height:
            self._cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Dots from one point to another."""
        steps = max(int(max(abs(x1 - x0), abs(y1 - y0))), 1)
        for step in range(steps + 1):
            share = step / steps
            self.dot(x0 + share * (x1 - x0), y0 + share * (y1 - y0))

    def text(self) -> str:
        """The picture."""
        return "\n".join("".join(chr(0x2800 + cell) for cell in row) for row in self._cells)


def draw_beams(
    beams_m: Sequence[float],
    columns: int,
    lines: int,
    range_max_m: float,
    radius_m: float,
    arrow: tuple[float, float],
) -> str:
    """What a robot saw, from above, its front upwards.

    Args:
        beams_m: nearest return of equal sectors, counter-clockwise, the first one begins behind the robot.
        columns: characters across.
        lines: characters down.
        range_max_m: returns as far as this are nothing, and not drawn.
        radius_m: the robot's.
        arrow: speed in m/s and turn rate in rad/s: where it goes within a second.
    """
    sector = 2.0 * math.pi / max(len(beams_m), 1)
    polar = [
        (beam, -math.pi + (number + part / 8.0) * sector)
        for number, beam in enumerate(beams_m)
        for part in range(9)
    ]
    return _draw(polar, columns, lines, range_max_m, radius_m, arrow)


def draw_scan(
    ranges_m: Sequence[float],
    angles_rad: tuple[float, float],
    columns: int,
    lines: int,
    range_max_m: float,
    radius_m: float,
    arrow: tuple[float, float],
) -> str:
    """The same of a raw scan, a dot a ray; ``angles_rad`` are its first angle and the step to the next."""
    first, step = angles_rad
    polar = [(value, first + number * step) for number, value in enumerate(ranges_m)]
    return _draw(polar, columns, lines, range_max_m, radius_m, arrow)


def _draw(
    polar: Sequence[tuple[float, float]],
    columns: int,
    lines: int,
    range_max_m: float,
    radius_m: float,
    arrow: tuple[float, float],
) -> str:
    """Returns (range in m, angle in rad), the robot and its way; what is not a number between is no return."""
    canvas = Canvas(columns, lines)
    returns = [(value, angle) for value, angle in polar if 0.0 < value < range_max_m]
    reach_m = max(min(max((value for value, _ in returns), default=2.0) * 1.1, range_max_m), 1.0)
    scale = min(canvas.width, canvas.height) / 2.0 / reach_m
    x0, y0 = canvas.width / 2.0, canvas.height / 2.0

    def place(ahead_m: float, left_m: float) -> tuple[float, float]:
        return x0 - left_m * scale, y0 - ahead_m * scale

    for value, angle in returns:
        canvas.dot(*place(value * math.cos(angle), value * math.sin(angle)))
    for degree in range(0, 360, 10):
        angle = math.radians(degree)
        canvas.dot(*place(radius_m * math.cos(angle), radius_m * math.sin(angle)))
    ahead, left, heading = 0.0, 0.0, 0.0
    for _ in range(20):
        heading += arrow[1] / 20.0
        step = (arrow[0] / 20.0 * math.cos(heading), arrow[0] / 20.0 * math.sin(heading))
        canvas.line(*place(ahead, left), *place(ahead + step[0], left + step[1]))
        ahead, left = ahead + step[0], left + step[1]
    return canvas.text()


def bars(values: Any, columns: int, high: float) -> str:
    """Numbers over time as one line of bars, the largest of each column; not finite ones are blank."""
    if not len(values) or columns < 1:
        return ""
    line = []
    for column in range(columns):
        low, end = column * len(values) // columns, max((column + 1) * len(values) // columns, 0)
        part = [float(v) for v in values[low : max(end, low + 1)] if math.isfinite(v)]
        if not part:
            line.append(" ")
            continue
        share = min(max(max(part) / high if high > 0 else 0.0, 0.0), 1.0)
        line.append(BARS[min(int(share * len(BARS)), len(BARS) - 1)])
    return "".join(line)
