"""An honest policy on the way to its goals: what a guard costs those who mean well."""

import msgspec
import numpy as np

from benchmarks._adversary.campaign import Course, Drive, View
from benchmarks._adversary.families import HONEST
from benchmarks._adversary.guards import Floats, Guard
from contracts.robot import AMR_SMALL, RobotModel
from navigation.controllers.recovery import MEMORY, Recovery, recovery_numbers
from sim.tasks.delivery import TRIP_MAX_S
from sim.tasks.kernels import recover
from sim.tasks.randomise import Crowd
from sim.world.floors import Floors
from trainer.evaluation.controllers import OnnxPolicy

COURSE = Course(Crowd(), ticks=900, people=5, trip_max_s=TRIP_MAX_S, seed=7)
"""People as in training and evaluation."""


class Benign:
    """The first shipped policy, backing off when stuck as a robot lets it."""

    def __init__(self) -> None:
        self._policy = OnnxPolicy(HONEST.read_bytes(), "benign")
        self._memory: Floats = np.zeros((0, MEMORY))

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        command = self._policy.commands(view.observation)
        if len(self._memory) != len(command):
            self._memory = np.zeros((len(command), MEMORY))
        self._memory[view.fresh] = 0.0
        settings = recovery_numbers(Recovery())
        for robot, seen in enumerate(view.observation):
            recover(seen, *settings, view.step_s, self._memory[robot], command[robot])
        return command


def deliveries(
    guard: Guard, floors: Floors, model: RobotModel = AMR_SMALL, course: Course = COURSE
) -> tuple[float, int]:
    """Deliveries (two trips each) behind ``guard``, and trips that ended in a contact."""
    tally = Drive(msgspec.structs.replace(course), floors, guard, model).run(Benign())
    return tally.arrivals / 2.0, tally.static_contacts + tally.moving_contacts
