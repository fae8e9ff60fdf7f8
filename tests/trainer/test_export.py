"""What is exported is what was trained: same answers, same bytes, in every process."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch

from contracts.manifest import ONNX_ENTROPY_NOTE, PARITY_LIMIT
from contracts.observation import OBSERVATION_SIZE
from contracts.onnx_scan import scan_network
from contracts.robot import AMR_SMALL
from edge_agent.errors import PolicyRejectedError
from edge_agent.infer.policy import Policy
from navigation.action import decode_action
from outrider.verbs.keys import init
from tests.support.tiny_run import TINY
from trainer.errors import ExportError
from trainer.evaluation.controllers import OnnxPolicy
from trainer.export.bundle import ExportSettings, export_bundle, golden_observations
from trainer.export.onnx import DeployedPolicy, check_parity, export_onnx
from trainer.learning.checkpoint import load_policy
from trainer.learning.run import RunFolder
from trainer.learning.train import train
from trainer.release.keys import load_signer

BUNDLE = """
import hashlib, sys
from pathlib import Path
from trainer.export.bundle import ExportSettings, export_bundle
from trainer.learning.run import RunFolder
from trainer.release.keys import load_signer
run, keys = Path(sys.argv[1]), Path(sys.argv[2])
data = export_bundle(RunFolder.open(run), ExportSettings("router", "1.0.0", 1), [load_signer(keys)])
print(hashlib.sha256(data).hexdigest())
"""


@pytest.fixture(scope="module", params=["ppo", "ppo without history", "sac", "dqn"])
def model(request, trained, tmp_path_factory):
    """A short run of each algorithm."""
    if request.param == "ppo":
        return load_policy(trained)
    name, _, without = request.param.partition(" ")
    network = msgspec.structs.replace(TINY.network, history=not without)
    config = msgspec.structs.replace(TINY, algorithm=name, network=network)
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / name, config)
    train(run, 1000)
    return load_policy(run)


def in_unit_actions(model, seen):
    """What the library's own deterministic policy does, float32[n, 2]; PPO's with the averaged weights."""
    policy = model.policy
    if hasattr(policy, "average"):
        policy.mlp_extractor.policy_net.load_state_dict(policy.average.body.state_dict())
        policy.action_net.load_state_dict(policy.average.head.state_dict())
    action, _ = model.predict(seen, deterministic=True)
    return model.policy.action_table.numpy()[action] if action.ndim == 1 else action


def observations(count):
    rng = np.random.default_rng(0)
    return (
        rng.normal(0.0, 3.0, (count, OBSERVATION_SIZE)) * rng.choice([0.1, 1.0, 10.0], (count, 1))
    ).astype(np.float32)


def test_deployed_policy_is_the_trained_one(model):
    seen = observations(500)
    with torch.no_grad():
        came = DeployedPolicy(model, AMR_SMALL)(torch.as_tensor(seen)).numpy()
    assert came == pytest.approx(decode_action(in_unit_actions(model, seen), AMR_SMALL), abs=1e-5)
    speeds = came[:, 0]
    assert speeds.max() > 0.0 or speeds.min() < 0.0
    assert speeds.max() <= AMR_SMALL.speed_max_mps + 1e-6
    assert speeds.min() >= -AMR_SMALL.reverse_max_mps - 1e-6


def test_onnxruntime_answers_as_torch_does(model):
    policy = DeployedPolicy(model, AMR_SMALL)
    network = export_onnx(policy)
    for seen in (observations(300), golden_observations(policy)):
        commands, worst = check_parity(policy, network, seen)
        assert worst <= 1e-5
        one_by_one = np.concatenate([OnnxPolicy(network, "p").commands(row[None]) for row in seen[:20]])
        assert one_by_one == pytest.approx(commands[:20], abs=1e-6)
    assert PARITY_LIMIT <= 1e-5


def test_network_is_self_contained(model):
    network = onnx.load_from_string(export_onnx(DeployedPolicy(model, AMR_SMALL)))
    onnx.checker.check_model(network)
    assert [(i.name, i.type.tensor_type.shape.dim[1].dim_value) for i in network.graph.input] == [
        ("observation", OBSERVATION_SIZE)
    ]
    outputs = [(o.name, o.type.tensor_type.shape.dim[1].dim_value) for o in network.graph.output]
    assert outputs in ([("command", 2)], [("command", 2), ("entropy", 1)])
    assert not any(tensor.external_data for tensor in network.graph.initializer)


def test_a_robot_would_load_the_network(model):
    assert scan_network(export_onnx(DeployedPolicy(model, AMR_SMALL)))


def entropy_of(model, seen):
    """As the libraries reckon it, float64[n]: what the policy draws from while it learns."""
    policy, given = model.policy, torch.as_tensor(seen)
    with torch.no_grad():
        if hasattr(policy, "q_net"):
            return torch.distributions.Categorical(logits=policy.q_net(given)).entropy().numpy()
        if hasattr(policy, "actor"):
            mean, log_std, _ = policy.actor.get_action_dist_params(given)
            return torch.distributions.Normal(mean, log_std.exp()).entropy().sum(dim=1).numpy()
        return policy.get_distribution(given).entropy().numpy()


def test_the_robot_knows_the_entropy_of_its_policy(model):
    seen = observations(50)
    policy = DeployedPolicy(model, AMR_SMALL)
    assert (policy.entropy_nats is None) == policy.varies
    expected = entropy_of(model, seen)
    robots = Policy(export_onnx(policy), "ab" * 32, "1.0.0", 1, entropy_nats=policy.entropy_nats)
    for row, nats in zip(seen, expected, strict=True):
        robots.run(row)
        assert robots.entropy_nats == pytest.approx(nats, abs=1e-3)
    assert len(set(expected.tolist())) > 1 or not policy.varies
    bare = Policy(export_onnx(policy), "ab" * 32, "1.0.0", 1)
    bare.run(seen[0])
    assert bare.entropy_nats == pytest.approx(expected[0], abs=1e-3), "the file bears it, without a manifest"


def noting(network, text):
    model = onnx.load_from_string(network)
    onnx.helper.set_model_props(model, {} if text is None else {ONNX_ENTROPY_NOTE: text})
    return model.SerializeToString()


def test_a_network_of_before_notes_no_entropy_and_one_that_lies_is_refused():
    plain = (Path(__file__).resolve().parents[1] / "support" / "policy.onnx").read_bytes()
    assert math.isnan(Policy(noting(plain, None), "ab" * 32, "1.0.0", 1).entropy_nats)
    assert Policy(noting(plain, "-2.5"), "ab" * 32, "1.0.0", 1).entropy_nats == -2.5
    assert Policy(noting(plain, "-2.5"), "ab" * 32, "1.0.0", 1, entropy_nats=1.0).entropy_nats == 1.0
    for text in ("", "high", "nan", "inf", "1e300"):
        with pytest.raises(PolicyRejectedError, match="expected nats, came"):
            Policy(noting(plain, text), "ab" * 32, "1.0.0", 1)


def test_without_history_the_beams_before_do_not_matter(trained, tmp_path):
    network = msgspec.structs.replace(TINY.network, history=False)
    run = RunFolder.create(tmp_path / "run", msgspec.structs.replace(TINY, network=network))
    train(run, 500)
    seen = observations(50)
    other = seen.copy()
    other[:, 36:72] += 3.0
    for folder, same in ((run, True), (trained, False)):
        policy = OnnxPolicy(export_onnx(DeployedPolicy(load_policy(folder), AMR_SMALL)), "p")
        assert np.array_equal(policy.commands(seen), policy.commands(other)) is same


def test_policy_of_another_kind_is_refused(trained):
    model = load_policy(trained)
    model.policy.features_extractor = model.policy.pi_features_extractor = torch.nn.Identity()
    model.policy.vf_features_extractor = torch.nn.Identity()
    with pytest.raises(ExportError, match="has no Normaliser"):
        DeployedPolicy(model, AMR_SMALL)
    strange = load_policy(trained)
    del strange.policy.average, strange.policy.mlp_extractor
    with pytest.raises(ExportError, match="cannot be exported"):
        DeployedPolicy(strange, AMR_SMALL)


def test_what_is_exported_is_the_mean_of_the_weights(tmp_path):
    share = msgspec.structs.replace(TINY.ppo, average_share=1.0)
    run = RunFolder.create(tmp_path / "run", msgspec.structs.replace(TINY, ppo=share))
    batch, heads = TINY.ppo.steps_per_world * TINY.worlds * TINY.robots, []
    for number in range(3):
        train(run, batch, resume=number > 0)
        heads.append(load_policy(run).policy.action_net.bias.detach().clone())
    policy = DeployedPolicy(load_policy(run), AMR_SMALL)
    assert torch.allclose(policy.head.bias, torch.stack(heads).mean(dim=0), atol=1e-6)
    assert not torch.allclose(policy.head.bias, heads[-1], atol=1e-6)


def test_network_that_answers_differently_is_refused(trained):
    policy = DeployedPolicy(load_policy(trained), AMR_SMALL)
    network = export_onnx(policy)
    other = load_policy(trained)
    with torch.no_grad():
        other.policy.average.head.bias += 0.01
    with pytest.raises(ExportError, match="torch and onnxruntime differ"):
        check_parity(DeployedPolicy(other, AMR_SMALL), network, observations(50))


def test_same_run_same_bytes_in_every_process(trained, tmp_path):
    init(tmp_path / "keys", "robot_1")
    keys = tmp_path / "keys"
    digests = set()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", BUNDLE, str(trained.path), str(keys)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        digests.add(done.stdout.strip().splitlines()[-1])
    settings = ExportSettings("router", "1.0.0", 1)
    mine = export_bundle(trained, settings, [load_signer(keys)])
    digests.add(hashlib.sha256(mine).hexdigest())
    assert len(digests) == 1
    other = export_bundle(trained, ExportSettings("router", "1.0.0", 2), [load_signer(keys)])
    assert other != mine
