"""A robot's own settings of the monitor: stricter within bounds, never looser; what differs is told."""

from typing import Any

import msgspec
import pytest

from safety.config import MonitorConfig, WatchConfig
from safety.errors import MonitorConfigError, ZoneError
from safety.fields import ProtectiveField
from safety.settings import FORMAT_VERSION, STRICTEST, SafetySettings
from safety.zones import Zone, rectangle

ROBOT, FLOOR = "amr_small", "ab" * 32
ZONE = Zone("keep_out", rectangle(0.0, 0.0, 1.0, 1.0))
EVERY = [(kind, name) for kind in (MonitorConfig, WatchConfig) for name in kind.__struct_fields__]


def settings_with(kind: Any, name: str, value: float) -> SafetySettings:
    """Built-in settings with one value changed."""
    changed = kind(**{name: value})
    return SafetySettings(ROBOT, **{"monitor" if kind is MonitorConfig else "watch": changed})


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[name for _, name in EVERY])
def test_a_value_may_be_stricter_within_bounds_and_never_looser(kind: Any, name: str) -> None:
    standard = getattr(kind(), name)
    strictest = STRICTEST.get(name, standard)
    step = 1 if isinstance(standard, int) else 1e-6
    low, high = sorted((standard, strictest))
    assert (low < high) == (name in STRICTEST)
    for value in (low, high):
        settings_with(kind, name, value).check()
    for value in (low - step, high + step):
        with pytest.raises(MonitorConfigError, match=f"^{name} is "):
            settings_with(kind, name, value).check()
    for value in (0, float("nan"), float("inf")):
        with pytest.raises(MonitorConfigError, match=f"^{name} is "):
            settings_with(kind, name, value).check()


def test_every_strictest_value_is_one_of_a_setting() -> None:
    assert set(STRICTEST) <= {name for _, name in EVERY}


def test_far_too_strict_is_a_slip_of_the_pen() -> None:
    with pytest.raises(
        MonitorConfigError, match=r"^margin_m is 80; settings may only be stricter: 0.06 to 0.5$"
    ):
        settings_with(MonitorConfig, "margin_m", 80.0).check()


def test_what_has_no_strict_side_stays_as_built_in() -> None:
    with pytest.raises(MonitorConfigError, match=r"^slip_window_s is 2; .*: 1, as built in$"):
        settings_with(WatchConfig, "slip_window_s", 2.0).check()


def test_zones_belong_to_a_floor_and_must_be_some() -> None:
    SafetySettings(ROBOT, zones=(ZONE,), floor_hash=FLOOR).check()
    for zones, floor in (((ZONE,), None), ((), FLOOR)):
        with pytest.raises(MonitorConfigError, match="go together"):
            SafetySettings(ROBOT, zones=zones, floor_hash=floor).check()
    with pytest.raises(ZoneError):
        SafetySettings(ROBOT, zones=(Zone("keep_out", ()),), floor_hash=FLOOR).check()
    SafetySettings(ROBOT, fields=(ProtectiveField(0.5, 1.0),)).check()
    with pytest.raises(ZoneError, match="ahead_m of"):
        SafetySettings(ROBOT, fields=(ProtectiveField(0.5, 0.0),)).check()


def test_another_format_is_refused() -> None:
    for version in (FORMAT_VERSION - 1, FORMAT_VERSION + 1):
        with pytest.raises(MonitorConfigError, match=f"expected settings of format 1, came {version}"):
            SafetySettings(ROBOT, format_version=version).check()


def test_what_differs_is_told() -> None:
    assert SafetySettings(ROBOT).check().changes() == []
    settings = settings_with(MonitorConfig, "margin_m", 0.08)
    assert settings.changes() == ["margin_m 0.08"]
    settings = msgspec.structs.replace(
        settings, watch=WatchConfig(tilt_ticks=1), zones=(ZONE,), floor_hash=FLOOR
    )
    assert settings.changes() == ["margin_m 0.08", "tilt_ticks 1", "1 zone(s)"]
