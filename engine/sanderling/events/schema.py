"""The events that travel from the device to the lab, and their bytes: JSON lines in one zstd frame.

Refuses to know where events are stored or how they are sent. `docs/EVENTS.md` is the reader's view of this file.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

SCHEMA = 1
MAX_LINE = 256 * 1024
ROOM_FOR_SLATE = (
    MAX_LINE - 64 * 1024
)  # the rest of a decision, its context and caps among it, needs less
ROOM_FOR_SLOT = 128  # beside its item's id
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH_EVENTS = 4096
MAX_WINDOW_BYTES = 8 * 1024 * 1024
MAX_LOST_SEQS = 2000
MAX_STEPS = 256
PIECE_BYTES = 64 * 1024

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Probability = Annotated[float, msgspec.Meta(ge=1e-300, le=1.0)]  # so that its inverse is finite
Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Unknown fields, NaN, and booleans in a number's place are refused."""


class Clock(_Strict, frozen=True):
    """Three readings, so that the lab can correct a wrong wall clock: wall ms since 1970, ms since the boot, its id."""

    wall: int
    mono: Count
    boot: Id


class Slot(_Strict, frozen=True):
    """One shown item. `rank` is its place (from 0) in the greedy order of all eligible items. `marginal` is null where
    the scheme has no closed form for it."""

    item: Name
    rank: Count
    explored: bool
    conditional: Probability
    marginal: Probability | None = None


class Decision(_Strict, frozen=True, tag="decision"):
    """One slate and the exact probability of each of its slots under the policy that drew it.

    `state_checksum` is that of the events that made the user's state, `state_events` their number: the lab rebuilds the
    state from the same events and drops the decision when the checksums differ. `context` is the base64 of the
    float32 context vector, all finite, present only when the app allows it to leave the device. `pass_probability` is
    the chance with which this decision survived shedding on a full device. Where given, the first `guarded` slots were
    not explored, `temperature` is that of scheme `softmax`, and of the items with one value of an attribute at most
    `caps` were in the pool; `adapted` tells that the device had moved the user's vector by what it learned alone.
    """

    id: Id
    install: Id
    seq: Sequence
    user: Id
    clock: Clock
    release: Count
    scheme: str
    epsilon: Unit
    pool: Count
    eligible: Count
    slate: Annotated[list[Slot], msgspec.Meta(min_length=1, max_length=1000)]
    state_checksum: Id
    state_events: Count
    context: str | None = None
    pass_probability: Probability = 1.0
    guarded: Count | msgspec.UnsetType = msgspec.UNSET
    temperature: Annotated[float, msgspec.Meta(gt=0.0)] | msgspec.UnsetType = msgspec.UNSET
    caps: dict[Name, Count] | msgspec.UnsetType = msgspec.UNSET
    adapted: bool | msgspec.UnsetType = msgspec.UNSET


class Outcome(_Strict, frozen=True, tag="outcome"):
    """What became of one slot that was seen. A slot without an outcome was not seen, or its outcome is still due.

    Where `flip_probability` is given, `value` is 1 or -1 and the opposite of what was with that probability (`sanderling.users.randomized_response`).
    `late` tells that it came after the decision's window, and may follow a default outcome: the last one counts.
    """

    id: Id
    install: Id
    seq: Sequence
    user: Id
    clock: Clock
    decision: Id
    slot: Count
    item: Name
    kind: Name
    value: Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
    updates_state: bool
    flip_probability: Annotated[float, msgspec.Meta(gt=0.0, lt=0.5)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    late: bool | msgspec.UnsetType = msgspec.UNSET


class Observation(_Strict, frozen=True, tag="observation"):
    """Organic behaviour: something that the user did without being asked by a slate."""

    id: Id
    install: Id
    seq: Sequence
    user: Id
    clock: Clock
    item: Name
    kind: Name


class StateReset(_Strict, frozen=True, tag="state_reset"):
    """From here on the user's state is what these (item, kind) make of an empty one: the last that it was made of.

    Something that moved the state before was lost, so that the lab could not have rebuilt it. It is no new behaviour.
    """

    id: Id
    install: Id
    seq: Sequence
    user: Id
    clock: Clock
    steps: Annotated[list[tuple[Name, Name]], msgspec.Meta(min_length=1, max_length=MAX_STEPS)]


class Loss(_Strict, frozen=True, tag="loss"):
    """What this install dropped, why, and how many events of each kind are gone; `observations` counts restarts too.

    `lost_seqs` are those of the dropped events that were numbered, and may have been sent before: the lab may have them.
    """

    id: Id
    install: Id
    seq: Sequence
    clock: Clock
    reason: Name
    decisions: Count = 0
    outcomes: Count = 0
    observations: Count = 0
    lost_seqs: (
        Annotated[list[Sequence], msgspec.Meta(max_length=MAX_LOST_SEQS)] | msgspec.UnsetType
    ) = msgspec.UNSET


Event = Decision | Outcome | Observation | StateReset | Loss


class Verdict(_Strict, frozen=True):
    """The collector's answer for one event: `ok`, `duplicate`, `rejected` (never send it again) or `retry`."""

    id: str
    verdict: str
    reason: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the collector says when a batch is durable.

    `rotate` names installs of which nothing can be learned any more, for a copied disk or a gap: each is to take another
    name as soon as all that it has is acknowledged.
    """

    verdicts: list[Verdict]
    rotate: list[str] = []


class Refusal(_Strict, frozen=True):
    """What the collector says of a batch that it refuses with 400 or 413: what it expected. Pages of others do not."""

    error: Annotated[str, msgspec.Meta(pattern="expected ")]
