"""Whether braking could have helped at all: a contact against what an ideal base would have done, from the truth alone.

Knows nothing of the monitor, of scans or of delays. The judge is harsher than any monitor can be good: it brakes from
the very moment at which somebody sets off (before that can be seen), without reaction time, at the model's full
braking, and whom it might touch walks only as far as they really did and then stands. What it touches nevertheless, no
monitor could have helped by braking then. Everything else counts as avoidable.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contracts.robot import RobotModel
from sim.tasks.delivery import CONTACT_SPEED_MPS
from sim.world.state import PERSON_RADIUS_M

STOOD_S = 0.5
"""Who stood for so long before did not walk, but set off."""
STANDS_MPS = 0.05
TURN_SHARES = (0.0, 0.5, 1.0)
"""Braking, a base may keep its turn rate or any part of it: to steer clear is not the monitor's."""
FINE_S = 0.01


class Moment(NamedTuple):
    """The truth about one robot and one person at one time; m, rad, m/s, rad/s, map frame."""

    pose: tuple[float, float, float]
    velocity: tuple[float, float]
    person_xy: tuple[float, float]
    person_mps: float
    seen: bool
    """Whether the robot's undisturbed lidar hits the person."""


def unavoidable(moments: Sequence[Moment], step_s: float, model: RobotModel) -> bool:
    """Whether braking from when the person set off, or came into view if that was later, would still touch them.

    Args:
        moments: the last of them is that of the contact, ``step_s`` apart. Who was walking in view since before the
            first of them is no case of this.
        step_s: s.
        model: footprint and braking.
    """
    onset = _onset(moments, step_s)
    if onset is None:
        return False
    return all(_touches(moments[onset:], share, step_s, model) for share in TURN_SHARES)


def _onset(moments: Sequence[Moment], step_s: float) -> int | None:
    """Index of the moment at which the person set off or came into view, the later; None if neither is among them."""
    set_off, came = _set_off(moments, round(STOOD_S / step_s)), _came(moments)
    found = [index for index in (set_off, came) if index is not None]
    return max(found) if found else None


def _set_off(moments: Sequence[Moment], stood_steps: int) -> int | None:
    """The last moment at which they still stood, and had for ``stood_steps``, before they walked."""
    stood, found = 0, None
    for index, moment in enumerate(moments):
        if moment.person_mps < STANDS_MPS:
            stood += 1
            continue
        if stood >= stood_steps:
            found = index - 1
        stood = 0
    return found


def _came(moments: Sequence[Moment]) -> int | None:
    """The last moment before the person was in view until the end; the end, if they never were."""
    for index in range(len(moments) - 1, -1, -1):
        if not moments[index].seen:
            return index
    return None


def _touches(moments: Sequence[Moment], turn_share: float, step_s: float, model: RobotModel) -> bool:
    """Whether a base that brakes from the first moment on touches the person while it still moves."""
    (x, y, heading), (speed, turn_rate) = moments[0].pose, moments[0].velocity
    turn_rate, sign, pace = turn_rate * turn_share, float(np.sign(speed)), abs(speed)
    walked = np.array([moment.person_xy for moment in moments])
    times = np.arange(len(moments)) * step_s
    near_m = model.footprint_radius_m + PERSON_RADIUS_M
    for tick in range(int(pace / model.braking_mps2 / FINE_S) + 1):
        if pace <= CONTACT_SPEED_MPS:
            return False
        now_s = tick * FINE_S
        person_x, person_y = np.interp(now_s, times, walked[:, 0]), np.interp(now_s, times, walked[:, 1])
        for offset_m in model.footprint_offsets_m:
            disc_x, disc_y = x + offset_m * np.cos(heading), y + offset_m * np.sin(heading)
            if np.hypot(person_x - disc_x, person_y - disc_y) < near_m:
                return True
        pace = max(pace - model.braking_mps2 * FINE_S, 0.0)
        heading += turn_rate * FINE_S
        x += sign * pace * FINE_S * float(np.cos(heading))
        y += sign * pace * FINE_S * float(np.sin(heading))
    return False
