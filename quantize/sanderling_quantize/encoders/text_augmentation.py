"""Training and evaluation texts for an encoder, made from a catalog's texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from sanderling_quantize.encoders.vocabulary import is_unspaced

RECOMBINED = 4
MAX_WORDS = 10


def spaced_words(text: str) -> list[str]:
    """Return the words of a text, each with a space before it."""
    return [f" {word}" for word in text.split()]


def augment(
    texts: Sequence[str],
    vocabulary: Iterable[str],
    rng: np.random.Generator,
    split: Callable[[str], list[str]] = spaced_words,
) -> Iterator[str]:
    """Yield texts such as a new item or a context may have.

    For each text that has words: its first half, `RECOMBINED` texts made of its words and those of
    another text, and as many of its words mixed with whole words of the vocabulary.

    split: returns the words of a text, with the space before those that have one.
    """
    words = [word if is_unspaced(word[0]) else f" {word}" for word in whole_words(vocabulary)]
    for text in texts:
        own = split(text)
        if not own:
            continue
        yield _joined(own[: max(1, len(own) // 2)])

        for _ in range(RECOMBINED):
            other = split(texts[int(rng.integers(len(texts)))])
            cut = int(rng.integers(1, len(own) + 1))
            start = int(rng.integers(len(other) + 1))
            yield _joined([*own[:cut], *other[start:]])

        for _ in range(RECOMBINED if words else 0):
            yield _joined(_mixture(own, words, rng))


def whole_words(vocabulary: Iterable[str]) -> list[str]:
    """Return the vocabulary's words of letters, sorted, without marks of a word's start.

    The order must not depend on the vocabulary's own, which differs from process to process.
    """
    plain = {word.lstrip("Ġ▁") for word in vocabulary}
    return sorted(word for word in plain if word.isalpha() and len(word) > _shortest(word))


def _shortest(word: str) -> int:
    return 1 if is_unspaced(word[0]) else 2


def _joined(words: Sequence[str]) -> str:
    return "".join(words).strip()


def split_held_out(texts: Iterable[str], share: float) -> tuple[list[str], list[str]]:
    """Split distinct texts into those to train on and those held out.

    Each side has at least one text when there are two. A text's own hash decides, ignoring case, so
    that it stays on its side from release to release.
    """
    order = sorted(set(texts), key=lambda text: (_hash(text), text))
    count = sum(_hash(text) < share * 2**32 for text in order)
    count = min(max(1, count), max(len(order) - 1, 0))
    return order[count:], order[:count]


def without(texts: Iterable[str], excluded: Iterable[str]) -> list[str]:
    """Return the texts that are not among the excluded ones, ignoring case."""
    excluded_lower = {text.lower() for text in excluded}
    return [text for text in texts if text.lower() not in excluded_lower]


def _hash(text: str) -> int:
    return zlib.crc32(text.lower().encode("utf-8", "surrogatepass"))


def _mixture(own: Sequence[str], words: Sequence[str], rng: np.random.Generator) -> list[str]:
    share = rng.random()
    pools = [own if draw < share else words for draw in rng.random(int(rng.integers(1, MAX_WORDS)))]
    return [pool[int(rng.integers(len(pool)))] for pool in pools]
