"""The events of wire format 1 as structs. `docs/EVENTS.md` describes them for other readers."""

from __future__ import annotations

from typing import Annotated

import msgspec

SCHEMA = 1

MAX_LINE = 256 * 1024
"""Bytes of one encoded event."""

ROOM_FOR_SLATE = MAX_LINE - 64 * 1024
"""Bytes of a decision that its slots may take; the rest, context and caps included, needs less."""

ROOM_FOR_SLOT = 128
"""Bytes that a slot takes at most, besides its item id."""

ROOM_FOR_MARK = 16
"""Bytes that the slot of a newcomer or a pinned item takes beyond that."""

ROOM_FOR_POOL = 32 * 1024
"""Bytes of a decision that the ids of its pool may take, out of what the slots leave."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one batch, unpacked."""

MAX_BATCH_EVENTS = 4096
MAX_WINDOW_BYTES = 8 * 1024 * 1024
MAX_LOST_SEQS = 2000
MAX_STEPS = 256
MAX_POOL_ITEMS = 1000

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
MAX_NAME = 512
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
SequenceNumber = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Probability = Annotated[float, msgspec.Meta(ge=1e-300, le=1.0)]  # its inverse is finite
Boost = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Rejects unknown fields, NaN, and booleans in the place of numbers."""


class ClockReading(_Strict, frozen=True):
    """Readings with which a wrong wall clock can be corrected later."""

    wall: int
    """The device's wall clock, ms since 1970."""

    mono: Count
    """Milliseconds since the boot began."""

    boot: Id
    """The id of the boot: one run of the device's process under one identity."""


class Slot(_Strict, frozen=True):
    """One slot of a slate."""

    item: Name
    """The id of the item shown in it."""

    rank: Count
    """The item's place, from 0, in the greedy order of all eligible items; of a newcomer the size
    of the pool plus its place among the newcomers; of a pinned item these two sizes plus its place
    among the pinned ones."""

    explored: bool
    """Whether exploration chose the item."""

    conditional: Probability
    """The probability with which this slot drew this item, given the slots above it."""

    marginal: Probability | None = None
    """The probability over all slates; null where the scheme has no closed form for it."""

    newcomer: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether the quota for newcomers chose the item."""

    pinned: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether the app pinned the item to the slot: no policy chose it."""


class TextCounts(_Strict, frozen=True):
    """How many texts an install encoded since it last told, of items and of queries each 16 or more
    or none, and how many of them were out of the release's domain. Which they were it does not
    tell."""

    items: Count
    """Texts of items that the app added on the device."""

    items_outside: Count
    """Those out of the domain."""

    queries: Count
    """Contexts and queries."""

    queries_outside: Count
    """Those out of the domain."""


class _UserEvent(_Strict, frozen=True):
    """The fields of every event of a user."""

    id: Id
    """Created once, and kept through all retries."""

    install: Id
    """The id of the install."""

    seq: SequenceNumber
    """1, 2, 3, … without a gap for each install."""

    user: Id
    """The user's pseudonym."""

    clock: ClockReading
    """When it happened."""


