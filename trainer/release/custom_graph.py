"""A foreign ONNX network, checked and wrapped: our observation in, our command out, one graph."""

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, compose, helper, numpy_helper, version_converter
from onnx.external_data_helper import uses_external_data

from contracts.errors import BundleManifestInvalidError
from contracts.manifest import ONNX_INPUT, ONNX_OUTPUT, noted_entropy_nats
from contracts.observation import COMMAND_SIZE, OBSERVATION_SIZE
from contracts.onnx_scan import ALLOWED_OPERATORS
from contracts.robot import RobotModel
from trainer.export.onnx import OPSET
from trainer.release.custom_spec import Command, CustomPackError, CustomSpec, Discrete, Gaussian, Tanh

OPSET_MIN, OPSET_MAX = 13, 21
"""Without a conversion; what our own nodes need, and what onnxruntime on the robots takes."""
PREFIX = "network/"
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}


class ForeignNetwork:
    """One input, the one output asked for, only operators that a robot takes.

    Args:
        data: the ONNX file.
        spec: what is said about it.

    Raises:
        CustomPackError: what does not fit, with the name of the tensor or node.
    """

    def __init__(self, data: bytes, spec: CustomSpec) -> None:
        model = _parsed(data)
        try:
            self.entropy_nats = noted_entropy_nats({note.key: note.value for note in model.metadata_props})
        except BundleManifestInvalidError as error:
            raise CustomPackError(str(error)) from None
        _check_weights(model.graph)
        self.input_dtype = _check_input(model.graph, spec)
        self.output_dtype = _check_output(model.graph, spec)
        _prune(model.graph, spec.output)
        _check_operators(model.graph)
        self.model = _converted(model)


def wrap(network: ForeignNetwork, spec: CustomSpec, robot: RobotModel) -> bytes:
    """The network between our observation float32[n, 83] and our command float32[n, 2], as ONNX bytes."""
    inner = compose.add_prefix(network.model, PREFIX)
    build = _Builder()
    _observation_to(build, spec, network.input_dtype, PREFIX + spec.input)
    before = len(build.nodes)
    _command_from(build, spec, robot, PREFIX + spec.output)
    graph = helper.make_graph(
        [*build.nodes[:before], *inner.graph.node, *build.nodes[before:]],
        "policy",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, ["n", OBSERVATION_SIZE])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, ["n", COMMAND_SIZE])],
        [*build.tensors, *inner.graph.initializer],
    )
    opsets = list(inner.opset_import)
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=max(8, helper.find_min_ir_version_for(opsets))
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CustomPackError(f"the wrapped network does not fit together: {_line(error)}") from None
    whole: bytes = model.SerializeToString(deterministic=True)
    return whole


def widened(network: ForeignNetwork, spec: CustomSpec) -> bytes:
    """The network with float32 for its input and output and nothing else changed, under the same names."""
    inner = compose.add_prefix(network.model, PREFIX)
    cast_in = helper.make_node("Cast", [spec.input], [PREFIX + spec.input], to=network.input_dtype)
    cast_out = helper.make_node("Cast", [PREFIX + spec.output], [spec.output], to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [cast_in, *inner.graph.node, cast_out],
        "widened",
        [helper.make_tensor_value_info(spec.input, TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(spec.output, TensorProto.FLOAT, None)],
        inner.graph.initializer,
    )
    opsets = list(inner.opset_import)
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=max(8, helper.find_min_ir_version_for(opsets))
    )
    whole: bytes = model.SerializeToString(deterministic=True)
    return whole


