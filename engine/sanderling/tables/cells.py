"""What a cell of a table means: ids, times, rewards and kinds, alike in the lab and on devices."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from sanderling.errors import TableError

MAX_NAME_LENGTH = 512  # the wire's limit for ids and kinds
FIRST_SECOND = -62_135_596_800  # 0001-01-01
LAST_SECOND = 253_402_300_799  # 9999-12-31

A_USER = f"a user id of 1 to {MAX_NAME_LENGTH} characters"
AN_ITEM = f"an item id of 1 to {MAX_NAME_LENGTH} characters"
A_KIND = f"a kind of 1 to {MAX_NAME_LENGTH} characters"
A_REWARD = "a number from -1 to 1"
A_TIME = "seconds since 1970 (not milliseconds) or an ISO 8601 time"

KINDS_BY_SIGN = ("dislike", "neutral", "like")
"""The kind of event where the log has none, by the sign of the reward: -1, 0, 1."""


def fault(
    table: str, row: int, column: str, expected: str, found: object, *, incomplete: int = 0
) -> TableError:
    """Return the error for one cell; `row` counts from 0 here and from 1 in the message.

    incomplete: how many rows lack a value.
    """
    is_empty = found is None or found == ""
    shown = "nothing" if is_empty else f"`{str(found)[:80]}`"
    message = f"{table}, row {row + 1}, column `{column}`: expected {expected}, found {shown}"
    if is_empty and incomplete:
        message += f"; {lacking(incomplete)}, --drop-incomplete leaves such rows out"
    return TableError(message)


def lacking(rows: int) -> str:
    """Return how many rows lack a value, in words."""
    return f"{rows:,} rows lack a value" if rows != 1 else "1 row lacks a value"


def is_name(text: str | None) -> bool:
    """Return whether a text can be an id or a kind."""
    return text is not None and 1 <= len(text) <= MAX_NAME_LENGTH


def parse_number(text: str | None) -> float:
    """Return the number that a text stands for, NaN for any other text."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def parse_time(text: str | None, time_format: str | None = None) -> float:
    """Return a time in seconds since 1970 UTC, NaN for what is none.

    A number is seconds; other text is ISO 8601, or what `time_format` says, as strptime has it.
    A time without an offset is UTC.
    """
    if time_format is None:
        number = parse_number(text)
        if not math.isnan(number):
            return number
    stripped = (text or "").strip()
    try:
        if time_format is None:
            moment = datetime.fromisoformat(stripped)
        else:
            moment = datetime.strptime(stripped, time_format)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_time(seconds: float, latest: float = LAST_SECOND) -> bool:
    """Return whether seconds since 1970 are a time that a log may have; false for NaN."""
    return FIRST_SECOND <= seconds <= latest


def is_reward(value: float) -> bool:
    """Return whether a number is a reward; false for NaN."""
    return -1.0 <= value <= 1.0


def kind_by_sign(reward: float) -> str:
    """Return the kind of event for logs without kinds."""
    return KINDS_BY_SIGN[1 + (reward > 0) - (reward < 0)]
