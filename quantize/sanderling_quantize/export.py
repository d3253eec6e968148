"""PyTorch -> ONNX with pooling and normalisation inside the graph, then int8 by Optimum.

Refuses to know what is encoded.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from sanderling_quantize.distil import Encoder

OUTPUT = "vector"


def export(encoder: Encoder, path: Path) -> None:
    """Write a float ONNX graph: input_ids and attention_mask int64 [b, s] -> vector float32 [b, t]."""
    encoder = encoder.cpu().eval()
    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder,
            example,
            str(path),
            input_names=list(axes),
            output_names=[OUTPUT],
            dynamic_axes={**axes, OUTPUT: {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def quantize(path: Path, config: Any, target: Path) -> None:
    """Write the dynamically quantized int8 graph, per channel, of a float graph; `config` is the transformer's."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    logging.getLogger("optimum").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        config.save_pretrained(path.parent)
        quantizer = ORTQuantizer.from_pretrained(path.parent, file_name=path.name)
        recipe = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
        quantizer.quantize(save_dir=folder, quantization_config=recipe, file_suffix="int8")
        Path(folder, f"{path.stem}_int8.onnx").rename(target)
