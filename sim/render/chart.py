"""The floor from above as a matplotlib chart, for reports and stills."""

import math
from io import BytesIO

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle, Wedge

from navigation.warehouse import StationKind, Warehouse, boxes_of
from sim.render import snapshot as look
from sim.render.snapshot import Colour, FloorSnapshot
from sim.world.state import PERSON_RADIUS_M

matplotlib.use("Agg")


def _rgb(colour: Colour) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


def draw_warehouse(ax: Axes, warehouse: Warehouse, labels: bool = True) -> None:
    """Walls, shelves, lanes, pallets and stations, in metres, equal scales."""
    ax.set_facecolor(_rgb(look.FLOOR))
    _draw_lanes(ax, warehouse)
    for areas, edge, hatch in (
        (warehouse.keep_out, look.KEEP_OUT, "xx"),
        (warehouse.speed_zones, look.SLOW, ""),
    ):
        for x0, y0, x1, y1 in boxes_of(areas).tolist():
            ax.add_patch(
                Rectangle(
                    (x0, y0), x1 - x0, y1 - y0, facecolor="none", edgecolor=_rgb(edge), hatch=hatch,
                    linewidth=1.0, linestyle="--", alpha=0.6, zorder=0.6,
                )
            )  # fmt: skip
    mapped = warehouse.mapped_boxes().tolist()
    walls = mapped[:4] + [box for box in mapped[4:] if look.is_wall(box)]
    shelves = [box for box in mapped[4:] if not look.is_wall(box)]
    pallets = boxes_of(warehouse.pallets).tolist()
    for boxes, face, edge in (
        (walls, look.WALL, look.WALL),
        (shelves, look.SHELF, look.SHELF_EDGE),
        (pallets, look.PALLET, look.PALLET_EDGE),
    ):
        patches = [Rectangle((x0, y0), x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        ax.add_collection(
            PatchCollection(
                patches, facecolor=_rgb(face), edgecolor=_rgb(edge), linewidth=0.8 * (boxes is not walls)
            )
        )
    spines = []
    for x0, y0, x1, y1 in shelves:
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        long_x = x1 - x0 >= y1 - y0
        spines.append([(x0, middle_y), (x1, middle_y)] if long_x else [(middle_x, y0), (middle_x, y1)])
    ax.add_collection(LineCollection(spines, colors=[_rgb(look.SHELF_EDGE)], linewidths=0.6))
    crosses = [ends for x0, y0, x1, y1 in pallets for ends in ([(x0, y0), (x1, y1)], [(x0, y1), (x1, y0)])]
    ax.add_collection(LineCollection(crosses, colors=[_rgb(look.PALLET_EDGE)], linewidths=0.6))
    for station in warehouse.stations:
        colour = _rgb(look.STATION_COLOURS[station.kind])
        side = 0.36
        ax.add_patch(
            Rectangle(
                (station.x_m - side, station.y_m - side), 2 * side, 2 * side,
                facecolor=(*colour, 0.14), edgecolor=colour, linewidth=1.0, zorder=1.5,
            )
        )  # fmt: skip
        if labels:
            ax.text(
                station.x_m, station.y_m, station_label(station.name), ha="center", va="center", fontsize=6.5,
                color=colour, zorder=1.6, fontweight="bold",
            )  # fmt: skip
    ax.set_xlim(-0.25, warehouse.width_m + 0.25)
    ax.set_ylim(-0.25, warehouse.height_m + 0.25)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=7, colors=_rgb(look.FAINT_INK), length=2)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _draw_lanes(ax: Axes, warehouse: Warehouse) -> None:
    for lane, (x0, y0, x1, y1) in zip(warehouse.lanes, boxes_of(warehouse.lanes).tolist(), strict=True):
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=_rgb(look.LANE), zorder=0.5))
        dx, dy = 0.5 * math.cos(lane.heading_rad), 0.5 * math.sin(lane.heading_rad)
        for x, y in look.lane_arrows(lane):
            ax.annotate(
                "", (x + dx, y + dy), (x - dx, y - dy), zorder=1.2,
                arrowprops={"arrowstyle": "-|>", "color": _rgb(look.LANE_ARROW), "linewidth": 1.4},
            )  # fmt: skip


