"""From a trained model to one ONNX network: normaliser, clip and rescale inside, metres and seconds outside."""

import io
import math
import warnings

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from contracts.manifest import ONNX_ENTROPY, ONNX_ENTROPY_NOTE, ONNX_INPUT, ONNX_OUTPUT, PARITY_LIMIT
from contracts.observation import OBSERVATION_SIZE
from contracts.robot import RobotModel
from trainer.errors import ExportError
from trainer.learning.network import CLIP, VARIANCE_MIN, normalisers

Floats = npt.NDArray[np.float32]
OPSET = 17
LOG_STD_RANGE = (-20.0, 2.0)
"""Of stable-baselines3's SAC."""


class DeployedPolicy(torch.nn.Module):
    """What runs on the robot: observation float32[n, 83] in, command float32[n, 2] (m/s, rad/s) out.

    The deterministic action, of the averaged weights where there are such, clipped to [-1, 1] and rescaled to the
    robot's limits as ``navigation.action.decode_action`` does. Works for the policies of stable-baselines3 and their
    kin: the mean of a Gaussian (PPO), the tanh of one (SAC), the best row of an action table (DQN).

    Beside it, the entropy of what the policy would draw from while it learns, in nats: of the Gaussian, in units of the
    action [-1, 1] and before clip or tanh, 0.5 n ln(2 pi e) + sum(ln std); of DQN the softmax of its Q values, the
    Boltzmann policy at temperature 1. PPO's does not depend on the observation (``entropy_nats``); that of the others
    is the network's second output (``entropy``).

    Raises:
        ExportError: a policy of another kind, or one without our normaliser.
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor
    seen: torch.Tensor
    table: torch.Tensor
    ones: torch.Tensor

    def __init__(self, model: BaseAlgorithm, robot: RobotModel) -> None:
        super().__init__()
        policy = model.policy
        found = normalisers(policy)
        if not found:
            raise ExportError(
                f"the policy of {type(model).__name__} has no Normaliser; give it as features_extractor_class"
            )
        self.register_buffer("mean", found[0].mean.clone())
        self.register_buffer("inverse_std", 1.0 / torch.sqrt(found[0].variance + VARIANCE_MIN))
        self.register_buffer("seen", found[0].seen.clone())
        self.squashed = False
        self.entropy_nats: float | None = None
        self.log_std: torch.nn.Linear | None = None
        if hasattr(policy, "average"):
            self.body, self.head = policy.average.body, policy.average.head
        elif hasattr(policy, "mlp_extractor"):
            self.body, self.head = policy.mlp_extractor.policy_net, policy.action_net
        elif hasattr(policy, "actor") and hasattr(policy.actor, "latent_pi"):
            self.body, self.head = policy.actor.latent_pi, policy.actor.mu
            self.squashed = True
            spread = getattr(policy.actor, "log_std", None)
            self.log_std = spread if isinstance(spread, torch.nn.Linear) else None
        elif hasattr(policy, "q_net") and hasattr(policy, "action_table"):
            self.body, self.head = policy.q_net.q_net, torch.nn.Identity()
            self.register_buffer("table", policy.action_table.clone())
            self.register_buffer("ones", torch.ones(policy.action_table.shape[0], 1))
        else:
            raise ExportError(
                f"the policy of {type(model).__name__} cannot be exported; expected one like PPO's, SAC's, or DQN's"
                " with its action_table"
            )
        if isinstance(spread := getattr(policy, "log_std", None), torch.nn.Parameter) and spread.ndim == 1:
            self.entropy_nats = float(_gaussian_entropy(spread.detach()[None]))
        self.masked = not bool(self.seen.all())
        self.robot = robot

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Commands for a batch of observations."""
        return self._command(self.unit_action(observation))

    @property
    def varies(self) -> bool:
        """Whether its entropy depends on the observation: then it is an output of the network."""
        return self.log_std is not None or hasattr(self, "table")

    def with_entropy(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Commands, and entropies float32[n, 1] in nats; only of a policy of which it ``varies``."""
        inner = self.body(self._normal(observation))
        command = self._command(self._action(inner))
        if self.log_std is None:
            logarithms = torch.log_softmax(inner, dim=1)
            return command, -torch.exp(logarithms).mul(logarithms) @ self.ones
        return command, _gaussian_entropy(torch.clamp(self.log_std(inner), *LOG_STD_RANGE))

    def _command(self, action: torch.Tensor) -> torch.Tensor:
        speed = action[:, 0:1]
        ahead = torch.clamp(speed, 0.0, 1.0) * self.robot.speed_max_mps
        behind = torch.clamp(speed, -1.0, 0.0) * self.robot.reverse_max_mps
        turn = torch.clamp(action[:, 1:2], -1.0, 1.0) * self.robot.turn_rate_max_radps
        return torch.cat([ahead + behind, turn], dim=1)

    def unit_action(self, observation: torch.Tensor) -> torch.Tensor:
        """Actions float32[n, 2] before the clip; [-1, 1] is the robot's whole range."""
        return self._action(self.body(self._normal(observation)))

    def _normal(self, observation: torch.Tensor) -> torch.Tensor:
        normal = torch.clamp((observation - self.mean) * self.inverse_std, -CLIP, CLIP)
        return normal * self.seen if self.masked else normal

    def _action(self, inner: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(inner)
        if hasattr(self, "table"):
            return self.table[answer.argmax(dim=1)]
        return torch.tanh(answer) if self.squashed else answer


def _gaussian_entropy(log_std: torch.Tensor) -> torch.Tensor:
    """Entropies float32[n, 1], nats, of independent Gaussians with logarithms of their deviations float32[n, 2]."""
    return log_std[:, 0:1] + log_std[:, 1:2] + math.log(2.0 * math.pi * math.e)


class _Both(torch.nn.Module):
    """The network with both outputs."""

    def __init__(self, policy: DeployedPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.policy.with_entropy(observation)


def export_onnx(policy: DeployedPolicy) -> bytes:
    """The network as ONNX bytes, its entropy noted in the file where that is one number. Same weights, same bytes."""
    stream = io.BytesIO()
    outputs = [ONNX_OUTPUT, ONNX_ENTROPY] if policy.varies else [ONNX_OUTPUT]
    whole: torch.nn.Module = _Both(policy) if policy.varies else policy
    with warnings.catch_warnings():
        # The TorchScript exporter is the one that needs no further package; torch says it will go one day.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            whole.eval(),
            (torch.zeros(1, OBSERVATION_SIZE),),
            stream,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[ONNX_INPUT],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in [ONNX_INPUT, *outputs]},
        )
    network = stream.getvalue()
    return network if policy.entropy_nats is None else _noted(network, policy.entropy_nats)


def _noted(network: bytes, entropy_nats: float) -> bytes:
    """The same network with its entropy in the file's metadata, for who has no manifest beside it."""
    model = onnx.load_model_from_string(network)
    onnx.helper.set_model_props(model, {ONNX_ENTROPY_NOTE: repr(entropy_nats)})
    whole: bytes = model.SerializeToString(deterministic=True)
    return whole


def check_parity(policy: DeployedPolicy, network: bytes, observations: Floats) -> tuple[Floats, float]:
    """Compare torch with onnxruntime on observations float32[n, 83].

    Returns:
        The commands float32[n, 2] that onnxruntime gives, and the largest absolute difference.

    Raises:
        ExportError: the two differ by more than the bundle format allows.
    """
    with torch.no_grad():
        expected = policy(torch.as_tensor(observations)).numpy()
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    came: Floats = session.run([ONNX_OUTPUT], {ONNX_INPUT: observations})[0]
    worst = float(np.abs(expected - came).max())
    if not worst <= PARITY_LIMIT:
        raise ExportError(
            f"torch and onnxruntime differ by {worst:.2e}; at most {PARITY_LIMIT:.0e} is allowed"
        )
    return came, worst
