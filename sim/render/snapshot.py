"""What is on the floor at one moment, for drawing; and the colours it is drawn in."""

import colorsys
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from navigation.warehouse import Lane, StationKind
from sim.world.state import WorldState

Colour = tuple[int, int, int]
FLOOR: Colour = (247, 247, 244)
GRID: Colour = (234, 234, 230)
WALL: Colour = (86, 92, 102)
SHELF: Colour = (196, 160, 118)
SHELF_EDGE: Colour = (140, 108, 72)
SHELF_BOARD: Colour = (178, 142, 100)
PALLET: Colour = (226, 196, 92)
PALLET_EDGE: Colour = (150, 118, 24)
LANE: Colour = (226, 234, 243)
LANE_ARROW: Colour = (150, 172, 196)
KEEP_OUT, SLOW = (214, 69, 65), (226, 160, 40)
"""Edges of the areas that robots keep out of, and of those in which they drive slowly."""
INK: Colour = (44, 48, 56)
FAINT_INK: Colour = (120, 126, 136)
PERSON: Colour = (214, 64, 69)
STATION_COLOURS: dict[StationKind, Colour] = {
    StationKind.PICK: (38, 132, 190),
    StationKind.DROP: (46, 150, 92),
    StationKind.CHARGE: (206, 150, 20),
}

WALL_THICK_MAX_M = 0.25
"""Boxes up to this thick are drawn as walls, not as shelves."""
LANE_ARROW_PITCH_M = 2.5


def is_wall(box: list[float]) -> bool:
    """Whether a box (x_min, y_min, x_max, y_max in m) is too thin for a shelf."""
    return min(box[2] - box[0], box[3] - box[1]) <= WALL_THICK_MAX_M


def lane_arrows(lane: Lane) -> list[tuple[float, float]]:
    """Where a lane's arrows stand: along its longer side, map frame, m."""
    long_x = lane.length_m >= lane.depth_m
    side_m = max(lane.length_m, lane.depth_m)
    count = max(1, round(side_m / LANE_ARROW_PITCH_M))
    offsets = [((k + 0.5) / count - 0.5) * side_m for k in range(count)]
    return [(lane.x_m + off, lane.y_m) if long_x else (lane.x_m, lane.y_m + off) for off in offsets]


def robot_colour(index: int) -> Colour:
    """A colour for robot ``index``, far from its neighbours' and from people's red."""
    red, green, blue = colorsys.hsv_to_rgb(0.13 + 0.78 * ((0.60 + 0.381966 * index) % 1.0), 0.80, 0.78)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class FloorSnapshot:
    """Copies, safe to keep. Map frame, m, rad, s.

    Attributes:
        pose: float64[R, 3].
        people_xy: float64[P, 2].
        contact: int8[R], ``Contact``.
        ranges_m: float32[R, rays] or None; drawn from ``angle_min_rad`` on, full circle.
        routes: for each robot float64[n, 2], or an empty list.
        goals_xy: for each robot its goal, or an empty list.
    """

    pose: npt.NDArray[np.float64]
    people_xy: npt.NDArray[np.float64]
    contact: npt.NDArray[np.int8]
    time_s: float = 0.0
    ranges_m: npt.NDArray[np.float32] | None = None
    range_max_m: float = 8.0
    angle_min_rad: float = -np.pi
    routes: list[npt.NDArray[np.float64]] = field(default_factory=list)
    goals_xy: list[tuple[float, float]] = field(default_factory=list)
    radius_m: float = 0.30
    caption: str = ""

    def ray_ends(self, robot: int) -> npt.NDArray[np.float64]:
        """Where the robot's rays end, float64[rays, 2]."""
        assert self.ranges_m is not None, "a snapshot with rays"
        ranges = np.minimum(np.nan_to_num(self.ranges_m[robot], posinf=self.range_max_m), self.range_max_m)
        x, y, heading = self.pose[robot]
        angles = heading + self.angle_min_rad + np.arange(len(ranges)) * (2 * np.pi / len(ranges))
        return np.stack([x + ranges * np.cos(angles), y + ranges * np.sin(angles)], axis=1)


def take_snapshot(
    state: WorldState,
    world: int = 0,
    time_s: float = 0.0,
    ranges_m: npt.NDArray[np.float32] | None = None,
    routes: list[npt.NDArray[np.float64]] | None = None,
    goals_xy: list[tuple[float, float]] | None = None,
    caption: str = "",
) -> FloorSnapshot:
    """Copy one world out of ``state``; ``ranges_m`` is float32[R, rays]."""
    lidar = state.model.lidar
    return FloorSnapshot(
        pose=state.pose[world].copy(),
        people_xy=state.person_xy[world].copy(),
        contact=state.contact[world].copy(),
        time_s=time_s,
        ranges_m=None if ranges_m is None else ranges_m.copy(),
        range_max_m=lidar.range_max_m,
        angle_min_rad=lidar.angle_min_rad,
        routes=routes or [],
        goals_xy=goals_xy or [],
        radius_m=state.model.footprint_radius_m,
        caption=caption,
    )
