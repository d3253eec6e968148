"""Search by words: against slow references, words of any script, prefixes and typing errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.ranking.text_search.search import words_in
from sanderling.ranking.text_search.vocabulary import Vocabulary
from sanderling.ranking.text_search.word_index import ItemText, WordIndex, word_scores
from sanderling.ranking.text_search.words import words_of
from tests.support.naive_search import (
    naive_begins_one_edit_away,
    naive_is_one_edit,
    naive_word_scores,
)

WORDS = st.text("abcdé1", min_size=1, max_size=6)
TITLES = st.lists(WORDS, max_size=5).map(" ".join)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Men's T-shirt, LARGE", ["men", "s", "t", "shirt", "large"]),
        ("Größe ÉCLAIR ﬁn", ["grosse", "eclair", "fin"]),
        ("हिन्दी फिल्म", ["हिन्दी", "फिल्म"]),
        ("iPhone手机壳", ["iphone", "手", "机", "壳", "手机", "机壳"]),
        ("ｶﾞｽ", ["ガ", "ス", "ガス"]),
        ("영화", ["영", "화", "영화"]),
        ("Ёлка", ["елка"]),
        ("a_b \ud800 !", ["a", "b"]),
        ("", []),
    ],
)
def test_words_of_any_script(text, words):
    """Words are compared without case and accents; scripts without spaces give characters and
    pairs."""
    assert words_of(text, 100) == words
    assert words_of(text, 1) == words[:1]


@given(st.sets(st.text("abc", min_size=1, max_size=5)), st.text("abcd", min_size=1, max_size=5))
def test_words_one_edit_away_are_those_of_the_full_table(vocabulary, word):
    """Words, and words by their beginning, are found exactly where the distance is 1, once each."""
    words = sorted(vocabulary)
    index = Vocabulary(words)
    for is_prefix in (False, True):
        is_near = naive_begins_one_edit_away if is_prefix else naive_is_one_edit
        spans = index.one_edit_away(word, is_prefix=is_prefix)
        found = [words[place] for first, last in spans for place in range(first, last)]
        assert found == [other for other in words if is_near(other, word)]


@settings(max_examples=200)
@given(st.lists(st.tuples(TITLES, TITLES), min_size=1, max_size=12), st.lists(WORDS, max_size=4))
def test_scores_equal_bm25_by_its_definition(items, query):
    """The inverted index gives the scores of a loop over all items and words."""
    words = words_in(" ".join(query))
    if words:
        index = WordIndex([ItemText(*item) for item in items])
        found = word_scores(words, [index])[0]
        fast = np.zeros(len(items))
        fast[found.rows] = found.scores
        assert (found.scores > 0).all()
        slow = naive_word_scores(words, items, len(items))
        np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-7)
