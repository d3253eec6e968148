"""A float ONNX graph -> int8: dynamic, with a scale for each output channel.

Optimum does it where it is installed (the extra `optimum`), ONNX Runtime's own `quantize_dynamic`
elsewhere; both write the same bytes. Static int8 and weight-only forms were worse in size, speed
and accuracy: `docs/LOG.md`.
"""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from sanderling_quantize.encoders.export import check_operators


def quantize(path: Path, config: Any, target: Path, bits: int = 8) -> None:
    """Write the int8 graph of a float graph; `config` is the language model's, for Optimum.

    Multiplications of two activations stay in float: for a short text, rounding them costs more
    than it saves. `bits` of a weight: 8, or 7 for processors whose int8 instructions saturate
    (AVX2 without VNNI).
    """
    if _has_optimum():
        by_optimum(path, config, target, bits)
    else:
        by_onnxruntime(path, target, bits)
    check_operators(target)


def _has_optimum() -> bool:
    """Return whether Optimum is installed, and the part of it that needs ONNX Runtime."""
    return bool(find_spec("optimum") and find_spec("optimum.onnxruntime"))


def by_onnxruntime(path: Path, target: Path, bits: int) -> None:
    """Write the int8 graph of a float graph without Optimum."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Asks to simplify the graph first, which `export` has done as far as it helps.
    logging.getLogger().addFilter(_is_no_advice)
    try:
        quantize_dynamic(
            path,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=bits == 7,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_without_weights(path),
        )
    finally:
        logging.getLogger().removeFilter(_is_no_advice)


def by_optimum(path: Path, config: Any, target: Path, bits: int) -> None:
    """Write the int8 graph of a float graph with Optimum, which needs transformers below 4.58."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    logging.getLogger("optimum").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        config.save_pretrained(path.parent)
        quantizer = ORTQuantizer.from_pretrained(path.parent, file_name=path.name)
        recipe = AutoQuantizationConfig.avx512_vnni(
            is_static=False,
            per_channel=True,
            operators_to_quantize=["MatMul"],
            nodes_to_exclude=_without_weights(path),
        )
        recipe.reduce_range = bits == 7
        quantizer.quantize(save_dir=folder, quantization_config=recipe, file_suffix="int8")
        Path(folder, f"{path.stem}_int8.onnx").rename(target)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


def _without_weights(path: Path) -> list[str]:
    """Return the names of the multiplications of two activations."""
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and not weights & set(node.input)
    ]
