"""Other ways to make the same language model small, as far as they install beside the project.

`float`: the model with pooling and normalization in the graph. Its int8 forms by onnxruntime's own
quantizer: dynamic, per tensor and per channel; static (quantized multiplications and tables,
calibrated). And sentence-transformers' own export. Peers that need packages of their own are in
`bench.encoding.others`.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import Tensor, nn

from sanderling_quantize.encoders.int8_search import feed
from sanderling_quantize.encoders.pooling import mean_pool, unit
from sanderling_quantize.encoders.teacher import Teacher
from sanderling_quantize.encoders.tokenization import Tokens
from sanderling_trainer.policy.model.language_model_files import MINILM, resolve


class Pooled(nn.Module):
    """The language model as it is, with mean pooling and normalization."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit vectors float32 [b, t]."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return unit(mean_pool(hidden, attention_mask))


def graphs(teacher: Teacher, calibration: Sequence[Tokens], folder: Path) -> dict[str, Path]:
    """Write the peers that are ONNX graphs, if not there yet, and return their paths."""
    logging.getLogger().setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "float.onnx"
    makers: dict[str, Callable[[Path], None]] = {
        "float": lambda path: _export(teacher, path),
        "dynamic int8, per tensor": lambda path: _dynamic(plain, path, per_channel=False),
        "dynamic int8, per channel": lambda path: _dynamic(plain, path, per_channel=True),
        "static int8, per channel": lambda path: _static(plain, path, calibration),
        "sentence-transformers int8": lambda path: _sentence_transformers(path),
    }
    paths = {}
    for name, make in makers.items():
        path = folder / f"{name.replace(' ', '_').replace(',', '')}.onnx"
        if not path.exists():
            make(path)
        paths[name] = path
    return paths


def _export(teacher: Teacher, path: Path) -> None:
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Pooled(teacher.model),
            (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)),
            str(path),
            input_names=list(axes),
            output_names=["vector"],
            dynamic_axes={**axes, "vector": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def _dynamic(source: Path, path: Path, *, per_channel: bool) -> None:
    quantize_dynamic(source, path, per_channel=per_channel, weight_type=QuantType.QInt8)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration texts to onnxruntime, one by one."""

    def __init__(self, tokens: Sequence[Tokens]) -> None:
        self._inputs = iter([feed(text) for text in tokens])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next text's inputs, or None."""
        return next(self._inputs, None)


def _static(source: Path, path: Path, calibration: Sequence[Tokens]) -> None:
    quantize_static(
        source,
        path,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gather"],
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def _sentence_transformers(path: Path) -> None:
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    work = path.with_suffix("")
    shutil.copytree(resolve(MINILM), work, dirs_exist_ok=True)
    model = SentenceTransformer(
        str(work), backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"}
    )
    model.save_pretrained(str(work))
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(work))
    shutil.copyfile(next((work / "onnx").glob("*qint8*.onnx")), path)


def pooled(hidden: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the unit mean [t] of a graph's token vectors [1, s, t]; a vector [1, t] as it is."""
    if hidden.ndim == 2:
        return np.asarray(hidden[0])
    average = hidden[0].mean(0)
    return np.asarray(average / np.linalg.norm(average))