class Decision(_UserEvent, frozen=True, tag="decision"):
    """One slate, and the exact probability of each of its slots under the policy that drew it."""

    release: Count
    """The number of the release that decided."""

    scheme: str
    """The exploration scheme."""

    epsilon: Unit
    """The scheme's probability of exploring, in slots that are not newcomers'."""

    pool: Count
    """How many of the best items exploration could draw from."""

    eligible: Count
    """How many items were eligible for the slots that are not pinned."""

    slate: Annotated[list[Slot], msgspec.Meta(min_length=1, max_length=1000)]
    """The slots, first to last."""

    state_checksum: Id
    """The checksum of the events that made the user's state.

    Training rebuilds the state from the same events, and drops the decision when its checksum
    differs."""

    state_events: Count
    """The number of these events."""

    context: str | None = None
    """The base64 of the float32 context vector, only where the app lets it leave the device."""

    pass_probability: Probability = 1.0
    """The probability with which this decision survived shedding on a full device."""

    guarded: Count | msgspec.UnsetType = msgspec.UNSET
    """How many slots at the front were not explored."""

    temperature: Annotated[float, msgspec.Meta(gt=0.0)] | msgspec.UnsetType = msgspec.UNSET
    """The temperature of scheme `softmax`."""

    caps: dict[Name, Count] | msgspec.UnsetType = msgspec.UNSET
    """By attribute, how many items with one of its values the pool could hold."""

    pool_items: (
        Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MAX_POOL_ITEMS)]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    """The ids of the pool, best first, where the app shaped it (`decision.is_pool_shaped`) and they
    take at most `ROOM_FOR_POOL` bytes. Absent under randomized response if the app excluded
    or listed items."""

    boosts: Annotated[list[Boost], msgspec.Meta(max_length=MAX_POOL_ITEMS)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """Where the app boosted some items: what it added to the score of each item of `pool_items`;
    empty where these are absent."""

    newcomers: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | msgspec.UnsetType = msgspec.UNSET
    """From how many newcomers outside the pool slots could be drawn."""

    newcomer_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """The probability with which each slot behind the guarded ones showed one of them."""

    experiment: Name | msgspec.UnsetType = msgspec.UNSET
    """The experiment that the release ran."""

    arm: Name | msgspec.UnsetType = msgspec.UNSET
    """The arm of the install; absent where it is in none."""

    diversity: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | msgspec.UnsetType = msgspec.UNSET
    """How much unlikeness to the items before each slot counted beside the score."""

    adapted: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether a residual learned on the device was added to the user's vector."""

    texts: TextCounts | msgspec.UnsetType = msgspec.UNSET
    """Sums over the texts that the install encoded; absent until there are 16 items or 16 queries
    that no decision tells of, and where the release has no domain."""


class Outcome(_UserEvent, frozen=True, tag="outcome"):
    """The reward of one slot that was seen.

    A slot without an outcome was not seen, or its outcome is still due.
    """

    decision: Id
    """The id of the decision."""

    slot: Count
    """The slot on its slate, from 0."""

    item: Name
    """The item in this slot."""

    kind: Name
    """The kind of behaviour: "click" for positive and "skip" for other values unless the app names
    one."""

    value: Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
    """The reward."""

    updates_state: bool
    """Whether the outcome also updated the user's state, as an observation does."""

    flip_probability: Annotated[float, msgspec.Meta(gt=0.0, lt=0.5)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """With randomized response: `value` is 1 or -1, and the opposite of the true one with this
    probability."""

    late: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether it came after the decision's reward window. It may follow a default outcome; the last
    one counts."""


class Observation(_UserEvent, frozen=True, tag="observation"):
    """Organic behaviour: what the user did without a slate."""

    item: Name
    """The item concerned."""

    kind: Name
    """The kind of behaviour."""


class StateReset(_UserEvent, frozen=True, tag="state_reset"):
    """From here on the user's state is what these steps make of an empty one.

    An event that had updated the state was lost, so that training could not have rebuilt it. The
    steps are the last of those from which the state was made, not new behaviour.
    """

    steps: Annotated[list[tuple[Name, Name]], msgspec.Meta(min_length=1, max_length=MAX_STEPS)]
    """Item id and kind, oldest first."""


class Loss(_Strict, frozen=True, tag="loss"):
    """How many events of each type this install dropped, and why."""

    id: Id
    """Created once, and kept through all retries."""

    install: Id
    """The id of the install."""

    seq: SequenceNumber
    """The number of this event itself."""

    clock: ClockReading
    """When the loss was declared."""

    reason: Name
    """Why they were dropped, see `docs/EVENTS.md`."""

    decisions: Count = 0
    """Dropped decisions."""

    outcomes: Count = 0
    """Dropped outcomes."""

    observations: Count = 0
    """Dropped observations, state resets, and declarations of losses that were rejected."""

    lost_seqs: (
        Annotated[list[SequenceNumber], msgspec.Meta(max_length=MAX_LOST_SEQS)] | msgspec.UnsetType
    ) = msgspec.UNSET
    """The numbers of those dropped events that may have been sent before: the collector may have
    them."""


Event = Decision | Outcome | Observation | StateReset | Loss


class EventVerdict(_Strict, frozen=True):
    """The collector's answer for one event."""

    id: str
    """The event's id."""

    verdict: str
    """`ok`, `duplicate`, `rejected` (never send it again) or `retry`."""

    reason: str = ""
    """Why it was rejected."""


class BatchResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The collector's answer to a batch once it is durable."""

    verdicts: list[EventVerdict]
    """One for each event."""

    rotate: list[str] = []
    """Cloned or incomplete installs, whose events can no longer be used for training.

    Each takes a new identity as soon as everything that it has is acknowledged."""
