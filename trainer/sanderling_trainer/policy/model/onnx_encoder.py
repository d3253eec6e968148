"""A language model exported to ONNX and run by ONNX Runtime, for catalogs of many texts."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanderling.ranking.text_encoder import import_onnxruntime
from sanderling_quantize.encoders.export import OPSET, OUTPUT
from sanderling_quantize.encoders.pooling import mean_pool, unit

MAX_COSINE_ERROR = 1e-5
"""How far the cosine of ONNX Runtime's vector and torch's may be from 1."""


class OnnxEncoder:
    """Encodes batches of tokens on a device."""

    def __init__(self, model: Any, tokens: Mapping[str, Tensor], device: torch.device) -> None:
        """Export a language model.

        tokens: an example of its inputs, each [b, s], with texts of different lengths.

        Raises `ImportError` where ONNX Runtime is not installed, and `ValueError` where it cannot
        use the device, cannot run the model, or returns other vectors than torch for the example.
        """
        runtime = import_onnxruntime()
        provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
        # TF32 rounds factors to 10 bits: the vectors would not be those of torch.
        settings = {"use_tf32": "0"} if device.type == "cuda" else {}
        if provider not in runtime.get_available_providers():
            raise ValueError(f"expected an ONNX Runtime with {provider}, found none")

        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._names = list(tokens)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            # A graph that cannot be traced or loaded raises whatever the library thinks of.
            try:
                _export(model, tokens, path)
                self._session = runtime.InferenceSession(
                    str(path), options, providers=[(provider, settings)]
                )
            except Exception as error:
                raise ValueError(f"ONNX Runtime cannot run this language model: {error}") from error
        # Without the provider's libraries a session falls back to the CPU.
        if provider not in self._session.get_providers():
            raise ValueError(f"{provider} does not load; its CUDA libraries are missing")
        self._check(model, tokens)

    def __call__(self, tokens: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return the unit vectors float32 [b, t] of int64 arrays [b, s]."""
        inputs = {name: np.asarray(tokens[name], np.int64) for name in self._names}
        vectors: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return vectors

    def _check(self, model: Any, tokens: Mapping[str, Tensor]) -> None:
        """Raise `ValueError` where the traced graph computes something else than the model."""
        with torch.inference_mode():
            expected = _Vectors(model, self._names)(*tokens.values()).cpu().numpy()
        found = self({name: tensor.cpu().numpy() for name, tensor in tokens.items()})
        cosine = (expected * found).sum(axis=1)
        if not (cosine > 1 - MAX_COSINE_ERROR).all():
            raise ValueError(f"expected torch's vectors, found cosines of {cosine.min():.6f}")


class _Vectors(torch.nn.Module):
    """A language model with pooling and normalization; its inputs come in the order of `names`."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        tokens = dict(zip(self.names, tensors, strict=True))
        hidden = self.model(**tokens).last_hidden_state
        return unit(mean_pool(hidden, tokens["attention_mask"]))


def _export(model: torch.nn.Module, tokens: Mapping[str, Tensor], path: Path) -> None:
    """Write a graph: int64 [b, s] of each name -> vector float32 [b, t]."""
    axes = {name: {0: "batch", 1: "tokens"} for name in tokens}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every shape
        torch.onnx.export(
            # The exporter restores the mode of the module it gets, dropout included.
            _Vectors(model, list(tokens)).eval(),
            tuple(tokens.values()),
            str(path),
            input_names=list(tokens),
            output_names=[OUTPUT],
            dynamic_axes={**axes, OUTPUT: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
