"""Texts in the JavaScript engine: times, names, words and letters without case are Python's."""

from __future__ import annotations

import math
import unicodedata
from difflib import get_close_matches

from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.ranking.attributes import _seconds
from sanderling.ranking.reasons_text import without_each_word
from sanderling.ranking.text_search.words import words_of
from tests.support.javascript import needs_node

pytestmark = needs_node

# Python takes NUL for the end of a time, wherever it stands.
rest = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
clock = st.from_regex(r"[0-2]\d:?[0-6]\d(:?[0-6]\d([.,]\d{0,9})?)?", fullmatch=True)
offset = st.just("") | st.just("Z") | st.from_regex(r"[+-]\d\d(:?\d\d(:?\d\d)?)?", fullmatch=True)
dates = st.dates().map(str) | st.from_regex(r"[0-2]\d{3}-[01]\d-[0-3]\d", fullmatch=True)
times = st.builds(
    lambda date, separator, time, zone, odd, place: (
        date + separator + time[:place] + odd + time[place:] + zone
    ),
    dates,
    st.sampled_from(["T", " ", "t", ""]),
    clock | st.just(""),
    offset,
    st.just("") | rest,
    st.integers(0, 12),
)

ASSIGNED = [
    chr(code)
    for code in range(0x110000)
    if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
]
"""The characters that Python's version of Unicode knows; newer ones are for each language."""

characters = st.sampled_from(ASSIGNED) | st.sampled_from(" aZéßİς0_'’-")
texts = st.lists(characters, max_size=40).map("".join)
names = st.text("abcé😀_", min_size=1, max_size=12)


@given(times)
@settings(max_examples=400, deadline=None)
def test_times_are_read_as_python_reads_them(node, text):
    """ISO 8601 texts in any form, whole and damaged ones, are the same seconds or no time."""
    seconds = _seconds(text)
    assert node("secondsOf", text) == (None if math.isnan(seconds) else seconds)


@given(names, st.lists(names, max_size=8, unique=True))
@settings(max_examples=200, deadline=None)
def test_names_that_are_near_are_those_of_difflib(node, word, known):
    """An error names the same attributes in both languages."""
    assert node("closeMatches", word, known, 3) == get_close_matches(word, known, 3)


@given(texts, st.sampled_from([3, 16, 256]))
@settings(max_examples=400, deadline=None)
def test_words_are_those_of_python(node, text, at_most):
    """Texts of all scripts have the same words."""
    assert node("wordsOf", text, at_most) == words_of(text, at_most)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_words_are_left_out_as_in_python(node, text):
    """Reasons name the same words, and ask what a text would do without them."""
    assert node("withoutEachWord", text) == [list(pair) for pair in without_each_word(text)]


@given(st.floats(1e-12, 100.0) | st.integers(1, 8000).map(lambda eightieths: eightieths / 80))
@settings(max_examples=400, deadline=None)
def test_probabilities_are_written_as_in_python(node, percent):
    """Two digits of any number, halves between two of them included."""
    assert node("twoDigits", percent) == f"{percent:.2g}"


def test_every_character_has_the_same_words_and_small_letters(node):
    """All characters of Unicode, 256 at a time: case folding, words, and what can be printed."""
    for start in range(0, len(ASSIGNED), 256):
        part = ASSIGNED[start : start + 256]
        text = " ".join(part)
        assert node("casefold", text) == text.casefold()
        assert node("wordsOf", text, 4096) == words_of(text, 4096)
        assert [node("isPrintable", each) for each in part[:8]] == [
            each.isprintable() for each in part[:8]
        ]
