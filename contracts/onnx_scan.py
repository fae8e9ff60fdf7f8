"""What an ONNX file would do, read from its protobuf without the ``onnx`` package and without running it.

Field numbers are those of onnx.proto3 (ONNX IR); the wire format is protobuf's. Only what decides whether the
file may be loaded is read: operators, domains, sub-graphs, local functions and where tensors keep their data.
"""

from collections.abc import Iterator

from contracts.errors import BundleNetworkRefusedError

# fmt: off
ALLOWED_OPERATORS = frozenset({
    "Abs", "Add", "ArgMax", "Cast", "Clip", "Concat", "Constant", "Div", "Elu", "Erf", "Exp", "Flatten", "Gather",
    "Gelu", "Gemm", "Identity", "LayerNormalization", "LeakyRelu", "LogSoftmax", "MatMul", "Max", "Min", "Mul", "Neg",
    "Pow", "Reciprocal", "Relu", "Reshape", "Selu", "Sigmoid", "Slice", "Softplus", "Softsign", "Split",
    "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
})
# fmt: on
NODES_MAX = 512
INITIALIZERS_MAX = 512
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BundleNetworkRefusedError("policy.onnx ends inside a field; export it anew")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise BundleNetworkRefusedError("policy.onnx holds a number longer than 64 bit; it is no ONNX file")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of one protobuf message; nested messages come as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise BundleNetworkRefusedError(
                f"policy.onnx holds protobuf wire type {wire}; it is no ONNX file"
            )
        if at + size > len(data):
            raise BundleNetworkRefusedError("policy.onnx ends inside a field; export it anew")
        yield key >> 3, data[at : at + size]
        at += size


def _text(value: int | memoryview) -> str:
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BundleNetworkRefusedError(
            "policy.onnx holds a number where a message belongs; it is no ONNX file"
        )
    return value


def scan_network(data: bytes) -> list[str]:
    """Names of the operators, in order.

    Raises:
        BundleNetworkRefusedError: An operator or domain outside the allow-list, local functions, sub-graphs,
        training
            information, tensors whose data lies outside the file, or no ONNX file at all.
    """
    graphs: list[memoryview] = []
    for number, value in _fields(memoryview(data)):
        if number == 7:
            graphs.append(_message(value))
        elif number == 8:
            _check_domain(next((_text(v) for n, v in _fields(_message(value)) if n == 1), ""))
        elif number in (20, 25):
            raise BundleNetworkRefusedError(
                "policy.onnx holds local functions or training steps; export inference only"
            )
    if len(graphs) != 1:
        raise BundleNetworkRefusedError(
            f"expected one graph in policy.onnx, came {len(graphs)}; it is no ONNX model"
        )
    return _scan_graph(graphs[0])


def _scan_graph(graph: memoryview) -> list[str]:
    operators: list[str] = []
    initializers = 0
    for number, value in _fields(graph):
        if number == 1:
            operators.append(_scan_node(_message(value)))
        elif number == 5:
            initializers += 1
            _scan_tensor(_message(value))
        elif number == 15:
            raise BundleNetworkRefusedError("policy.onnx holds sparse tensors; export dense ones")
        if len(operators) > NODES_MAX or initializers > INITIALIZERS_MAX:
            raise BundleNetworkRefusedError(
                f"policy.onnx has more than {NODES_MAX} nodes or {INITIALIZERS_MAX} tensors"
            )
    if not operators:
        raise BundleNetworkRefusedError("policy.onnx has no operator at all; export it anew")
    return operators


def _scan_node(node: memoryview) -> str:
    operator = ""
    for number, value in _fields(node):
        if number == 4:
            operator = _text(value)
        elif number == 7:
            _check_domain(_text(value))
        elif number == 5:
            for inner, part in _fields(_message(value)):
                if inner in (6, 11, 22, 23):
                    raise BundleNetworkRefusedError(
                        "policy.onnx holds a sub-graph or sparse tensor; export a plain network"
                    )
                if inner in (5, 10):
                    _scan_tensor(_message(part))
    if operator not in ALLOWED_OPERATORS:
        raise BundleNetworkRefusedError(f"operator {operator[:64]!r} in policy.onnx is not on the allow-list")
    return operator


def _scan_tensor(tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == 13 or (number == 14 and value == _EXTERNAL):
            raise BundleNetworkRefusedError(
                "policy.onnx keeps tensor data outside the file; export it in one file"
            )


def _check_domain(domain: str) -> None:
    if domain not in ("", "ai.onnx"):
        raise BundleNetworkRefusedError(
            f"operator domain {domain[:64]!r} in policy.onnx is not allowed, only ONNX's own"
        )
