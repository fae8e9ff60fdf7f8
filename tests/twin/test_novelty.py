"""Novelty over robots of the real twin: an ordinary drive is never unfamiliar, a shifted one soon is."""

from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT
from contracts.observation import BEAMS
from contracts.robot import AMR_SMALL
from navigation.novelty import Novelty
from safety.config import WatchConfig
from safety.watch.policy import Advice, PolicyWatch
from tests.twin.test_watches import Fleet
from trainer.export.bundle import drive_reference

POLICIES = Path(__file__).resolve().parents[2] / "trainer" / "policies"
TICK_S = 0.1
STEPS = 200


# The twin's kernels may have to be compiled first, on a busy machine.
@pytest.mark.timeout(300)
def test_an_ordinary_drive_is_familiar_and_a_lidar_that_contradicts_itself_is_not():
    session = InferenceSession(POLICIES / "seed-0.onnx")
    reference, again = (
        drive_reference(lambda seen: session.run([ONNX_OUTPUT], {ONNX_INPUT: seen})[0], AMR_SMALL)
        for _ in range(2)
    )
    assert reference == again, "the same policy, the same bundle"
    novelty = Novelty(reference)
    fleet, rng = Fleet(2, worlds=4, robots=3, policy="seed-3"), np.random.default_rng(0)
    watches = {each: PolicyWatch(WatchConfig(), AMR_SMALL) for each in fleet.every}
    shifted = {each: PolicyWatch(WatchConfig(), AMR_SMALL) for each in fleet.every}
    ticks = 0
    for step in range(STEPS):
        fleet.step()
        for each in fleet.every:
            seen = fleet.sim.observation[each]
            ticks += 1
            assert watches[each].step(None, False, True, novelty.of(seen), TICK_S) is Advice.NONE, (
                step,
                each,
            )
            if step < STEPS - 20:
                continue
            noise = seen.copy()
            noise[:BEAMS] = rng.choice([0.05, 8.0], BEAMS)
            noise[BEAMS : 2 * BEAMS] = 8.05 - noise[:BEAMS]
            advice = shifted[each].step(None, False, True, novelty.of(noise), TICK_S)
            told = step - (STEPS - 20) + 1 >= WatchConfig().novelty_ticks
            assert advice is (Advice.UNFAMILIAR if told else Advice.NONE), (step, each)
    fleet.sim.close()
    assert ticks >= 2000
