"""Networks from elsewhere become bundles that robots take, or are refused by name and leave nothing behind."""

import io
import json
import warnings

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from contracts.bundle import verify_bundle
from contracts.keyring import TRUSTED_FILE
from contracts.manifest import ONNX_ENTROPY_NOTE
from contracts.observation import OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from edge_agent.update.golden import replay_golden
from outrider.verbs.bundle import app
from outrider.verbs.keys import init
from safety.config import MonitorConfig
from sim.errors import SimError
from trainer.evaluation.controllers import OnnxPolicy
from trainer.export.bundle import ExportSettings
from trainer.release.custom import pack_custom
from trainer.release.custom_spec import CustomPackError, CustomSpec, load_spec
from trainer.release.keys import load_signer

SETTINGS = ExportSettings("mine", "1.0.0", 3)
TABLE = [[0.0, 0.0], [1.2, 0.0], [0.5, 1.8], [0.5, -1.8], [-0.3, 0.0]]
FIELDS = [
    {"name": "goal", "scale": 0.05},
    {"name": "beams", "mean": 4.0, "std": 2.5, "clip": [-1.0, 1.0]},
    {"name": "speed"},
    {"name": "carrots", "mean": [1.0, 0, 2, 0, 3, 0], "std": [1, 2, 3, 1, 2, 3]},
]
SIZE = 2 + 36 + 1 + 6


def network(width, outputs=("out",), seed=0, size=SIZE):
    """An actor as PPO has it; a second output is a critic's."""

    class Actor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(size, 32), torch.nn.Tanh())
            self.actor, self.critic = torch.nn.Linear(32, width), torch.nn.Linear(32, 1)

        def forward(self, x):
            hidden = self.body(x)
            answers = (self.actor(hidden) * 2.0, torch.where(self.critic(hidden) > 0, 1.0, 0.0))
            return answers[: len(outputs)] if len(outputs) > 1 else answers[0]

    torch.manual_seed(seed)
    return Actor().eval()


def exported(module, shape=(1, SIZE), outputs=("out",), dynamic=(0,), dtype=torch.float32, opset=17):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            module.to(dtype),
            (torch.zeros(shape, dtype=dtype),),
            stream,
            dynamo=False,
            opset_version=opset,
            input_names=["obs"],
            output_names=list(outputs),
            dynamic_axes={name: dict.fromkeys(dynamic, "b") for name in ("obs", *outputs)}
            if dynamic
            else None,
        )
    return stream.getvalue()


def spec_of(action, **changes):
    document = {"input": "obs", "output": "out", "fields": FIELDS, "action": action, **changes}
    return msgspec.convert(document, CustomSpec)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet") / "keys"
    init(folder, "robot_1")
    return folder


@pytest.fixture(scope="module")
def packed(keys):
    def make(data, spec):
        bundle = pack_custom(data, spec, SETTINGS, [load_signer(keys)], MonitorConfig())
        trusted = TrustedKeys.load(keys / TRUSTED_FILE)
        checked = verify_bundle(
            bundle, trusted, ROUTING_LAYOUT.hash(), AMR_SMALL, expected_monitor_hash=MonitorConfig().hash()
        )
        assert replay_golden(checked) <= 1e-5
        return checked

    return make


def by_hand(module, observations, action):
    """The whole mapping again in torch and float64, written without a look at the code under test."""
    at = {field.name: ROUTING_LAYOUT.offset(field.name) for field in ROUTING_LAYOUT.observation}
    rows = []
    for seen in observations.astype(np.float64):
        goal = seen[at["goal"] : at["goal"] + 2] * 0.05
        beams = np.clip((seen[:36] - 4.0) / 2.5, -1.0, 1.0)
        carrots = (seen[72:78] - [1.0, 0, 2, 0, 3, 0]) / [1, 2, 3, 1, 2, 3]
        rows.append(np.concatenate([goal, beams, [seen[81]], carrots]))
    with torch.no_grad():
        out = module.double()(torch.as_tensor(np.stack(rows)))
    out = (out[0] if isinstance(out, tuple) else out).numpy()
    if action == "discrete":
        return np.array(TABLE)[out.argmax(axis=1)]
    if action == "command":
        return np.clip(out, [-0.3, -1.8], [1.2, 1.8])
    unit = out[:, :2] if action == "unit" else np.tanh(out[:, :2])
    unit = np.clip(unit, -1.0, 1.0)
    return np.stack([np.where(unit[:, 0] > 0, unit[:, 0] * 1.2, unit[:, 0] * 0.3), unit[:, 1] * 1.8], axis=1)


