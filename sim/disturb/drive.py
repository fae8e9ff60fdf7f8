"""From an admitted command to what the wheels are told, and from true motion to odometry. Compiled."""

import math

import numba

from sim.disturb.state import (
    ACTION_DELAY,
    FRICTION,
    LAG,
    ODOMETRY_SPEED,
    ODOMETRY_TURN,
    PAYLOAD,
    RING,
    SPEED_SCALE,
    TURN_SCALE,
    Fault,
)

SLIPPING, STUCK = int(Fault.SLIPPING_WHEEL), int(Fault.STUCK_MOTOR)
GRIP_LEFT = 0.35
"""Share of its speed that a slipping wheel brings to the floor."""


@numba.njit(cache=True)
def actuate(d, e, r, command, velocity):  # type: ignore[no-untyped-def]
    """Write ``d.actuated`` for robot ``r`` of world ``e`` from its command float64[2] and true velocity float64[2]."""
    p = d.properties[e, r]
    step_s, mass = d.constants[0], d.constants[1]
    clock = d.clock[e, r]
    ring = d.pending[e, r]
    ring[clock % RING, 0], ring[clock % RING, 1] = command[0], command[1]
    delay = min(int(p[ACTION_DELAY]), clock)
    speed = ring[(clock - delay) % RING, 0] * p[SPEED_SCALE]
    turn = ring[(clock - delay) % RING, 1] * p[TURN_SCALE]
    share = 1.0 if p[LAG] <= 0.0 else 1.0 - math.exp(-step_s / p[LAG])
    lagged = d.lagged[e, r]
    lagged[0] += share * (speed - lagged[0])
    lagged[1] += share * (turn - lagged[1])
    strength = p[FRICTION] * mass / (mass + p[PAYLOAD])
    growing = lagged[0] * velocity[0] >= 0.0 and abs(lagged[0]) > abs(velocity[0])
    # A loaded robot speeds up more slowly; its brakes are made for the load, but not for the floor.
    most = step_s * (d.constants[2] * strength if growing else d.constants[3] * p[FRICTION])
    speed = velocity[0] + min(max(lagged[0] - velocity[0], -most), most)
    most = step_s * d.constants[4] * strength
    turn = velocity[1] + min(max(lagged[1] - velocity[1], -most), most)
    fault = d.fault[e, r]
    if fault & (SLIPPING | STUCK):
        half = 0.5 * d.constants[5]
        left, right = speed - half * turn, speed + half * turn
        left *= 0.0 if fault & STUCK else GRIP_LEFT
        speed, turn = 0.5 * (left + right), (right - left) / (2.0 * half)
    d.actuated[e, r, 0], d.actuated[e, r, 1] = speed, turn


@numba.njit(cache=True)
def measure(d, e, r, velocity):  # type: ignore[no-untyped-def]
    """Write ``d.measured`` from the true velocity float64[2]: what the wheels' encoders make of it."""
    p = d.properties[e, r]
    if d.fault[e, r] & SLIPPING:
        d.measured[e, r, 0], d.measured[e, r, 1] = d.lagged[e, r, 0], d.lagged[e, r, 1]
        return
    d.measured[e, r, 0] = velocity[0] * p[ODOMETRY_SPEED]
    d.measured[e, r, 1] = velocity[1] * p[ODOMETRY_TURN]
