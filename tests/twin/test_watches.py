"""The monitor's watches over robots of the real twin: no false alarm, and the simulator's own faults are caught."""

from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

from contracts.decision import Reason
from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT
from contracts.robot import AMR_SMALL
from navigation.controllers.dwa import DwaController
from safety.inputs import NS, Inputs
from safety.monitor import SafetyMonitor
from safety.watch.policy import Advice
from sim.disturb.state import Fault as SimFault
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.randomise import Randomisation
from sim.world.generate import generate_warehouse

ROOT = Path(__file__).resolve().parents[2]


class Fleet:
    """Robots of the real twin, unguarded, each behind a monitor of its own; DWA or a trained policy drives."""

    def __init__(self, seed, worlds, robots, policy=None):
        self.config = SimulationConfig(
            worlds=worlds, robots=robots, people=4, guarded=False, randomise=Randomisation()
        )
        self.policy = policy and InferenceSession(ROOT / "trainer" / "policies" / f"{policy}.onnx")
        self.sim = Simulation([generate_warehouse(5)], self.config, seed=seed)
        self.every = [(world, robot) for world in range(worlds) for robot in range(robots)]
        self.controllers = {each: DwaController(AMR_SMALL) for each in self.every}
        self.monitors = {each: self.armed() for each in self.every}
        self.advice = {}
        self.step_ns, self.now_ns = int(self.sim.step_s * NS), 1_000 * NS

    def armed(self):
        monitor = SafetyMonitor(AMR_SMALL)
        monitor.arm()
        return monitor

    def step(self):
        """One tick of all robots: their rulings by robot."""
        sim, now_ns = self.sim, self.now_ns
        command, rulings = np.zeros((*sim.reward.shape, 2)), {}
        if self.policy is None:
            wanted = {each: self.controllers[each].command(sim.observation[each]) for each in self.every}
        else:
            rows = np.stack([sim.observation[each] for each in self.every])
            answers = self.policy.run([ONNX_OUTPUT], {ONNX_INPUT: rows})[0]
            wanted = {each: tuple(map(float, row)) for each, row in zip(self.every, answers, strict=True)}
        for each in self.every:
            inputs = Inputs(
                now_ns, sim.ranges[each].copy(), now_ns, tuple(sim.disturbance.measured[each].tolist()), now_ns,
                wanted[each], tuple(sim.disturbance.estimated[each].tolist()), now_ns, now_ns,
                command_from_policy=self.policy is not None,
            )  # fmt: skip
            rulings[each] = self.monitors[each].step(inputs)
            self.advice[each] = self.monitors[each].advise(inputs)
            command[each] = rulings[each].command
        sim.step(np.zeros(command.shape, dtype=np.float32), command)
        self.now_ns += self.step_ns
        for each in self.every:
            if sim.outcome[each] > 1:  # it was put elsewhere: a new robot
                self.monitors[each] = self.armed()
        return rulings


ORDINARY = {Reason.CLEAR, Reason.OBSTACLE_AHEAD, Reason.MOVING_OBSTACLE, Reason.ACCELERATION_LIMITED}


# The twin's kernels may have to be compiled first, on a busy machine.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "policy"), [(0, None), (10, None), (1, "seed-0"), (2, "seed-3")])
def test_a_healthy_randomised_fleet_trips_no_watch(seed, policy):
    fleet = Fleet(seed, worlds=4, robots=3, policy=policy)
    speeds = []
    for step in range(260):
        for each, ruling in fleet.step().items():
            assert ruling.reason in ORDINARY, (seed, step, each, ruling.reason.name)
            assert fleet.advice[each] is Advice.NONE, (seed, step, each, fleet.advice[each].name)
        speeds.append(np.abs(fleet.sim.state.velocity[..., 0]).mean())
    fleet.sim.close()
    assert np.mean(speeds) > 0.2, "the robots did drive"


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        (SimFault.FROZEN_SCAN, {Reason.SCAN_FROZEN}),
        (SimFault.LOST_LOCALISATION, {Reason.POSE_JUMP}),
        (SimFault.SLIPPING_WHEEL, {Reason.SLIPPING, Reason.RUNAWAY, Reason.SCAN_FROZEN}),
    ],
    ids=lambda value: value.name if isinstance(value, SimFault) else "",
)
def test_faults_of_the_real_twin_are_caught(fault, reasons):
    fleet = Fleet(3, worlds=2, robots=2)
    for _ in range(40):
        fleet.step()
    drives = [each for each in fleet.every if fleet.sim.state.velocity[each][0] > 0.4]
    assert drives
    for each in drives:
        fleet.sim.set_fault(*each, fault)
    caught = set()
    for _ in range(60):
        caught |= {each for each, ruling in fleet.step().items() if ruling.reason in reasons}
    fleet.sim.close()
    assert caught & set(drives) == set(drives)
    assert caught <= set(drives)
