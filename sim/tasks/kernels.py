"""The task's compiled steps: guard and walk before the physics, judge and observe after it.

Every physics back end runs exactly these, so that the twin and PyBullet differ in motion and contact only.

``Arrays`` is handed over as several hundred numbers: a call with it costs 1 us, and a second or two to compile. What is
called from one place is therefore inlined.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from navigation import encoder
from navigation.controllers import pure_pursuit, recovery
from sim.disturb.drive import actuate, measure
from sim.disturb.sense import (
    begin_disturbance,
    corrupt_scan,
    delay_senses,
    fill_invalid,
    localise,
    reset_lines,
)
from sim.disturb.state import OBSERVATION_DELAY
from sim.people.walk import walk
from sim.sensors.lidar import scan_robot
from sim.tasks.delivery import (
    ARRIVE_RADIUS_M,
    ARRIVE_SPEED_MPS,
    CONTACT_SPEED_MPS,
)
from sim.twin.guard import admit_one, roll_out_one
from sim.twin.motion import drive, touches
from sim.twin.movers import advance_one, forget_one, share_one, take_one
from sim.world.floors import route_ahead
from sim.world.random import restart, uniform
from sim.world.state import PERSON_RADIUS_M

pool_beams = numba.njit(cache=True)(encoder.pool_beams)
encode_tail = numba.njit(cache=True)(encoder.encode_tail)
pursue = numba.njit(cache=True)(pure_pursuit.pursue)
recover = numba.njit(cache=True)(recovery.recover)
SCAN_AGE_S = 0.05
DRAWS_MAX = 20
"""Draws of a station; where all are taken by then, two robots share one."""


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
    park_xy: Any
    people: Any
    disturb: Any
    pursuit: Any
    recovery: Any
    memory: Any
    robot_base: Any
    robot_random: Any
    goal: Any
    goal_kind: Any
    trip_steps: Any
    trips: Any
    left_m: Any
    nearest_m: Any
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
    movers: Any
    mover_numbers: Any
    weights: Any
    carrots_m: Any
    discs: Any


# Indices into ``Arrays.settings``, float64.
STEP_S, RADIUS, SPEED_MAX, REVERSE_MAX, TURN_MAX, ACCELERATION, BRAKING, TURN_ACCELERATION = range(8)
ANGLE_MIN, RANGE_MAX, TRIP_STEPS_MAX, GUARDED, LEARNERS, BROKEN, SPAWN_GAP, REACH, RANGE_MIN = range(8, 17)
RECOVERS = 17


@numba.njit(cache=True, inline="always")
def drive_background(a, e, r):  # type: ignore[no-untyped-def]
    """Write the command of a robot that does not learn: pure pursuit, or nothing where it has broken down."""
    s, command = a.settings, a.command[e, r]
    command[0], command[1] = 0.0, 0.0
    if r < a.pose.shape[1] - int(s[BROKEN]):
        p = a.pursuit
        if not recover(a.observation[e, r], p[12], p[13], p[14], p[15], s[STEP_S], a.memory[e, r], command):
            pursue(a.observation[e, r], p, command)


@numba.njit(cache=True, inline="always")
def admit_beside_movers(a, e, r, command, age_s):  # type: ignore[no-untyped-def]
    """What the monitor does about what moves around robot ``r`` of world ``e``: reduces ``command``, takes the scan."""
    n = a.mover_numbers
    advance_one(a.movers, e, r, a.settings[STEP_S], a.disturb.measured[e, r])
    share = share_one(a.movers, e, r, n, a.discs, command[0], command[1], age_s)
    command[0] *= share
    if share > 0.0:
        command[1] *= share
    roll_out_one(
        a.guard, a.ranges[e, r], a.cosines, a.sines, a.movers, e, r, n, a.discs, command,
        a.disturb.measured[e, r], age_s,
    )  # fmt: skip
    take_one(a.movers, e, r, n, a.ranges[e, r], a.cosines, a.sines)


@numba.njit(cache=True, nogil=True)
def guard_and_walk(a, first, last):  # type: ignore[no-untyped-def]
    """Pass ``command`` through the monitor (where guarded) and move the people of worlds ``first``..``last``.

    ``disturb.actuated`` is what the physics gets.
    """
    s, d = a.settings, a.disturb
    disturbed = d.active[0] > 0.0
    for e in range(first, last):
        for r in range(a.pose.shape[1]):
            if r >= int(s[LEARNERS]):
                drive_background(a, e, r)
            command = a.command[e, r]
            if s[RECOVERS] > 0.0 and r < int(s[LEARNERS]):
                p = a.recovery
                recover(a.observation[e, r], p[0], p[1], p[2], p[3], s[STEP_S], a.memory[e, r], command)
            command[0] = min(max(command[0], -s[REVERSE_MAX]), s[SPEED_MAX])
            command[1] = min(max(command[1], -s[TURN_MAX]), s[TURN_MAX])
            a.reduced[e, r] = 0.0
            if s[GUARDED] > 0.0:
                wanted = abs(command[0])
                age_s = SCAN_AGE_S + s[STEP_S] * d.properties[e, r, OBSERVATION_DELAY]
                admit_one(a.guard, a.ranges[e, r], a.cosines, a.sines, command, d.measured[e, r], age_s)
                admit_beside_movers(a, e, r, command, age_s)
                if wanted > 0.0:
                    a.reduced[e, r] = 1.0 - abs(command[0]) / wanted
            if disturbed:
                actuate(d, e, r, command, a.velocity[e, r])
            else:
                d.actuated[e, r] = command
        f = a.floor_of[e]
        walk(
            a.people,
            e,
            a.pose[e],
            s[REACH],
            f,
            a.pointers,
            a.columns[f],
            a.station_xy[f],
            a.station_count[f],
            a.route_at[f],
            a.boxes[f],
            a.box_count[f],
            s[STEP_S],
        )


@numba.njit(cache=True, nogil=True)
def twin_physics(a, first, last):  # type: ignore[no-untyped-def]
    """Drive the robots of worlds ``first``..``last`` and find what they touch; a robot never enters a box."""
    s = a.settings
    for e in range(first, last):
        f = a.floor_of[e]
        for r in range(a.pose.shape[1]):
            x, y, heading = a.pose[e, r, 0], a.pose[e, r, 1], a.pose[e, r, 2]
            drive(
                a.pose[e, r],
                a.velocity[e, r],
                a.disturb.actuated[e, r],
                s[STEP_S],
                s[ACCELERATION],
                s[BRAKING],
                s[TURN_ACCELERATION],
            )
            moved = abs(a.velocity[e, r, 0])
            hit = touches(
                a.pose[e],
                r,
                s[RADIUS],
                a.discs,
                a.boxes[f],
                a.box_count[f],
                a.people.xy[e],
                PERSON_RADIUS_M,
            )
            a.contact[e, r] = hit
            if hit == 1:
                a.pose[e, r, 0] = x
                a.pose[e, r, 1] = y
                a.pose[e, r, 2] = heading
                a.velocity[e, r, 0] = math.copysign(min(moved, 2.0 * CONTACT_SPEED_MPS), a.velocity[e, r, 0])


@numba.njit(cache=True, inline="always")
def derive(a, e, r, stream):  # type: ignore[no-untyped-def]
    """Index of a random stream that depends on the robot, the number of its trip and ``stream`` only."""
    index = (e * a.pose.shape[1] + r) * 2 + stream
    restart(a.robot_random, a.robot_base, index, a.trips[e, r])
    return index


@numba.njit(cache=True)
def taken(goal, drives, r, station):  # type: ignore[no-untyped-def]
    """Whether another than ``r`` of the first ``drives`` robots of a world is on its way to ``station``."""
    others = 0
    for other in range(drives):
        if other != r and goal[other] == station:
            others += 1
    return others > 0


@numba.njit(cache=True)
def choose_goal(a, e, r):  # type: ignore[no-untyped-def]
    """Give robot ``r`` of world ``e`` its next station, pick and drop in turn; one that no other robot is sent to.

    The draws of a trip depend on the robot and the number of the trip only: trips compare in pairs. Only where a
    station is taken the next draw counts.
    """
    f = a.floor_of[e]
    a.trips[e, r] += 1
    a.goal_kind[e, r] = 1 - a.goal_kind[e, r]
    count = 0
    for station in range(a.station_count[f]):
        if a.station_kind[f, station] == a.goal_kind[e, r]:
            count += 1
    stream = derive(a, e, r, 0)
    for _ in range(DRAWS_MAX):
        pick = int(uniform(a.robot_random, stream) * count)
        for station in range(a.station_count[f]):
            if a.station_kind[f, station] == a.goal_kind[e, r]:
                if pick == 0:
                    a.goal[e, r] = station
                    break
                pick -= 1
        if not taken(a.goal[e], a.pose.shape[1] - int(a.settings[BROKEN]), r, a.goal[e, r]):
            break
    a.trip_steps[e, r] = 0


@numba.njit(cache=True)
def place_is_free(pose, person_xy, r, gap_m):  # type: ignore[no-untyped-def]
    """Whether robot ``r`` of a world, ``pose`` float64[R, 3], is ``gap_m`` away from everybody."""
    x, y, gap = pose[r, 0], pose[r, 1], gap_m * gap_m
    for other in range(pose.shape[0]):
        dx, dy = pose[other, 0] - x, pose[other, 1] - y
        if other != r and dx * dx + dy * dy < gap:
            return False
    for person in range(person_xy.shape[0]):
        dx, dy = person_xy[person, 0] - x, person_xy[person, 1] - y
        if dx * dx + dy * dy < gap:
            return False
    return True


@numba.njit(cache=True)
def respawn(a, e, r):  # type: ignore[no-untyped-def]
    """Put robot ``r`` of world ``e`` on a free place away from everybody, at rest; a broken one beside a shelf."""
    f, s = a.floor_of[e], a.settings
    stream = derive(a, e, r, 1)
    broken = r >= a.pose.shape[1] - int(s[BROKEN])
    places = a.park_xy[f] if broken else a.spawn_xy[f]
    for _ in range(200):
        place = int(uniform(a.robot_random, stream) * places.shape[0])
        heading = (uniform(a.robot_random, stream) * 2.0 - 1.0) * math.pi
        if broken:
            heading = places[place, 2]
        a.pose[e, r, 0], a.pose[e, r, 1], a.pose[e, r, 2] = places[place, 0], places[place, 1], heading
        if not place_is_free(a.pose[e], a.people.xy[e], r, s[SPAWN_GAP]):
            continue
        if (
            touches(
                a.pose[e], r, s[RADIUS], a.discs, a.boxes[f], a.box_count[f], a.people.xy[e], PERSON_RADIUS_M
            )
            == 0
        ):
            break
    a.velocity[e, r, 0] = 0.0
    a.velocity[e, r, 1] = 0.0
    a.contact[e, r] = 0
    a.ticks[e, r] = 0
    a.memory[e, r] = 0.0
    reset_lines(a.disturb, e, r)
    forget_one(a.movers, e, r)


@numba.njit(cache=True, inline="always")
def sense(a, e, r):  # type: ignore[no-untyped-def]
    """Write what robot ``r`` of world ``e`` is told: ranges, measured velocity, estimated pose."""
    f, s, d = a.floor_of[e], a.settings, a.disturb
    ranges = a.ranges[e, r]
    scan_robot(
        a.boxes[f],
        a.box_count[f],
        a.people.xy[e],
        PERSON_RADIUS_M,
        a.pose[e],
        r,
        s[RADIUS],
        a.discs,
        a.cosines,
        a.sines,
        s[ANGLE_MIN],
        s[RANGE_MAX],
        ranges,
    )
    a.nearest_m[e, r] = nearest_to_footprint(ranges, a.cosines, a.sines, a.discs)
    if d.active[0] > 0.0:
        measure(d, e, r, a.velocity[e, r])
        localise(d, e, r, a.pose[e, r])
        corrupt_scan(d, e, r, ranges, s[ANGLE_MIN])
        delay_senses(d, e, r, ranges)
        fill_invalid(ranges, s[RANGE_MIN])
        d.clock[e, r] += 1
    else:
        d.measured[e, r] = a.velocity[e, r]
        d.estimated[e, r] = a.pose[e, r]


@numba.njit(cache=True)
def nearest_to_footprint(ranges, cosines, sines, discs):  # type: ignore[no-untyped-def]
    """Distance from the nearest point of a clean scan to the nearest disc's centre, m."""
    if discs.shape[0] == 1:
        nearest = ranges[0]
        for ray in range(1, ranges.shape[0]):
            nearest = min(nearest, ranges[ray])
        return float(nearest)
    squared = math.inf
    for ray in range(ranges.shape[0]):
        x, y = ranges[ray] * cosines[ray], ranges[ray] * sines[ray]
        for disc in range(discs.shape[0]):
            along = x - discs[disc]
            squared = min(squared, along * along + y * y)
    return math.sqrt(squared)


