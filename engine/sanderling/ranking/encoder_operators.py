"""Which operators an encoder may use: tensors in, tensors out, no control flow.

A loop inside an ONNX model can run for ever in the app's own process. The file is read as protobuf
(onnx.proto3 of ONNX 1.17); a device has no package for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_OPERATORS = """
Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast CastLike Ceil Clip Concat
Constant ConstantOfShape Conv Cos CumSum DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal
Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LayerNormalization
LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg
Not Or PRelu Pad Pow QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1
ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
Reshape RotaryEmbedding Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice
Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Swish Tanh Tile TopK Transpose Trilu Unsqueeze
Where Xor
"""
ALLOWED = frozenset(_OPERATORS.split())

# Numbers of fields in onnx.proto3.
MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 5, 6, 11
TENSOR_TYPE, TENSOR_RAW, TENSOR_EXTERNAL, TENSOR_LOCATION = 2, 9, 13, 14
FLOAT = b"\1"  # the type float32
DOMAINS = (b"", b"ai.onnx")
MAX_VARINT_BYTES = 10


def operator_faults(path: Path) -> list[str]:
    """Return what an encoder must not contain: other operators, subgraphs, functions, data in other
    files, NaN. An empty list when there is nothing of that."""
    try:
        faults = sorted(set(_model_faults(memoryview(path.read_bytes()))))
    except (ValueError, IndexError) as error:
        return [f"{path.name}: expected an ONNX model: {error}"]
    return [f"{path.name}: {fault}" for fault in faults]


def _model_faults(model: memoryview) -> Iterator[str]:
    for field, value in _fields(model):
        if field == MODEL_FUNCTIONS:
            yield "expected no functions of its own"
        elif field == MODEL_GRAPH:
            yield from _graph_faults(value)


def _graph_faults(graph: memoryview) -> Iterator[str]:
    for field, value in _fields(graph):
        if field == GRAPH_NODE:
            yield from _node_faults(value)
        elif field == GRAPH_INITIALIZER:
            yield from _tensor_faults(value)
        elif field == GRAPH_SPARSE:
            yield "expected no sparse tensors"


def _node_faults(node: memoryview) -> Iterator[str]:
    for field, value in _fields(node):
        if field == NODE_OPERATOR and bytes(value).decode(errors="replace") not in ALLOWED:
            yield f"expected operators on tensors alone, found {bytes(value)!r:.60}"
        elif field == NODE_DOMAIN and bytes(value) not in DOMAINS:
            yield f"expected operators of ONNX itself, found some of {bytes(value)!r:.60}"
        elif field == NODE_ATTRIBUTE:
            yield from _attribute_faults(value)


def _attribute_faults(attribute: memoryview) -> Iterator[str]:
    for field, value in _fields(attribute):
        if field in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
            yield "expected no graph inside an operator, such as the body of a loop"
        elif field == ATTRIBUTE_TENSOR:
            yield from _tensor_faults(value)


def _tensor_faults(tensor: memoryview) -> Iterator[str]:
    fields = dict(_fields(tensor))
    if TENSOR_EXTERNAL in fields or bytes(fields.get(TENSOR_LOCATION, b"\0")) != b"\0":
        yield "expected all tensors inside the file"
    raw = fields.get(TENSOR_RAW, b"")
    is_float = bytes(fields.get(TENSOR_TYPE, b"")) == FLOAT
    # Infinities are in the masks of honest encoders.
    if is_float and len(raw) % 4 == 0 and np.isnan(np.frombuffer(raw, "<f4")).any():
        yield "expected numbers in all tensors, found NaN"


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each field of a message; raise `ValueError` or `IndexError` where
    it is malformed."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        start = position
        match key & 7:
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 2:
                length, start = _varint(message, position)
                position = start + length
            case 5:
                position += 4
            case other:
                raise ValueError(f"wire type {other} at byte {start}")
        if position > len(message):
            raise ValueError(f"a field of {position - start} bytes at byte {start} is cut off")
        yield key >> 3, message[start:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return an unsigned number of variable length, and the position after it."""
    number = 0
    for index in range(MAX_VARINT_BYTES):
        byte = message[position + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, position + index + 1
    raise ValueError(f"a number of more than {MAX_VARINT_BYTES} bytes at byte {position}")
