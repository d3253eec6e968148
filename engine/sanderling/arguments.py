"""Checks of what an app passes to the engine's methods: types and ranges, each error naming its
argument.

What users typed is never judged: any text is fine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, cast

from sanderling.bundle.manifest import MAX_POOL
from sanderling.errors import shown
from sanderling.ranking.contexts import TEXT, Context
from sanderling.slate import FoundItem, FoundItems, Slate, SlateItem

MAX_SLOTS = 1000
MAX_NAME = 512
MAX_TIMEOUT_S = 3600.0


def check_request(user: object, k: object) -> int:
    """Return k; raise `TypeError` for a wrong type, `ValueError` unless 1 <= k <= 1000."""
    if type(user) is str and type(k) is int and 1 <= k <= MAX_SLOTS:
        return k  # fast, as nearly all calls are
    check_text(user=user)
    return check_k(k)


def check_context(context: object) -> Context:
    """Return a text, or a mapping of features and perhaps `text`; raise `TypeError` for anything
    else."""
    if isinstance(context, str):
        return Context(context)
    if not isinstance(context, Mapping) or not all(isinstance(name, str) for name in context):
        found = type(context).__name__
        raise TypeError(f"context: expected a text, features by name, or None, found {found}")
    text = context.get(TEXT)
    if text is not None and not isinstance(text, str):
        raise TypeError(f"context: text: expected str or None, found {type(text).__name__}")
    return Context(text, {name: value for name, value in context.items() if name != TEXT})


def check_k(k: object) -> int:
    """Return k; raise `TypeError` for no whole number, `ValueError` unless 1 <= k <= 1000."""
    if not isinstance(k, Integral) or isinstance(k, bool):
        raise TypeError(f"k: expected int, found {type(k).__name__}")
    if not 1 <= int(k) <= MAX_SLOTS:
        raise ValueError(f"k: expected 1 to {MAX_SLOTS}, found {shown(k)}")
    return int(k)


def check_slate(slate: object) -> None:
    """Raise `TypeError` for what is no slate."""
    if isinstance(slate, FoundItems):
        raise TypeError(
            "slate: expected what `recommend` returned, found what `search` or `similar` did:"
            " they record no decision that a reward could belong to"
        )
    if not isinstance(slate, Slate):
        raise TypeError(f"slate: expected what `recommend` returned, found {type(slate).__name__}")


def check_flags(**fields: object) -> None:
    """Raise `TypeError` unless all are True, False or None."""
    for name, value in fields.items():
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name}: expected True or False, found {type(value).__name__}")


def check_records(items: Iterable[object]) -> None:
    """Raise `TypeError` unless all items are mappings."""
    for item in items:
        if not isinstance(item, Mapping):
            raise TypeError(
                f"items: expected mappings with `id` and `text`, found {type(item).__name__}"
            )


def check_text(**fields: object) -> None:
    """Raise `TypeError` unless all are strings, `ValueError` where `item` or `kind` fit no event.

    An event holds 1 to 512 characters of valid Unicode there; a user's name never leaves the
    device.
    """
    for name, value in fields.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected str, found {type(value).__name__}")

    for name in {"item", "kind"} & fields.keys():
        text = str(fields[name])
        if not 1 <= len(text) <= MAX_NAME:
            raise ValueError(f"{name}: expected 1 to {MAX_NAME} characters, found {len(text)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name}: expected whole characters, found half of one (a lone surrogate)"
            ) from None


def check_value(value: object) -> float:
    """Return a reward as a float; raise `TypeError` for no number, `ValueError` outside [-1, 1]."""
    return _number("value", value, -1.0, 1.0)


def check_diversity(value: object) -> float:
    """Return it as a float; raise `TypeError` for no number, `ValueError` outside [0, 1]."""
    return _number("diversity", value, 0.0, 1.0)


def check_timeout(timeout_s: object, default_s: float | None = None) -> float:
    """Return how many seconds to wait, `default_s`, if there is one, for None; raise `TypeError`
    for no number, `ValueError` unless it is 0 to 3600."""
    if timeout_s is None and default_s is not None:
        return default_s
    return _number("timeout_s", timeout_s, 0.0, MAX_TIMEOUT_S)


def _number(name: str, value: object, at_least: float, at_most: float) -> float:
    """Return an int, a float or a scalar of numpy as a float; True and False are no numbers."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, found {type(value).__name__}")
    number: Any = value  # an int may be too large for a float, but it can be compared with one
    if not at_least <= number <= at_most:
        raise ValueError(
            f"{name}: expected a number in [{at_least:g}, {at_most:g}], found {shown(value)}"
        )
    return float(number)


def check_several(**fields: object) -> None:
    """Raise `TypeError` for one text, one record or no collection where several are expected.

    A text is a collection of its letters, so that "12" would mean the items 1 and 2.
    """
    for name, value in fields.items():
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise TypeError(
                f"{name}: expected several, such as a list, found one {type(value).__name__};"
                " put it into a list"
            )