class _Builder:
    """Nodes and constants with names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        name = output or f"outrider/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: object, dtype: type[np.generic] = np.float32) -> str:
        name = f"outrider/constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)


def _observation_to(build: _Builder, spec: CustomSpec, dtype: int, to: str) -> None:
    axis = build.integers(1)
    parts = [
        build.node("Slice", ONNX_INPUT, build.integers(first), build.integers(last), axis)
        for first, last in spec.columns()
    ]
    x = build.node("Concat", *parts, axis=1)
    x = build.node("Sub", x, build.constant(spec.vector("mean", 0.0)))
    x = build.node("Div", x, build.constant(spec.vector("std", 1.0)))
    x = build.node("Mul", x, build.constant(spec.vector("scale", 1.0)))
    x = build.node("Add", x, build.constant(spec.vector("offset", 0.0)))
    low, high = spec.bounds()
    x = build.node("Min", build.node("Max", x, build.constant(low)), build.constant(high))
    if "time" in spec.dims:
        x = build.node("Unsqueeze", x, build.integers(spec.dims.index("time")))
    build.node("Cast", x, output=to, to=dtype)


def _command_from(build: _Builder, spec: CustomSpec, robot: RobotModel, came: str) -> None:
    x = build.node("Cast", came, to=TensorProto.FLOAT)
    x = build.node("Reshape", x, build.integers(-1, spec.width))
    action = spec.action
    if isinstance(action, Discrete):
        best = build.node("ArgMax", x, axis=1, keepdims=0)
        build.node("Gather", build.constant(action.commands), best, output=ONNX_OUTPUT, axis=0)
        return
    forward = (robot.speed_max_mps, robot.turn_rate_max_radps)
    behind = (robot.reverse_max_mps, robot.turn_rate_max_radps)
    if isinstance(action, Command):
        x = build.node("Max", x, build.constant([-value for value in behind]))
        build.node("Min", x, build.constant(forward), output=ONNX_OUTPUT)
        return
    if isinstance(action, Gaussian):
        x = build.node("Slice", x, build.integers(0), build.integers(COMMAND_SIZE), build.integers(1))
    if isinstance(action, Tanh) or (isinstance(action, Gaussian) and action.squash == "tanh"):
        x = build.node("Tanh", x)
    zero, one, minus_one = build.constant(0.0), build.constant(1.0), build.constant(-1.0)
    x = build.node("Clip", x, minus_one, one)
    ahead = build.node("Mul", build.node("Max", x, zero), build.constant(forward))
    back = build.node("Mul", build.node("Min", x, zero), build.constant(behind))
    build.node("Add", ahead, back, output=ONNX_OUTPUT)


def _parsed(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        # Protobuf's own error type is private and differs between its implementations.
        raise CustomPackError(f"no ONNX file: {_line(error)}") from None
    for name, tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            raise CustomPackError(
                f"tensor {name!r} keeps its data outside the file; export the network in one file"
            )
    try:
        onnx.checker.check_model(model)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except (onnx.checker.ValidationError, RuntimeError) as error:
        raise CustomPackError(f"not a valid ONNX network: {_line(error)}") from None


def _tensors(graph: onnx.GraphProto) -> list[tuple[str, onnx.TensorProto]]:
    """Weights and constants, with the names by which people know them."""
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [
        (node.output[0], attribute.t)
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    ]
    return tensors


def _check_weights(graph: onnx.GraphProto) -> None:
    for name, tensor in _tensors(graph):
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise CustomPackError(
                f"tensor {name!r} holds {int((~np.isfinite(values)).sum())} values that are NaN or infinite"
            )


def _check_input(graph: onnx.GraphProto, spec: CustomSpec) -> int:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    names = [item.name for item in inputs]
    if names != [spec.input]:
        raise CustomPackError(
            f"expected the one input {spec.input!r}, came {len(names)}: {', '.join(names[:8])}; export a network"
            " without memory that takes the observation alone, and name its input in the description"
        )
    dtype, shape = _tensor_type(inputs[0])
    wanted = dict(zip(spec.dims, ([1] * (len(spec.dims) - 1)) + [spec.size], strict=True))
    fits = shape is not None and len(shape) == len(spec.dims)
    if (
        shape is None
        or not fits
        or any(s not in (None, wanted[d]) for s, d in zip(shape, spec.dims, strict=True))
    ):
        raise CustomPackError(
            f"input {spec.input!r}: expected {', '.join(f'{d} ({s})' for d, s in wanted.items())} with batch and time"
            f" of 1 or dynamic, came shape {_shown(shape)}; fields have {spec.size} values in all: check fields, dims"
        )
    return _known_dtype(f"input {spec.input!r}", dtype)


def _check_output(graph: onnx.GraphProto, spec: CustomSpec) -> int:
    outputs = {item.name: item for item in graph.output}
    if spec.output not in outputs:
        raise CustomPackError(f"no output {spec.output!r}; there are {', '.join(list(outputs)[:8])}")
    dtype, shape = _tensor_type(outputs[spec.output])
    if shape and shape[-1] not in (None, spec.width):
        raise CustomPackError(
            f"output {spec.output!r}: expected {spec.width} values for this action, came shape {_shown(shape)}"
        )
    return _known_dtype(f"output {spec.output!r}", dtype)


def _known_dtype(name: str, dtype: int) -> int:
    if dtype not in DTYPES:
        came = TensorProto.DataType.Name(dtype).lower()
        raise CustomPackError(f"{name}: expected {', '.join(DTYPES.values())}, came {came}")
    return dtype


def _tensor_type(item: onnx.ValueInfoProto) -> tuple[int, list[int | None] | None]:
    """Element type and shape; None for what is dynamic, and for a shape that is not known at all."""
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, [
        dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
    ]


def _shown(shape: list[int | None] | None) -> str:
    return "unknown" if shape is None else str(["dynamic" if size is None else size for size in shape])


def _prune(graph: onnx.GraphProto, output: str) -> None:
    """Leave out what the output does not need, such as a critic."""
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    outputs = [item for item in graph.output if item.name == output]
    inputs = [item for item in graph.input if item.name in needed]
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.initializer, tensors),
        (graph.output, outputs),
        (graph.input, inputs),
        (graph.value_info, []),
    ):
        saved = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(saved)
    if not graph.node or not any(
        item.name not in {t.name for t in graph.initializer} for item in graph.input
    ):
        raise CustomPackError(f"output {output!r} does not depend on the input")


def _check_operators(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        domain = node.domain or "ai.onnx"
        if domain != "ai.onnx" or node.op_type not in ALLOWED_OPERATORS:
            raise CustomPackError(
                f"node {node.name or node.output[0]!r}: operator {domain}.{node.op_type} is not on the allow-list of"
                " the robots; export the network with plain operators"
            )


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    own = [item for item in model.opset_import if item.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", item.version) for item in own[:1]])
    if version == OPSET:
        return model
    try:
        converted = version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(converted)
        return converted
    except Exception as error:
        # The converter raises RuntimeError, ValidationError and its own; any means the same.
        if OPSET_MIN <= version <= OPSET_MAX:
            return model
        raise CustomPackError(
            f"opset {version} cannot be converted to {OPSET} ({_line(error)}); export the network with opset {OPSET}"
        ) from None


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
