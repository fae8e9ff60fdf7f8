"""Where commands go, whatever carries them."""

from typing import Protocol

from edge_agent.observe.slots import Stamp


class CommandSink(Protocol):
    """Sends commands to the robot's base."""

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Send one; ``stamp`` is the scan's it was made from, (0, 0) for a stop, which never expires."""


class NoSink:
    """Sends nothing: for tests and benchmarks."""

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Drop the command."""