@numba.njit(cache=True, inline="always")
def observe(a, e, r):  # type: ignore[no-untyped-def]
    """Sense and encode for robot ``r`` of world ``e``; returns the route's cost that is left."""
    sense(a, e, r)
    out = a.observation[e, r]
    pool_beams(a.ranges[e, r], a.ranges.shape[2] // 36, out[0:36])
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
def observe_anew(a, e, r):  # type: ignore[no-untyped-def]
    """``observe`` once more compiled by itself, for where it is seldom asked for."""
    return observe(a, e, r)


@numba.njit(cache=True, inline="always")
def way_left(a, e, r, x, y, points):  # type: ignore[no-untyped-def]
    """Cost of the route from (x, y) to the goal of robot ``r`` of world ``e``; writes the carrots into ``points``."""
    f = a.floor_of[e]
    station = a.goal[e, r]
    start = a.route_at[f, station]
    cells = a.rows[f] * a.columns[f]
    return route_ahead(
        a.pointers[start : start + cells],
        a.field[start : start + cells],
        a.rows[f],
        a.columns[f],
        x,
        y,
        a.station_xy[f, station, 0],
        a.station_xy[f, station, 1],
        a.carrots_m,
        points,
    )


@numba.njit(cache=True, inline="always")
def tail(a, e, r):  # type: ignore[no-untyped-def]
    """Encode all but the beams for robot ``r`` of world ``e``; returns the route's cost that is truly left."""
    f, d = a.floor_of[e], a.disturb
    station = a.goal[e, r]
    x, y, heading = d.estimated[e, r, 0], d.estimated[e, r, 1], d.estimated[e, r, 2]
    points = a.route_points[e, r]
    left = way_left(a, e, r, x, y, points)
    encode_tail(
        a.observation[e, r],
        x,
        y,
        heading,
        d.measured[e, r, 0],
        d.measured[e, r, 1],
        a.station_xy[f, station, 0],
        a.station_xy[f, station, 1],
        points,
        left,
    )
    if x != a.pose[e, r, 0] or y != a.pose[e, r, 1]:
        return way_left(a, e, r, a.pose[e, r, 0], a.pose[e, r, 1], points)
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
            nearest = a.nearest_m[e, r]
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
    if a.disturb.active[0] > 0.0:
        begin_disturbance(a.disturb, e, r, a.trips[e, r])
    if elsewhere:
        respawn(a, e, r)
        a.action_before[e, r, 0] = 0.0
        a.action_before[e, r, 1] = 0.0
        a.left_m[e, r] = observe_anew(a, e, r)
    else:
        a.left_m[e, r] = tail(a, e, r)


@numba.njit(cache=True, nogil=True)
def begin_all(a, first, last):  # type: ignore[no-untyped-def]
    """Put every robot of worlds ``first``..``last`` somewhere and give it its first goal."""
    for e in range(first, last):
        for r in range(a.pose.shape[1]):
            a.pose[e, r, 0] = -1000.0 - 10.0 * r
        # Broken robots first: their places beside the shelves are few.
        for r in range(a.pose.shape[1] - 1, -1, -1):
            begin_trip(a, e, r, True)
        for r in range(a.pose.shape[1]):
            a.ticks[e, r] = 0
            a.left_m[e, r] = observe_anew(a, e, r)


def float_settings(values: dict[int, float]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """``Arrays.settings`` from a mapping of the indices above."""
    out = np.zeros(len(values))
    for index, value in values.items():
        out[index] = value
    return out
