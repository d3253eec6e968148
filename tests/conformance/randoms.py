"""Random inputs of cases. Only `Random.random` and `getrandbits` and exact arithmetic are used, so
that every machine and version makes the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sanderling.runtime.clock import uuid7

Element = TypeVar("Element")

START_MS = 1_750_000_000_000

HOSTILE_TEXTS = [
    "", " ", "\t\n\r", "a", "A", "ß", "İstanbul", "größe 42 ☂", "日本語のテキスト", "한국어", "ไทย",
    "مرحبا بالعالم", "e\u0301clair", "\u00e9clair", "\U0001f469\u200d\U0001f467 family", "🇩🇪",
    "\u200bzero\u200bwidth", "\ufeffbom", "\u202ertl", "null\0byte", "\x01\x02\x7f", "a" * 200,
    "x " * 120, "1,234.56", "C++", "don't", "co-operate", "foo_bar", "email@example.com",
    "https://example.com/a?b=c", "½ ² ™", "\uff21\uff22", "ﬁne", "Ǆ", "ſ", "Ω Ω", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "\U0010ffff", "\ufffd", "[CLS] [SEP] [MASK]", "[PAD]", "[UNK]", "##ing", "\u3000wide",
    "a\u00a0b", "\u2028line", "\r\n", "'\"\\/", "<b>html</b>",
]  # fmt: skip
"""Texts at which tokenizers, JSON and hashes of other languages may differ."""

WORDS = [
    "red", "green", "blue", "black", "white", "trail", "shoe", "warm", "jacket", "camping", "tent",
    "mystery", "novel", "jazz", "album", "film", "sea", "coffee", "rainy", "sunday", "evening",
    "whale", "island", "night", "love", "war", "machine", "42", "2024", "größe", "café",
]  # fmt: skip


def pick(rng: Random, options: Sequence[Element]) -> Element:
    """Return one of some options."""
    return options[int(rng.random() * len(options))]


def whole(rng: Random, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def some(rng: Random, options: Sequence[Element], count: int) -> list[Element]:
    """Return `count` different ones of some options, in random order."""
    left = list(options)
    return [left.pop(int(rng.random() * len(left))) for _ in range(min(count, len(left)))]


def vector(rng: Random, size: int, magnitude: float = 1.0) -> NDArray[np.float32]:
    """Return float32 [size], uniform within ± magnitude."""
    return np.array(
        [magnitude * (2.0 * rng.random() - 1.0) for _ in range(size)], np.float64
    ).astype(np.float32)


def unit_vector(rng: Random, size: int) -> NDArray[np.float32]:
    """Return float32 [size] of length 1, as the encoder's are."""
    numbers = vector(rng, size).astype(np.float64)
    return (numbers / np.sqrt((numbers * numbers).sum())).astype(np.float32)


def decision_id(rng: Random) -> str:
    """Return a UUID of version 7 within a year of `START_MS`."""
    now_ms = START_MS + int(rng.random() * 365 * 86_400_000)
    return uuid7(now_ms, lambda size: bytes(rng.getrandbits(8) for _ in range(size)))


def hex_id(rng: Random) -> str:
    """Return 32 random hex digits."""
    return f"{rng.getrandbits(128):032x}"


def text(rng: Random) -> str:
    """Return a text of a few words, or a hostile one."""
    if rng.random() < 0.3:
        return pick(rng, HOSTILE_TEXTS)
    words = [pick(rng, WORDS) for _ in range(whole(rng, 1, 8))]
    return pick(rng, [" ", " ", "  ", ", ", "-"]).join(words)


def any_text(rng: Random) -> str:
    """Return up to 12 characters from all of Unicode, surrogates left out."""
    ranges: list[Any] = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x52F), (0x4E00, 0x9FFF)]
    ranges += [(0x1F300, 0x1F6FF), (0x0, 0x1F), (0x2000, 0x206F), (0x10000, 0x10FFFF)]
    return "".join(chr(whole(rng, *pick(rng, ranges))) for _ in range(whole(rng, 1, 12)))
