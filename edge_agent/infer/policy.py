"""A policy ready to be asked: an onnxruntime session with its input and output bound once."""

import numpy as np
import numpy.typing as npt
import onnxruntime

from contracts.bundle import VerifiedBundle
from contracts.errors import BundleManifestInvalidError
from contracts.manifest import ONNX_ENTROPY, ONNX_INPUT, ONNX_OUTPUT, noted_entropy_nats
from contracts.observation import COMMAND_SIZE, OBSERVATION_SIZE
from edge_agent.errors import PolicyRejectedError
from navigation.novelty import Novelty

WARM_RUNS = 20
GOLDEN_TOLERANCE = 1e-4
Floats = npt.NDArray[np.float32]


class Policy:
    """One loaded network and what is known about it. Not thread-safe.

    Args:
        network: the ONNX file's bytes.
        digest: SHA-256 of the bundle, lower-case hex.
        version: of the release, for people.
        release_counter: of the release.
        novelty: of its observations, where the release says what is usual.
        entropy_nats: of its action distribution, where that is the same for every observation; without it, what
            the file itself notes (``contracts.manifest.ONNX_ENTROPY_NOTE``).

    Raises:
        PolicyRejectedError: onnxruntime does not take it.
    """

    def __init__(
        self,
        network: bytes,
        digest: str,
        version: str,
        release_counter: int,
        novelty: Novelty | None = None,
        entropy_nats: float | None = None,
    ) -> None:
        self.digest, self.version, self.release_counter = digest, version, release_counter
        self.novelty = novelty
        self.digest_bytes = np.frombuffer(bytes.fromhex(digest), dtype=np.uint8)
        self._input = np.zeros((1, OBSERVATION_SIZE), dtype=np.float32)
        self._output = np.zeros((1, COMMAND_SIZE), dtype=np.float32)
        self._entropy = np.full((1, 1), np.nan, dtype=np.float32)
        try:
            self._session = onnxruntime.InferenceSession(network, _options(), ["CPUExecutionProvider"])
            if entropy_nats is None:
                entropy_nats = noted_entropy_nats(self._session.get_modelmeta().custom_metadata_map)
            if entropy_nats is not None:
                self._entropy.fill(entropy_nats)
            self._binding = self._session.io_binding()
            place = ("cpu", 0, np.float32)
            self._binding.bind_input(ONNX_INPUT, *place, self._input.shape, self._input.ctypes.data)
            self._binding.bind_output(ONNX_OUTPUT, *place, self._output.shape, self._output.ctypes.data)
            if ONNX_ENTROPY in [item.name for item in self._session.get_outputs()]:
                self._binding.bind_output(
                    ONNX_ENTROPY, *place, self._entropy.shape, self._entropy.ctypes.data
                )
        except BundleManifestInvalidError as error:
            raise PolicyRejectedError(str(error)) from None
        except Exception as error:
            raise PolicyRejectedError(f"onnxruntime does not load the policy: {str(error)[:200]}") from None
        self._row = self._input[0]
        self._answer = self._output[0]

    def run(self, observation: Floats) -> tuple[float, float]:
        """Speed in m/s and turn rate in rad/s for float32[83]; may be anything, also not finite."""
        self._row[:] = observation
        self._answer.fill(np.nan)
        self._session.run_with_iobinding(self._binding)
        answer = self._answer
        return answer.item(0), answer.item(1)

    @property
    def entropy_nats(self) -> float:
        """Of its action distribution at the last ``run``; NaN where it has none."""
        return self._entropy.item()


def load_policy(bundle: VerifiedBundle) -> Policy:
    """A warmed policy that answers the bundle's golden observations as it did where it was made.

    Raises:
        PolicyRejectedError: it does not load or run, or differs by more than ``GOLDEN_TOLERANCE``.
    """
    manifest, usual = bundle.manifest, bundle.manifest.drift_reference
    policy = Policy(
        bundle.policy_onnx,
        bundle.digest,
        manifest.version,
        manifest.release_counter,
        None if usual is None else Novelty(usual),
        manifest.action_entropy_nats,
    )
    try:
        for _ in range(WARM_RUNS):
            policy.run(bundle.golden_observations[0])
        answers = np.array([policy.run(row) for row in bundle.golden_observations])
    except Exception as error:
        raise PolicyRejectedError(f"the policy does not run here: {str(error)[:200]}") from None
    worst = float(np.abs(answers - bundle.golden_commands).max())
    if not worst <= GOLDEN_TOLERANCE:
        raise PolicyRejectedError(
            f"golden commands differ by {worst:.3g}, at most {GOLDEN_TOLERANCE:g}; export the policy anew"
        )
    return policy


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options
