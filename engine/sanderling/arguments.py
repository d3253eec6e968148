"""What an app may pass to the engine, checked where it comes in: wrong types and impossible numbers, named.

Refuses to judge what users did or typed: all of that is fine.
"""

from __future__ import annotations

from collections.abc import Mapping

from sanderling.bundle.manifest import MAX_POOL
from sanderling.errors import shown
from sanderling.slate import SlateItem

MAX_SLOTS = 1000


def check_request(user: object, k: object, context: object) -> None:
    """Raise `TypeError` for a wrong type, `ValueError` unless 1 <= k <= 1000."""
    if not isinstance(user, str):
        raise TypeError(f"user: expected str, found {type(user).__name__}")
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"k: expected int, found {type(k).__name__}")
    if not 1 <= k <= MAX_SLOTS:
        raise ValueError(f"k: expected 1 to {MAX_SLOTS}, found {shown(k)}")
    if context is not None and not isinstance(context, str):
        raise TypeError(f"context: expected str or None, found {type(context).__name__}")


def check_text(**fields: object) -> None:
    """Raise `TypeError` unless all are strings, `ValueError` unless `item` and `kind` have 1 to 512 whole letters."""
    for name, value in fields.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected str, found {type(value).__name__}")
    for name in {"item", "kind"} & fields.keys():
        if not 1 <= len(str(fields[name])) <= 512:
            raise ValueError(
                f"{name}: expected 1 to 512 characters, found {len(str(fields[name]))}"
            )
        try:
            str(fields[name]).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name}: expected whole characters, found half of one (a lone surrogate)"
            ) from None


def check_value(value: object) -> float:
    """Return a reward as a float; raise `TypeError` for no number, `ValueError` outside [-1, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"value: expected a number, found {type(value).__name__}")
    if not -1.0 <= value <= 1.0:
        raise ValueError(f"value: expected a number in [-1, 1], found {shown(value)}")
    return float(value)


def check_privacy(epsilon: object, *, adapt: bool, window_s: object) -> float | None:
    """Return the ε of randomised response, None for none; raise `ValueError` unless it lies in [0.1, 20], and where
    something beside the bit would tell what it was."""
    if epsilon is None:
        return None
    if adapt or window_s is not None:
        raise ValueError(
            "privacy: expected neither `adapt` nor `window_s` with it: later slates, or times, would tell"
        )
    if (
        isinstance(epsilon, bool)
        or not isinstance(epsilon, int | float)
        or not 0.1 <= epsilon <= 20.0
    ):
        raise ValueError(
            f"privacy: expected an epsilon of 0.1 to 20, or None, found {shown(epsilon)}"
        )
    return float(epsilon)


def check_window(seconds: object) -> float | None:
    """Return the length of a reward window, None for none; raise `ValueError` unless it lies in (0, 366 days]."""
    if seconds is None:
        return None
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0.0 < seconds <= 366 * 86400
    ):
        raise ValueError(
            f"window_s: expected seconds above 0, at most 366 days, or None, found {shown(seconds)}"
        )
    return float(seconds)


def check_way(collector: object, transport: object) -> None:
    """Raise `ValueError` where two ways to the lab are given."""
    if collector is not None and transport is not None:
        raise ValueError(
            "transport: expected a collector's URL or a transport, found both: leave one of them out"
        )


def check_bytes(most: object) -> int:
    """Return the bound of an outbox; raise `ValueError` unless it is an int of 64 KiB to 1 PiB."""
    if not isinstance(most, int) or isinstance(most, bool) or not 2**16 <= most <= 2**50:
        raise ValueError(
            f"outbox_bytes: expected an int of {2**16} to {2**50}, found {shown(most)}"
        )
    return most


def check_days(days: object, *, told: bool) -> float | None:
    """Return the life of a pseudonym, None for no end; raise `ValueError` unless it lies in [1 hour, 10 years]."""
    if days is None:
        return None
    if isinstance(days, bool) or not isinstance(days, int | float) or not 1 / 24 <= days <= 3660.0:
        raise ValueError(
            f"pseudonym_days: expected 1/24 to 3660 days, or None, found {shown(days)}"
        )
    if not told:
        raise ValueError(
            "pseudonym_days: expected `state` and `collector` with it: nothing is told of anybody without"
        )
    return float(days)


def shown_item(shown: Mapping[str, SlateItem], item: SlateItem | str) -> SlateItem:
    """Return the item of a slate that is meant; raise `ValueError` when it is not on it."""
    name = item.id if isinstance(item, SlateItem) else item
    if name not in shown:
        raise ValueError(
            f"item: expected one of the slate's {len(shown)} items, found {name!r:.100}"
        )
    return shown[name]


def check_caps(at_most: Mapping[str, int]) -> None:
    """Raise `TypeError` or `ValueError` unless caps are whole numbers of at least 1, by attribute."""
    for attribute, most in at_most.items():
        if not isinstance(attribute, str) or isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(
                f"at_most: expected attributes with whole numbers, found {attribute!r}: {most!r}"
            )
        if not 1 <= len(attribute) <= 512 or not attribute.isprintable():
            raise ValueError(
                f"at_most: expected an attribute's name of 1 to 512 characters, found {attribute!r:.80}"
            )
        if not 1 <= most <= MAX_POOL:
            raise ValueError(
                f"at_most: {attribute}: expected 1 to {MAX_POOL}, found {shown(most)}: exclude items to show none"
            )
