"""What the engine returns: slates with the exact chance of each item, receipts, explanations. Plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec


class SlateItem(msgspec.Struct, frozen=True, gc=False):
    """One recommended item.

    `propensity` is the probability with which this slot drew this item, given the slots above it; `marginal` the
    probability over all slates, None where the scheme has no closed form for it. `rank` is the item's place (from 0) in
    the greedy order, `slot` its place on the slate.
    """

    id: str
    title: str
    score: float
    slot: int
    rank: int
    explored: bool
    propensity: float
    marginal: float | None
    attributes: dict[str, Any] = {}

    def __hash__(self) -> int:
        return hash((self.id, self.slot, self.score))


@dataclass(frozen=True)
class Slate:
    """One decision: its items in order. `decision` is the id under which rewards are joined to it, `pseudonym` the name
    that stood for the user then."""

    decision: str
    user: str
    pseudonym: str
    release: int
    items: tuple[SlateItem, ...]

    def __iter__(self) -> Iterator[SlateItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, slot: int) -> SlateItem:
        return self.items[slot]


class Receipt(NamedTuple):
    """Whether a reward is on the disk, and if not, or not surely, why; true or false as `stored` is."""

    stored: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.stored


@dataclass(frozen=True)
class Explanation:
    """A decision replayed from what it was made of: `same` tells that slate and propensities came out bit for bit."""

    decision: str
    release: int
    scheme: str
    epsilon: float
    pool: int
    eligible: int
    greedy: tuple[str, ...]
    slate: tuple[SlateItem, ...]
    same: bool
