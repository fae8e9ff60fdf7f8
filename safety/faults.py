"""Every fault the monitor knows, in one table: what finds it, within how many ticks, what happens, what ends it.

The monitor takes its reactions from here; ``tools/fault_table.py`` writes ``docs/safety/faults.md`` from here; the
tests inject every one of them and hold its bound. Bounds are ticks of 20 Hz with data in every tick.
"""

import msgspec

from contracts.decision import Reason, Verdict
from safety.fields import CLEAR_SCANS
from safety.watch.policy import Advice

INJECTED = "tests/unit/test_faults.py::test_a_fault_is_caught_within_its_bound"
LIMITED = "the command is within what may pass"
ARRIVES = "the next one that is in order"
PERSON = "a person arms the robot again"
RESET = "a person resets it, then arms the robot"
IN_STEP = "in step again; or disarmed and steady for stamp_relearn_arrivals (clock set)"


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row."""

    id: Reason | Advice
    detector: str
    bound_ticks: int
    reaction: Verdict | None
    """None: an advice, the robot drives on."""
    clears: str
    disarms: bool = False
    """Whether it disarms the robot when it lasts for ``MonitorConfig.disarm_after_s``."""
    test: str = INJECTED


def _data(reason: Reason, detector: str, bound_ticks: int, clears: str = ARRIVES) -> Fault:
    """A fault of the data that the robot drives by: it stops, and lasting disarms."""
    return Fault(reason, detector, bound_ticks, Verdict.STOP, clears, disarms=True)


FAULTS: tuple[Fault, ...] = (
    Fault(Reason.OBSTACLE_AHEAD, "admission: braking distance over the swept arc", 1, Verdict.LIMIT, LIMITED),
    Fault(
        Reason.MOVING_OBSTACLE, "movers: braking beside what moves, if it moves on", 5, Verdict.LIMIT, LIMITED
    ),
    Fault(
        Reason.COMMAND_OUT_OF_LIMITS, "monitor: the model's speed and turn limits", 1, Verdict.LIMIT, LIMITED
    ),
    Fault(Reason.ACCELERATION_LIMITED, "monitor: the model's accelerations", 1, Verdict.LIMIT, LIMITED),
    Fault(
        Reason.BLIND_SECTOR, "scan: a run of invalid rays is an obstacle", 1, Verdict.LIMIT,
        "the sector sees again, or the way leads elsewhere",
    ),
    Fault(
        Reason.PROTECTIVE_FIELD, "fields: something is where this speed needs free floor", 1, Verdict.LIMIT,
        f"the field was free for {CLEAR_SCANS} scans, or slower",
    ),
    Fault(Reason.SPEED_ZONE, "zones: its speed by the time it is entered", 1, Verdict.LIMIT, LIMITED),
    Fault(Reason.KEEP_OUT, "zones: braking ends before it; out of it is free", 1, Verdict.LIMIT, LIMITED),
    Fault(Reason.STAY_IN, "zones: braking ends inside; back in is free", 1, Verdict.LIMIT, LIMITED),
    Fault(Reason.COMMAND_MISSING, "monitor: no command", 1, Verdict.STOP, "a command"),
    _data(Reason.COMMAND_NOT_FINITE, "monitor: NaN or infinite", 1, "a finite command"),
    _data(Reason.SCAN_MISSING, "monitor: none arrived yet", 1),
    _data(Reason.SCAN_STALE, "monitor: older than scan_stale_max_s", 1),
    _data(Reason.SCAN_FROM_FUTURE, "monitor: arrives later than now", 1),
    _data(Reason.SCAN_INVALID, "scan: too many invalid rays", 1),
    _data(Reason.SCAN_WRONG_SHAPE, "monitor: not the lidar's number of rays", 1),
    _data(
        Reason.SCAN_FROZEN, "arrivals: identical scans while the robot moves", 3, "the ranges change"
    ),
    _data(Reason.SCAN_STAMP_STUCK, "arrivals: the same stamp again", 2, "a newer stamp"),
    _data(Reason.SCAN_STAMP_BACKWARDS, "arrivals: older than the last, or gone", 1, "a newer stamp"),
    _data(
        Reason.SCAN_STAMP_AHEAD, "arrivals: ahead of the quickest arrival so far", 1,
        IN_STEP,
    ),
    _data(
        Reason.SCAN_STAMP_LATE, "arrivals: behind the quickest arrival so far", 1,
        IN_STEP,
    ),
    _data(Reason.ODOMETRY_MISSING, "monitor: none arrived yet", 1),
    _data(Reason.ODOMETRY_STALE, "monitor: older than odometry_stale_max_s", 1),
    _data(Reason.ODOMETRY_NOT_FINITE, "monitor: NaN or infinite", 1),
    _data(Reason.ODOMETRY_FROM_FUTURE, "monitor: arrives later than now", 1),
    _data(Reason.ODOMETRY_STAMP_STUCK, "arrivals: the same stamp again", 2, "a newer stamp"),
    _data(Reason.ODOMETRY_STAMP_BACKWARDS, "arrivals: older than the last, or gone", 1, "a newer stamp"),
    _data(
        Reason.ODOMETRY_STAMP_AHEAD, "arrivals: ahead of the quickest arrival so far", 1,
        IN_STEP,
    ),
    _data(
        Reason.ODOMETRY_STAMP_LATE, "arrivals: behind the quickest arrival so far", 1,
        IN_STEP,
    ),
    _data(Reason.POSE_MISSING, "board: not finite, or none though there are zones", 1, "a finite pose"),
    _data(
        Reason.POSE_JUMP, "motion: farther than the robot can have driven", 1,
        "no jump for pose_steady_ticks",
    ),
    Fault(Reason.NOT_ARMED, "monitor: nobody armed the robot", 1, Verdict.DISARM, PERSON),
    Fault(Reason.STOP_REQUESTED, "monitor: a stop was asked for", 1, Verdict.STOP, PERSON),
    Fault(
        Reason.EMERGENCY_STOP_LATCHED, "monitor: an emergency stop was asked for", 1, Verdict.EMERGENCY_STOP,
        RESET,
    ),
    Fault(
        Reason.OTHER_COMMANDER, "edge agent: another publisher of cmd_vel in the ROS graph", 40, Verdict.DISARM,
        f"it is gone; then {PERSON}",
        test="tests/agent/test_rivals.py::test_a_second_commander_disarms_is_named_and_must_go_before_arming",
    ),
    Fault(
        Reason.NO_GOAL, "edge agent: the robot has no goal", 1, Verdict.STOP, "a goal",
        test="tests/agent/test_tick.py::test_no_goal_a_bad_goal_and_no_route_yet_mean_standing_still",
    ),
    Fault(
        Reason.RUNAWAY, "motion: moves as no command explains", 3, Verdict.EMERGENCY_STOP,
        RESET,
    ),
    Fault(
        Reason.STANDSTILL_LOST, "motion: moves while disarmed or stopped", 3, Verdict.DISARM,
        f"it stands again; then {PERSON}",
        disarms=True,
    ),
    Fault(
        Reason.OVERSPEED, "motion: beyond the model's limits and odometry's error", 3, Verdict.STOP,
        "within the limits for overspeed_clear_ticks", disarms=True,
    ),
    Fault(
        Reason.TILTED, "motion: leans more than tilt_max_rad, or NaN", 2, Verdict.STOP,
        "upright for tilt_clear_ticks", disarms=True,
    ),
    Fault(
        Reason.STUCK, "motion: commanded to move for stuck_after_s, and stands", 41, Verdict.STOP,
        "stuck_hold_s have passed: it tries again",
    ),
    Fault(
        Reason.SLIPPING, "motion: odometry and pose disagree over slip_window_s", 40, Verdict.STOP,
        "they agree for one whole window", disarms=True,
    ),
    Fault(
        Advice.CHATTERING, "policy: steps of its output", 20, None, "calm for advice_clear_ticks",
    ),
    Fault(
        Advice.SATURATED, "policy: at both limits or constant, whatever it sees", 62, None,
        "alive for advice_clear_ticks",
    ),
    Fault(
        Advice.UNFAMILIAR, "policy: observations far from training's", 10, None,
        "familiar for advice_clear_ticks",
    ),
)  # fmt: skip

REACTION: dict[Reason, Verdict] = {
    fault.id: fault.reaction
    for fault in FAULTS
    if isinstance(fault.id, Reason) and fault.reaction is not None
}
REACTION[Reason.CLEAR] = Verdict.PASS
DISARMING = frozenset(fault.id for fault in FAULTS if fault.disarms)
