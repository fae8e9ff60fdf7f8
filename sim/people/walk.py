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
LURK_REST_S = 20.0
"""Back behind the shelf, somebody stays there for so long: nobody plays hide-and-seek with one robot."""
SIDESTEPS_RAD = (0.0, 0.9, -0.9, 1.6, -1.6)
AROUND_RAD = (0.0, 0.6, 1.1, 1.6, 2.1, -0.6, -1.1, -1.6, -2.1)
"""Directions in which somebody tries to get round a robot, to the side away from it first."""
AROUND_GAP_M, AROUND_PACE = 0.15, 0.6
"""Whoever squeezes past a robot that stands in the way goes slowly, and so near."""
TURNS_MAX = 8
AWAY_M = -900.0
"""Whoever is not there stands beyond this coordinate."""
WALKS, HIDES, STEPS_OUT, STANDS_OUT, STEPS_BACK = range(5)


@numba.njit(cache=True)
def walk(  # type: ignore[no-untyped-def]
    p,
    e,
    pose,
    robot_radius,
    floor,
    pointers,
    columns,
    station_xy,
    station_count,
    route_at,
    boxes,
    box_count,
    step_s,
):
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
            to_x, to_y = _post(p, e, person, pose, step_s)
        dx, dy = to_x - xy[0], to_y - xy[1]
        length = math.sqrt(dx * dx + dy * dy)
        if length < 1e-6:
            continue
        dx, dy = dx / length, dy / length
        gap = p.gap[e, person]
        robot = _robot_in_the_way(p, e, person, dx, dy, pose, robot_radius, gap, step_s)
        if robot >= 0:
            p.waited[e, person] += step_s
            if p.waited[e, person] > PATIENCE_S:
                _get_round(p, e, person, dx, dy, pose, robot, robot_radius, boxes, box_count, step_s)
            if p.waited[e, person] > 2.0 * PATIENCE_S:
                _give_way(p, e, person, pose, pointers, columns, station_count, route_at)
            continue
        # Patience comes back slowly: whoever is on the way round a robot goes on doing so.
        p.waited[e, person] = max(p.waited[e, person] - step_s, 0.0)
        hurry = HURRY if p.leader[e, person] != person else 1.0
        pace = min(hurry * p.pace[e, person], length / step_s)
        for side in SIDESTEPS_RAD:
            cosine, sine = math.cos(side), math.sin(side)
            vx, vy = pace * (cosine * dx - sine * dy), pace * (sine * dx + cosine * dy)
            # The way on the map keeps clear of shelves, but leads through pallets.
            if _free_of_boxes(
                p.pallets[floor], p.pallet_count[floor], xy[0] + vx * step_s, xy[1] + vy * step_s
            ):
                velocity[0], velocity[1] = vx, vy
                xy[0] += vx * step_s
                xy[1] += vy * step_s
                break


@numba.njit(cache=True)
def _get_round(p, e, person, dx, dy, pose, robot, robot_radius, boxes, box_count, step_s):  # type: ignore[no-untyped-def]
    """One step round ``robot``, which stands in somebody's way, where there is room for one."""
    x, y = p.xy[e, person, 0], p.xy[e, person, 1]
    away = -1.0 if dx * (pose[robot, 1] - y) - dy * (pose[robot, 0] - x) >= 0.0 else 1.0
    pace = min(AROUND_PACE, p.pace[e, person])
    for side in AROUND_RAD:
        cosine, sine = math.cos(side), away * math.sin(side)
        vx, vy = cosine * dx - sine * dy, sine * dx + cosine * dy
        to_x, to_y = x + pace * vx * step_s, y + pace * vy * step_s
        if _robot_in_the_way(
            p, e, person, vx, vy, pose, robot_radius, AROUND_GAP_M, step_s
        ) < 0 and _free_of_boxes(boxes, box_count, to_x, to_y):
            p.velocity[e, person, 0], p.velocity[e, person, 1] = pace * vx, pace * vy
            p.xy[e, person, 0], p.xy[e, person, 1] = to_x, to_y
            return


