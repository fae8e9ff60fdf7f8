"""For all tests."""

import signal

import pytest

# A shell that starts a suite in the background has it ignore SIGINT. What a test starts would inherit that, and no
# Ctrl-C would ever reach it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ALONE = (
    "agent/test_beside_nav2.py",
    "agent/test_filter_live.py",
    "agent/test_live.py",
    "agent/test_rivals.py",
    "firmware/test_agent_serial.py",
    "firmware/test_fleet.py",
    "firmware/test_serial_sink.py",
    "firmware/test_stops.py",
    "system/test_kill.py",
)
"""Watch real processes against the wall clock: what else keeps both cores busy would be measured with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone, after the rest (Makefile)."""
    for item in items:
        if item.path.as_posix().endswith(ALONE):
            item.add_marker(pytest.mark.alone)
