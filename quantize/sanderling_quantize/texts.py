"""Texts to train and to judge an encoder by. Refuses to know models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

RECOMBINED = 4
LONGEST = 10


def further(texts: Sequence[str], vocabulary: Iterable[str], rng: np.random.Generator) -> Iterator[str]:
    """Yield what a new item's text, or a context, may look like.

    For each text that has words: its first part alone, `RECOMBINED` texts made of its words and those of another one,
    and as many of its words among words of the language model's vocabulary.
    """
    words = [word for word in vocabulary if len(word) > 2 and word.isalpha()]
    for text in texts:
        own = text.split()
        if not own:
            continue
        yield " ".join(own[: max(1, len(own) // 2)])
        for _ in range(RECOMBINED):
            other = texts[int(rng.integers(len(texts)))].split()
            cut, start = int(rng.integers(1, len(own) + 1)), int(rng.integers(len(other) + 1))
            yield " ".join([*own[:cut], *other[start:]])
        for _ in range(RECOMBINED if words else 0):
            yield " ".join(_mixture(own, words, rng))


def held_out(texts: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Split texts into those to train on and those to judge by; at least one of each when there are two."""
    order = np.random.default_rng(seed).permutation(len(texts))
    count = min(max(1, round(share * len(texts))), max(len(texts) - 1, 0))
    return [texts[at] for at in order[count:]], [texts[at] for at in order[:count]]


def _mixture(own: Sequence[str], words: Sequence[str], rng: np.random.Generator) -> list[str]:
    share = rng.random()
    pools = [own if draw < share else words for draw in rng.random(int(rng.integers(1, LONGEST)))]
    return [pool[int(rng.integers(len(pool)))] for pool in pools]
