"""Places where a robot that has broken down stands: close beside a shelf or wall, with room left to pass it."""

import math

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from navigation.warehouse import Warehouse

GRID_M = 0.2
GAP_MIN_M, GAP_MAX_M = 0.04, 0.20
"""Between the footprint and what it stands beside."""
PASSING_M = 0.45
"""Left over beside a robot that passes."""
STATION_GAP_M = 1.6


def parking_places(warehouse: Warehouse, model: RobotModel) -> npt.NDArray[np.float64]:
    """Poses float64[n, 3] in the map frame, n >= 0."""
    boxes = warehouse.boxes()
    x, y = np.meshgrid(
        np.arange(GRID_M, warehouse.width_m, GRID_M), np.arange(GRID_M, warehouse.height_m, GRID_M)
    )
    places = np.stack([x.ravel(), y.ravel()], axis=-1)
    gap_x, gap_y = _gaps(boxes, places)
    away = np.hypot(gap_x, gap_y)
    nearest = away.argmin(axis=1)
    rows = np.arange(len(places))
    gap = away[rows, nearest] - model.footprint_radius_m
    # Beside a face, not off a corner: then "across" is one axis, and the robot stands along the other.
    beside_x = gap_y[rows, nearest] == 0.0
    face = (gap > GAP_MIN_M) & (gap < GAP_MAX_M) & (beside_x | (gap_x[rows, nearest] == 0.0))
    across = np.where(
        beside_x,
        np.sign(places[:, 0] - (boxes[nearest, 0] + boxes[nearest, 2]) / 2),
        np.sign(places[:, 1] - (boxes[nearest, 1] + boxes[nearest, 3]) / 2),
    )
    need = model.footprint_radius_m * 3 + PASSING_M
    steps = np.arange(model.footprint_radius_m + 0.1, need + 0.1, 0.1)
    keep = []
    stations = np.array([(station.x_m, station.y_m) for station in warehouse.stations])
    for k in np.flatnonzero(face):
        step = np.array([across[k], 0.0]) if beside_x[k] else np.array([0.0, across[k]])
        line = places[k] + steps[:, None] * step
        free = np.hypot(*_gaps(boxes, line)).min() > 0.05
        far = np.hypot(*(stations - places[k]).T).min() > STATION_GAP_M
        if free and far:
            keep.append((*places[k], math.pi / 2 if beside_x[k] else 0.0))
    return np.array(keep, dtype=np.float64).reshape(-1, 3)


def _gaps(
    boxes: npt.NDArray[np.float64], places: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gaps along x and y between places float64[n, 2] and boxes float64[m, 4]: float64[n, m] each."""
    px, py = places[:, :1], places[:, 1:]
    gap_x = np.maximum(np.maximum(boxes[:, 0] - px, px - boxes[:, 2]), 0.0)
    gap_y = np.maximum(np.maximum(boxes[:, 1] - py, py - boxes[:, 3]), 0.0)
    return gap_x, gap_y
