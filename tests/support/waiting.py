"""Waiting for what other processes and threads do."""

import time
from collections.abc import Callable
from typing import Any

WAIT_MAX_S = 60.0
"""Nobody waits longer than it takes: so much for a machine that stands still now and then."""


def wait_for(
    condition: Callable[[], Any], what: str = "what was waited for", max_s: float = WAIT_MAX_S
) -> Any:
    """Poll until ``condition`` is true; AssertionError when it never is."""
    end_s = time.monotonic() + max_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end_s, f"{what} did not happen within {max_s:g} s"
        time.sleep(0.02)
