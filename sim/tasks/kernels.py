"""The task's compiled steps: guard and walk before the physics, judge and observe after it.

Every physics back end runs exactly these, so that the twin and PyBullet differ in motion and contact only.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from navigation import encoder, route
from sim.people.walk import walk
from sim.sensors.lidar import scan_robot
from sim.tasks.delivery import (
    ARRIVE_RADIUS_M,
    ARRIVE_SPEED_MPS,
    CONTACT_SPEED_MPS,
    SPAWN_GAP_M,
)
from sim.twin.guard import admit_one
from sim.twin.motion import drive, touches
from sim.world.random import uniform
from sim.world.state import PERSON_RADIUS_M

pool_beams = numba.njit(cache=True)(encoder.pool_beams)
encode_tail = numba.njit(cache=True)(encoder.encode_tail)
route_ahead = numba.njit(cache=True)(route.route_ahead)
SCAN_AGE_S = 0.05


class Arrays(NamedTuple):
    """Everything the compiled steps work on; ``Simulation`` says what each is. ``E`` worlds, ``R`` robots."""

    floor_of: Any
    boxes: Any
    box_count: Any
    rows: Any
    columns: Any
    station_xy: Any
    station_kind: Any
    station_count: Any
    route_at: Any
    field: Any
    pointers: Any
    spawn_xy: Any
    pose: Any
    velocity: Any
    contact: Any
    person_xy: Any
    person_velocity: Any
    person_target: Any
    person_pace: Any
    person_pause: Any
    person_waited: Any
    person_gap: Any
    person_random: Any
    robot_random: Any
    goal: Any
    goal_kind: Any
    trip_steps: Any
    trips: Any
    left_m: Any
    action_before: Any
    command: Any
    reduced: Any
    ranges: Any
    history: Any
    ticks: Any
    observation: Any
    terminal_observation: Any
    reward: Any
    outcome: Any
    route_points: Any
    cosines: Any
    sines: Any
    settings: Any
    guard: Any
    weights: Any
    carrots_m: Any


# Indices into ``Arrays.settings``, float64.
STEP_S, RADIUS, SPEED_MAX, REVERSE_MAX, TURN_MAX, ACCELERATION, BRAKING, TURN_ACCELERATION = range(8)
ANGLE_MIN, RANGE_MAX, TRIP_STEPS_MAX, GUARDED = range(8, 12)


@numba.njit(cache=True, nogil=True)
def guard_and_walk(a, first, last):  # type: ignore[no-untyped-def]
    """Pass ``command`` through the monitor (where guarded) and move the people of worlds ``first``..``last``."""
    s = a.settings
    for e in range(first, last):
        for r in range(a.pose.shape[1]):
            command = a.command[e, r]
            command[0] = min(max(command[0], -s[REVERSE_MAX]), s[SPEED_MAX])
            command[1] = min(max(command[1], -s[TURN_MAX]), s[TURN_MAX])
            a.reduced[e, r] = 0.0
            if s[GUARDED] > 0.0:
                wanted = abs(command[0])
                admit_one(a.guard, a.ranges[e, r], a.cosines, a.sines, command, a.velocity[e, r], SCAN_AGE_S)
                if wanted > 0.0:
                    a.reduced[e, r] = 1.0 - abs(command[0]) / wanted
        f = a.floor_of[e]
        walk(
            a.person_xy[e],
            a.person_velocity[e],
            a.person_target[e],
            a.person_pace[e],
            a.person_pause[e],
            a.person_waited[e],
            a.person_gap[e],
            a.person_random,
            e,
            a.pose[e],
            s[RADIUS],
            a.station_xy[f],
            a.station_count[f],
            a.route_at[f],
            a.pointers,
            a.columns[f],
            s[STEP_S],
        )


@numba.njit(cache=True, nogil=True)
def twin_physics(a, first, last):  # type: ignore[no-untyped-def]
    """Drive the robots of worlds ``first``..``last`` and find what they touch; a robot never enters a box."""
    s = a.settings
    for e in range(first, last):
        f = a.floor_of[e]
        for r in range(a.pose.shape[1]):
            x, y = a.pose[e, r, 0], a.pose[e, r, 1]
            drive(
                a.pose[e, r],
                a.velocity[e, r],
                a.command[e, r],
                s[STEP_S],
                s[ACCELERATION],
                s[BRAKING],
                s[TURN_ACCELERATION],
            )
            moved = abs(a.velocity[e, r, 0])
            hit = touches(
                a.pose[e], r, s[RADIUS], a.boxes[f], a.box_count[f], a.person_xy[e], PERSON_RADIUS_M
            )
            a.contact[e, r] = hit
            if hit == 1:
                a.pose[e, r, 0] = x
                a.pose[e, r, 1] = y
                a.velocity[e, r, 0] = math.copysign(min(moved, 2.0 * CONTACT_SPEED_MPS), a.velocity[e, r, 0])


@numba.njit(cache=True)
def choose_goal(a, e, r):  # type: ignore[no-untyped-def]
    """Give robot ``r`` of world ``e`` its next station: pick and drop in turn; one random draw a trip."""
    f = a.floor_of[e]
    a.goal_kind[e, r] = 1 - a.goal_kind[e, r]
    count = 0
    for station in range(a.station_count[f]):
        if a.station_kind[f, station] == a.goal_kind[e, r]:
            count += 1
    pick = int(uniform(a.robot_random, (e * a.pose.shape[1] + r) * 2) * count)
    for station in range(a.station_count[f]):
        if a.station_kind[f, station] == a.goal_kind[e, r]:
            if pick == 0:
                a.goal[e, r] = station
                break
            pick -= 1
    a.trip_steps[e, r] = 0
    a.trips[e, r] += 1


@numba.njit(cache=True)
def respawn(a, e, r):  # type: ignore[no-untyped-def]
    """Put robot ``r`` of world ``e`` on a free place away from everybody, at rest."""
    f = a.floor_of[e]
    stream = (e * a.pose.shape[1] + r) * 2 + 1
    for _ in range(50):
        place = int(uniform(a.robot_random, stream) * a.spawn_xy.shape[1])
        x, y = a.spawn_xy[f, place, 0], a.spawn_xy[f, place, 1]
        heading = (uniform(a.robot_random, stream) * 2.0 - 1.0) * math.pi
        free = True
        for other in range(a.pose.shape[1]):
            dx, dy = a.pose[e, other, 0] - x, a.pose[e, other, 1] - y
            if other != r and dx * dx + dy * dy < SPAWN_GAP_M * SPAWN_GAP_M:
                free = False
        for person in range(a.person_xy.shape[1]):
            dx, dy = a.person_xy[e, person, 0] - x, a.person_xy[e, person, 1] - y
            if dx * dx + dy * dy < SPAWN_GAP_M * SPAWN_GAP_M:
                free = False
        a.pose[e, r, 0], a.pose[e, r, 1], a.pose[e, r, 2] = x, y, heading
        if free:
            break
    a.velocity[e, r, 0] = 0.0
    a.velocity[e, r, 1] = 0.0
    a.contact[e, r] = 0
    a.ticks[e, r] = 0


@numba.njit(cache=True)
def observe(a, e, r):  # type: ignore[no-untyped-def]
    """Scan and encode for robot ``r`` of world ``e``; returns the route's cost that is left."""
    f = a.floor_of[e]
    s = a.settings
    ranges = a.ranges[e, r]
    scan_robot(
        a.boxes[f],
        a.box_count[f],
        a.person_xy[e],
        PERSON_RADIUS_M,
        a.pose[e],
        r,
        s[RADIUS],
        a.cosines,
        a.sines,
        s[ANGLE_MIN],
        s[RANGE_MAX],
        ranges,
    )
    out = a.observation[e, r]
    pool_beams(ranges, ranges.shape[0] // 36, out[0:36])
    depth = a.history.shape[2]
    if a.ticks[e, r] == 0:
        for slot in range(depth):
            a.history[e, r, slot] = out[0:36]
    slot = a.ticks[e, r] % depth
    out[36:72] = a.history[e, r, slot]
    a.history[e, r, slot] = out[0:36]
    a.ticks[e, r] += 1
    return tail(a, e, r)


@numba.njit(cache=True)
def tail(a, e, r):  # type: ignore[no-untyped-def]
    """Encode all but the beams for robot ``r`` of world ``e``; returns the route's cost that is left."""
    f = a.floor_of[e]
    station = a.goal[e, r]
    start = a.route_at[f, station]
    cells = a.rows[f] * a.columns[f]
    x, y, heading = a.pose[e, r, 0], a.pose[e, r, 1], a.pose[e, r, 2]
    goal_x, goal_y = a.station_xy[f, station, 0], a.station_xy[f, station, 1]
    points = a.route_points[e, r]
    left = route_ahead(
        a.pointers[start : start + cells],
        a.field[start : start + cells],
        a.rows[f],
        a.columns[f],
        x,
        y,
        goal_x,
        goal_y,
        a.carrots_m,
        points,
    )
    encode_tail(
        a.observation[e, r],
        x,
        y,
        heading,
        a.velocity[e, r, 0],
        a.velocity[e, r, 1],
        goal_x,
        goal_y,
        points,
        left,
    )
    return left


@numba.njit(cache=True, nogil=True)
def judge_and_observe(a, action, first, last):  # type: ignore[no-untyped-def]
    """Reward, outcome and next observation for worlds ``first``..``last``; robots that are done go on at once.

    A robot that arrives keeps its place and gets its next goal; one that touched something or ran out of time
    is put elsewhere. ``terminal_observation`` holds what it saw before that.
    """
    s, w = a.settings, a.weights
    for e in range(first, last):
        f = a.floor_of[e]
        for r in range(a.pose.shape[1]):
            left = observe(a, e, r)
            a.trip_steps[e, r] += 1
            moving = abs(a.velocity[e, r, 0]) > CONTACT_SPEED_MPS
            nearest = s[RANGE_MAX]
            for beam in range(36):
                nearest = min(nearest, a.observation[e, r, beam])
            change = abs(action[e, r, 0] - a.action_before[e, r, 0]) + abs(
                action[e, r, 1] - a.action_before[e, r, 1]
            )
            reward = (
                w[0] * (a.left_m[e, r] - left) + w[1] * s[STEP_S] + w[2] * change + w[5] * a.reduced[e, r]
            )
            if nearest < w[4]:
                reward += w[3] * (w[4] - nearest) / (w[4] - s[RADIUS])
            a.left_m[e, r] = left
            a.action_before[e, r, 0], a.action_before[e, r, 1] = action[e, r, 0], action[e, r, 1]
            station = a.goal[e, r]
            dx = a.station_xy[f, station, 0] - a.pose[e, r, 0]
            dy = a.station_xy[f, station, 1] - a.pose[e, r, 1]
            outcome = 0
            if a.contact[e, r] == 1 or (a.contact[e, r] != 0 and moving):
                outcome = 2
                reward += w[7]
            elif dx * dx + dy * dy < ARRIVE_RADIUS_M**2 and abs(a.velocity[e, r, 0]) < ARRIVE_SPEED_MPS:
                outcome = 1
                reward += w[6]
            elif a.trip_steps[e, r] >= s[TRIP_STEPS_MAX]:
                outcome = 3
            a.reward[e, r] = reward
            a.outcome[e, r] = outcome
        for r in range(a.pose.shape[1]):
            if a.outcome[e, r] != 0:
                a.terminal_observation[e, r] = a.observation[e, r]
                begin_trip(a, e, r, a.outcome[e, r] != 1)


@numba.njit(cache=True)
def begin_trip(a, e, r, elsewhere):  # type: ignore[no-untyped-def]
    """The next trip of robot ``r`` of world ``e``: a new goal and its first observation."""
    choose_goal(a, e, r)
    if elsewhere:
        respawn(a, e, r)
        a.action_before[e, r, 0] = 0.0
        a.action_before[e, r, 1] = 0.0
        a.left_m[e, r] = observe(a, e, r)
    else:
        a.left_m[e, r] = tail(a, e, r)


@numba.njit(cache=True, nogil=True)
def begin_all(a, first, last):  # type: ignore[no-untyped-def]
    """Put every robot of worlds ``first``..``last`` somewhere and give it its first goal."""
    for e in range(first, last):
        for r in range(a.pose.shape[1]):
            a.pose[e, r, 0] = -1000.0 - 10.0 * r
        for r in range(a.pose.shape[1]):
            begin_trip(a, e, r, True)
        for r in range(a.pose.shape[1]):
            a.ticks[e, r] = 0
            a.left_m[e, r] = observe(a, e, r)


def float_settings(values: dict[int, float]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """``Arrays.settings`` from a mapping of the indices above."""
    out = np.zeros(len(values))
    for index, value in values.items():
        out[index] = value
    return out
