"""Replays a bundle's golden vectors with this machine's onnxruntime, in a short-lived child process."""

import numpy as np
import onnxruntime

from contracts.bundle import VerifiedBundle
from contracts.errors import BundleGoldenMismatchError, BundleNetworkRefusedError
from contracts.manifest import ONNX_ENTROPY, ONNX_INPUT, ONNX_OUTPUT

GOLDEN_TOLERANCE = 1e-5


def replay_golden(bundle: VerifiedBundle) -> float:
    """Largest absolute difference between the stored commands and this machine's.

    Raises:
        BundleNetworkRefusedError: onnxruntime does not load it, or its input and output are not the agreed
        ones. BundleGoldenMismatchError: Beyond GOLDEN_TOLERANCE, not finite, or outside the manifest's
        limits.
    """
    try:
        session = onnxruntime.InferenceSession(bundle.policy_onnx, _options(), ["CPUExecutionProvider"])
    except Exception as error:
        raise BundleNetworkRefusedError(
            f"onnxruntime does not load policy.onnx: {str(error)[:200]}"
        ) from None
    names = [item.name for item in session.get_inputs()], [item.name for item in session.get_outputs()]
    if names[0] != [ONNX_INPUT] or names[1] not in ([ONNX_OUTPUT], [ONNX_OUTPUT, ONNX_ENTROPY]):
        raise BundleNetworkRefusedError(
            f"expected one input {ONNX_INPUT!r} and one output {ONNX_OUTPUT!r} (or {ONNX_ENTROPY!r} after it), "
            f"came {names[0]} and {names[1]}"
        )
    try:
        rows = [
            session.run([ONNX_OUTPUT], {ONNX_INPUT: row[None, :]})[0] for row in bundle.golden_observations
        ]
    except Exception as error:
        raise BundleNetworkRefusedError(f"policy.onnx does not run: {str(error)[:200]}") from None
    commands = np.concatenate(rows)
    if commands.shape != bundle.golden_commands.shape or not np.isfinite(commands).all():
        raise BundleGoldenMismatchError(f"golden replay gave shape {commands.shape}, or values not finite")
    worst = float(np.abs(commands - bundle.golden_commands).max())
    if not worst <= GOLDEN_TOLERANCE:
        raise BundleGoldenMismatchError(
            f"golden commands differ by {worst:.3g}, at most {GOLDEN_TOLERANCE:g}; "
            "export the policy anew, or compare onnxruntime versions"
        )
    _check_limits(bundle, commands)
    return worst


def _check_limits(
    bundle: VerifiedBundle, commands: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> None:
    limits, slack = bundle.manifest.limits, 1e-4
    speed, turn = commands[:, 0], np.abs(commands[:, 1])
    if (
        speed.max() > limits.speed_max_mps + slack
        or speed.min() < -limits.reverse_max_mps - slack
        or turn.max() > limits.turn_rate_max_radps + slack
    ):
        raise BundleGoldenMismatchError("golden commands are outside the limits that the manifest promises")


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
