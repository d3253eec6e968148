"""How the report writes numbers, for the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

MISSING = "–"
DAY_S = 86_400


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share as a percentage: 0.0412 is `4.12 %`."""
    return f"{100 * share:.{digits}f} %".replace("-", "−") if is_number(share) else MISSING


def signed_percent(share: float | None, digits: int = 1) -> str:
    """Return a relative change with its sign: 0.072 is `+7.2 %`."""
    return f"{100 * share:+.{digits}f} %".replace("-", "−") if is_number(share) else MISSING


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference with its sign: 0.424 is `+0.42`."""
    return f"{value:+.{digits}f}".replace("-", "−") if is_number(value) else MISSING


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many decimals."""
    return f"{value:.{digits}f}".replace("-", "−") if is_number(value) else MISSING


def whole(value: float | None) -> str:
    """Return a count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f") if is_number(value) else MISSING


def size(count: float | None) -> str:
    """Return bytes in the largest decimal unit that fits: 23000000 is `23.0 MB`."""
    if not is_number(count):
        return MISSING
    amount = float(count)
    units = ["B", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units = units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def day(days: int | None) -> str:
    """Return a day, counted since 1970 (UTC), as YYYY-MM-DD."""
    if not is_number(days):
        return MISSING
    return datetime.fromtimestamp(days * DAY_S, UTC).strftime("%Y-%m-%d")


def span(interval: Mapping[str, Any], write: Callable[[float], str]) -> str:
    """Return the ends of an interval in brackets."""
    return f"[{write(interval['low'])}, {write(interval['high'])}]"


def plural(count: int, name: str) -> str:
    """Return a count with its noun: `1 release`, `2 releases`."""
    return f"{whole(count)} {name}" if count == 1 else f"{whole(count)} {name}s"


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
