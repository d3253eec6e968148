"""Variants of the catalogue's texts: what a new item's text, or a context, may look like. Refuses to know models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def variants(texts: Sequence[str], rng: np.random.Generator, each: int = 2) -> Iterable[str]:
    """Yield, for each text, its first part alone, and `each` texts made of its words and those of another one."""
    for text in texts:
        words = text.split()
        yield " ".join(words[: max(1, len(words) // 2)])
        for _ in range(each):
            other = texts[int(rng.integers(len(texts)))].split()
            cut, start = int(rng.integers(1, len(words) + 1)), int(rng.integers(len(other) + 1))
            yield " ".join([*words[:cut], *other[start:]])


def held_out(texts: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Split texts into those to train on and those to judge by; at least one of each when there are two."""
    order = np.random.default_rng(seed).permutation(len(texts))
    count = min(max(1, round(share * len(texts))), max(len(texts) - 1, 0))
    return [texts[at] for at in order[count:]], [texts[at] for at in order[:count]]
