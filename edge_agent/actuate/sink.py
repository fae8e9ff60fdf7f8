"""Where commands go, whatever carries them."""

import math
from typing import Protocol

from edge_agent.observe.slots import UNSTAMPED, Scan, Stamp
from safety.inputs import Ruling


class CommandSink(Protocol):
    """Sends commands to the robot's base."""

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Send one; ``stamp`` is the scan's it was made from, (0, 0) for a stop, which never expires."""


def send_ruling(sink: CommandSink, ruling: Ruling, scan: Scan | None) -> tuple[float, float]:
    """Send what the monitor let through, stamped with its scan where it moves; returns what was sent, always finite."""
    speed, turn_rate = ruling.command
    if not (math.isfinite(speed) and math.isfinite(turn_rate)):
        speed = turn_rate = 0.0
    moving = speed != 0.0 or turn_rate != 0.0
    sink.send(speed, turn_rate, scan.stamp if moving and scan else UNSTAMPED)
    return speed, turn_rate


class NoSink:
    """Sends nothing: for tests and benchmarks."""

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Drop the command."""
