"""The whole monitor against what it said when it was recorded, tick by tick: making it faster changes nothing.

Recorded anew (``python -m tests.support.monitor_drives tests/unit/golden/monitor.npz``) only where it is to rule
otherwise.
"""

from pathlib import Path

import numpy as np
import pytest

from contracts.decision import Reason, Verdict
from tests.support.monitor_drives import DRIVES, run

GOLDEN = np.load(Path(__file__).parent / "golden" / "monitor.npz")
NUMBERS, RULED = GOLDEN["numbers"], GOLDEN["codes"]


@pytest.mark.parametrize("number", range(DRIVES))
def test_it_rules_as_recorded(number):
    """Verdicts, reasons, advice and shares the same; speed, turn rate, clearance and what is followed to 1e-9."""
    numbers, codes = run(number, NUMBERS[number])
    apart = np.flatnonzero((codes != RULED[number]).any(axis=1))
    assert not apart.size, f"tick {apart[0]}: {codes[apart[0]]}, recorded {RULED[number, apart[0]]}"
    assert np.abs(numbers - NUMBERS[number]).max(axis=0) == pytest.approx([0.0] * 4, abs=1e-9)


def test_the_record_is_worth_something():
    verdicts, reasons, advice, *shares = np.moveaxis(RULED, -1, 0)
    for verdict in (Verdict.PASS, Verdict.LIMIT, Verdict.STOP, Verdict.EMERGENCY_STOP):
        assert (verdicts == verdict).sum() > 20, verdict
    for reason in (
        Reason.OBSTACLE_AHEAD,
        Reason.MOVING_OBSTACLE,
        Reason.BLIND_SECTOR,
        Reason.PROTECTIVE_FIELD,
    ):
        assert (reasons == reason).sum() > 5, reason
    assert len(np.unique(reasons)) > 20
    assert (advice > 0).any()
    assert all(((share > 0) & (share < 10)).sum() > 50 for share in shares)
