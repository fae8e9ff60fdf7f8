"""Policies to judge, from what a user has: bundles, runs, folders of runs, bare networks."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from contracts.bundle import POLICY_MAX_BYTES, verify_signed
from contracts.keyring import TRUSTED_FILE
from contracts.onnx_scan import scan_network
from contracts.provenance import TrustedKeys
from contracts.robot import RobotModel
from safety.config import MonitorConfig
from trainer.errors import RunError, TrainConfigError
from trainer.evaluation.drive import Contender, onnx
from trainer.learning.run import CONFIG_FILE, RunFolder

SEEDS_MAX = 100


class Loaded(msgspec.Struct, frozen=True):
    """Contenders, and what their reader should know of them."""

    contenders: list[Contender]
    notes: list[str]


def load_policies(
    paths: Sequence[Path], keys: Path, model: RobotModel, monitor: MonitorConfig | None = None
) -> Loaded:
    """Each path is a signed bundle, a run's folder, a bare ``.onnx``, or a folder of runs or ``.onnx`` files: seeds.

    Args:
        paths: what to load.
        keys: the fleet's key folder; read for bundles only.
        model: the robot driven; runs are exported for it, bundles must declare it.
        monitor: the one driven behind; policies trained behind another are noted.

    Raises:
        TrainConfigError: a path is none of these, two policies have one name, a bundle is for other robots.
        RunError: a run without a checkpoint.
        BundleError: a bundle or network that a robot would refuse.
    """
    contenders: list[Contender] = []
    notes: list[str] = []
    monitor = monitor or MonitorConfig()
    for path in paths:
        if path.is_dir():
            found, monitors = _from_folder(path, model)
        elif path.suffix == ".onnx":
            found, monitors = [onnx(read_network(path), path.stem)], []
        elif path.is_file():
            found, monitors = _from_bundle(path, keys, model)
        else:
            raise TrainConfigError(f"{path} is not there; give a bundle, a run folder or a folder of runs")
        contenders += found
        if any(each != monitor.hash() for each in monitors):
            notes.append(f"{path} was trained behind another monitor than the one driven behind here")
    names = [contender.name for contender in contenders]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise TrainConfigError(f"two policies are called '{double}'; give each a name of its own")
    return Loaded(contenders, notes)


def _from_bundle(path: Path, keys: Path, model: RobotModel) -> tuple[list[Contender], list[str]]:
    checked = verify_signed(path, TrustedKeys.load(keys / TRUSTED_FILE))
    declared = {reference.name: reference.hash for reference in checked.manifest.robot_models}
    if declared.get(model.name) != model.hash():
        raise TrainConfigError(
            f"{path} is for {', '.join(declared)}, not for this version's {model.name}; choose with --model"
        )
    return [onnx(checked.policy_onnx, checked.manifest.version)], [checked.manifest.monitor_hash]


def _from_folder(path: Path, model: RobotModel) -> tuple[list[Contender], list[str]]:
    if (path / CONFIG_FILE).exists():
        run = RunFolder.open(path)
        return [onnx(export_run(run, model), path.resolve().name)], [run.config.monitor.hash()]
    runs, networks = members_of(path)
    group = path.resolve().name
    members = [onnx(export_run(run, model), f"{group}/{run.path.name}", group) for run in runs]
    members += [onnx(read_network(file), f"{group}/{file.stem}", group) for file in networks]
    return members, [run.config.monitor.hash() for run in runs]


def members_of(folder: Path) -> tuple[list[RunFolder], list[Path]]:
    """The runs in a folder, all of them trained, and its ``.onnx`` files; both in order of their names.

    Raises:
        TrainConfigError: there is neither, or more than ``SEEDS_MAX``.
        RunError: a run without a checkpoint.
    """
    runs = [RunFolder.open(child) for child in _sorted(folder) if (child / CONFIG_FILE).exists()]
    networks = [child for child in _sorted(folder) if child.suffix == ".onnx"]
    if not runs and not networks:
        raise TrainConfigError(
            f"{folder} holds neither a run ({CONFIG_FILE} is missing) nor runs or .onnx files; choose another"
        )
    if len(runs) + len(networks) > SEEDS_MAX:
        raise TrainConfigError(
            f"{folder} holds {len(runs) + len(networks)} policies; at most {SEEDS_MAX} are taken"
        )
    for run in runs:
        run.require_checkpoint()
    return runs, networks


def _sorted(folder: Path) -> list[Path]:
    """Children by name, ``seed-10`` after ``seed-9``."""
    return sorted(folder.iterdir(), key=lambda child: (len(child.name), child.name))


def export_run(run: RunFolder, model: RobotModel) -> bytes:
    """A run's network as ONNX, for ``model``."""
    import torch

    from trainer.export.onnx import DeployedPolicy, export_onnx
    from trainer.learning.checkpoint import load_policy

    run.require_checkpoint()
    torch.set_num_threads(1)
    return export_onnx(DeployedPolicy(load_policy(run), model))


def read_network(path: Path) -> bytes:
    """A bare network, looked through as a bundle's is.

    Raises:
        RunError: not readable, or too large.
        BundleError: a robot would refuse it.
    """
    try:
        if path.stat().st_size > POLICY_MAX_BYTES:
            raise RunError(f"{path} is larger than {POLICY_MAX_BYTES} bytes, which a network may have")
        network = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    scan_network(network)
    return network