@pytest.mark.parametrize(
    ("action", "width", "meaning"),
    [
        ({"kind": "unit"}, 2, "unit"),
        ({"kind": "command"}, 2, "command"),
        ({"kind": "tanh"}, 2, "tanh"),
        ({"kind": "gaussian"}, 4, "unit"),
        ({"kind": "gaussian", "squash": "tanh"}, 4, "tanh"),
        ({"kind": "discrete", "commands": TABLE}, 5, "discrete"),
    ],
)
def test_the_bundle_answers_as_the_network_does(packed, action, width, meaning):
    module = network(width)
    checked = packed(exported(module), spec_of(action))
    rng = np.random.default_rng(1)
    seen = np.concatenate([checked.golden_observations, rng.uniform(-8, 8, (200, OBSERVATION_SIZE))])
    seen = seen.astype(np.float32)
    came = OnnxPolicy(checked.policy_onnx, "p").commands(seen)
    expected = by_hand(module, seen, meaning)
    assert came == pytest.approx(expected, abs=1e-5)
    assert checked.golden_commands == pytest.approx(expected[:64], abs=1e-5)
    assert np.ptp(came, axis=0).min() > 0.3, "the answers differ from row to row"
    assert checked.manifest.limits.speed_max_mps == AMR_SMALL.speed_max_mps


def test_the_critic_is_left_out(packed):
    """It uses operators that robots refuse; the actor does not."""
    data = exported(network(2, ("out", "value")), outputs=("out", "value"))
    assert "Where" in {node.op_type for node in onnx.load_from_string(data).graph.node}
    checked = packed(data, spec_of({"kind": "unit"}))
    inside = onnx.load_from_string(checked.policy_onnx)
    assert "Where" not in {node.op_type for node in inside.graph.node}
    assert [item.name for item in inside.graph.output] == ["command"]
    assert not [tensor.name for tensor in inside.graph.initializer if "critic" in tensor.name]


def test_a_noted_entropy_goes_into_the_manifest(packed):
    model = onnx.load_from_string(exported(network(2)))
    assert packed(model.SerializeToString(), spec_of({"kind": "unit"})).manifest.action_entropy_nats is None
    onnx.helper.set_model_props(model, {ONNX_ENTROPY_NOTE: "-2.5625"})
    checked = packed(model.SerializeToString(), spec_of({"kind": "unit"}))
    assert checked.manifest.action_entropy_nats == -2.5625
    onnx.helper.set_model_props(model, {ONNX_ENTROPY_NOTE: "much"})
    with pytest.raises(CustomPackError, match="expected nats, came 'much'"):
        packed(model.SerializeToString(), spec_of({"kind": "unit"}))


