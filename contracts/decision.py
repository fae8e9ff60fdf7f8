"""The decision record: one tick on the robot, as fixed-size bytes. Ring, log and uplink carry the same bytes."""

import enum
import hashlib
from collections import Counter

import numpy as np
import numpy.typing as npt

from contracts.observation import COMMAND_SIZE, OBSERVATION_SIZE


class Source(enum.IntEnum):
    """Who proposed the command."""

    NONE = 0
    POLICY = 1
    RULE_BASED = 2
    RECOVERY = 3
    """The policy drives; having stood too long, the robot backs off (``navigation.controllers.recovery``)."""


class Mode(enum.IntEnum):
    """Who may drive. Values are part of the log format."""

    CONTROLLER = 0
    """The policy, under the monitor."""
    SHADOW = 1
    """The rules; the policy runs beside them and is only recorded."""
    ASSIST = 2
    """The policy while a person's approval is valid, else the rules."""
    FALLBACK = 3
    """The rules alone."""


class Verdict(enum.IntEnum):
    """What the safety monitor did, in order of severity: the most restrictive wins."""

    PASS = 0
    LIMIT = 1
    STOP = 2
    DISARM = 3
    EMERGENCY_STOP = 4


class Reason(enum.IntEnum):
    """Why the monitor did it. Values are part of the log format and are never reused."""

    CLEAR = 0
    OBSTACLE_AHEAD = 1
    COMMAND_OUT_OF_LIMITS = 2
    ACCELERATION_LIMITED = 3
    BLIND_SECTOR = 4
    SPEED_ZONE = 5
    KEEP_OUT = 6
    STAY_IN = 7
    MOVING_OBSTACLE = 8
    PROTECTIVE_FIELD = 9
    COMMAND_MISSING = 10
    COMMAND_NOT_FINITE = 11
    SCAN_MISSING = 20
    SCAN_STALE = 21
    SCAN_FROM_FUTURE = 22
    SCAN_INVALID = 23
    SCAN_WRONG_SHAPE = 24
    SCAN_FROZEN = 25
    SCAN_STAMP_STUCK = 26
    SCAN_STAMP_BACKWARDS = 27
    SCAN_STAMP_AHEAD = 28
    SCAN_STAMP_LATE = 29
    ODOMETRY_MISSING = 30
    ODOMETRY_STALE = 31
    ODOMETRY_NOT_FINITE = 32
    ODOMETRY_FROM_FUTURE = 33
    ODOMETRY_STAMP_STUCK = 34
    ODOMETRY_STAMP_BACKWARDS = 35
    ODOMETRY_STAMP_AHEAD = 36
    ODOMETRY_STAMP_LATE = 37
    POSE_MISSING = 38
    POSE_JUMP = 39
    NOT_ARMED = 40
    STOP_REQUESTED = 41
    EMERGENCY_STOP_LATCHED = 42
    OTHER_COMMANDER = 43
    NO_GOAL = 50
    RUNAWAY = 60
    STANDSTILL_LOST = 61
    OVERSPEED = 62
    TILTED = 63
    STUCK = 64
    SLIPPING = 65


INTERVENTIONS = frozenset(
    {
        Reason.OBSTACLE_AHEAD,
        Reason.MOVING_OBSTACLE,
        Reason.COMMAND_OUT_OF_LIMITS,
        Reason.COMMAND_NOT_FINITE,
        Reason.KEEP_OUT,
        Reason.STAY_IN,
    }
)
"""What the monitor takes away for is a policy's doing; ramps, sensors and operators are not."""
INTERVENTION_SHARE, TURN_WEIGHT_M = 0.5, 0.3
"""It is an intervention where less than this share of a command is left, ``abs(speed) + 0.3 abs(turn rate)``."""


def in_words(member: enum.Enum) -> str:
    """A member's name as people read it: ``SCAN_STALE`` is "scan stale"."""
    return member.name.lower().replace("_", " ")


