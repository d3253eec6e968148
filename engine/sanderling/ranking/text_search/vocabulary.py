"""The distinct words of a catalog in their order: exact words, prefixes, and words one edit away.

An edit replaces, inserts or leaves out one character, or swaps two neighbours (the restricted
distance of Damerau and Levenshtein).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

CACHED_PREFIXES = 4096  # whose next characters are kept
BEYOND = "\U0010ffff"  # no character sorts behind it, and no word has it


class Span(NamedTuple):
    """The words `first` to `last - 1`, by their place in the order."""

    first: int
    last: int


class Vocabulary:
    """The words of a catalog. Immutable but for a cache; thread-safe."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        """Distinct and ascending."""
        self._next_characters = lru_cache(maxsize=CACHED_PREFIXES)(self._read_next_characters)

    def find(self, word: str) -> int | None:
        """Return the place of a word, or None."""
        place = bisect_left(self.words, word)
        is_known = place < len(self.words) and self.words[place] == word
        return place if is_known else None

    def with_prefix(self, prefix: str) -> Span:
        """Return the span of the words that begin with a prefix."""
        return self._narrow(Span(0, len(self.words)), prefix)

    def one_edit_away(self, word: str, *, is_prefix: bool = False) -> list[Span]:
        """Return spans of the words that are one edit from `word`, or that begin with such a word
        if it `is_prefix`; they do not overlap, and the word itself is in none.

        A word whose beginning is one edit from `word` may also begin with `word`.
        """
        edited = {text for text in self._edits(word) if text != word}
        if not is_prefix:
            places = sorted(place for place in map(self.find, edited) if place is not None)
            return [Span(place, place + 1) for place in places]

        spans: list[Span] = []
        for text in sorted(edited):
            span = self.with_prefix(text)
            # Sorted, so that a longer beginning comes after the shorter one that covers it.
            if span.first < span.last and (not spans or span.first >= spans[-1].last):
                spans.append(span)
        return spans

    def _edits(self, word: str) -> Iterator[str]:
        """Yield the texts one edit from `word` up to where no word continues as they begin."""
        span = Span(0, len(self.words))
        for i in range(len(word) + 1):
            head = word[:i]
            tail = word[i:]
            span = self._narrow(span, head)
            if span.first == span.last:
                return
            if tail:
                yield head + tail[1:]
            if len(tail) > 1:
                yield head + tail[1] + tail[0] + tail[2:]
            for character in self._next_characters(head):
                yield head + character + tail
                if tail:
                    yield head + character + tail[1:]

    def _read_next_characters(self, prefix: str) -> tuple[str, ...]:
        """Return the characters that follow a prefix in some word."""
        characters = []
        place, last = self.with_prefix(prefix)
        while place < last:
            word = self.words[place]
            if len(word) == len(prefix):  # the prefix itself is a word
                place += 1
                continue
            characters.append(word[len(prefix)])
            place = self._narrow(Span(place, last), word[: len(prefix) + 1]).last
        return tuple(characters)

    def _narrow(self, span: Span, prefix: str) -> Span:
        """Return the words of a span that begin with a prefix."""
        first = bisect_left(self.words, prefix, span.first, span.last)
        return Span(first, bisect_left(self.words, prefix + BEYOND, first, span.last))
