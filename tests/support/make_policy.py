"""Makes ``policy.onnx``: a small network with the shape of a real policy. Needs the ``onnx`` package.

python tests/support/make_policy.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
INPUTS, HIDDEN, OUTPUTS = 83, 16, 2


def make_model() -> onnx.ModelProto:
    """83 -> 16 -> tanh -> 2 -> tanh -> scaled to 1.2 m/s and 1.8 rad/s."""
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.normal(0.0, 0.15, (INPUTS, HIDDEN)),
        "b1": rng.normal(0.0, 0.1, HIDDEN),
        "w2": rng.normal(0.0, 0.3, (HIDDEN, OUTPUTS)),
        "b2": np.array([0.2, 0.0]),
        "scale": np.array([0.7, 1.8]),
        "shift": np.array([0.45, 0.0]),
    }
    nodes = [
        helper.make_node("Gemm", ["observation", "w1", "b1"], ["h1"]),
        helper.make_node("Tanh", ["h1"], ["a1"]),
        helper.make_node("Gemm", ["a1", "w2", "b2"], ["h2"]),
        helper.make_node("Tanh", ["h2"], ["a2"]),
        helper.make_node("Mul", ["a2", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["command"]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("command", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    (HERE / "policy.onnx").write_bytes(make_model().SerializeToString())
