"""What words do to a score, and what two items of the catalog have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from sanderling.ranking.added_items import vectors_of_new
from sanderling.ranking.index import Int8Index
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.scorer import CatalogItem, Scorer, Vector
from sanderling.reasons import SharedTrait, WordReason

MAX_WORDS = 32
"""Words of a text that are left out, one after the other: each costs an encoding."""

SAMPLED_ITEMS = 256
"""Items of the catalog that show how usual a trait is."""

MAX_SHARE = 0.3
"""What more of the sample have tells nothing about two items."""

MAX_SHARE_OF_TITLES = 0.1
"""The same of words of titles: that many have an article, or a year."""

SHORTEST_WORD = 3
"""Letters of a shared word at least."""

MAX_SHARED = 5
"""Shared traits that are named for one event."""

OWN_FIELDS = ("text", "added_ms")
"""Fields of an added item that are no attributes."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*")

Trait = tuple[str, str]


def without_each_word(text: str) -> Iterator[tuple[str, str]]:
    """Yield the first `MAX_WORDS` different words of a text, in lower case, each with the text
    without all its occurrences and a blank beside each."""
    words = [match.group().casefold() for match in _WORD.finditer(text)]
    for word in list(dict.fromkeys(words))[:MAX_WORDS]:
        left = ""
        end = 0
        for match in _WORD.finditer(text):
            if match.group().casefold() == word:
                left += text[end : match.start()].removesuffix(" ")
                end = match.end()
        yield word, (left + text[end:]).removeprefix(" ")


def context_words(
    scorer: Scorer, text: str, score: float, score_of: Callable[[Vector | None], float]
) -> list[WordReason]:
    """Return what the words of a context did to a score; `score_of` scores a context's vector."""
    reasons = []
    for word, left in without_each_word(text):
        vector = scorer.encoder.encode(left, keep=False) if left else None
        reasons.append(WordReason(word, "context", score - score_of(vector)))
    return reasons


def item_words(scorer: Scorer, user: Vector, row: int, score: float) -> list[WordReason]:
    """Return what the words of its own text did to the score of an item that this device added.

    Nothing for items of the bundle: what training learned of them is not in their texts.
    """
    added = row - scorer.bundle.manifest.sizes.items
    if added < 0:
        return []
    item = scorer.overlay.added[added]["id"]
    # As it was added: what the app changed since has not moved its vector.
    record = next(record for record in scorer.overlay.records if record["id"] == item)
    text = str(record["text"])
    title = record.get("title")
    bias = scorer.overlay.index.bias[added : added + 1]
    reasons = []
    for word, left in without_each_word(text):
        without = {**record, "text": left, "title": left if title == text else title}
        rows, scale = quantize_rows(
            vectors_of_new(scorer.bundle, scorer.encoder, [without], keep=False)
        )
        other = Int8Index(rows, scale, bias).score(user, 0)
        reasons.append(WordReason(word, "text", score - other))
    return reasons


class SharedTraits:
    """Finds what an item shares with others, and how usual that is in a catalog."""

    def __init__(self, scorer: Scorer, row: int) -> None:
        self._scorer = scorer
        self._own = traits(scorer.item(row))

    def with_item(self, row: int) -> tuple[SharedTrait, ...]:
        """Return what the item shares with that of another row, rarest first."""
        shared = self._own & traits(self._scorer.item(row))
        whole = {(field, word) for field, text in shared for word in _parts(text)}
        shared -= whole  # of a text that both have, its words say nothing more
        sample, size = self._sample
        found = [SharedTrait(*trait, sample[trait] / size) for trait in shared]
        found = [trait for trait in found if trait.share <= _max_share(trait.field)]
        found.sort(key=lambda trait: (trait.share, trait.field, trait.value))
        return tuple(found[:MAX_SHARED])

    @cached_property
    def _sample(self) -> tuple[Counter[Trait], int]:
        """How many items of an even sample of the bundle's have each trait, and its size."""
        n = self._scorer.bundle.manifest.sizes.items
        rows = sorted(set(np.linspace(0, n - 1, min(n, SAMPLED_ITEMS)).astype(int).tolist()))
        counts: Counter[Trait] = Counter()
        for row in rows:
            counts.update(traits(self._scorer.item(row)))
        return counts, len(rows)


def _parts(text: str) -> list[str]:
    """Return the words of a text of several, [] for a single word."""
    words = _WORD.findall(text)
    return [] if words == [text] else words


def _max_share(field: str) -> float:
    return MAX_SHARE_OF_TITLES if field == "title" else MAX_SHARE


def traits(item: CatalogItem) -> set[Trait]:
    """Return the fields and values, in lower case, in which an item may agree with another.

    Of texts each word and the whole, of lists each text. Numbers are left out: the same price is a
    coincidence.
    """
    fields: Mapping[str, Any] = {**item.attributes, "title": item.title}
    found: set[Trait] = set()
    for field, value in fields.items():
        if field == "id" or field in OWN_FIELDS:
            continue
        if isinstance(value, str):
            text = " ".join(value.casefold().split())
            found.update((field, part) for part in (text, *_WORD.findall(text)))
        elif isinstance(value, list):
            found.update((field, entry.casefold()) for entry in value if isinstance(entry, str))
    return {(field, value) for field, value in found if len(value) >= SHORTEST_WORD}
