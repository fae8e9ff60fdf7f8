"""Settings of the monitor. A policy is trained behind exactly these; their hash binds the two."""

import math
from typing import TypeVar

import msgspec

from contracts.canonical import hash_of
from safety.errors import MonitorConfigError

Self = TypeVar("Self", bound="Settings")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all settings here have in common. Frozen: nothing sets a value while the robot drives."""

    def check(self: Self) -> Self:
        """Return self when every value is finite and above zero.

        Raises:
            MonitorConfigError: naming the value.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0.0:
                raise MonitorConfigError(f"{name} is {value}; it must be a finite number above zero")
        return self

    def hash(self) -> str:
        """The settings' version: SHA-256 over their canonical JSON."""
        return hash_of(self)


class MonitorConfig(Settings, frozen=True, forbid_unknown_fields=True):
    """Every number the monitor acts on. No value of zero disables a protection."""

    margin_m: float = 0.06
    standoff_m: float = 0.03
    reaction_s: float = 0.15
    """Tick, link and actuator; the scan's age is added to it."""
    obstacle_mps: float = 0.8
    """Closing speed assumed of whatever is ahead."""
    mover_reach_m: float = 3.0
    """How far away what moves is looked for."""
    mover_beyond_m: float = 0.15
    mover_beyond_share: float = 0.03
    """A place was free if an earlier ray went this much beyond it, and this share of its distance."""
    mover_gap_m: float = 0.3
    """Neighbouring ranges that differ by more hit two things."""
    mover_width_m: float = 1.2
    """Of what is wider only the part that moved is followed."""
    mover_gate_m: float = 0.6
    """How far from where it was expected a thing may be found."""
    mover_hold_s: float = 0.8
    """What moved is taken to move on for so long after it was last seen to."""
    mover_reaction_s: float = 0.25
    """Tick, link, actuator and drive beside what moves; the scan's age is added to it."""
    mover_braking_share: float = 0.875
    """Share of the model's braking that is counted on."""
    mover_margin_m: float = 0.03
    mover_spread_mps: float = 0.1
    """How fast what is known of a mover's place and way becomes unsure."""
    mover_unknown_mps: float = 0.6
    """The same as long as its velocity is not known."""
    turn_on_the_spot_below: float = 0.1
    """Share of the commanded speed below which the robot turns on the spot instead of creeping."""
    reach_m: float = 6.0
    scan_stale_max_s: float = 0.3
    odometry_stale_max_s: float = 0.3
    future_max_s: float = 0.05
    invalid_fraction_max: float = 0.05
    disarm_after_s: float = 2.0
    """A data fault that lasts this long disarms the robot: it must be armed again by someone."""


class WatchConfig(Settings, frozen=True, forbid_unknown_fields=True):
    """Every number the watches act on. Apart from ``MonitorConfig``: no policy is trained behind a watch.

    Ticks are the monitor's; those of a scan or of odometry count new arrivals only.
    """

    frozen_scans: int = 3
    """Identical scans in a row, while the robot moves, that are no chance."""
    frozen_speed_mps: float = 0.1
    frozen_turn_radps: float = 0.1
    frozen_rays_share: float = 0.05
    """Share of rays that must see something: where nothing is in reach, all scans are the same."""
    blind_sector_rad: float = 0.06
    """Width of neighbouring invalid rays from which they are a blind sector."""
    stamp_stuck_ticks: int = 2
    stamp_ahead_max_s: float = 0.3
    """How far stamps may run ahead of arrivals, and lag behind them, against the quickest arrival so far."""
    stamp_late_max_s: float = 0.3
    stamp_drift: float = 0.001
    """Seconds in a second that the two clocks may drift apart."""
    stamp_relearn_arrivals: int = 20
    """Steady arrivals after which new clocks are accepted, and only of a disarmed robot."""
    pose_jump_m: float = 0.5
    pose_jump_rad: float = 0.5
    pose_steady_ticks: int = 20
    """Ticks without a jump until a pose counts again."""
    overspeed_share: float = 0.15
    overspeed_ticks: int = 3
    overspeed_clear_ticks: int = 10
    runaway_share: float = 0.25
    runaway_mps: float = 0.1
    runaway_radps: float = 0.25
    runaway_reaction_s: float = 0.5
    """Time that a change of the command may take to be felt in measured motion."""
    runaway_braking_share: float = 0.5
    """Share of the model's braking that the envelope of explained motion falls with."""
    runaway_ticks: int = 3
    stuck_command_mps: float = 0.1
    stuck_command_radps: float = 0.3
    stuck_measured_mps: float = 0.02
    stuck_measured_radps: float = 0.03
    stuck_after_s: float = 2.0
    stuck_hold_s: float = 2.0
    slip_window_s: float = 1.0
    slip_m: float = 0.3
    slip_rad: float = 0.3
    slip_share: float = 0.25
    """Share of the way, or of the turn, that odometry and pose may differ by on top."""
    turn_over_radps: float = 1.0
    """Difference of measured and commanded turn rate from which the ways between the two are looked at as well."""
    jerk_max_mps3: float = 12.0
    """How fast a command's acceleration may grow; braking is as quick as it can."""
    tilt_max_rad: float = 0.15
    tilt_ticks: int = 2
    tilt_clear_ticks: int = 20
    zone_margin_m: float = 0.1
    """Kept from the edge of a zone: the pose is not that exact."""
    chatter_share: float = 0.25
    """Mean step of a policy's output from tick to tick, as a share of its range."""
    chatter_window_s: float = 1.0
    saturated_share: float = 0.99
    saturated_after_s: float = 3.0
    novelty_max: float = 3.0
    novelty_ticks: int = 10
    advice_clear_ticks: int = 40
