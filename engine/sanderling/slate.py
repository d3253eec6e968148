"""What the engine returns: slates with the exact probability of each item, receipts, replays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, overload

import msgspec

from sanderling.reasons import Reasons


class DecisionExplainer(Protocol):
    """Explains the items of one decision while the engine that decided it lives."""

    def why(self, item: SlateItem) -> Reasons:
        """Return why the decision shows an item."""


class _Explained:
    """Room for what explains an item. No field: it is not compared, printed, copied or pickled."""

    __slots__ = ("_explainer",)


class SlateItem(_Explained, msgspec.Struct, frozen=True, gc=False):
    """One recommended item."""

    id: str
    """The item's id."""

    title: str
    """The title in the catalog."""

    score: float
    """The score under the user's vector."""

    slot: int
    """The place on the slate, from 0."""

    rank: int
    """The place in the greedy order of all eligible items, from 0; of a newcomer the size of the
    pool plus its place among the newcomers; of a pinned item these two sizes plus its place among
    the pinned ones."""

    explored: bool
    """Whether exploration chose the item."""

    propensity: float
    """The probability with which this slot drew this item, given the slots above it."""

    marginal: float | None
    """The probability over all slates; None where the scheme has no closed form for it."""

    attributes: dict[str, Any] = {}
    """The other fields of the item in the catalog."""

    newcomer: bool = False
    """Whether the slot showed it by the quota for newcomers."""

    pinned: bool = False
    """Whether the app pinned it to the slot."""

    def why(self) -> Reasons:
        """Return why the slate shows this item, see `Engine.why`.

        Raises `LookupError` for a copy, such as a pickled item: ask `Engine.why`.
        """
        try:
            explainer: DecisionExplainer = _Explained._explainer.__get__(self)  # type: ignore
        except AttributeError:
            raise LookupError(
                "why: expected an item as `recommend` returned it, found a copy of one;"
                " ask engine.why(slate, item)"
            ) from None
        return explainer.why(self)

    def __hash__(self) -> int:
        return hash((self.id, self.slot, self.score))


set_explainer = _Explained._explainer.__set__  # type: ignore[attr-defined]
"""Give an item, which is frozen otherwise, what explains it: `set_explainer(item, explainer)`.

It must not refer to the item: items are not tracked by the garbage collector."""


@dataclass(frozen=True)
class Slate(Sequence[SlateItem]):
    """One decision: a sequence of items, in the order of their slots.

    A slice is a slate of the same decision: `engine.seen(slate[:3])`.
    """

    decision: str
    """The id by which rewards are joined to the decision."""

    user: str
    """The user, as the app named them."""

    pseudonym: str
    """The pseudonym that stood for the user when the slate was decided."""

    release: int
    """The release that decided."""

    items: tuple[SlateItem, ...]
    """The items, by slot."""

    eligible: int = 0
    """How many items were eligible, newcomers included."""

    shortage: str = ""
    """Why there are fewer items than asked for; empty where there are not."""

    earlier: tuple[str, ...] = ()
    """The ids of the items on the slates that this one came after."""

    arm: str | None = None
    """The arm of the bundle's experiment that this install is in, if it is in one."""

    def to_dict(self) -> dict[str, Any]:
        """Return the slate as values that JSON can hold, `items` as a list of dicts."""
        return {
            "decision": self.decision,
            "user": self.user,
            "pseudonym": self.pseudonym,
            "release": self.release,
            "eligible": self.eligible,
            "shortage": self.shortage,
            "arm": self.arm,
            "items": msgspec.to_builtins(self.items),
        }

    def __iter__(self) -> Iterator[SlateItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> SlateItem: ...

    @overload
    def __getitem__(self, place: slice) -> Slate: ...

    def __getitem__(self, place: int | slice) -> SlateItem | Slate:
        if isinstance(place, slice):
            return replace(self, items=self.items[place])
        return self.items[place]


class FoundItem(msgspec.Struct, frozen=True, gc=False):
    """One item that `Engine.search` or `Engine.similar` found."""

    id: str
    """The item's id."""

    title: str
    """The title in the catalog."""

    score: float
    """How well it fits; comparable within one result."""

    attributes: dict[str, Any] = {}
    """The other fields of the item in the catalog."""

    def __hash__(self) -> int:
        return hash((self.id, self.score))


@dataclass(frozen=True)
class FoundItems(Sequence[FoundItem]):
    """What was found: a sequence of items, best first. It is no decision, so it has no rewards."""

    release: int
    """The release that was searched."""

    items: tuple[FoundItem, ...]
    """The items, best first."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold, `items` as a list of dicts."""
        return {"release": self.release, "items": msgspec.to_builtins(list(self.items))}

    def __iter__(self) -> Iterator[FoundItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> FoundItem: ...

    @overload
    def __getitem__(self, place: slice) -> FoundItems: ...

    def __getitem__(self, place: int | slice) -> FoundItem | FoundItems:
        if isinstance(place, slice):
            return replace(self, items=self.items[place])
        return self.items[place]


class Receipt(NamedTuple):
    """Whether a reward is on disk; true in a condition if it is."""

    stored: bool
    """Whether the reward is known to be durable."""

    reason: str = ""
    """Why it is not, or not known to be."""

    pending: bool = False
    """Whether it is still queued: `Engine.receipt` tells later how that ended."""

    id: str = ""
    """What to ask `Engine.receipt` for; empty unless the reward was pending."""

    def __bool__(self) -> bool:
        return self.stored


@dataclass(frozen=True)
class Explanation:
    """A decision replayed from its inputs."""

    decision: str
    """The id of the decision."""

    release: int
    """The release that decided."""

    scheme: str
    """The exploration scheme."""

    epsilon: float
    """The scheme's probability of exploring."""

    pool: int
    """How many of the best items exploration could draw from."""

    eligible: int
    """How many items were eligible."""

    greedy: tuple[str, ...]
    """The ids of the slate without exploration."""

    slate: tuple[SlateItem, ...]
    """The items of the replayed slate."""

    is_identical: bool
    """Whether the replayed slate and its probabilities equal the logged ones bit for bit."""
