"""Search in one catalog: words, meaning and the user's taste in one exact top-k.

The score of item i for a query is

    sum_q idf(q) g(q, i) / sum_q idf(q)  +  w_m z(p · v_i)  +  w_u z(u · v_i + b_i)

over the words q of the query, where g is the gain of BM25, p the query's vector from the encoder, u
the user vector, and z(x) subtracts the mean over the bundle's items and divides by the standard
deviation. All but the first term is linear in v_i, so that the index of int8 rows finds the exact
best with the rest as biases. See docs/MATH.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.rebiased_index import RebiasedIndex
from sanderling.ranking.score_statistics import ScoreStatistics
from sanderling.ranking.scorer import Masks, Scorer
from sanderling.ranking.search_types import RowMask, SearchResult, merged
from sanderling.ranking.text_search.word_index import ItemText, WordIndex, word_scores
from sanderling.ranking.text_search.words import words_of

Vector = NDArray[np.float32]
Floats = NDArray[np.float64]

MAX_QUERY = 512  # characters
MAX_QUERY_WORDS = 16  # distinct ones

MEANING_WEIGHT = 0.05  # w_m
TASTE_WEIGHT = 0.02  # w_u

NOT_SEARCHED = {"id", "title", "added_ms"}


class SearchedBundle:
    """What searches in all catalogs of one bundle share."""

    def __init__(self, scorer: Scorer) -> None:
        index = scorer.index
        self.words = WordIndex(map(item_text, scorer.bundle.records()))
        self.vectors = RebiasedIndex(index.rows, index.scale)
        self.statistics = ScoreStatistics(index)


class TextSearch:
    """Searches one catalog: that of the bundle, and what the device added. Thread-safe."""

    def __init__(self, scorer: Scorer, bundle: SearchedBundle | None = None) -> None:
        self.scorer = scorer
        self.bundle = bundle or SearchedBundle(scorer)
        added = scorer.overlay.index
        self._words = WordIndex(
            map(item_text, scorer.overlay.added), self.bundle.words.average_length
        )
        self._vectors = RebiasedIndex(added.rows, added.scale)

    def search(
        self, query: str, k: int, user: Vector, meaning: Vector | None, masks: Masks
    ) -> SearchResult:
        """Return the k best rows for a query, the vector [d] of a user and that of the query.

        Without the latter only items with a word of the query are found. `masks` hide rows of the
        bundle and of the added items.
        """
        words = words_in(query)
        if not words:
            return SearchResult(np.empty(0, np.int64), np.empty(0), 0)
        found, found_added = word_scores(words, [self.bundle.words, self._words])
        taste = self.bundle.statistics.of(user, 1.0)
        by_user = TASTE_WEIGHT / taste.deviation if taste.deviation > 0 else 0.0
        vector = by_user * user
        offset = by_user * taste.mean
        if meaning is not None:
            spread = self.bundle.statistics.of(meaning, 0.0)
            by_meaning = MEANING_WEIGHT / spread.deviation if spread.deviation > 0 else 0.0
            vector = vector + by_meaning * meaning
            offset += by_meaning * spread.mean

        vector = vector.astype(np.float32)
        mask, added_mask = masks
        bias = found + by_user * self.scorer.index.bias - offset
        best = self.bundle.vectors.top(
            vector, bias.astype(np.float32), k, _mask(found, meaning, mask)
        )
        if not self._words.n:
            return best
        bias = found_added + by_user * self.scorer.overlay.index.bias - offset
        added = self._vectors.top(
            vector, bias.astype(np.float32), k, _mask(found_added, meaning, added_mask)
        )
        return merged(best, added, self.bundle.words.n, k)

    def warm_up(self) -> None:
        """Compile and pack what the first search would otherwise wait for."""
        self.search(
            "a", 1, np.zeros(self.scorer.bundle.manifest.sizes.dim, np.float32), None, (None, None)
        )


def words_in(query: str) -> list[str]:
    """Return the distinct words of a query that are searched for."""
    words = words_of(query[:MAX_QUERY], MAX_QUERY)
    return list(dict.fromkeys(words))[:MAX_QUERY_WORDS]


def item_text(record: Mapping[str, Any]) -> ItemText:
    """Return what is indexed of an item: its title, and the texts of its other attributes."""
    title = str(record.get("title", ""))
    texts = [
        text
        for name, value in record.items()
        if name not in NOT_SEARCHED
        for text in _texts(value)
        if text != title and "://" not in text
    ]
    return ItemText(title, " ".join(texts))


def _texts(value: Any) -> Iterable[str]:
    """Return the texts of an attribute's value, itself or the elements of a list."""
    values = value if isinstance(value, list) else [value]
    return (text for text in values if isinstance(text, str))


def _mask(found: Floats, meaning: Vector | None, mask: RowMask | None) -> RowMask | None:
    """Return which rows may not be found: without a meaning those that have no word, too."""
    if meaning is not None:
        return mask
    hidden = found == 0.0
    if mask is not None:
        hidden |= mask.hidden
    return RowMask(hidden)