CONFIG_DIGEST_BYTES = 8
DECISION_DTYPE = np.dtype(
    [
        ("tick", "<u8"),
        ("mono_ns", "<i8"),
        ("wall_ns", "<i8"),
        ("policy_digest", "u1", (32,)),
        ("release_counter", "<u4"),
        ("source", "u1"),
        ("verdict", "u1"),
        ("reason", "<u2"),
        ("flags", "<u4"),
        ("pose", "<f4", (3,)),
        ("velocity", "<f4", (2,)),
        ("goal", "<f4", (2,)),
        ("clearance_m", "<f4"),
        ("raw_command", "<f4", (COMMAND_SIZE,)),
        ("final_command", "<f4", (COMMAND_SIZE,)),
        ("other_command", "<f4", (COMMAND_SIZE,)),
        ("other_reduction", "<f4"),
        ("scan_age_us", "<u4"),
        ("odometry_age_us", "<u4"),
        ("late_us", "<u4"),
        ("encode_us", "<u4"),
        ("infer_us", "<u4"),
        ("guard_us", "<u4"),
        ("publish_us", "<u4"),
        ("total_us", "<u4"),
        ("missed_ticks", "<u4"),
        ("trip", "<u4"),
        ("observation", "<f4", (OBSERVATION_SIZE,)),
        ("mode", "u1"),
        ("config_digest", "u1", (CONFIG_DIGEST_BYTES,)),
        ("entropy_nats", "<f4"),
    ]
)
"""Pose x, y (m), heading (rad) in the map frame; commands and velocity in m/s and rad/s in the base frame.

``total_us`` is observation, inference, monitor and command; ``publish_us`` the ROS hop; ``late_us`` how long
after its deadline the tick began; ``missed_ticks`` how many deadlines have been skipped since the start.
A digest of zeros means no policy was asked. ``trip`` counts the goals the robot has been given.
``other_command`` is what the policy that does not drive wanted (a candidate, or in shadow and assist the
policy), NaN where none was asked; ``other_reduction`` in [0, 1] is how much of it the monitor would have taken
away, NaN where the monitor was not asked.
``config_digest`` begins the SHA-256 of the settings that control runs with (``edge_agent.effective``), which the log
has as the event ``control_config``; zeros where none were given. ``entropy_nats`` is that of the distribution from
which the policy that was asked would draw while it learns: the lower, the surer it is of itself. A continuous one's
may be below zero. NaN where the policy has none, or nobody was asked.
"""

FLAG_ARMED = 1
FLAG_SWAPPED = 2
"""The first tick of a newly swapped-in policy."""
FLAG_BLENDED = 4
"""After a change of driver: the monitor was given a command between the last one and ``raw_command``."""
FLAG_PROBATION = 8
FLAG_RETURNED = 16
"""The first tick after a policy on probation was taken off again."""

VECTORS = {
    "pose": ("pose_x_m", "pose_y_m", "pose_heading_rad"),
    "velocity": ("speed_mps", "turn_rate_radps"),
    "goal": ("goal_x_m", "goal_y_m"),
    "raw_command": ("raw_speed_mps", "raw_turn_rate_radps"),
    "final_command": ("final_speed_mps", "final_turn_rate_radps"),
    "other_command": ("other_speed_mps", "other_turn_rate_radps"),
}
"""Names of the columns in which tables keep a field of several values; the observation is not among them."""

DECISION_SCHEMA_HASH = hashlib.sha256(repr(DECISION_DTYPE.descr).encode()).hexdigest()


DIGESTS = ("policy_digest", "config_digest")
"""Fields that are the first bytes of a hash; text elsewhere."""


def digest_text(digest: npt.NDArray[np.uint8]) -> str:
    """A record's policy (uint8[32]) or config digest (uint8[8]) in hexadecimal digits; "" where it has none."""
    return digest.tobytes().hex() if digest.any() else ""


def digest_runs(digests: npt.NDArray[np.uint8]) -> list[tuple[int, int, str]]:
    """Runs of the same digest in uint8[n, 32] or [n, 8]: first row, row after the last, and the digest's text.

    Quick, for policies seldom change from one row to the next.
    """
    words = np.ascontiguousarray(digests).view("<u8")
    cuts = (1 + np.flatnonzero((words[1:] != words[:-1]).any(axis=1))).tolist()
    return [
        (start, stop, digest_text(digests[start]))
        for start, stop in zip([0, *cuts], [*cuts, len(digests)], strict=True)
        if start < stop
    ]


def count_policies(digests: npt.NDArray[np.uint8]) -> Counter[str]:
    """How often each policy is in uint8[n, 32], in order of appearance."""
    counts: Counter[str] = Counter()
    for start, stop, digest in digest_runs(digests):
        counts[digest] += stop - start
    return counts
