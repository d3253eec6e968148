"""Texts as token ids, in batches of like length. Refuses to know models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tokens = NDArray[np.int64]
BATCH = 64


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
    """Return each text's ids, cut to `max_tokens`."""
    found = (
        tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        if len(texts)
        else []
    )
    return [np.array(ids, np.int64) for ids in found]


def batches(
    tokens: Sequence[Tokens], device: torch.device, size: int = BATCH
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Yield ids and mask, int64 [b, s], of texts of like length, and where they stand among `tokens`."""
    order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        ids, mask = padded([tokens[at] for at in chosen])
        yield ids.to(device), mask.to(device), chosen


def padded(tokens: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 [b, s], s the longest of these texts."""
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
