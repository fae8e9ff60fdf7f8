"""The twin's motion: an exact unicycle with ramped speeds, and contacts between circles and boxes. Compiled."""

import math

import numba

SUBSTEP_S = 0.05


@numba.njit(cache=True, inline="always")
def ramp(value, wanted, up, down):  # type: ignore[no-untyped-def]
    """``value`` moved towards ``wanted``: by at most ``up`` while its size grows, by at most ``down`` otherwise."""
    growing = value * wanted >= 0.0 and abs(wanted) > abs(value)
    most = up if growing else down
    change = wanted - value
    return value + min(max(change, -most), most)


@numba.njit(cache=True)
def drive(pose, velocity, command, step_s, acceleration, braking, turn_acceleration):  # type: ignore[no-untyped-def]
    """Move one robot: pose float64[3], velocity float64[2], command float64[2], all in place but the command."""
    substeps = max(1, round(step_s / SUBSTEP_S))
    dt = step_s / substeps
    for _ in range(substeps):
        velocity[0] = ramp(velocity[0], command[0], acceleration * dt, braking * dt)
        velocity[1] = ramp(velocity[1], command[1], turn_acceleration * dt, turn_acceleration * dt)
        middle = pose[2] + 0.5 * velocity[1] * dt
        pose[0] += velocity[0] * math.cos(middle) * dt
        pose[1] += velocity[0] * math.sin(middle) * dt
        pose[2] += velocity[1] * dt
    if pose[2] > math.pi:
        pose[2] -= 2.0 * math.pi
    elif pose[2] < -math.pi:
        pose[2] += 2.0 * math.pi


@numba.njit(cache=True)
def touches(pose, robot, radius, discs, boxes, box_count, person_xy, person_radius):  # type: ignore[no-untyped-def]
    """What robot number ``robot`` touches: a ``sim.world.state.Contact`` as int.

    ``discs`` float64[n] are the offsets of its footprint's discs along its x axis, m; all robots have the same.
    """
    cosine, sine = math.cos(pose[robot, 2]), math.sin(pose[robot, 2])
    for disc in range(discs.shape[0]):
        x, y = pose[robot, 0] + discs[disc] * cosine, pose[robot, 1] + discs[disc] * sine
        for box in range(box_count):
            dx = max(boxes[box, 0] - x, x - boxes[box, 2], 0.0)
            dy = max(boxes[box, 1] - y, y - boxes[box, 3], 0.0)
            if dx * dx + dy * dy < radius * radius:
                return 1
    reach = radius + person_radius
    for person in range(person_xy.shape[0]):
        for disc in range(discs.shape[0]):
            x, y = pose[robot, 0] + discs[disc] * cosine, pose[robot, 1] + discs[disc] * sine
            dx, dy = person_xy[person, 0] - x, person_xy[person, 1] - y
            if dx * dx + dy * dy < reach * reach:
                return 2
    near = 2.0 * (radius + abs(discs[0]))
    for other in range(pose.shape[0]):
        dx, dy = pose[other, 0] - pose[robot, 0], pose[other, 1] - pose[robot, 1]
        if other == robot or dx * dx + dy * dy >= near * near:
            continue
        if discs_touch(pose, robot, other, radius, discs):
            return 3
    return 0


@numba.njit(cache=True)
def discs_touch(pose, robot, other, radius, discs):  # type: ignore[no-untyped-def]
    """Whether two robots' footprints overlap."""
    for mine in range(discs.shape[0]):
        x = pose[robot, 0] + discs[mine] * math.cos(pose[robot, 2])
        y = pose[robot, 1] + discs[mine] * math.sin(pose[robot, 2])
        for theirs in range(discs.shape[0]):
            dx = pose[other, 0] + discs[theirs] * math.cos(pose[other, 2]) - x
            dy = pose[other, 1] + discs[theirs] * math.sin(pose[other, 2]) - y
            if dx * dx + dy * dy < 4.0 * radius * radius:
                return True
    return False