def ids_of(items: Iterable[SlateItem | FoundItem | str], name: str) -> tuple[str, ...]:
    """Return the ids of items, some given by id; raise `TypeError`, naming the argument, for what
    is neither.
    """
    if type(items) is not list and type(items) is not tuple:
        check_several(**{name: items})
    given = tuple(items)
    # Apps exclude hundreds of ids in each call: joining texts is the fastest check that all are.
    with suppress(TypeError):
        "".join(cast("tuple[str, ...]", given))
        return cast("tuple[str, ...]", given)

    for item in given:
        if not isinstance(item, SlateItem | FoundItem | str):
            raise TypeError(
                f"{name}: expected ids or items of a slate, found {type(item).__name__}"
                f" {shown(item)}"
            )
    return tuple(str(item) if isinstance(item, str) else item.id for item in given)


def pages_before(user: str, after: object) -> tuple[str, ...]:
    """Return the ids on a slate and on those that it came after, which a next page leaves out.

    Raises `TypeError` for what is no slate, `ValueError` for the slate of another user.
    """
    if not isinstance(after, Slate):
        raise TypeError(f"after: expected what `recommend` returned, found {type(after).__name__}")
    if after.user != user:
        raise ValueError(
            f"after: expected a slate of the user {shown(user)}, found one of {shown(after.user)}"
        )
    return after.earlier + tuple(item.id for item in after)


def items_on_slate(slate: Slate, items: Iterable[SlateItem | str]) -> list[SlateItem]:
    """Return items of a slate, some given by id; raise `ValueError` for one that is not on it."""
    check_several(items=items)
    by_id = {item.id: item for item in slate}
    on_slate = []
    for item in items:
        if not isinstance(item, SlateItem | str):
            raise TypeError(
                f"item: expected an item of the slate or its id, found {type(item).__name__}"
            )
        id = item.id if isinstance(item, SlateItem) else item
        if id not in by_id:
            raise ValueError(
                f"item: expected one of the slate's {len(by_id)} items, found {id!r:.100}"
            )
        on_slate.append(by_id[id])
    return on_slate


def rewards_by_slot(
    slate: Slate, values: Mapping[SlateItem | str, float]
) -> list[tuple[SlateItem, float]]:
    """Return items of a slate with their checked rewards, in the order of the slots.

    Raises as `items_on_slate` and `check_value` do. The app's own order could reveal
    what the user touched first.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"values: expected rewards by item, found {type(values).__name__}")
    items = items_on_slate(slate, list(values))
    rewards = zip(items, map(check_value, values.values()), strict=True)
    return sorted(rewards, key=lambda reward: reward[0].slot)


def check_pins(pin: Mapping[int, SlateItem | str], k: int) -> Mapping[int, str]:
    """Return pinned ids by ascending slot; raise `TypeError` or `ValueError` unless each is an id
    or an item of a slate, at one slot below k."""
    if not isinstance(pin, Mapping):
        raise TypeError(f"pin: expected a mapping from slots to items, found {type(pin).__name__}")
    slot_of: dict[str, int] = {}
    for slot, item in pin.items():
        if isinstance(slot, bool) or not isinstance(slot, Integral):
            raise TypeError(f"pin: expected whole numbers as slots, found {slot!r:.80}")
        if not 0 <= slot < k:
            raise ValueError(f"pin: expected slots 0 to {k - 1}, as k is {k}, found {shown(slot)}")
        if not isinstance(item, SlateItem | str):
            raise TypeError(
                f"pin: slot {slot}: expected an id or an item of a slate, found"
                f" {type(item).__name__}"
            )
        id = item.id if isinstance(item, SlateItem) else item
        if id in slot_of:
            raise ValueError(
                f"pin: expected an item once, found {id!r:.100} in slots {slot_of[id]} and {slot}"
            )
        slot_of[id] = int(slot)
    return dict(sorted((slot, id) for id, slot in slot_of.items()))


def check_caps(at_most: Mapping[str, int]) -> dict[str, int]:
    """Return caps by attribute; raise `TypeError` or `ValueError` unless they are whole numbers of
    at least 1."""
    if not isinstance(at_most, Mapping):
        raise TypeError(
            f"at_most: expected a mapping from attributes to numbers, found"
            f" {type(at_most).__name__}"
        )
    for attribute, cap in at_most.items():
        if not isinstance(attribute, str) or isinstance(cap, bool) or not isinstance(cap, Integral):
            raise TypeError(
                "at_most: expected attribute names with whole numbers,"
                f" found {attribute!r}: {cap!r}"
            )
        if not 1 <= len(attribute) <= MAX_NAME or not attribute.isprintable():
            raise ValueError(
                f"at_most: expected an attribute's name of 1 to {MAX_NAME} printable characters,"
                f" found {attribute!r:.80}"
            )
        if not 1 <= cap <= MAX_POOL:
            raise ValueError(
                f"at_most: {attribute}: expected 1 to {MAX_POOL}, found {shown(cap)};"
                " to show none of these items, exclude them"
            )
    return {attribute: int(cap) for attribute, cap in at_most.items()}
