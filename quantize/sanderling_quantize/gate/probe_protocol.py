"""What the gate asks its child and what the child says: JSON, and arrays as safetensors.

Refuses to know how questions are answered.
"""

from __future__ import annotations

import msgspec

QUESTION, WORDS, ARRAYS = "question.json", "words.json", "arrays.safetensors"
SLATE = 10
DEEPEST = 1000

Events = list[tuple[str, str]]


class Question(msgspec.Struct, frozen=True):
    """The bundle to open (and the one before it, for its latency), texts to encode, and histories (item id, kind) to
    recommend after; without `repeats` an item of the history is not shown again."""

    bundle: str
    previous: str | None
    texts: list[str]
    histories: list[Events]
    repeats: bool
    memory_bytes: int


class ProbeReply(msgspec.Struct, frozen=True):
    """The answer as far as it is words; `fault` says why there is no other. `rankings` are the ids of the exploration
    pool in greedy order, at least `SLATE` and at most `DEEPEST` deep. `encode` and `recommend` are the median
    milliseconds of the bundle and of the previous one, empty without one."""

    fault: str = ""
    golden: list[str] = []
    ids: list[str] = []
    rankings: list[list[str]] = []
    epsilon: float = 0.0
    encode: list[float] = []
    recommend: list[float] = []