class Steps(torch.nn.Module):
    """Takes observations with a step dimension, as recurrent and RLlib policies do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    ("shape", "dims", "dynamic"),
    [
        ((1, SIZE), ["batch", "features"], ()),
        ((SIZE,), ["features"], ()),
        ((1, 1, SIZE), ["batch", "time", "features"], (0, 1)),
        ((1, 1, SIZE), ["time", "batch", "features"], (1,)),
    ],
)
def test_leading_dimensions(packed, shape, dims, dynamic):
    module = network(2)
    checked = packed(exported(Steps(module), shape, dynamic=dynamic), spec_of({"kind": "unit"}, dims=dims))
    came = OnnxPolicy(checked.policy_onnx, "p").commands(checked.golden_observations)
    assert came == pytest.approx(by_hand(module, checked.golden_observations, "unit"), abs=1e-5)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-5), (torch.float16, 2e-2)])
def test_other_float_types_are_cast(packed, dtype, close):
    module = network(2)
    checked = packed(exported(module, dtype=dtype), spec_of({"kind": "tanh"}))
    assert checked.golden_commands.dtype == np.float32
    assert checked.golden_commands == pytest.approx(
        by_hand(network(2), checked.golden_observations, "tanh"), abs=close
    )


@pytest.mark.parametrize("opset", [11, 18])
def test_other_opsets(packed, opset):
    module = network(2)
    checked = packed(exported(module, opset=opset), spec_of({"kind": "unit"}))
    assert checked.golden_commands == pytest.approx(
        by_hand(module, checked.golden_observations, "unit"), abs=1e-5
    )


def test_same_inputs_same_bytes(keys):
    data, spec = exported(network(2)), spec_of({"kind": "unit"})
    signers = [load_signer(keys)]
    bundles = {pack_custom(data, spec, SETTINGS, signers, MonitorConfig()) for _ in range(2)}
    assert len(bundles) == 1
    other = pack_custom(data, spec_of({"kind": "tanh"}), SETTINGS, signers, MonitorConfig())
    assert other not in bundles


def changed(data, change):
    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def nan_weight(model):
    tensor = next(t for t in model.graph.initializer if t.name == "actor.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, :3] = [np.nan, np.inf, -np.inf]
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def external_data(model):
    tensor = next(t for t in model.graph.initializer if t.name == "actor.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [1, 8]))


def foreign_operator(model):
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Erf", ["before"], ["erf"]))
    model.graph.node.append(helper.make_node("Sin", ["erf"], ["out"], name="/actor/Sin"))


def foreign_domain(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[-1].domain = "com.microsoft"


def integer_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    model.graph.node.insert(0, helper.make_node("Cast", ["obs"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"


def logarithm(model):
    """Of a number that may be negative: pow(x, 0.5) is NaN there."""
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.node.append(helper.make_node("Pow", ["before", "half"], ["out"]))


def unused_input(model):
    del model.graph.node[:]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 2), np.float32), "zeros"))
    model.graph.node.append(helper.make_node("Identity", ["zeros"], ["out"]))


class OneRow(torch.nn.Module):
    """Takes the first row for all."""

    def __init__(self):
        super().__init__()
        self.inner = network(2)

    def forward(self, x):
        return self.inner(x) - self.inner(x)[0:1] * 0.5


UNIT = {"kind": "unit"}
REFUSALS = {
    "nan": (lambda d: changed(d, nan_weight), {}, "tensor 'actor.weight' holds 3 values that are NaN"),
    "external": (lambda d: changed(d, external_data), {}, "tensor 'actor.weight' keeps its data outside"),
    "inputs": (lambda d: changed(d, second_input), {}, "expected the one input 'obs', came 2: obs, state_in"),
    "operator": (lambda d: changed(d, foreign_operator), {}, "'/actor/Sin': operator ai.onnx.Sin is not on"),
    "domain": (lambda d: changed(d, foreign_domain), {}, "operator com.microsoft.[A-Za-z]+ is not on"),
    "integers": (lambda d: changed(d, integer_input), {}, "input 'obs': expected float32.*came int64"),
    "not finite": (lambda d: changed(d, logarithm), {}, "output 'out' is NaN or infinite for [0-9]+ of 64"),
    "constant": (lambda d: changed(d, unused_input), {}, "output 'out' does not depend on the input"),
    "empty": (lambda _: b"", {}, "ONNX"),
    "rubbish": (lambda _: b"\x00rubbish" * 50, {}, "no ONNX file"),
    "cut": (lambda d: d[: len(d) // 2], {}, "ONNX"),
    "input name": (
        lambda d: d,
        {"input": "observation"},
        "expected the one input 'observation', came 1: obs",
    ),
    "output name": (lambda d: d, {"output": "pi"}, "no output 'pi'; there are out"),
    "fewer fields": (lambda d: d, {"fields": FIELDS[:3]}, r"features \(39\).*came shape \['dynamic', 45\]"),
    "dims": (lambda d: d, {"dims": ["batch", "time", "features"]}, "input 'obs': expected batch .*time"),
    "strange dims": (lambda d: d, {"dims": ["features", "batch"]}, "dims: expected one of"),
    "width": (lambda d: d, {"action": {"kind": "gaussian"}}, "output 'out': expected 4 values.*came shape"),
    "fixed batch": (lambda _: exported(network(2), (7, SIZE), dynamic=()), {}, r"came shape \[7, 45\]"),
    "mixed rows": (lambda _: exported(OneRow()), {}, "many rows at once give other answers"),
    "field": (lambda d: d, {"fields": [{"name": "lidar"}]}, "no field 'lidar'; there are beams"),
    "field twice": (lambda d: d, {"fields": [{"name": "goal"}, {"name": "goal"}]}, "goal given twice"),
    "std": (lambda d: d, {"fields": [{"name": "goal", "std": 0.0}]}, "goal: std must be above zero"),
    "counts": (lambda d: d, {"fields": [{"name": "goal", "mean": [1, 2, 3]}]}, "2 values; came 3 numbers"),
    "both": (lambda d: d, {"fields": [{"name": "goal", "std": 1.0, "scale": 2.0}]}, "not both"),
    "clip": (lambda d: d, {"fields": [{"name": "goal", "clip": [1.0, 1.0]}]}, "low < high"),
    "too fast": (
        lambda d: d,
        {"action": {"kind": "discrete", "commands": [[0, 0], [1.3, 0]]}},
        r"action.commands\[1\] is 1.3 m/s",
    ),
    "unknown key": (lambda d: d, {"normalise": True}, "unknown field `normalise`"),
    "unknown action": (lambda d: d, {"action": {"kind": "beta"}}, "beta"),
}


@pytest.fixture(scope="module")
def plain():
    return exported(network(2))


@pytest.mark.parametrize("case", list(REFUSALS))
def test_refusals_name_what_does_not_fit_and_leave_nothing(plain, keys, tmp_path, case):
    make, changes, message = REFUSALS[case]
    folder = tmp_path / "made"
    document = {"input": "obs", "output": "out", "fields": FIELDS, "action": UNIT, **changes}
    (tmp_path / "mine.onnx").write_bytes(make(plain))
    (tmp_path / "mine.yaml").write_text(json.dumps(document))
    result = CliRunner().invoke(app, words(tmp_path, keys, folder))
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, CustomPackError | SimError)
    import re

    assert re.search(message, " ".join(result.output.split())), result.output
    assert not folder.exists()


def words(tmp_path, keys, folder):
    paths = f"--onnx {tmp_path / 'mine.onnx'} --spec {tmp_path / 'mine.yaml'} --keys {keys}"
    return f"pack {paths} --out {folder / 'b.outrider'} --version 1.0.0 --counter 2 --name mine".split()


def test_from_the_command_line(plain, keys, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(plain)
    document = {"input": "obs", "output": "out", "fields": FIELDS, "action": UNIT}
    (tmp_path / "mine.yaml").write_text(json.dumps(document))
    runner = CliRunner()
    made = runner.invoke(app, words(tmp_path, keys, tmp_path / "made"))
    assert made.exit_code == 0, made.output
    bundle = tmp_path / "made" / "b.outrider"
    checked = runner.invoke(app, ["verify", str(bundle), "--keys", str(keys)])
    assert checked.exit_code == 0, checked.output
    assert "mine@1.0.0" in checked.output
    before = bundle.read_bytes()
    (tmp_path / "mine.onnx").unlink()
    assert runner.invoke(app, words(tmp_path, keys, tmp_path / "made")).exit_code == 1
    assert bundle.read_bytes() == before
    assert load_spec(tmp_path / "mine.yaml", AMR_SMALL) == spec_of(UNIT)
