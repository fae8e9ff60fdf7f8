"""People on the floor: alone and in groups, yielding and not, stopping for no reason, stepping out from behind a shelf.

They look only where they go: a robot that comes from the side or from behind has to mind them. Each person has a
random stream of its own, drawn from only where it takes up something new: the same person has the same errands
whatever the robots do.
"""

import math

import numba

from navigation.route import CELL_M
from sim.world.random import uniform
from sim.world.state import PERSON_RADIUS_M

PATIENCE_S = 2.5
ERRAND_RADIUS_M = 0.8
ROBOT_AHEAD_COSINE = 0.3
BESIDE_M = 0.55
"""Somebody who walks with another waits while nearer than this."""
CLOSE_M = 1.2
"""Nearer than this, somebody walks straight to whom they walk with; farther, along the way both have."""
HURRY = 1.3
"""How much faster they walk to catch up."""
LURK_NEAR_M, LURK_FAR_M = 0.8, 2.6
"""A robot at such a distance makes somebody who stands behind a shelf step out."""
LURK_PAUSE_S = 4.0
SIDESTEPS_RAD = (0.0, 0.9, -0.9, 1.6, -1.6)
AWAY_M = -900.0
"""Whoever is not there stands beyond this coordinate."""
WALKS, HIDES, STEPS_OUT, STANDS_OUT, STEPS_BACK = range(5)


@numba.njit(cache=True)
def walk(p, e, pose, robot_radius, floor, pointers, columns, station_xy, station_count, route_at, step_s):  # type: ignore[no-untyped-def]
    """Move the people of world ``e`` by ``step_s``. ``p`` are ``sim.people.crowd.People``, the rest is of its floor."""
    for person in range(p.xy.shape[1]):
        xy, velocity = p.xy[e, person], p.velocity[e, person]
        velocity[0] = 0.0
        velocity[1] = 0.0
        if xy[0] < AWAY_M:
            continue
        if p.pause[e, person] > 0.0:
            p.pause[e, person] -= step_s
            continue
        if p.lurks[e, person] == WALKS:
            to_x, to_y = _errand(p, e, person, pointers, columns, station_xy, station_count, route_at, step_s)
        else:
            to_x, to_y = _post(p, e, person, pose)
        dx, dy = to_x - xy[0], to_y - xy[1]
        length = math.sqrt(dx * dx + dy * dy)
        if length < 1e-6:
            continue
        dx, dy = dx / length, dy / length
        if _robot_in_the_way(p, e, person, dx, dy, pose, robot_radius, step_s):
            p.waited[e, person] += step_s
            if p.waited[e, person] > PATIENCE_S:
                _give_way(p, e, person, station_count)
            continue
        p.waited[e, person] = 0.0
        hurry = HURRY if p.leader[e, person] != person else 1.0
        pace = min(hurry * p.pace[e, person], length / step_s)
        for side in SIDESTEPS_RAD:
            cosine, sine = math.cos(side), math.sin(side)
            vx, vy = pace * (cosine * dx - sine * dy), pace * (sine * dx + cosine * dy)
            if _free_of_pallets(p, floor, xy[0] + vx * step_s, xy[1] + vy * step_s):
                velocity[0], velocity[1] = vx, vy
                xy[0] += vx * step_s
                xy[1] += vy * step_s
                break


@numba.njit(cache=True)
def _give_way(p, e, person, station_count):  # type: ignore[no-untyped-def]
    """Somebody has waited long enough for a robot: they turn round, or go elsewhere on their own."""
    p.waited[e, person] = 0.0
    if p.lurks[e, person] == WALKS:
        p.leader[e, person] = person
        p.target[e, person] = int(uniform(p.random, e * p.xy.shape[1] + person) * station_count)
    else:
        p.lurks[e, person] = STEPS_BACK if p.lurks[e, person] == STEPS_OUT else STEPS_OUT


