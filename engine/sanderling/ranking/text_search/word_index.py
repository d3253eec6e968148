"""An inverted index of titles and attributes, and BM25 over it (docs/MATH.md).

BM25 of Robertson and Zaragoza (2009), The Probabilistic Relevance Framework, eq. 3.15, with two
fields (their section 3.6.1), and with the inverse document frequency of Lucene, which is never
negative.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.search_types import Rows
from sanderling.ranking.text_search.vocabulary import Span, Vocabulary
from sanderling.ranking.text_search.words import is_unspaced, words_of

Floats = NDArray[np.float64]

MAX_ITEM_WORDS = 256  # of the title, and as many of the attributes

K1 = 0.9  # how soon repetitions of a word stop to count
B = 0.4  # how much longer items count less
ATTRIBUTE_WEIGHT = 0.5  # of a word in an attribute, where one in the title weighs 1

PREFIX_WEIGHT = 0.8  # of a word that only begins as the last word of the query
EDIT_WEIGHT = 0.8  # of a word one edit away
MIN_EDITED = 4  # characters of a word that may have a typing error


class ItemText(NamedTuple):
    """What is indexed of an item."""

    title: str
    attributes: str


class Match(NamedTuple):
    """Words of a vocabulary that a word of a query matches, and how much they count."""

    span: Span
    weight: float


class Postings(NamedTuple):
    """Rows int32 [p] that have some words, a row once for each, and the gains float32 [p]."""

    rows: NDArray[np.int32]
    gains: NDArray[np.float32]


class WordScores(NamedTuple):
    """The rows int64 [m] with a word of a query, ascending, and their scores float64, about 1 for
    all words."""

    rows: Rows
    scores: Floats


class WordIndex:
    """The words of n items. Immutable; thread-safe.

    `average_length` is what lengths are compared with, by default the average of these items.
    """

    def __init__(self, items: Iterable[ItemText], average_length: float | None = None) -> None:
        words: dict[str, int] = {}
        tokens = _Tokens(array("i"), array("i"), array("f"))
        self.n = 0
        for row, item in enumerate(items):
            tokens.add(row, words, words_of(item.title, MAX_ITEM_WORDS), 1.0)
            tokens.add(row, words, words_of(item.attributes, MAX_ITEM_WORDS), ATTRIBUTE_WEIGHT)
            self.n = row + 1

        ordered = sorted(words)
        self.vocabulary = Vocabulary(ordered)
        place_of = np.empty(len(words), np.int64)
        place_of[[words[word] for word in ordered]] = np.arange(len(words))

        # Postings of one word after the other, their rows ascending.
        rows = np.frombuffer(tokens.rows, np.int32).astype(np.int64)
        weights = np.frombuffer(tokens.weights, np.float32)
        keys = place_of[np.frombuffer(tokens.words, np.int32)] * max(self.n, 1) + rows
        postings, posting_of = np.unique(keys, return_inverse=True)
        frequency = np.bincount(posting_of, weights, len(postings))
        places, posting_rows = np.divmod(postings, max(self.n, 1))
        self._rows = posting_rows.astype(np.int32)
        self._starts = np.searchsorted(places, np.arange(len(words) + 1))

        lengths = np.bincount(rows, weights, self.n)
        self.average_length = average_length or float(lengths.mean() if self.n else 0.0) or 1.0
        norm = K1 * (1.0 - B + B * lengths / self.average_length)
        gain = frequency * (K1 + 1.0) / (frequency + norm[posting_rows])
        self._gain = gain.astype(np.float32)

    def matches(self, word: str, *, is_last: bool) -> list[Match]:
        """Return the words that match a word of a query as it is; the last may be unfinished."""
        place = self.vocabulary.find(word)
        exact = [] if place is None else [Match(Span(place, place + 1), 1.0)]
        if not is_last or is_unspaced(word):
            return exact
        begun = self.vocabulary.with_prefix(word)
        longer = Span(begun.first + len(exact), begun.last)  # the word itself sorts first
        return exact + ([Match(longer, PREFIX_WEIGHT)] if longer.first < longer.last else [])

    def near_matches(self, word: str, *, is_last: bool) -> list[Match]:
        """Return the words one edit from a word of a query, none where digits or length forbid it.

        Where there are none, and it is the last, those that begin with such a word.
        """
        if len(word) < MIN_EDITED or is_unspaced(word) or any(map(str.isdigit, word)):
            return []
        near = self.vocabulary.one_edit_away(word)
        if not near and is_last:
            near = self.vocabulary.one_edit_away(word, is_prefix=True)
        return [Match(span, EDIT_WEIGHT) for span in near]

    def postings(self, matches: Iterable[Match]) -> Postings:
        """Return where the words stand, one after the other, and what each counts there."""
        rows = [np.empty(0, np.int32)]
        gains = [np.empty(0, np.float32)]
        for (first, last), weight in matches:
            part = slice(self._starts[first], self._starts[last])
            rows.append(self._rows[part])
            gains.append(self._gain[part] * np.float32(weight))
        return Postings(np.concatenate(rows), np.concatenate(gains))

    def count_items(self, postings: Postings) -> int:
        """Return how many items have one of the words."""
        is_marked = np.zeros(self.n, np.bool_)
        is_marked[postings.rows] = True
        return int(np.count_nonzero(is_marked))


class _Tokens(NamedTuple):
    """The tokens of all items: their rows, words and weights."""

    rows: array[int]
    words: array[int]
    weights: array[float]

    def add(self, row: int, places: dict[str, int], words: list[str], weight: float) -> None:
        """Append the words of one field of an item."""
        self.words.extend([places.setdefault(word, len(places)) for word in words])
        self.rows.extend([row] * len(words))
        self.weights.extend([weight] * len(words))


def word_scores(words: Sequence[str], indexes: Sequence[WordIndex]) -> list[WordScores]:
    """Return for each index which items have words of a query, and what share of the query that is.

    The indexes are parts of one catalog, so frequencies are counted in all of them.
    """
    n = sum(index.n for index in indexes)
    found: list[list[Postings]] = [[] for _ in indexes]
    frequencies = []
    for place, word in enumerate(words):
        is_last = place == len(words) - 1
        matches = [index.matches(word, is_last=is_last) for index in indexes]
        if not any(matches):
            matches = [index.near_matches(word, is_last=is_last) for index in indexes]

        count = 0
        for index, part, matched in zip(indexes, found, matches, strict=True):
            part.append(index.postings(matched))
            count += index.count_items(part[-1])
        frequencies.append(inverse_frequency(n, count))
    return [_summed(index.n, part, frequencies) for index, part in zip(indexes, found, strict=True)]


def _summed(n: int, postings: Sequence[Postings], frequencies: Sequence[float]) -> WordScores:
    """Return the gains of all words, weighted by their frequencies, of each item of n."""
    total = sum(frequencies)
    rows = np.concatenate([part.rows for part in postings])
    gains = np.concatenate(
        [
            part.gains * (frequency / total)
            for part, frequency in zip(postings, frequencies, strict=True)
        ]
    )
    scores = np.asarray(np.bincount(rows, gains, n), np.float64)
    found: Rows = np.flatnonzero(scores > 0.0)
    return WordScores(found, scores[found])


def inverse_frequency(n: int, found: int) -> float:
    """Return the weight of a word that `found` of n items have."""
    return math.log(1.0 + (n - found + 0.5) / (found + 0.5))
