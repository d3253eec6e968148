"""The language model that students are distilled from, with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sanderling_quantize.encoders.pooling import mean_pool, unit
from sanderling_quantize.encoders.pretrained import load_model
from sanderling_quantize.encoders.tokenization import (
    BATCH,
    Tokens,
    batches,
    load_tokenizer,
    tokenize,
)
from sanderling_quantize.encoders.vocabulary import Vocabulary, student_vocabulary


@dataclass(frozen=True)
class Teacher:
    """A BERT-like language model and its tokenizer."""

    model: Any
    tokenizer: Any

    max_tokens: int
    """Number of tokens at which texts are cut."""

    @staticmethod
    def load(folder: str | Path, max_tokens: int, device: torch.device | None = None) -> Teacher:
        """Load a Hugging Face folder onto a device; by default the GPU where there is one."""
        if device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_model(folder).to(device).eval()
        return Teacher(model, load_tokenizer(folder), max_tokens)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return each text's token ids, cut to `max_tokens`."""
        return tokenize(self.tokenizer, texts, self.max_tokens)

    def student_vocabulary(self, texts: Sequence[str]) -> Vocabulary:
        """Return what a student keeps of the vocabulary for texts like these."""
        rows = len(self.model.embeddings.word_embeddings.weight)
        return student_vocabulary(self.tokenizer, texts, rows)

    @torch.inference_mode()
    def encode(self, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """Return unit vectors float32 [n, t], in the precision that students are trained in."""
        vectors = np.empty((len(tokens), self.model.config.hidden_size), np.float32)
        progress = tqdm(
            batches(tokens, self.device),
            desc="teacher",
            total=-(-len(tokens) // BATCH),
            unit="batch",
            leave=False,
        )
        for ids, mask, rows in progress:
            with native_bfloat16(self.device):
                hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors[rows] = unit(mean_pool(hidden.float(), mask)).cpu().numpy()
        return vectors


def native_bfloat16(device: torch.device) -> torch.autocast:
    """Return a context that computes in bfloat16 only where the processor multiplies it natively.

    Elsewhere, on a CPU without AVX512-BF16 or an old GPU, bfloat16 is slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16, enabled=native)
