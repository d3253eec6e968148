"""A float ONNX graph -> int8 by Optimum: dynamic, with a scale for each output channel.

Static int8 and weight-only forms were worse in size, speed and accuracy: `docs/LOG.md`.
"""

from __future__ import annotations

import logging
import tempfile
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
    check_operators(target)


def _without_weights(path: Path) -> list[str]:
    """Return the names of the multiplications of two activations."""
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and not weights & set(node.input)
    ]
