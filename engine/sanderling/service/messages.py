"""What the calls of a service take and answer, as JSON.

A call takes the arguments of the method of `Engine` that has its name, with the same defaults: a
field that is not sent is not passed. A slate is referred to by the id of its decision, an item by
its id.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_TEXTS = 1000
"""Texts of one call of `encode`, for each of which a thread computes some milliseconds."""


class Arguments(Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of a call; unknown ones are refused."""

    def given(self) -> dict[str, Any]:
        """Return those that were sent."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in values if value is not UNSET}


class Nothing(Arguments, frozen=True):
    """A call without arguments."""


class Recommend(Arguments, frozen=True):
    """Arguments of `Engine.recommend`."""

    user: str
    k: int | UnsetType = UNSET
    context: str | dict[str, Any] | UnsetType | None = UNSET
    exclude: list[str] | UnsetType = UNSET
    where: dict[str, Any] | UnsetType | None = UNSET
    among: list[str] | UnsetType | None = UNSET
    after: str | UnsetType | None = UNSET
    at_most: dict[str, int] | UnsetType = UNSET
    boost: list[dict[str, Any]] | UnsetType = UNSET
    pin: dict[int, str] | UnsetType = UNSET
    diversity: float | UnsetType = UNSET
    greedy: bool | UnsetType = UNSET


class Observe(Arguments, frozen=True):
    """Arguments of `Engine.observe`."""

    user: str
    item: str
    kind: str | UnsetType = UNSET


class Seen(Arguments, frozen=True):
    """Arguments of `Engine.seen`."""

    decision: str
    items: list[str] | UnsetType | None = UNSET


class Reward(Arguments, frozen=True):
    """Arguments of `Engine.reward`."""

    decision: str
    item: str
    value: float
    kind: str | UnsetType | None = UNSET
    observe: bool | UnsetType | None = UNSET
    timeout_s: float | UnsetType | None = UNSET


class RewardAll(Arguments, frozen=True):
    """Arguments of `Engine.reward_all`."""

    decision: str
    values: dict[str, float]
    kind: str | UnsetType | None = UNSET
    observe: bool | UnsetType | None = UNSET
    timeout_s: float | UnsetType | None = UNSET


class ReceiptId(Arguments, frozen=True):
    """Arguments of `Engine.receipt`."""

    id: str


class Search(Arguments, frozen=True):
    """Arguments of `Engine.search`."""

    query: str
    user: str | UnsetType | None = UNSET
    k: int | UnsetType = UNSET
    where: dict[str, Any] | UnsetType | None = UNSET


class Similar(Arguments, frozen=True):
    """Arguments of `Engine.similar`."""

    item: str
    k: int | UnsetType = UNSET
    where: dict[str, Any] | UnsetType | None = UNSET


class Encode(Arguments, frozen=True):
    """Arguments of `Engine.encode`."""

    texts: Annotated[list[str], Meta(max_length=MAX_TEXTS)]


class Explain(Arguments, frozen=True):
    """Arguments of `Engine.explain`."""

    decision: str


class Why(Arguments, frozen=True):
    """Arguments of `Engine.why`."""

    decision: str
    item: str


class UpsertItems(Arguments, frozen=True):
    """Arguments of `Engine.upsert_items`."""

    items: list[dict[str, Any]]


class SetAttributes(Arguments, frozen=True):
    """Arguments of `Engine.set_attributes`."""

    changes: dict[str, dict[str, Any]]


class RemoveItems(Arguments, frozen=True):
    """Arguments of `Engine.remove_items`."""

    ids: list[str]


class ForgetUser(Arguments, frozen=True):
    """Arguments of `Engine.forget_user`."""

    user: str


class Timeout(Arguments, frozen=True):
    """Arguments of `Engine.flush` and `Engine.update`."""

    timeout_s: float | UnsetType = UNSET


class WarmUp(Arguments, frozen=True):
    """Arguments of `Engine.warm_up`."""

    attributes: list[str] | UnsetType = UNSET
    search: bool | UnsetType = UNSET


class Exploring(Struct, forbid_unknown_fields=True, frozen=True):
    """The value of `Engine.exploring`: what it shall be, and what it is now."""

    exploring: bool


class Done(Struct, frozen=True):
    """The call is done; there is nothing to answer."""


class StoredReceipt(Struct, frozen=True):
    """Whether a reward is on disk: yes with status 200; with 202 that is not known yet."""

    stored: bool
    """Whether the reward is known to be durable."""

    reason: str
    """Why it is not known to be."""

    pending: bool
    """Whether it is still queued: the call `receipt` tells later how that ended."""

    id: str
    """What to ask `receipt` for; empty unless the reward was pending."""


class Encoded(Struct, frozen=True):
    """The answer of `encode`."""

    vectors: list[list[float]]
    """Of each text."""


class Flushed(Struct, frozen=True):
    """The answer of `flush`."""

    uploaded: bool
    """Whether all that was stored has been acknowledged within the time."""


class Updated(Struct, frozen=True):
    """The answer of `update` and `rollback`."""

    updated_to: int | None
    """The release that was installed now; null where there was no newer one, and of `rollback`."""

    active: int
    """The active release."""


class Failed(Struct, frozen=True):
    """Why a request was refused."""

    error: str
    """One sentence."""