@numba.njit(cache=True)
def _errand(p, e, person, pointers, columns, station_xy, station_count, route_at, step_s):  # type: ignore[no-untyped-def]
    """Where a walker sets its next step; takes up a new errand, or a rest, where one is due."""
    x, y = p.xy[e, person, 0], p.xy[e, person, 1]
    stream = e * p.xy.shape[1] + person
    leader = p.leader[e, person]
    if leader != person:
        p.target[e, person] = p.target[e, leader]
        lead_x, lead_y = p.xy[e, leader, 0] - x, p.xy[e, leader, 1] - y
        apart = math.sqrt(lead_x * lead_x + lead_y * lead_y)
        resting = apart < 2.0 * BESIDE_M and p.pause[e, leader] > 0.0
        if apart < BESIDE_M or resting:
            return x, y
        if apart < CLOSE_M:
            return p.xy[e, leader, 0], p.xy[e, leader, 1]
    target = p.target[e, person]
    goal_x, goal_y = station_xy[target, 0] - x, station_xy[target, 1] - y
    if goal_x * goal_x + goal_y * goal_y < ERRAND_RADIUS_M * ERRAND_RADIUS_M:
        if leader != person:
            return x, y
        p.target[e, person] = int(uniform(p.random, stream) * station_count)
        p.pause[e, person] = uniform(p.random, stream) * p.pause_max[e]
        return x, y
    if leader == person and p.walked_s[e, person] > p.stop_after[e, person]:
        p.walked_s[e, person] = 0.0
        p.stop_after[e, person] = -math.log(1.0 - uniform(p.random, stream)) / max(p.stops_per_s[e], 1e-6)
        p.pause[e, person] = 0.5 * uniform(p.random, stream) * p.pause_max[e]
        return x, y
    p.walked_s[e, person] += step_s
    start = route_at[target]
    cell = (int(y / CELL_M) + 1) * columns + int(x / CELL_M) + 1
    for _ in range(3):
        cell = pointers[start + cell]
    return (cell % columns - 0.5) * CELL_M, (cell // columns - 0.5) * CELL_M


@numba.njit(cache=True)
def _post(p, e, person, pose):  # type: ignore[no-untyped-def]
    """Where somebody behind a shelf sets the next step: out when a robot comes near, and back after a while."""
    x, y = p.xy[e, person, 0], p.xy[e, person, 1]
    state = p.lurks[e, person]
    if state == HIDES:
        for robot in range(pose.shape[0]):
            rx, ry = pose[robot, 0] - x, pose[robot, 1] - y
            apart = math.sqrt(rx * rx + ry * ry)
            if LURK_NEAR_M < apart < LURK_FAR_M:
                p.lurks[e, person] = STEPS_OUT
        return x, y
    if state == STANDS_OUT:
        p.lurks[e, person] = STEPS_BACK
        return x, y
    side = 1 if state == STEPS_OUT else 0
    to_x, to_y = p.posts[e, person, side, 0], p.posts[e, person, side, 1]
    if (to_x - x) * (to_x - x) + (to_y - y) * (to_y - y) < 0.0025:
        p.lurks[e, person] = STANDS_OUT if state == STEPS_OUT else HIDES
        p.pause[e, person] = LURK_PAUSE_S
        return x, y
    return to_x, to_y


@numba.njit(cache=True)
def _robot_in_the_way(p, e, person, dx, dy, pose, robot_radius, step_s):  # type: ignore[no-untyped-def]
    """Whether the next step would bring somebody nearer to a robot ahead than their manners allow."""
    reach = robot_radius + PERSON_RADIUS_M + p.gap[e, person] + HURRY * p.pace[e, person] * step_s
    for robot in range(pose.shape[0]):
        rx, ry = pose[robot, 0] - p.xy[e, person, 0], pose[robot, 1] - p.xy[e, person, 1]
        apart = math.sqrt(rx * rx + ry * ry)
        if apart < reach and rx * dx + ry * dy > ROBOT_AHEAD_COSINE * apart:
            return True
    return False


@numba.njit(cache=True)
def _free_of_pallets(p, floor, x, y):  # type: ignore[no-untyped-def]
    """Whether nobody's place at (x, y) is inside one of the floor's pallets: the way on the map leads through them."""
    for k in range(p.pallet_count[floor]):
        box = p.pallets[floor, k]
        gap_x = max(box[0] - x, x - box[2], 0.0)
        gap_y = max(box[1] - y, y - box[3], 0.0)
        if gap_x * gap_x + gap_y * gap_y < PERSON_RADIUS_M * PERSON_RADIUS_M:
            return False
    return True
