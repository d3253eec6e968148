"""Why an item stands in its slot, as data; `docs/REASONS.md` explains every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class SharedTrait:
    """What two items have in common: a description, not a cause of the score."""

    field: str
    """The field of the catalog: `title` or an attribute."""

    value: str
    """The text, word of a text, or entry of a list that both have there, in lower case."""

    share: float
    """The share of a sample of the catalog's items that have it."""


@dataclass(frozen=True)
class EventReason:
    """What one past event did to the item's score."""

    item: str
    """The id of the event's item."""

    title: str
    """Its title, its id where the catalog has none."""

    kind: str
    """The kind of behaviour."""

    ago: int
    """How many events before the decision: 1 is the latest."""

    effect: float
    """The item's score less what it would be had this event never happened."""

    shared: tuple[SharedTrait, ...] = ()
    """What the event's item and this one have in common, rarest first."""


@dataclass(frozen=True)
class WordReason:
    """What one word of a text did to the item's score."""

    word: str
    """The word, in lower case."""

    source: str
    """Where it stands: `context`, or `text` for the text of an item that this device added."""

    effect: float
    """The item's score less what it would be had the text not had this word."""


@dataclass(frozen=True)
class PopularityReason:
    """What the item's bias, which is the same for every user, did to its score."""

    bias: float
    """The bias, a term of the score."""

    above_mean: float
    """The bias less the mean bias of the bundle's items."""

    percentile: float
    """The share of the bundle's items that have a lower bias."""


@dataclass(frozen=True)
class GreedyChoice:
    """What a slot would have shown without exploration, under the same rules."""

    id: str
    """The item's id."""

    title: str
    """The item's title."""

    score: float
    """The item's score for the user."""


@dataclass(frozen=True)
class Reasons:
    """Why a slate shows an item in a slot."""

    decision: str
    """The id of the decision."""

    release: int
    """The release that decided."""

    item: str
    """The item's id."""

    title: str
    """The item's title."""

    slot: int
    """The slot, from 0."""

    sentence: str
    """All of it in one sentence of English."""

    score: float
    """The item's score for the user, boosts included."""

    boost: float
    """What the app's boosts added to it; the effects below are on the rest."""

    history_effect: float
    """The score less that of a user without events, in the same context."""

    events: tuple[EventReason, ...]
    """The events that the device has kept, the one that raised the score most first."""

    events_known: int
    """How many events are kept."""

    events_total: int
    """How many events made the user's state; the older ones are not kept one by one."""

    older_effect: float
    """The score less what it would be without the events that are not kept; 0 where all are."""

    is_exact: bool
    """Whether the kept events make the user's state bit for bit, so that each effect of an event is
    exact to the last bit. Otherwise it is exact up to the rounding of what older events left."""

    popularity: PopularityReason

    context_effect: float | None
    """The score less that without the context; None without one."""

    words: tuple[WordReason, ...]
    """The words of the context, and of the item's text where this device added the item, the one
    that raised the score most first. The first 32 words of each text are tried."""

    learned_effect: float | None
    """The score less that without what this device learned from rewards; None without `adapt`."""

    rank: int
    """The place in the greedy order, as on the slate."""

    eligible: int
    """How many items were eligible."""

    pool: int
    """How many of the best items exploration could draw from."""

    scheme: str
    """The exploration scheme."""

    epsilon: float
    """The scheme's probability of exploring."""

    explored: bool
    """Whether exploration chose the item."""

    newcomer: bool
    """Whether the quota for newcomers chose it."""

    pinned: bool
    """Whether the app pinned it to the slot."""

    propensity: float
    """The probability with which this slot drew this item, given the slots above it."""

    marginal: float | None
    """The probability over all slates, None without a closed form."""

    greedy: GreedyChoice | None
    """What this slot would have shown without exploration."""

    rules: dict[str, Any]
    """The rules in force in this slot, by name."""

    passed_over: int
    """How many items of a better score rules kept out of the pool."""

    def to_dict(self) -> dict[str, Any]:
        """Return the reasons as values that JSON can hold."""
        return dict(msgspec.to_builtins(self))

    def __str__(self) -> str:
        return self.sentence
