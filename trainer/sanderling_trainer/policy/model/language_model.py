"""A pretrained language model as a text encoder: mean of the last hidden states,
scaled to length 1.

Any Hugging Face id or folder works. The weights of the default come in a Python package, so that it
needs no download from a hub.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from tqdm import tqdm

from sanderling_quantize.encoders.pooling import mean_pool, unit
from sanderling_quantize.encoders.pretrained import load_model
from sanderling_quantize.encoders.tokenization import load_tokenizer
from sanderling_trainer.policy.model.device import Device, torch_device
from sanderling_trainer.policy.model.language_model_files import (
    MINILM,
    LanguageModelError,
    check_kind,
    resolve,
)
from sanderling_trainer.policy.model.onnx_encoder import OnnxEncoder

BATCH = 64
ONNX_FROM = 8192
"""Texts from which the export to ONNX, 3 s for all-MiniLM, is worth its time (docs/LOG.md)."""


logger = logging.getLogger(__name__)


class LanguageModel:
    """Encodes texts as unit vectors on a device: auto, cpu or cuda.

    Raises `LanguageModelError` where `source` cannot be read, `DeviceError` without that device.
    """

    def __init__(
        self, source: str = MINILM, max_tokens: int = 64, device: str = Device.auto
    ) -> None:
        folder = resolve(source)
        try:
            self.tokenizer: Any = load_tokenizer(folder)
            self.model: Any = load_model(folder).eval().to(torch_device(device))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise LanguageModelError(
                f"{source}: expected a Hugging Face id, or the folder of a language model with its"
                f" tokenizer: {reason}"
            ) from error

        self.max_tokens = max_tokens
        self.dimension = int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], label: str = "encode texts") -> NDArray[np.float32]:
        """Return the vectors float32 [n, t] of n texts; `label` names the progress bar."""
        # Batches of similar length waste the least on padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.empty((len(texts), self.dimension), np.float32)
        onnx = self._onnx_encoder(texts) if len(texts) >= ONNX_FROM else None
        for start in tqdm(range(0, len(order), BATCH), desc=label, unit="batch", leave=False):
            rows = order[start : start + BATCH]
            batch = [texts[row] for row in rows]
            if onnx is not None:
                vectors[rows] = onnx(self._tokens(batch))
            else:
                vectors[rows] = self.encode_batch(self.model, batch).float().cpu().numpy()
        return vectors

    def encode_batch(self, model: torch.nn.Module, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors [b, t] of one batch of texts by `model`, which may wrap this one's."""
        tokens = self._tokens(texts).to(next(model.parameters()).device)
        hidden = model(**tokens).last_hidden_state
        return unit(mean_pool(hidden, tokens["attention_mask"]))

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )

    def _onnx_encoder(self, texts: Sequence[str]) -> OnnxEncoder | None:
        """Export the model as it is now; return None where torch has to do."""
        device = self.model.device
        example = [min(texts, key=len), *texts[:6], max(texts, key=len)]
        try:
            return OnnxEncoder(self.model, dict(self._tokens(example).to(device)), device)
        except (ImportError, ValueError) as error:
            logger.warning("texts are encoded by torch, not by ONNX Runtime: %s", error)
            return None

    def check_distillable(self, source: str) -> None:
        """Raise `LanguageModelError` where `quantize` could not make an encoder of it."""
        check_kind(self.model.config.to_dict(), source)
        if not self.tokenizer.is_fast:
            raise LanguageModelError(
                f"{source}: expected a language model with a tokenizer.json, found a tokenizer in"
                " Python; choose another language model"
            )

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as a Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
