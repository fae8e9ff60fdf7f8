"""Bring your own policy: any ONNX network with a description of its tensors becomes a bundle like ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto
from securesystemslib.signer import Signer

from contracts.bundle import POLICY_MAX_BYTES
from contracts.canonical import digest_hex, hash_of
from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT, PARITY_LIMIT, CommandLimits, Manifest, RobotModelRef
from contracts.observation import ROUTING_LAYOUT
from contracts.robot import AMR_SMALL, RobotModel
from safety.config import MonitorConfig
from trainer.export.bundle import ExportSettings, drive_golden
from trainer.release.custom_graph import DTYPES, ForeignNetwork, widened, wrap
from trainer.release.custom_spec import CustomPackError, CustomSpec, Floats, check_spec
from trainer.release.pack import pack

ROUNDING_LIMIT = 1e-2
"""Of a command, in float16; a network that mixes rows is far beyond."""
RANDOM_ROWS = 64


def pack_custom(
    data: bytes,
    spec: CustomSpec,
    settings: ExportSettings,
    signers: list[Signer],
    monitor: MonitorConfig,
    robot: RobotModel = AMR_SMALL,
) -> bytes:
    """Wrap, check and sign somebody else's network. Same inputs, same bytes.

    Args:
        data: the ONNX file.
        spec: its tensors and mappings.
        settings: name, version, counter.
        signers: release keys.
        monitor: the monitor it is to be driven behind; robots with another one refuse it.
        robot: the robot it is for.

    Raises:
        CustomPackError: the network or the description does not fit; the message names the tensor.
        BundleError: what came out is nothing a robot would take.
    """
    check_spec(spec, robot)
    network = ForeignNetwork(data, spec)
    wrapped = wrap(network, spec, robot)
    ours = _session(wrapped, "the wrapped network")
    as_it_came = _reference(data, DTYPES[network.input_dtype], spec, robot)
    theirs = as_it_came
    if TensorProto.FLOAT16 in (network.input_dtype, network.output_dtype):
        # onnxruntime computes float16 in float32 and drops roundings next to a cast: compared are two networks with
        # casts at both ends, and the one that came to within its own rounding.
        theirs = _reference(widened(network, spec), "float32", spec, robot)
    parity = _check_parity(ours, theirs, _random_observations(), spec)
    observations = drive_golden(lambda seen: _run(ours, seen, spec), robot)
    parity = max(parity, _check_parity(ours, theirs, observations, spec))
    commands = np.concatenate([_run(ours, row[None], spec) for row in observations])
    _check_rows(commands, as_it_came(observations), _run(ours, observations, spec), spec)
    manifest = Manifest(
        policy_name=settings.name,
        version=settings.version,
        release_counter=settings.counter,
        observation_layout_hash=ROUTING_LAYOUT.hash(),
        control_rate_hz=1.0 / ROUTING_LAYOUT.history_interval_s,
        history_interval_s=ROUTING_LAYOUT.history_interval_s,
        robot_models=(RobotModelRef(robot.name, robot.hash()),),
        limits=CommandLimits(robot.speed_max_mps, robot.turn_rate_max_radps, robot.reverse_max_mps),
        monitor_hash=monitor.hash(),
        training_run_digest=digest_hex((digest_hex(data) + hash_of(spec)).encode()),
        created=settings.created,
        parity_max_abs=parity,
        action_entropy_nats=network.entropy_nats,
    )
    return pack(manifest, wrapped, observations, commands, signers)


def read_network(path: Path) -> bytes:
    """The file's bytes; raises CustomPackError where it is missing or too large."""
    try:
        with path.open("rb") as stream:
            data = stream.read(POLICY_MAX_BYTES + 1)
    except OSError as error:
        raise CustomPackError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > POLICY_MAX_BYTES:
        raise CustomPackError(f"{path}: a network may have {POLICY_MAX_BYTES} bytes, this one has more")
    return data


