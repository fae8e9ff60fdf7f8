"""CMA-ES against a guard: looks for the weights of ``families.Searched`` that bring people nearest.

Hansen: The CMA evolution strategy, a tutorial, 2016; the ``cmaes`` package's implementation.
"""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks._adversary.campaign import Course, Drive, Tally
from benchmarks._adversary.families import PARAMETERS, Searched
from benchmarks._adversary.guards import Guard
from contracts.robot import AMR_SMALL, RobotModel
from sim.world.floors import Floors

POPULATION = 10
CONTACT_WORTH = 10.0
"""Worth of one contact in view per robot, where coming as near as one can is worth 1."""
STEP_FIRST = 0.8


class Found(NamedTuple):
    """The worst weights, and all that was driven to find them."""

    weights: npt.NDArray[np.float64]
    tally: Tally


def search(
    guard: Guard, floors: Floors, course: Course, ticks: int, model: RobotModel = AMR_SMALL, seed: int = 1
) -> Found:
    """Search for about ``ticks`` ticks of single robots; each generation drives worlds of its own."""
    from cmaes import CMA  # type: ignore[import-untyped, unused-ignore]

    optimiser = CMA(mean=chase(), sigma=STEP_FIRST, seed=seed, population_size=POPULATION)
    total, worst, worth_most = Tally(events=[]), chase(), -np.inf
    while total.ticks < ticks:
        here = msgspec.structs.replace(course, seed=course.seed + optimiser.generation)
        answers = []
        for _ in range(POPULATION):
            weights = optimiser.ask()
            tally = Drive(here, floors, guard, model).run(Searched(model, weights))
            total.add(tally)
            worth = tally.nearness + CONTACT_WORTH * tally.moving_contacts / (course.worlds * course.robots)
            answers.append((weights, -worth))
            if worth > worth_most:
                worst, worth_most = weights, worth
        optimiser.tell(answers)
    return Found(worst, total)


def chase() -> npt.NDArray[np.float64]:
    """Weights to begin with: ahead where a person is ahead, and turning to them."""
    weights = np.zeros((2, PARAMETERS // 2))
    weights[0, 2], weights[1, 3] = 2.0, 3.0
    return weights.ravel()