@numba.njit(cache=True)
def _give_way(p, e, person, pose, pointers, columns, station_count, route_at):  # type: ignore[no-untyped-def]
    """Somebody has not got past a robot: they turn round, or go on their own where no robot is in the way."""
    p.waited[e, person] = PATIENCE_S
    if p.lurks[e, person] != WALKS:
        p.lurks[e, person] = STEPS_BACK if p.lurks[e, person] == STEPS_OUT else STEPS_OUT
        return
    p.leader[e, person] = person
    x, y = p.xy[e, person, 0], p.xy[e, person, 1]
    for _ in range(TURNS_MAX):
        target = int(uniform(p.random, e * p.xy.shape[1] + person) * station_count)
        p.target[e, person] = target
        ahead_x, ahead_y = _way_ahead(pointers, columns, route_at[target], x, y)
        if _nearest_ahead(pose, x, y, ahead_x - x, ahead_y - y) > 2.0:
            return


@numba.njit(cache=True)
def _way_ahead(pointers, columns, start, x, y):  # type: ignore[no-untyped-def]
    """The point three cells ahead of (x, y) on the way whose pointers begin at ``start``."""
    cell = (int(y / CELL_M) + 1) * columns + int(x / CELL_M) + 1
    for _ in range(3):
        cell = pointers[start + cell]
    return (cell % columns - 0.5) * CELL_M, (cell // columns - 0.5) * CELL_M


@numba.njit(cache=True)
def _nearest_ahead(pose, x, y, dx, dy):  # type: ignore[no-untyped-def]
    """Distance from (x, y) to the nearest robot on the side of direction (dx, dy), m."""
    nearest = math.inf
    for robot in range(pose.shape[0]):
        rx, ry = pose[robot, 0] - x, pose[robot, 1] - y
        if rx * dx + ry * dy > 0.0:
            nearest = min(nearest, math.sqrt(rx * rx + ry * ry))
    return nearest


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
    return _way_ahead(pointers, columns, route_at[target], x, y)


@numba.njit(cache=True)
def _post(p, e, person, pose, step_s):  # type: ignore[no-untyped-def]
    """Where somebody behind a shelf sets the next step: out when a robot comes near, and back after a while."""
    x, y = p.xy[e, person, 0], p.xy[e, person, 1]
    state = p.lurks[e, person]
    if state == HIDES:
        p.walked_s[e, person] -= step_s
        if p.walked_s[e, person] > 0.0:
            return x, y
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
        p.walked_s[e, person] = LURK_REST_S
        p.pause[e, person] = LURK_PAUSE_S
        return x, y
    return to_x, to_y


@numba.njit(cache=True)
def _robot_in_the_way(p, e, person, dx, dy, pose, robot_radius, gap, step_s):  # type: ignore[no-untyped-def]
    """The robot that a step in direction (dx, dy) would bring somebody nearer to than ``gap`` m; -1 where none."""
    reach = robot_radius + PERSON_RADIUS_M + gap + HURRY * p.pace[e, person] * step_s
    for robot in range(pose.shape[0]):
        rx, ry = pose[robot, 0] - p.xy[e, person, 0], pose[robot, 1] - p.xy[e, person, 1]
        apart = math.sqrt(rx * rx + ry * ry)
        if apart < reach and rx * dx + ry * dy > ROBOT_AHEAD_COSINE * apart:
            return robot
    return -1


@numba.njit(cache=True)
def _free_of_boxes(boxes, count, x, y):  # type: ignore[no-untyped-def]
    """Whether nobody's place at (x, y) is inside one of the first ``count`` boxes float64[n, 4]."""
    for k in range(count):
        gap_x = max(boxes[k, 0] - x, x - boxes[k, 2], 0.0)
        gap_y = max(boxes[k, 1] - y, y - boxes[k, 3], 0.0)
        if gap_x * gap_x + gap_y * gap_y < PERSON_RADIUS_M * PERSON_RADIUS_M:
            return False
    return True