def station_label(name: str) -> str:
    """``pick_12`` as ``P12``; other names as they are, cut to five characters."""
    kind, _, number = name.partition("_")
    known = {kind.value: kind.value[0].upper() for kind in StationKind}
    return f"{known[kind]}{number}" if kind in known and number.isdigit() else name[:5]


def draw_floor(
    ax: Axes,
    warehouse: Warehouse,
    snapshot: FloorSnapshot | None = None,
    trails: list[npt.NDArray[np.float64]] | None = None,
    labels: bool = True,
) -> None:
    """The floor with robots, rays, routes, people and trails.

    Args:
        ax: where to draw; takes the floor's limits.
        warehouse: the floor.
        snapshot: what is on it, or None for the bare floor.
        trails: for each robot float64[n, 2], map frame, m.
        labels: write the stations' names.
    """
    draw_warehouse(ax, warehouse, labels)
    for robot, trail in enumerate(trails or []):
        ax.plot(
            trail[:, 0],
            trail[:, 1],
            color=_rgb(look.robot_colour(robot)),
            linewidth=1.0,
            alpha=0.55,
            zorder=2,
        )
    if snapshot is None:
        return
    for robot in range(len(snapshot.pose)):
        _draw_robot(ax, snapshot, robot)
    for x, y in snapshot.people_xy.tolist():
        ax.add_patch(
            Circle((x, y), PERSON_RADIUS_M, facecolor=_rgb(look.PERSON), edgecolor="white", zorder=4)
        )
        ax.add_patch(Circle((x, y), 0.4 * PERSON_RADIUS_M, facecolor="white", alpha=0.85, zorder=4.1))


def _draw_robot(ax: Axes, snapshot: FloorSnapshot, robot: int) -> None:
    colour = _rgb(look.robot_colour(robot))
    x, y, heading = snapshot.pose[robot].tolist()
    if snapshot.ranges_m is not None:
        ends = snapshot.ray_ends(robot)
        ax.add_patch(Polygon(ends, closed=True, facecolor=(*colour, 0.10), edgecolor="none", zorder=2.2))
        seen = snapshot.ranges_m[robot] < snapshot.range_max_m
        ax.scatter(ends[seen, 0], ends[seen, 1], s=2.0, color=colour, linewidths=0, zorder=2.3)
    if robot < len(snapshot.routes):
        route = snapshot.routes[robot]
        ax.plot(route[:, 0], route[:, 1], color=colour, linewidth=1.4, linestyle=(0, (4, 2)), zorder=2.5)
    if robot < len(snapshot.goals_xy):
        goal = snapshot.goals_xy[robot]
        ax.plot(*goal, marker="o", markersize=13, markerfacecolor="none", markeredgecolor=colour, zorder=2.6)
    edge = _rgb(look.PERSON) if snapshot.contact[robot] else (1.0, 1.0, 1.0)
    radius = snapshot.radius_m
    ax.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor=edge, linewidth=1.2, zorder=5))
    degrees = math.degrees(heading)
    ax.add_patch(
        Wedge((x, y), 0.92 * radius, degrees - 28, degrees + 28, facecolor="white", alpha=0.9, zorder=5.1)
    )
    ax.text(
        x, y + radius + 0.12, str(robot + 1), ha="center", va="bottom", fontsize=7, color=colour,
        fontweight="bold", zorder=5.2,
    )  # fmt: skip


def floor_png(
    warehouse: Warehouse,
    snapshot: FloorSnapshot | None = None,
    trails: list[npt.NDArray[np.float64]] | None = None,
    width_px: int = 1400,
) -> bytes:
    """The chart as PNG bytes."""
    dpi = 140
    width_in = width_px / dpi
    figure = Figure(figsize=(width_in, width_in * warehouse.height_m / warehouse.width_m + 0.7), dpi=dpi)
    figure.patch.set_facecolor("white")
    ax = figure.add_axes((0.045, 0.05, 0.94, 0.88))
    draw_floor(ax, warehouse, snapshot, trails)
    title = f"{warehouse.name}   {warehouse.width_m:g} x {warehouse.height_m:g} m"
    if snapshot is not None and snapshot.caption:
        title += f"   {snapshot.caption}"
    ax.set_title(title, fontsize=9, loc="left", color=_rgb(look.INK))
    ax.set_title("P pick   D drop   C charge", fontsize=7, loc="right", color=_rgb(look.FAINT_INK))
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
