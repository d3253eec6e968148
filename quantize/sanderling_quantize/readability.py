"""How much of a catalog's texts a tokenizer can read: unknown characters, words spelled letter by
letter, and different texts that become the same tokens.

Needs the library `tokenizers` alone, so that the gate's child can measure without the lab's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sanderling.ranking.text_encoder import MAX_CHARACTERS

MAX_UNKNOWN = 0.05
MAX_SPELLED = 0.40
MAX_IDENTICAL = 0.05
"""Above these shares texts are refused. By all-MiniLM English, German and French titles have at
most .004, .04 and 0, Turkish .2 spelled; Chinese .65 unknown, Russian .89 spelled
(docs/RESULTS.md)."""

CHUNK = 4096
SAMPLE = 10_000
EXAMPLES = 2
WORD_STARTS = ("▁", "Ġ")
EXAMPLE_CHARACTERS = 40


@dataclass(frozen=True)
class Readability:
    """What a tokenizer makes of texts; shares are between 0 and 1, 0 where there is no text."""

    texts: int
    """Distinct texts."""

    unknown: float
    """Share of the characters, without spaces, that are in an unknown token."""

    spelled: float
    """Share of the letters that have a token of their own or several, as in a script of which the
    model knows the alphabet but no words. Ideographs and Hangul syllables count where they have
    several: one is what a character of these scripts has."""

    identical: float
    """Share of the texts whose tokens another text has, though letters or digits differ."""

    examples: tuple[str, ...]
    """Two texts that are read worst; where texts become identical, two of these."""

    def is_readable(self) -> bool:
        """Return whether all shares are within their bounds."""
        return (
            self.unknown <= MAX_UNKNOWN
            and self.spelled <= MAX_SPELLED
            and self.identical <= MAX_IDENTICAL
        )

    def sentence(self) -> str:
        """Return the first share beyond its bound, with two texts; of all without one, the first.

        The sentence is to follow "the language model cannot read", and ends without a full stop.
        """
        kinds = [
            (self.unknown, MAX_UNKNOWN, "of the characters are unknown to it"),
            (self.spelled, MAX_SPELLED, "of the letters are tokens of their own, not of words"),
            (self.identical, MAX_IDENTICAL, "of the texts have the same tokens as another"),
        ]
        share, limit, words = next((kind for kind in kinds if kind[0] > kind[1]), kinds[0])
        examples = " and ".join(repr(text[:EXAMPLE_CHARACTERS]) for text in self.examples)
        return f"{share:.1%} {words} (at most {limit:.0%}), as in {examples or 'no text'}"

    def summary(self) -> str:
        """Return the three shares in words."""
        return (
            f"{self.unknown:.1%} of characters unknown, {self.spelled:.1%} of letters spelled,"
            f" {self.identical:.1%} of texts identical"
        )


def measure(tokenizer: Any, texts: Sequence[str]) -> Readability:
    """Return what a `tokenizers.Tokenizer` makes of texts, which it reads uncut.

    Identical texts are looked for among all, characters counted in at most 10,000.
    """
    import tokenizers

    # a copy: to cut and to pad are settings of the tokenizer itself
    reader = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    reader.no_truncation()
    reader.no_padding()

    distinct = [_clean(text) for text in dict.fromkeys(texts)]
    step = max(1, len(distinct) // SAMPLE)
    unknown_id = _unknown_id(reader)
    total = _Counts()
    worst: list[tuple[float, str]] = []
    first_with: dict[bytes, str] = {}
    identical: set[str] = set()
    pair: tuple[str, ...] = ()
    for row, (text, encoding) in enumerate(_encodings(reader, distinct)):
        if row % step == 0:
            counts = _Counts.of(text, encoding, unknown_id)
            total.add(counts)
            worst = sorted([*worst, (-counts.unreadable(), text)])[:EXAMPLES]

        key = hashlib.blake2b(json.dumps(encoding.ids).encode(), digest_size=16).digest()
        other = first_with.setdefault(key, text)
        if other is not text and _letters(reader, other) != _letters(reader, text):
            identical |= {other, text}
            pair = pair or (other, text)
    return Readability(
        texts=len(distinct),
        unknown=total.unknown / max(1, total.characters),
        spelled=total.spelled / max(1, total.letters),
        identical=len(identical) / max(1, len(distinct)),
        examples=pair or tuple(text for _, text in worst),
    )


@dataclass
class _Counts:
    """Characters of texts by how they are read."""

    characters: int = 0
    unknown: int = 0
    letters: int = 0
    spelled: int = 0

    @staticmethod
    def of(text: str, encoding: Any, unknown_id: int | None) -> _Counts:
        """Count the characters of one text; `encoding` is what the tokenizer made of it."""
        tokens = [0] * len(text)
        alone = [False] * len(text)
        unknown = [False] * len(text)
        for token, name, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.offsets, strict=True
        ):
            # the mark of a word's start may be a token by itself, at the place of the first letter
            if name in WORD_STARTS:
                continue
            for place in range(start, stop):
                tokens[place] += 1
                alone[place] |= stop - start == 1
                unknown[place] |= token == unknown_id

        counts = _Counts()
        for place, character in enumerate(text):
            if character.isspace():
                continue
            counts.characters += 1
            counts.unknown += unknown[place]
            if character.isalpha():
                counts.letters += 1
                apart = tokens[place] > 1 if _is_syllable(character) else alone[place]
                counts.spelled += apart and not unknown[place]
        return counts

    def add(self, other: _Counts) -> None:
        """Add the counts of another text."""
        self.characters += other.characters
        self.unknown += other.unknown
        self.letters += other.letters
        self.spelled += other.spelled

    def unreadable(self) -> float:
        """Return the share of characters that are unknown or spelled."""
        return (self.unknown + self.spelled) / max(1, self.characters)


def _encodings(reader: Any, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield each text with its encoding, without the tokens that mark start and end."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        encodings = reader.encode_batch(chunk, add_special_tokens=False)
        yield from zip(chunk, encodings, strict=True)


def _unknown_id(reader: Any) -> int | None:
    """Return the id of the token for what the vocabulary lacks; None where there is none."""
    model = json.loads(reader.to_str())["model"]
    if model.get("unk_token") is not None:
        found: int | None = reader.token_to_id(model["unk_token"])
        return found
    return model.get("unk_id")


def _letters(reader: Any, text: str) -> str:
    """Return letters and digits as the tokenizer normalizes them: what it leaves out on purpose,
    such as case, is no difference."""
    normalized = reader.normalizer.normalize_str(text) if reader.normalizer else text
    return "".join(filter(str.isalnum, normalized))


def _is_syllable(character: str) -> bool:
    """Return whether one character stands for a syllable or a word: Han and Hangul."""
    code = ord(character)
    return (
        0x3400 <= code <= 0x9FFF
        or 0xAC00 <= code <= 0xD7A3
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
    )


def _clean(text: str) -> str:
    """Return what a device's encoder would read of a text, which may be any string."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
