"""PyTorch -> ONNX, pooling and normalization included, in operators of every ONNX runtime."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from sanderling_quantize.encoders.embedding_codes import to_int8
from sanderling_quantize.encoders.student import Student

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "vector"
OPSET = 17
ALLOWED = set(
    """
    Abs Add Cast Clip Concat Constant ConstantOfShape Div Equal Erf Expand Flatten Gather Gemm
    Identity LayerNormalization MatMul Mul Pow Range ReduceL2 ReduceMean ReduceSum Reshape Shape
    Slice Softmax Split Sqrt Squeeze Sub Transpose Unsqueeze Where DynamicQuantizeLinear
    MatMulInteger
    """.split()  # noqa: SIM905 -- a literal list would take forty lines
)


def export(student: Student, path: Path) -> None:
    """Write a graph: input_ids and attention_mask int64 [b, s] -> vector float32 [b, t].

    The embedding tables are int8 already. Raises `ValueError` when the graph has an operator
    outside `ALLOWED`.
    """
    student = copy.deepcopy(student).cpu().eval()
    student.word_embeddings = to_int8(student.word_embeddings)
    student.position_embeddings = to_int8(student.position_embeddings)

    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape
        torch.onnx.export(
            student,
            example,
            str(path),
            input_names=list(axes),
            output_names=[OUTPUT],
            dynamic_axes={**axes, OUTPUT: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    _simplify_reshapes(path)
    check_operators(path)


def check_operators(path: Path) -> Counter[str]:
    """Return how often each operator occurs.

    Raises `ValueError` for an operator outside `ALLOWED`, which small runtimes may lack.
    """
    counts = Counter(f"{node.domain}{node.op_type}" for node in onnx.load(path).graph.node)
    unsupported = sorted(set(counts) - ALLOWED)
    if unsupported:
        raise ValueError(
            f"{path.name}: expected only operators of the allow-list,"
            f" found {', '.join(unsupported)}"
        )
    return counts


def _simplify_reshapes(path: Path) -> None:
    """Give each Reshape that keeps its first two axes a constant shape [0, 0, ...].

    The tracer computes the two lengths with ten nodes.
    """
    model = onnx.load(path)
    producer = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        lengths = producer.get(node.input[1]) if node.op_type == "Reshape" else None
        if lengths is None or lengths.op_type != "Concat":
            continue

        sizes = [_constant(producer.get(name)) for name in lengths.input]
        if sizes[:2] == [None, None] and None not in sizes[2:]:
            array = np.array([0, 0, *sizes[2:]], np.int64)
            shape = numpy_helper.from_array(array, f"{node.name}/shape")
            model.graph.initializer.append(shape)
            node.input[1] = shape.name
    _remove_unused(model.graph)
    onnx.save(model, path)


def _constant(node: onnx.NodeProto | None) -> int | None:
    """Return the number that a node always gives; None when it depends on the text."""
    if node is None or node.op_type != "Constant":
        return None
    return int(numpy_helper.to_array(node.attribute[0].t).item())


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes with unused outputs, until none is left."""
    before = 0
    while before != len(graph.node):
        before = len(graph.node)
        used = {name for node in graph.node for name in node.input}
        used |= {output.name for output in graph.output}
        for node in [node for node in graph.node if not used & set(node.output)]:
            graph.node.remove(node)
