"""Search in one catalog: words, meaning and the user's taste in one exact top-k.

The score of item i for a query is

    sum_q idf(q) g(q, i) / sum_q idf(q)  +  w_m z(p · v_i)  +  w_u / m z(u · v_i + b_i)

over the m words q of the query, where g is the gain of BM25, p the query's vector from the encoder,
u the user vector, and z(x) subtracts the mean over the bundle's items and divides by the standard
deviation. All but the first term is linear in v_i, so that the index of int8 rows finds the exact
best with the rest as biases. See docs/MATH.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels.layout import MAX_VALUE
from sanderling.ranking.eligibility import Masks
from sanderling.ranking.rebiased_index import RebiasedIndex
from sanderling.ranking.score_statistics import ScoreStatistics
from sanderling.ranking.scorer import Scorer
from sanderling.ranking.search_types import RowMask, SearchResult, merged
from sanderling.ranking.text_search.word_index import ItemText, WordIndex, WordScores, word_scores
from sanderling.ranking.text_search.words import words_of

Vector = NDArray[np.float32]

MAX_QUERY = 512  # characters
MAX_QUERY_WORDS = 16  # distinct ones

MEANING_WEIGHT = 0.03  # w_m
TASTE_WEIGHT = 0.02  # w_u, for a query of one word; more words leave less to taste

NOT_SEARCHED = {"id", "title", "added_ms"}


class _Blend(NamedTuple):
    """The part of the score that is linear in an item's vector: `unit (query · v + b) - offset`."""

    query: Vector
    unit: float
    offset: float

    needs_words: bool
    """Whether only items with a word of the query may be found."""

    def best(
        self, index: RebiasedIndex, k: int, words: WordScores, mask: RowMask | None
    ) -> SearchResult:
        """Return the k rows of an index with the best sum of both parts of the score."""
        if self.needs_words:
            hidden = np.ones(index.n, np.bool_)
            hidden[words.rows] = False
            mask = RowMask(hidden if mask is None else hidden | mask.hidden)
        raised_by = np.minimum(words.scores / self.unit, MAX_VALUE)
        rows, scores, eligible = index.top(self.query, k, words.rows, raised_by, mask)
        return SearchResult(rows, scores * self.unit - self.offset, eligible)


def _blend(statistics: ScoreStatistics, user: Vector, meaning: Vector | None, words: int) -> _Blend:
    """Return what a user vector [d], and the vector [d] of a query if there is one, add to a number
    of words."""
    taste = statistics.of(user, 1.0)
    unit = TASTE_WEIGHT / words / taste.deviation
    offset = unit * taste.mean
    query = user.astype(np.float64)
    if meaning is not None:
        nearness = statistics.of(meaning, 0.0)
        by_meaning = MEANING_WEIGHT / nearness.deviation
        query = query + by_meaning / unit * meaning
        offset += by_meaning * nearness.mean
    return _Blend(query.astype(np.float32), unit, offset, meaning is None)


class SearchedBundle:
    """What searches in all catalogs of one bundle share."""

    def __init__(self, scorer: Scorer) -> None:
        index = scorer.index
        self.words = WordIndex(map(item_text, scorer.bundle.records()))
        self.vectors = RebiasedIndex(index)
        self.statistics = ScoreStatistics(index)


class TextSearch:
    """Searches one catalog: that of the bundle, and what the device added. Thread-safe."""

    def __init__(self, scorer: Scorer, bundle: SearchedBundle | None = None) -> None:
        self.scorer = scorer
        self.bundle = bundle or SearchedBundle(scorer)
        self._words = WordIndex(
            map(item_text, scorer.overlay.added), self.bundle.words.average_length
        )
        self._vectors = RebiasedIndex(scorer.overlay.index)
        changed = _changed_texts(scorer)
        self._changed_rows = np.array(list(changed), np.int64)
        self._changed_words = WordIndex(changed.values(), self.bundle.words.average_length)

    def search(
        self, query: str, k: int, user: Vector, meaning: Vector | None, masks: Masks
    ) -> SearchResult:
        """Return the k best rows for a query, the vector [d] of a user and that of the query [t].

        Without the latter only items with a word of the query are found. `masks` hide rows of the
        bundle and of the added items.
        """
        words = words_in(query)
        if not words:
            return SearchResult(np.empty(0, np.int64), np.empty(0), 0)
        found, found_added = self._word_scores(words)
        if meaning is not None:
            meaning = self.scorer.bundle.policy["item.project"] @ meaning
        blend = _blend(self.bundle.statistics, user, meaning, len(words))
        mask, added_mask = masks
        best = blend.best(self.bundle.vectors, k, found, mask)
        if not self._words.n:
            return best
        added = blend.best(self._vectors, k, found_added, added_mask)
        return merged(best, added, self.bundle.words.n, k)

    def _word_scores(self, words: list[str]) -> tuple[WordScores, WordScores]:
        """Return the scores of the bundle's items, as they are on this device, and of added ones.

        An item whose texts have changed counts twice among the items that have a word.
        """
        indexes = [self.bundle.words, self._words, self._changed_words]
        found, found_added, found_changed = word_scores(words, indexes)
        if len(self._changed_rows):
            is_unchanged = ~np.isin(found.rows, self._changed_rows)
            found = WordScores(
                np.append(found.rows[is_unchanged], self._changed_rows[found_changed.rows]),
                np.append(found.scores[is_unchanged], found_changed.scores),
            )
        return found, found_added

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


def _changed_texts(scorer: Scorer) -> dict[int, ItemText]:
    """Return what is indexed of the bundle's items of which texts may have changed, by row."""
    return {
        row: item_text({**scorer.bundle.record(row), **attributes})
        for row, attributes in scorer.overlay.changed.items()
        # A number keeps its type when it changes, so it was no text before.
        if any(value is None or isinstance(value, str | list) for value in attributes.values())
    }


def _texts(value: Any) -> Iterable[str]:
    """Return the texts of an attribute's value, itself or the elements of a list."""
    values = value if isinstance(value, list) else [value]
    return (text for text in values if isinstance(text, str))
