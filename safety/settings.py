"""A robot's own settings of the monitor: within what is built in, only ever stricter.

Who may give them, and how they are signed, is not decided here (``edge_agent.guard.settings``).
"""

from typing import Annotated

import msgspec

from contracts.manifest import Digest, Text
from safety.config import MonitorConfig, Settings, WatchConfig
from safety.errors import MonitorConfigError
from safety.fields import ProtectiveField
from safety.zones import Zone

ZONES_MAX = 256
FIELDS_MAX = 16
FORMAT_VERSION = 1
SAFETY_PAYLOAD_TYPE = "application/vnd.outrider.safety+json"
"""DSSE payload type: what is signed as something else is no safety setting."""
STRICTEST: dict[str, float] = {
    "margin_m": 0.5,
    "standoff_m": 0.5,
    "reaction_s": 1.0,
    "obstacle_mps": 2.0,
    "mover_hold_s": 3.0,
    "mover_reaction_s": 1.0,
    "mover_braking_share": 0.3,
    "mover_margin_m": 0.5,
    "mover_spread_mps": 1.0,
    "mover_unknown_mps": 2.0,
    "reach_m": 20.0,
    "scan_stale_max_s": 0.05,
    "odometry_stale_max_s": 0.05,
    "future_max_s": 0.001,
    "invalid_fraction_max": 0.001,
    "disarm_after_s": 0.1,
    "frozen_scans": 2,
    "frozen_speed_mps": 0.01,
    "frozen_turn_radps": 0.01,
    "frozen_rays_share": 0.005,
    "stamp_stuck_ticks": 1,
    "stamp_ahead_max_s": 0.05,
    "stamp_late_max_s": 0.05,
    "stamp_relearn_arrivals": 1000,
    "pose_jump_m": 0.05,
    "pose_jump_rad": 0.05,
    "pose_steady_ticks": 1000,
    "overspeed_share": 0.01,
    "overspeed_ticks": 1,
    "overspeed_clear_ticks": 1000,
    "runaway_share": 0.05,
    "runaway_mps": 0.02,
    "runaway_radps": 0.05,
    "runaway_reaction_s": 0.1,
    "runaway_braking_share": 1.0,
    "runaway_ticks": 1,
    "stuck_command_mps": 0.02,
    "stuck_command_radps": 0.05,
    "stuck_measured_mps": 0.05,
    "stuck_measured_radps": 0.1,
    "stuck_after_s": 0.5,
    "stuck_hold_s": 60.0,
    "slip_m": 0.03,
    "slip_rad": 0.03,
    "slip_share": 0.02,
    "turn_over_radps": 0.1,
    "jerk_max_mps3": 0.5,
    "tilt_max_rad": 0.02,
    "tilt_ticks": 1,
    "tilt_clear_ticks": 1000,
    "zone_margin_m": 1.0,
    "chatter_share": 0.05,
    "saturated_share": 0.9,
    "saturated_after_s": 0.5,
    "novelty_max": 1.0,
    "novelty_ticks": 1,
    "advice_clear_ticks": 1000,
}
"""The other end of what a value may be, from the built-in one on. What is not named here stays as it is built in."""


class SafetySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a safety officer may set for robots of one model. Zones come on top of those of the floor."""

    robot_model: Text
    monitor: MonitorConfig = MonitorConfig()
    watch: WatchConfig = WatchConfig()
    zones: Annotated[tuple[Zone, ...], msgspec.Meta(max_length=ZONES_MAX)] = ()
    fields: Annotated[tuple[ProtectiveField, ...], msgspec.Meta(max_length=FIELDS_MAX)] = ()
    floor_hash: Digest | None = None
    """The floor that the zones belong to (``Warehouse.hash``)."""
    format_version: int = FORMAT_VERSION

    def check(self) -> "SafetySettings":
        """Return self when nothing in it is looser than what is built in.

        Raises:
            MonitorConfigError: naming the value and what it may be.
            ZoneError: see ``Zone.check`` and ``ProtectiveField.check``.
        """
        if self.format_version != FORMAT_VERSION:
            raise MonitorConfigError(
                f"expected settings of format {FORMAT_VERSION}, came {self.format_version}"
            )
        for given, built_in in ((self.monitor, MonitorConfig()), (self.watch, WatchConfig())):
            given.check()
            _check_stricter(given, built_in)
        for zone in self.zones:
            zone.check()
        for field in self.fields:
            field.check()
        if bool(self.zones) != (self.floor_hash is not None):
            raise MonitorConfigError("zones and floor_hash go together: a zone is a place on one floor")
        return self

    def changes(self) -> list[str]:
        """What differs from what is built in, for people."""
        found = []
        for given, built_in in ((self.monitor, MonitorConfig()), (self.watch, WatchConfig())):
            for name in given.__struct_fields__:
                if (value := getattr(given, name)) != getattr(built_in, name):
                    found.append(f"{name} {value:g}")
        counts = ((len(self.zones), "zone(s)"), (len(self.fields), "field(s)"))
        return [*found, *(f"{count} {what}" for count, what in counts if count)]


def _check_stricter(given: Settings, built_in: Settings) -> None:
    for name in given.__struct_fields__:
        value, standard = getattr(given, name), getattr(built_in, name)
        strictest = STRICTEST.get(name, standard)
        if not min(standard, strictest) <= value <= max(standard, strictest):
            allowed = f"{standard:g} to {strictest:g}" if name in STRICTEST else f"{standard:g}, as built in"
            raise MonitorConfigError(f"{name} is {value:g}; settings may only be stricter: {allowed}")
