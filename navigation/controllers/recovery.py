"""What every robot does when it is stuck, whoever drives it: wait, then back off, then try again.

The text runs in plain Python and compiles as it stands (numba), like ``navigation.encoder.pool_beams``.
"""

import math
from typing import Any, Protocol

import msgspec

MEMORY = 3
"""Values a controller remembers for each robot: seconds stuck, seconds of recovery left, seconds of keeping right."""


class RecoveryConfig(Protocol):
    """What every controller's config holds for ``recover``."""

    @property
    def stuck_after_s(self) -> float: ...
    @property
    def recovery_s(self) -> float: ...
    @property
    def recovery_speed_mps(self) -> float: ...
    @property
    def recovery_turn_radps(self) -> float: ...


class Recovery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a robot that a policy drives gets out: policies are judged and driven with it.

    They are trained without: those trained with one stopped looking for a way out themselves. Chosen from sixteen on
    training floors (``docs/evaluation.md``): it comes away from whom it stands nose to nose with, nearly turned round.
    """

    stuck_after_s: float = 2.0
    recovery_s: float = 3.0
    recovery_speed_mps: float = -0.3
    recovery_turn_radps: float = 1.2


def recovery_numbers(config: RecoveryConfig) -> tuple[float, float, float, float]:
    """Its four settings in the order in which ``recover`` takes them."""
    return config.stuck_after_s, config.recovery_s, config.recovery_speed_mps, config.recovery_turn_radps


def recover(
    observation: Any,
    stuck_after_s: float,
    recovery_s: float,
    speed_mps: float,
    turn_radps: float,
    tick_s: float,
    memory: Any,
    out: Any,
) -> bool:
    """Whether the robot is to follow ``out`` float64[2] (m/s, rad/s) in this tick, having stood too long.

    How long is too long lies between once and twice ``stuck_after_s`` and follows from the route that is
    left, so that of two robots nose to nose one backs off while the other still waits, and then drives.

    Args:
        observation: float32[83] (``contracts.observation.ROUTING_LAYOUT``).
        stuck_after_s: shortest wait, s.
        recovery_s: how long to back off, s.
        speed_mps: speed of backing off, below zero.
        turn_radps: turn rate while backing off; to the right where it is below zero, as in traffic.
        tick_s: time since the last call, s.
        memory: float64[3], see ``MEMORY``; zeros at the start.
        out: written where the answer is True.
    """
    if memory[1] <= 0.0:
        goal_m = math.sqrt(observation[78] * observation[78] + observation[79] * observation[79])
        standing = abs(observation[81]) < 0.05 and goal_m > 0.5
        memory[0] = memory[0] + tick_s if standing else 0.0
        lot = 7.0 * observation[80]
        if memory[0] <= stuck_after_s * (1.0 + lot - math.floor(lot)):
            return False
        memory[0] = 0.0
        memory[1] = recovery_s
    memory[1] -= tick_s
    out[0] = speed_mps
    out[1] = turn_radps
    return True
