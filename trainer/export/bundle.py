"""A run's policy as a signed bundle."""

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from securesystemslib.signer import Signer

from contracts.manifest import CommandLimits, DriftReference, Manifest, RobotModelRef
from contracts.observation import ROUTING_LAYOUT
from contracts.robot import RobotModel
from navigation.action import encode_command
from navigation.novelty import drift_reference
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.randomise import Randomisation
from sim.world.generate import generate_mixed, generate_warehouse
from trainer.export.onnx import DeployedPolicy, check_parity, export_onnx
from trainer.learning.facts import run_provenance
from trainer.learning.run import RunFolder
from trainer.learning.train import load_policy
from trainer.release.pack import pack

Floats = npt.NDArray[np.float32]
GOLDEN_ROWS = 64
GOLDEN_FLOOR_SEED = 900_000
GOLDEN_STEPS = 5
REFERENCE_FLOOR_SEED, REFERENCE_FLOORS, REFERENCE_STEPS = 910_000, 24, 150


class ExportSettings(msgspec.Struct, frozen=True):
    """What the releaser says about a policy."""

    name: str
    version: str
    counter: int
    created: str = ""


def commands_of(policy: DeployedPolicy) -> Callable[[Floats], Floats]:
    """Commands float32[n, 2] of a policy in torch, for observations float32[n, 83]."""

    def commands(observations: Floats) -> Floats:
        with torch.no_grad():
            answer: Floats = policy(torch.as_tensor(observations)).numpy()
        return answer

    return commands


def golden_observations(policy: DeployedPolicy) -> Floats:
    """Golden observations float32[64, 83] of a policy in torch."""
    return drive_golden(commands_of(policy), policy.robot)


def drive_golden(commands: Callable[[Floats], Floats], robot: RobotModel) -> Floats:
    """Observations float32[64, 83] from a floor nobody trains on, driven by the policy itself. Deterministic.

    Args:
        commands: float32[n, 2], m/s and rad/s within the robot's limits, for observations float32[n, 83].
        robot: the robot.
    """
    config = SimulationConfig(worlds=1, robots=4, people=4)
    simulation = Simulation([generate_warehouse(GOLDEN_FLOOR_SEED)], config, seed=1)
    rows: list[npt.NDArray[np.float32]] = []
    while len(rows) < GOLDEN_ROWS:
        rows.extend(simulation.observation[0].copy())
        for _ in range(GOLDEN_STEPS):
            command = commands(simulation.observation[0]).astype(np.float64)[None]
            simulation.step(encode_command(command, robot), command)
    simulation.close()
    return np.stack(rows[:GOLDEN_ROWS])


def drive_reference(commands: Callable[[Floats], Floats], robot: RobotModel) -> DriftReference:
    """What is usual on a randomised drive of the policy itself over three floors of each family. Deterministic.

    Args:
        commands, robot: as of ``drive_golden``.
    """
    config = SimulationConfig(worlds=REFERENCE_FLOORS, robots=2, people=4, randomise=Randomisation())
    floors = generate_mixed(REFERENCE_FLOORS, REFERENCE_FLOOR_SEED)
    simulation = Simulation(floors, config, seed=1, model=robot)
    rows = []
    for _ in range(REFERENCE_STEPS):
        seen = simulation.observation.copy()
        rows.append(seen.reshape(-1, seen.shape[-1]))
        command = commands(rows[-1]).astype(np.float64).reshape(*seen.shape[:-1], 2)
        simulation.step(encode_command(command, robot), command)
    simulation.close()
    return drift_reference(np.concatenate(rows))


def export_bundle(run: RunFolder, settings: ExportSettings, signers: list[Signer]) -> bytes:
    """Export, check and sign the policy of a run, for the robot it learned on. Same input: same bytes.

    Raises:
        RunError: the run has no checkpoint.
        ExportError: the ONNX network does not answer as the trained one.
        BundleError: what came out is nothing a robot would take.
    """
    torch.set_num_threads(1)
    robot = run.config.robot
    policy = DeployedPolicy(load_policy(run), robot)
    network = export_onnx(policy)
    observations = golden_observations(policy)
    commands, parity = check_parity(policy, network, observations)
    manifest = Manifest(
        policy_name=settings.name,
        version=settings.version,
        release_counter=settings.counter,
        observation_layout_hash=ROUTING_LAYOUT.hash(),
        control_rate_hz=1.0 / ROUTING_LAYOUT.history_interval_s,
        history_interval_s=ROUTING_LAYOUT.history_interval_s,
        robot_models=(RobotModelRef(robot.name, robot.hash()),),
        limits=CommandLimits(robot.speed_max_mps, robot.turn_rate_max_radps, robot.reverse_max_mps),
        monitor_hash=run.config.monitor.hash(),
        training_run_digest=run.digest(),
        training=run_provenance(run),
        created=settings.created,
        parity_max_abs=parity,
        action_entropy_nats=policy.entropy_nats,
        drift_reference=drive_reference(commands_of(policy), robot),
    )
    return pack(manifest, network, observations, commands, signers)
