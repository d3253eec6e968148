"""Texts to train and to judge an encoder by. Refuses to know models."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

RECOMBINED = 4
LONGEST = 10


def further(
    texts: Sequence[str], vocabulary: Iterable[str], rng: np.random.Generator
) -> Iterator[str]:
    """Yield what a new item's text, or a context, may look like.

    For each text that has words: its first part alone, `RECOMBINED` texts made of its words and those of another one,
    and as many of its words among words of the language model's vocabulary.
    """
    words = whole_words(vocabulary)
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


def whole_words(vocabulary: Iterable[str]) -> list[str]:
    """Return the vocabulary's words of letters, in one order; the marks of other tokenizers' word starts go."""
    plain = {word.lstrip("Ġ▁") for word in vocabulary}
    return sorted(word for word in plain if len(word) > 2 and word.isalpha())


def held_out(texts: Iterable[str], share: float) -> tuple[list[str], list[str]]:
    """Split distinct texts into those to train on and those to judge by; at least one of each when there are two.

    A text's own hash decides, whatever its casing, so that it stays on its side from release to release.
    """
    order = sorted(set(texts), key=lambda text: (_place(text), text))
    count = sum(_place(text) < share * 2**32 for text in order)
    count = min(max(1, count), max(len(order) - 1, 0))
    return order[count:], order[:count]


def unlike(texts: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the texts that are none of the others, in whatever casing."""
    known = {text.lower() for text in others}
    return [text for text in texts if text.lower() not in known]


def _place(text: str) -> int:
    return zlib.crc32(text.lower().encode("utf-8", "surrogatepass"))


def _mixture(own: Sequence[str], words: Sequence[str], rng: np.random.Generator) -> list[str]:
    share = rng.random()
    pools = [own if draw < share else words for draw in rng.random(int(rng.integers(1, LONGEST)))]
    return [pool[int(rng.integers(len(pool)))] for pool in pools]