def _random_observations() -> Floats:
    """Observations float32[64, 83] all over the layout's ranges, and its corners."""
    low, high = (
        np.concatenate([np.full(field.size, getattr(field, side)) for field in ROUTING_LAYOUT.observation])
        for side in ("low", "high")
    )
    rng = np.random.default_rng(0)
    rows = low + rng.random((RANDOM_ROWS, len(low))) * (high - low)
    rows[0], rows[1], rows[2] = low, high, 0.0
    observations: Floats = rows.astype(np.float32)
    return observations


def _session(network: bytes, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CustomPackError(
            f"onnxruntime does not load {name}: {' '.join(str(error).split())[:200]}"
        ) from None


def _reference(data: bytes, dtype: str, spec: CustomSpec, robot: RobotModel) -> Callable[[Floats], Floats]:
    """The network as it came, with the mappings in numpy, one row at a time."""
    session = _session(data, "the network")
    shape = tuple(spec.size if dim == "features" else 1 for dim in spec.dims)

    def commands(observations: Floats) -> Floats:
        rows: list[Floats] = []
        for row in spec.inputs(observations):
            try:
                answer: Floats = session.run([spec.output], {spec.input: row.reshape(shape).astype(dtype)})[0]
            except Exception as error:
                raise CustomPackError(
                    f"the network does not run with input {spec.input!r} of shape {shape}:"
                    f" {' '.join(str(error).split())[:200]}"
                ) from None
            if answer.size != spec.width:
                raise CustomPackError(
                    f"output {spec.output!r}: expected {spec.width} values for this action, came shape {answer.shape}"
                )
            rows.append(answer.reshape(spec.width))
        answers = np.stack(rows)
        if not np.isfinite(answers).all():
            bad = int((~np.isfinite(answers)).any(axis=1).sum())
            raise CustomPackError(
                f"output {spec.output!r} is NaN or infinite for {bad} of {len(answers)} observations within the layout"
            )
        return spec.commands(answers.astype(np.float32), robot)

    return commands


def _run(session: onnxruntime.InferenceSession, observations: Floats, spec: CustomSpec) -> Floats:
    try:
        answer: Floats = session.run([ONNX_OUTPUT], {ONNX_INPUT: observations})[0]
    except Exception as error:
        raise CustomPackError(
            f"input {spec.input!r} does not take {len(observations)} rows at once:"
            f" {' '.join(str(error).split())[:200]}; export the network with a dynamic batch"
        ) from None
    if answer.shape != (len(observations), 2):
        raise CustomPackError(
            f"output {spec.output!r}: {len(observations)} rows in, shape {answer.shape} of commands out;"
            " export the network with a dynamic batch"
        )
    return answer


def _check_parity(
    ours: onnxruntime.InferenceSession,
    theirs: Callable[[Floats], Floats],
    observations: Floats,
    spec: CustomSpec,
) -> float:
    """Largest difference between the wrapped network and the network as it came."""
    came = np.concatenate([_run(ours, row[None], spec) for row in observations])
    worst = float(np.abs(theirs(observations) - came).max())
    if not worst <= PARITY_LIMIT:
        raise CustomPackError(
            f"the wrapped network differs from the network as it came by {worst:.2e}; at most {PARITY_LIMIT:.0e}"
            " is allowed"
        )
    return worst


def _check_rows(commands: Floats, expected: Floats, together: Floats, spec: CustomSpec) -> None:
    """Whether rows are answered by themselves, and as the network as it came does, but for rounding."""
    for other, what in (
        (together, "many rows at once give"),
        (expected, "the network as it came gives"),
    ):
        worst = float(np.abs(other - commands).max())
        if not worst <= ROUNDING_LIMIT:
            raise CustomPackError(
                f"output {spec.output!r}: {what} other answers (by {worst:.2e}, at most {ROUNDING_LIMIT:.0e} is"
                " rounding); export the network in float32, with a dynamic batch and without memory"
            )
