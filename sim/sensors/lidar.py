"""Analytic lidar over boxes and circles, compiled. PyBullet's ``rayTestBatch`` is the reference it is tested against.

Each box and circle is only tried for the rays that can hit it, which makes it 20-50 times cheaper than a
ray test per ray, and as exact.
"""

import math

import numba
import numpy as np
import numpy.typing as npt

from contracts.robot import LidarModel
from sim.world.state import PERSON_RADIUS_M, WorldState

TWO_PI = 2.0 * math.pi


@numba.njit(cache=True, inline="always")
def _silhouette(box, x, y):  # type: ignore[no-untyped-def]
    """The two corners between which a box is seen from a point outside it, counter-clockwise."""
    x_min, y_min, x_max, y_max = box[0], box[1], box[2], box[3]
    if x < x_min:
        if y < y_min:
            return x_max, y_min, x_min, y_max
        if y > y_max:
            return x_min, y_min, x_max, y_max
        return x_min, y_min, x_min, y_max
    if x > x_max:
        if y < y_min:
            return x_max, y_max, x_min, y_min
        if y > y_max:
            return x_min, y_max, x_max, y_min
        return x_max, y_max, x_max, y_min
    if y < y_min:
        return x_max, y_min, x_min, y_min
    return x_min, y_max, x_max, y_max


@numba.njit(cache=True)
def cast_boxes(boxes, count, x, y, heading, cosines, sines, angle_min, ranges):  # type: ignore[no-untyped-def]
    """Shorten ``ranges`` float32[rays] (m) to the boxes float64[count, 4] seen from (x, y, heading)."""
    rays = ranges.shape[0]
    step = TWO_PI / rays
    range_max = ranges[0]
    for ray in range(rays):
        if ranges[ray] > range_max:
            range_max = ranges[ray]
    head_c, head_s = math.cos(heading), math.sin(heading)
    for index in range(count):
        box = boxes[index]
        gap_x = max(box[0] - x, x - box[2], 0.0)
        gap_y = max(box[1] - y, y - box[3], 0.0)
        if gap_x == 0.0 and gap_y == 0.0:
            for ray in range(rays):
                ranges[ray] = 0.0
            return
        if gap_x * gap_x + gap_y * gap_y >= range_max * range_max:
            continue
        ax, ay, bx, by = _silhouette(box, x, y)
        start = math.atan2(ay - y, ax - x)
        width = math.atan2(by - y, bx - x) - start
        if width < 0.0:
            width += TWO_PI
        first = start - heading - angle_min
        first -= TWO_PI * math.floor(first / TWO_PI)
        begin = math.ceil(first / step - 1e-9)
        end = math.floor((first + width) / step + 1e-9)
        face_x = box[0] - x if x < box[0] else box[2] - x
        face_y = box[1] - y if y < box[1] else box[3] - y
        for slot in range(begin, end + 1):
            ray = slot if slot < rays else slot - rays
            cosine = head_c * cosines[ray] - head_s * sines[ray]
            sine = head_s * cosines[ray] + head_c * sines[ray]
            distance = 0.0
            if gap_x > 0.0 and abs(cosine) > 1e-12:
                distance = face_x / cosine
            if gap_y > 0.0 and abs(sine) > 1e-12:
                distance = max(distance, face_y / sine)
            if 0.0 < distance < ranges[ray]:
                ranges[ray] = distance


@numba.njit(cache=True)
def cast_circle(cx, cy, radius, x, y, heading, angle_min, ranges):  # type: ignore[no-untyped-def]
    """Shorten ``ranges`` float32[rays] to the circle at (cx, cy) seen from (x, y, heading)."""
    rays = ranges.shape[0]
    step = TWO_PI / rays
    dx, dy = cx - x, cy - y
    distance = math.sqrt(dx * dx + dy * dy)
    if distance <= radius:
        for ray in range(rays):
            ranges[ray] = 0.0
        return
    half = math.asin(radius / distance)
    bearing = math.atan2(dy, dx)
    first = bearing - half - heading - angle_min
    first -= TWO_PI * math.floor(first / TWO_PI)
    begin = math.ceil(first / step)
    end = math.floor((first + 2.0 * half) / step)
    for slot in range(begin, end + 1):
        ray = slot if slot < rays else slot - rays
        off = slot * step - first - half
        across = distance * math.sin(off)
        along = distance * math.cos(off) - math.sqrt(max(radius * radius - across * across, 0.0))
        if along < ranges[ray]:
            ranges[ray] = along


@numba.njit(cache=True)
def scan_robot(  # type: ignore[no-untyped-def]
    boxes,
    box_count,
    person_xy,
    person_radius,
    pose,
    robot,
    robot_radius,
    discs,
    cosines,
    sines,
    angle_min,
    range_max,
    ranges,
):
    """One robot's scan: ``ranges`` float32[rays] in m, ``range_max`` where nothing is seen."""
    ranges[:] = range_max
    x, y, heading = pose[robot, 0], pose[robot, 1], pose[robot, 2]
    cast_boxes(boxes, box_count, x, y, heading, cosines, sines, angle_min, ranges)
    for person in range(person_xy.shape[0]):
        dx, dy = person_xy[person, 0] - x, person_xy[person, 1] - y
        if dx * dx + dy * dy < (range_max + person_radius) ** 2:
            cast_circle(
                person_xy[person, 0], person_xy[person, 1], person_radius, x, y, heading, angle_min, ranges
            )
    for other in range(pose.shape[0]):
        dx, dy = pose[other, 0] - x, pose[other, 1] - y
        if other == robot or dx * dx + dy * dy >= (range_max + robot_radius + abs(discs[0])) ** 2:
            continue
        for disc in range(discs.shape[0]):
            disc_x = pose[other, 0] + discs[disc] * math.cos(pose[other, 2])
            disc_y = pose[other, 1] + discs[disc] * math.sin(pose[other, 2])
            cast_circle(disc_x, disc_y, robot_radius, x, y, heading, angle_min, ranges)


def ray_table(lidar: LidarModel) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine and sine of each ray's angle in the base frame, float64[rays] each."""
    angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
    return np.cos(angles), np.sin(angles)


def scan_state(state: WorldState) -> npt.NDArray[np.float32]:
    """Scans of all robots of all worlds, float32[E, R, rays] in m."""
    lidar = state.model.lidar
    cosines, sines = ray_table(lidar)
    worlds, robots = state.contact.shape
    discs = np.array(state.model.footprint_offsets_m)
    ranges = np.empty((worlds, robots, lidar.rays), dtype=np.float32)
    for world in range(worlds):
        boxes = state.warehouses[world].boxes()
        for robot in range(robots):
            scan_robot(
                boxes,
                len(boxes),
                state.person_xy[world],
                PERSON_RADIUS_M,
                state.pose[world],
                robot,
                state.model.footprint_radius_m,
                discs,
                cosines,
                sines,
                lidar.angle_min_rad,
                lidar.range_max_m,
                ranges[world, robot],
            )
    return ranges
