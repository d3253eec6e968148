"""Texts as token ids, in batches of similar length."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tokens = NDArray[np.int64]
BATCH = 64


def load_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of a Hugging Face folder or id."""
    from transformers import AutoTokenizer

    # Where a vocabulary has over 100,000 words, it warns of a fault of Mistral's tokenizers.
    tokenizer_log = logging.getLogger("transformers.tokenization_utils_base")
    tokenizer_log.addFilter(_is_no_mistral)
    try:
        return AutoTokenizer.from_pretrained(folder)
    finally:
        tokenizer_log.removeFilter(_is_no_mistral)


def _is_no_mistral(record: logging.LogRecord) -> bool:
    return "fix_mistral_regex" not in record.getMessage()


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
    """Return each text's token ids, int64 [s], cut to `max_tokens`."""
    if not len(texts):  # the tokenizer does not accept an empty batch
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens)
    return [np.array(ids, np.int64) for ids in encoded["input_ids"]]


def batches(
    tokens: Sequence[Tokens], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Yield ids and mask, int64 [b, s], of texts of similar length, and their rows in `tokens`."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        ids, mask = pad([tokens[row] for row in rows])
        yield ids.to(device), mask.to(device), rows


def unpadded_batches(
    tokens: Sequence[Tokens], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and mask, int64 [b, s], of texts of one length, so that nothing is padding."""
    by_length = sorted(tokens, key=len)
    for _, group in itertools.groupby(by_length, key=len):
        texts = list(group)
        for start in range(0, len(texts), BATCH):
            ids, mask = pad(texts[start : start + BATCH])
            yield ids.to(device), mask.to(device)


def pad(tokens: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 [b, s], where s is the length of the longest text."""
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
