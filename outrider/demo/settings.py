"""What the demonstration does, and how long."""

import msgspec

ROBOTS = ("robot_1", "robot_2", "robot_3")
NEWCOMER = "robot_3"
"""Enrols at the hub with a one-time token; the others' keys were made with the hub's."""
MIRROR, MIRRORED = "north", "robot_2"
"""A mirror, and the robot that gets its policies by it."""
SERVICED = "robot_1"
"""Whose board gets new firmware."""
PEOPLE = {"anna": "approver", "boris": "releaser"}
"""A rollout takes an approver and somebody else who releases."""
POLICY_NAME = "router"
MARKER_FILE = ".outrider-demo"


class DemoSettings(msgspec.Struct, frozen=True):
    """Embedded defaults; ``SHORT`` is the form the test suite runs."""

    steps_v1: int = 600_000
    steps_v2: int = 1_300_000
    lessons: int = 5
    """Rounds in which the policies learn from a tuned ORCA, before they learn by trial (``training.yaml``)."""
    evaluation_floors: int = 8
    evaluation_trips: int = 4
    layout: str = "standard"
    physics: str = "wheeled"
    real_time_factor: float = 1.5
    rate_hz: int = 20
    phase_s: float = 50.0
    """Wall time to drive with each of: rule-based controller, v1, v2."""
    seed: int = 7
    serial: bool = True
    """The robots' wheels are turned by emulated motor controllers, over the serial protocol; otherwise by cmd_vel."""
    forgiven: int | None = 60
    """See ``outrider agent run --forgiven``; on so full a floor a good policy waits for seconds now and then."""


SHORT = DemoSettings(
    steps_v1=150_000, steps_v2=30_000, lessons=1, evaluation_floors=1, evaluation_trips=2, phase_s=4.0,
    # So little training makes policies that a robot is right to send back; here they show how they come and go.
    forgiven=10_000,
)  # fmt: skip
