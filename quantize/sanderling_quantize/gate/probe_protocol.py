"""The files that the gate and its child process exchange: JSON, and arrays as safetensors."""

from __future__ import annotations

from typing import Any

import msgspec

from sanderling_quantize.readability import Readability

REQUEST = "request.json"
REPLY = "reply.json"
ARRAYS = "arrays.safetensors"

SLATE = 10
MAX_DEPTH = 1000

NewItem = dict[str, Any]
"""`text`, as the language model read it, and the item's attributes."""

Events = list[tuple[str, str]]
"""A user's history: item ids and kinds of feedback."""


class ProbeRequest(msgspec.Struct, frozen=True):
    """What the child is to compute."""

    bundle: str
    """The folder of the bundle to open."""

    previous: str | None
    """The folder of the release before, for its latency."""

    texts: list[str]
    """Texts to encode."""

    new_items: list[NewItem]
    """Items of the catalog, to place as if the device had added them."""

    catalog_texts: list[str]
    """All texts of the catalog, to measure how well the tokenizer reads them."""

    histories: list[Events]
    """Histories to recommend after."""

    repeats: bool
    """Whether an item of the history may be shown again."""

    memory_bytes: int
    """Limit of the child's address space."""


class ProbeReply(msgspec.Struct, frozen=True):
    """What the child computed, apart from arrays."""

    error: str = ""
    """Why there is nothing else, if so."""

    readability: Readability | None = None
    """How well the bundle's tokenizer reads the catalog's texts."""

    golden_faults: list[str] = []
    """Golden vectors that the bundle does not reproduce, in words."""

    ids: list[str] = []
    """The catalog's item ids, in the order of the rows."""

    rankings: list[list[str]] = []
    """For each history the exploration pool's ids in greedy order, `SLATE` to `MAX_DEPTH` deep."""

    epsilon: float = 0.0
    """The bundle's exploration rate."""

    encode_ms: list[float] = []
    recommend_ms: list[float] = []
    """Median milliseconds of the bundle and of the previous one; empty without one."""
