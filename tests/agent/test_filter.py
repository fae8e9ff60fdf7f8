"""The monitor alone in front of somebody else's commands: its tick in memory, its process over real DDS."""

import math

import numpy as np
import pytest

from contracts.decision import Reason
from contracts.robot import AMR_SMALL
from edge_agent.config import decode_settings
from edge_agent.errors import ConfigError
from edge_agent.filter import FilterConfig
from edge_agent.guard.filter import Asked, FilterCore
from edge_agent.guard.gate import Gate
from edge_agent.observe.slots import Odometry, Scan, Slots
from safety.monitor import SafetyMonitor
from tests.support.agent import PERIOD_NS, Clock, ListSink

STALE_S = 0.3
ASKED_MPS = 0.8
WALL_M = 4.0
SLACK_S = 0.25
"""For a busy machine: transport, and the robot's own period."""


class Filtering:
    """A filter's tick in memory; the robot stands in the open."""

    def __init__(self) -> None:
        self.clock, self.sink, self.slots = Clock(), ListSink(), Slots()
        self.gate = Gate(SafetyMonitor(AMR_SMALL))
        self.core = FilterCore(self.slots, self.gate, self.sink, PERIOD_NS, STALE_S, True, self.clock)
        self.tick()
        assert self.gate.arm() == ""

    def ask(self, *command: float) -> None:
        self.core.asked = Asked((command[0], command[1]), self.clock.now_ns)

    def tick(self) -> tuple[float, float]:
        """A period passes, sensors arrive, one tick runs; what went out."""
        self.clock.now_ns += PERIOD_NS
        now_ns, stamp = self.clock.now_ns, divmod(self.clock.now_ns, 1_000_000_000)
        velocity = self.sink.commands[-1] if self.sink.commands else (0.0, 0.0)
        ranges = np.full(AMR_SMALL.lidar.rays, np.inf, dtype=np.float32)
        self.slots.scan = Scan(ranges, now_ns, stamp)
        self.slots.odometry = Odometry((0.0, 0.0, 0.0), velocity, now_ns, True, stamp)
        self.core.tick(now_ns, 0)
        return self.sink.commands[-1] if self.sink.commands else (0.0, 0.0)

    @property
    def reason(self) -> Reason:
        assert self.core.latest is not None
        return self.core.latest.ruling.reason


def test_nothing_passes_unarmed_and_never_more_than_was_asked() -> None:
    filtering = Filtering()
    filtering.gate.disarm()
    filtering.ask(0.5, 0.0)
    assert filtering.tick() == (0.0, 0.0)
    assert filtering.gate.arm() == ""
    outs = []
    for _ in range(10):
        filtering.ask(0.3, -0.4)
        outs.append(filtering.tick())
    assert outs[-1] == (0.3, -0.4)
    assert all(0.0 <= speed <= 0.3 and -0.4 <= turn <= 0.0 for speed, turn in outs)


def test_a_command_counts_up_to_its_age_and_not_a_nanosecond_longer() -> None:
    filtering = Filtering()
    filtering.ask(0.3, 0.0)
    for _ in range(round(STALE_S * 20)):
        out = filtering.tick()
    assert out[0] > 0.0
    assert filtering.tick() == (0.0, 0.0)
    assert filtering.reason is Reason.COMMAND_MISSING
    filtering.ask(0.3, 0.0)
    assert filtering.tick()[0] > 0.0  # it is still armed: whoever drives may pause


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_command_that_is_none_stops_it_by_name(value: float) -> None:
    filtering = Filtering()
    filtering.ask(0.3, value)
    assert filtering.tick() == (0.0, 0.0)
    assert filtering.reason is Reason.COMMAND_NOT_FINITE


def test_a_base_that_takes_no_commands_is_told_and_disarmed() -> None:
    filtering = Filtering()
    filtering.sink.error = OSError("no base")
    for _ in range(5):
        filtering.tick()
    assert not filtering.gate.armed
    assert [("no base" in event, "disarmed" in event) for event in filtering.core.events] == [
        *[(True, False)] * 3,
        (False, True),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('"rate_hz": 9', "rate_hz"),
        ('"rate_hz": 201', "rate_hz"),
        ('"command_stale_max_s": 0', "command_stale_max_s"),
        ('"robot_model": "tank"', "tank"),
        ('"rate": 20', "rate"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        decode_settings(
            f'{{"robot_id": "r", "state_dir": "s", {text}}}'.encode(), FilterConfig, "test"
        ).check()
