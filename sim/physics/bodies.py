"""The bodies of one PyBullet world: floor, walls and shelves, people, robots."""

import colorsys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pybullet

from contracts.robot import RobotModel
from navigation.warehouse import Warehouse
from sim.errors import SimConfigError
from sim.world.state import PERSON_RADIUS_M

SHELF_HEIGHT_M = 2.0
WALL_HEIGHT_M = 1.2
PERSON_HEIGHT_M = 1.7
FLOOR_GAP_M = 0.05
"""Between the floor and a robot's body; planar robots float there."""
ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHELF_COLOUR = (0.72, 0.52, 0.32, 1.0)
WALL_COLOUR = (0.80, 0.82, 0.85, 1.0)
PERSON_COLOUR = (0.86, 0.33, 0.24, 1.0)


def robot_colour(index: int) -> tuple[float, float, float, float]:
    """A colour for robot ``index``, far from its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + 0.381966 * index) % 1.0, 0.70, 0.85)
    return red, green, blue, 1.0


def build_floor(client: int, warehouse: Warehouse, solid: bool) -> int:
    """The ground; ``solid`` where wheels stand on it, otherwise only to be looked at. Returns its body."""
    half = [warehouse.width_m / 2 + 0.2, warehouse.height_m / 2 + 0.2, 0.05]
    visual = pybullet.createVisualShape(
        pybullet.GEOM_BOX, halfExtents=half, rgbaColor=(0.93, 0.93, 0.91, 1.0), physicsClientId=client
    )
    shape = pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=client) if solid else -1
    ground = -1
    if solid:
        ground = pybullet.createMultiBody(0, shape, -1, physicsClientId=client)
        pybullet.changeDynamics(ground, -1, lateralFriction=1.0, restitution=0.0, physicsClientId=client)
    centre = [warehouse.width_m / 2, warehouse.height_m / 2, -0.05]
    pybullet.createMultiBody(0, -1, visual, centre, physicsClientId=client)
    return int(ground)


def build_statics(client: int, warehouse: Warehouse) -> None:
    """Walls and shelves: one shape for each size, its bodies made in one call."""
    places: dict[tuple[float, float, float], list[list[float]]] = defaultdict(list)
    for index, (x_min, y_min, x_max, y_max) in enumerate(warehouse.boxes().tolist()):
        height = WALL_HEIGHT_M if index < 4 else SHELF_HEIGHT_M
        size = (round(x_max - x_min, 6), round(y_max - y_min, 6), height)
        places[size].append([(x_min + x_max) / 2, (y_min + y_max) / 2, height / 2])
    for size, positions in places.items():
        half = [side / 2 for side in size]
        colour = WALL_COLOUR if size[2] == WALL_HEIGHT_M else SHELF_COLOUR
        shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
        visual = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=half, rgbaColor=colour, physicsClientId=client
        )
        pybullet.createMultiBody(
            0,
            shape,
            visual,
            positions[0],
            batchPositions=positions,
            useMaximalCoordinates=True,
            physicsClientId=client,
        )


def build_people(client: int, xy_m: np.typing.NDArray[np.float64]) -> list[int]:
    """Cylinders that are moved by hand: they push, nothing pushes them. ``xy_m`` float64[P, 2]."""
    if not len(xy_m):
        return []
    shape = pybullet.createCollisionShape(
        pybullet.GEOM_CYLINDER, radius=PERSON_RADIUS_M, height=PERSON_HEIGHT_M, physicsClientId=client
    )
    visual = pybullet.createVisualShape(
        pybullet.GEOM_CYLINDER, radius=PERSON_RADIUS_M, length=PERSON_HEIGHT_M, rgbaColor=PERSON_COLOUR,
        physicsClientId=client,
    )  # fmt: skip
    return [
        pybullet.createMultiBody(
            0, shape, visual, [x, y, PERSON_HEIGHT_M / 2], useMaximalCoordinates=True, physicsClientId=client
        )
        for x, y in xy_m.tolist()
    ]


def build_planar_robot(client: int, model: RobotModel, index: int) -> int:
    """A cylinder for each disc of the footprint, without gravity or friction; it can neither tip nor sink."""
    radius, height = model.footprint_radius_m, model.height_m - FLOOR_GAP_M
    offsets = model.footprint_offsets_m
    count = len(offsets)
    if count == 1:
        shape = pybullet.createCollisionShape(
            pybullet.GEOM_CYLINDER, radius=radius, height=height, physicsClientId=client
        )
    else:
        shape = pybullet.createCollisionShapeArray(
            shapeTypes=[pybullet.GEOM_CYLINDER] * count,
            radii=[radius] * count,
            lengths=[height] * count,
            halfExtents=[[0.0, 0.0, 0.0]] * count,
            collisionFramePositions=[[offset, 0.0, 0.0] for offset in offsets],
            physicsClientId=client,
        )
    nose_m = max(offsets) + radius - 0.08
    visual = pybullet.createVisualShapeArray(
        shapeTypes=[pybullet.GEOM_CYLINDER] * (count + 1) + [pybullet.GEOM_BOX],
        radii=[radius] * count + [0.06, 0.0],
        lengths=[height] * count + [0.07, 0.0],
        halfExtents=[[0.0, 0.0, 0.0]] * (count + 1) + [[0.06, 0.07, 0.01]],
        visualFramePositions=[
            *([offset, 0, 0] for offset in offsets),
            [0, 0, height / 2 + 0.035],
            [nose_m, 0, height / 2 + 0.01],
        ],
        rgbaColors=[list(robot_colour(index))] * count + [[0.12, 0.12, 0.14, 1.0], [0.95, 0.95, 0.9, 1.0]],
        physicsClientId=client,
    )
    body = pybullet.createMultiBody(
        model.mass_kg,
        shape,
        visual,
        [0, 0, body_z_m(model)],
        useMaximalCoordinates=True,
        physicsClientId=client,
    )
    pybullet.changeDynamics(
        body,
        -1,
        mass=model.mass_kg,  # without it Bullet forgets the mass, and the body's place becomes NaN
        localInertiaDiagonal=[1e6, 1e6, model.mass_kg * model.reach_m**2 / 2],
        lateralFriction=0.0,
        spinningFriction=0.0,
        rollingFriction=0.0,
        restitution=0.0,
        linearDamping=0.0,
        angularDamping=0.0,
        activationState=pybullet.ACTIVATION_STATE_DISABLE_SLEEPING,
        physicsClientId=client,
    )
    return int(body)


def body_z_m(model: RobotModel) -> float:
    """Height of the centre of a planar robot's body."""
    return FLOOR_GAP_M + (model.height_m - FLOOR_GAP_M) / 2


def load_wheeled_robot(client: int, model: RobotModel, index: int) -> int:
    """The model's URDF from ``sim/assets``.

    Raises:
        SimConfigError: there is none for this model.
    """
    path = ASSETS / f"{model.name}.urdf"
    if not path.is_file():
        raise SimConfigError(f"no {path.name} in {ASSETS}; add the robot's URDF or use planar physics")
    # Without the flag Bullet makes up inertias from the shapes, and its solver lets the light wheels slip.
    body = pybullet.loadURDF(str(path), flags=pybullet.URDF_USE_INERTIA_FROM_FILE, physicsClientId=client)
    for link in range(-1, pybullet.getNumJoints(body, physicsClientId=client)):
        pybullet.changeDynamics(
            body,
            link,
            restitution=0.0,
            rollingFriction=0.0,
            spinningFriction=0.0,
            linearDamping=0.0,
            angularDamping=0.0,
            jointDamping=0.0,
            activationState=pybullet.ACTIVATION_STATE_DISABLE_SLEEPING,
            physicsClientId=client,
        )
    pybullet.changeVisualShape(body, -1, rgbaColor=robot_colour(index), physicsClientId=client)
    return int(body)
