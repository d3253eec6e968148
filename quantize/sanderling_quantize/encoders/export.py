"""PyTorch -> ONNX with pooling and normalisation inside the graph, in operators that every ONNX runtime has.

Refuses to know what is encoded.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from pathlib import Path

import onnx
import torch

from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.tables import frozen

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "vector"
OPSET = 17
ALLOWED = set(
    """
    Abs Add Cast Clip Concat Constant ConstantOfShape Div Equal Erf Expand Flatten Gather Gemm Identity
    LayerNormalization MatMul Mul Pow Range ReduceL2 ReduceMean ReduceSum Reshape Shape Slice Softmax Split Sqrt
    Squeeze Sub Transpose Unsqueeze Where DynamicQuantizeLinear MatMulInteger
    """.split()  # noqa: SIM905 -- a literal list would take forty lines
)


def export(student: Student, path: Path) -> None:
    """Write a graph: input_ids and attention_mask int64 [b, s] -> vector float32 [b, t]; its tables are int8 already.

    Raises `ValueError` when the graph has an operator outside `ALLOWED`.
    """
    student = copy.deepcopy(student).cpu().eval()
    student.words, student.positions = frozen(student.words), frozen(student.positions)
    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
    check_operators(path)


def check_operators(path: Path) -> Counter[str]:
    """Return how often each operator occurs; raise `ValueError` for one that small runtimes may lack."""
    found = Counter(f"{node.domain}{node.op_type}" for node in onnx.load(path).graph.node)
    odd = sorted(set(found) - ALLOWED)
    if odd:
        raise ValueError(f"{path.name}: expected only operators of the allow-list, found {', '.join(odd)}")
    return found
