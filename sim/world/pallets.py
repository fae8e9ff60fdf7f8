"""Pallets and crates left in the way: beside shelves and walls, with room to pass."""

import numpy as np
import numpy.typing as npt

from navigation.warehouse import Shelf, Warehouse, box_clearance

SIZES_M = ((1.2, 0.8), (0.8, 0.6), (0.6, 0.4))
"""EUR pallet, half pallet (EN 13698-1, EUR 6) and the crate that stands on them, 600 mm x 400 mm."""
FACE_GAP_M = 0.03
PASSAGE_M = 0.95
"""Kept free around a pallet: ``navigation.route.PASSAGE_MIN_M`` and a cell of the grid that checks it."""
STATION_GAP_M = 0.8
TRIES_MAX = 40


def leave_pallets(warehouse: Warehouse, wanted: int, rng: np.random.Generator) -> tuple[Shelf, ...]:
    """Up to ``wanted`` pallets, each beside a shelf or wall, fewer where there is no room to pass them."""
    boxes = warehouse.mapped_boxes()
    known = len(boxes)  # pallets stand beside what the map knows, not beside each other
    pallets: list[Shelf] = []
    for _ in range(wanted):
        for _ in range(TRIES_MAX):
            pallet, box, around = _beside(boxes[rng.integers(known)], rng)
            inside = bool((box >= 0.0).all() and (box[2:] <= (warehouse.width_m, warehouse.height_m)).all())
            station_m = min(box_clearance(box[None], s.x_m, s.y_m) for s in warehouse.stations)
            if inside and station_m >= STATION_GAP_M and not _overlaps(boxes, around):
                pallets.append(pallet)
                boxes = np.vstack([boxes, box])
                break
    return tuple(pallets)


def _beside(
    face: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[Shelf, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A pallet along a random side of a box; its own box, and that with the passage that must stay free."""
    length, depth = SIZES_M[rng.integers(len(SIZES_M))]
    axis, low_side = int(rng.integers(2)), bool(rng.random() < 0.5)
    other = 1 - axis
    along = float(
        rng.uniform(face[axis] + length / 2, max(face[axis] + length / 2, face[axis + 2] - length / 2))
    )
    off = FACE_GAP_M + depth / 2
    away = float(face[other] - off if low_side else face[other + 2] + off)
    centre, half = np.empty(2), np.empty(2)
    centre[axis], centre[other] = round(along, 3), round(away, 3)
    half[axis], half[other] = length / 2, depth / 2
    box = np.concatenate([centre - half, centre + half])
    around = box + np.array([-1, -1, 1, 1]) * PASSAGE_M
    # Towards the shelf it stands at there is no way, and needs none.
    towards = other + 2 if low_side else other
    around[towards] = box[towards]
    sides = 2 * half
    return Shelf(float(centre[0]), float(centre[1]), float(sides[0]), float(sides[1])), box, around


def _overlaps(boxes: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> bool:
    """Whether ``box`` float64[4] shares floor with any of ``boxes`` float64[n, 4]."""
    return bool(((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(axis=1).any())
