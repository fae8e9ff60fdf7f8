"""Who drove a trip, by the robot's own log."""

from types import SimpleNamespace

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE, Source
from outrider.demo.measure import RULE_BASED, driver_of

V1, V2 = b"\x01" * 32, b"\x02" * 32
VERSIONS = {V1.hex(): "1.0.0", V2.hex(): "2.0.0"}
ROWS = [
    (Source.NONE, None), (Source.RULE_BASED, None), (Source.RULE_BASED, None), (Source.NONE, None),
    (Source.POLICY, V1), (Source.RECOVERY, V1), (Source.POLICY, V1), (Source.NONE, None),
    (Source.POLICY, V1), (Source.POLICY, V2), (Source.POLICY, V2), (Source.NONE, None),
]  # fmt: skip


@pytest.fixture
def log():
    decisions = np.zeros(len(ROWS), DECISION_DTYPE)
    decisions["wall_ns"] = np.arange(len(ROWS)) * 10**9
    for row, (source, digest) in zip(decisions, ROWS, strict=True):
        row["source"] = source
        row["policy_digest"] = np.frombuffer(digest or bytes(32), np.uint8)
    return SimpleNamespace(decisions=decisions)


@pytest.mark.parametrize(
    ("start_s", "end_s", "driver"),
    [
        (0, 3.5, RULE_BASED), (2.5, 4, None), (3, 7.5, "1.0.0"), (6, 10, None), (8.5, 11.5, "2.0.0"), (11, 12, None),
        (2, 5, None),
    ],
)  # fmt: skip
def test_ticks_between_two_goals_say_nothing_of_the_driver(log, start_s, end_s, driver):
    assert driver_of(log, VERSIONS, start_s, end_s) == driver
