"""Loop-based references for the search by words and its fusion, each written as its definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sanderling.ranking.text_search.words import is_unspaced, words_of


def naive_is_one_edit(first: str, second: str) -> bool:
    """Return whether the restricted Damerau-Levenshtein distance is 1, by the full table."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if not i or not j:
                table[i][j] = i + j
                continue
            differs = first[i - 1] != second[j - 1]
            ways = [
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + differs,
            ]
            swapped = i > 1 and j > 1 and first[i - 1] == second[j - 2]
            if swapped and first[i - 2] == second[j - 1]:
                ways.append(table[i - 2][j - 2] + 1)
            table[i][j] = min(ways)
    return table[-1][-1] == 1


def naive_begins_one_edit_away(word: str, prefix: str) -> bool:
    """Return whether some beginning of a word is one edit from a prefix."""
    return any(naive_is_one_edit(word[:end], prefix) for end in range(len(word) + 1))


def naive_weights(query: str, vocabulary: set[str], *, is_last: bool) -> dict[str, float]:
    """Return the words that a word of a query matches, and what they weigh."""
    weights = {query: 1.0} if query in vocabulary else {}
    if is_last and not is_unspaced(query):
        longer = {word for word in vocabulary if word.startswith(query) and word != query}
        weights |= dict.fromkeys(longer, 0.8)
    has_errors = len(query) >= 4 and not is_unspaced(query) and not any(map(str.isdigit, query))
    if not weights and has_errors:
        near = {word for word in vocabulary if naive_is_one_edit(word, query)}
        if not near and is_last:
            near = {word for word in vocabulary if naive_begins_one_edit_away(word, query)}
        weights = dict.fromkeys(near, 0.8)
    return weights


def naive_word_scores(
    query: Sequence[str], items: Sequence[tuple[str, str]], average_of: int
) -> list[float]:
    """Return the share of a query's words that each item (title, attributes) has, by BM25.

    The average length is that of the first `average_of` items.
    """
    bags: list[dict[str, float]] = []
    for title, attributes in items:
        bag: dict[str, float] = {}
        for word in words_of(title, 256):
            bag[word] = bag.get(word, 0.0) + 1.0
        for word in words_of(attributes, 256):
            bag[word] = bag.get(word, 0.0) + 0.5
        bags.append(bag)
    vocabulary = {word for bag in bags for word in bag}
    average = sum(sum(bag.values()) for bag in bags[:average_of]) / average_of or 1.0

    scores = [0.0] * len(items)
    total = 0.0
    for place, word in enumerate(query):
        weights = naive_weights(word, vocabulary, is_last=place == len(query) - 1)
        found = sum(any(other in bag for other in weights) for bag in bags)
        frequency = math.log(1 + (len(items) - found + 0.5) / (found + 0.5))
        total += frequency
        for i, bag in enumerate(bags):
            norm = 0.9 * (1 - 0.4 + 0.4 * sum(bag.values()) / average)
            for other, weight in weights.items():
                if other in bag:
                    scores[i] += frequency * weight * bag[other] * 1.9 / (bag[other] + norm)
    return [score / total for score in scores]
