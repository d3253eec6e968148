"""Reward windows: a slot that was seen and not rewarded in time gets a default outcome, once, also
after a restart.

A window ends a fixed time after its decision, by the device's wall clock. A wrong clock moves the
end and loses nothing: a later reward is still recorded, marked as late. A window that has ended is
not remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import msgspec

from sanderling.runtime.clock import time_of

PREFIX = "seen:"
"""The prefix of the keys under which windows are stored."""

VERSION = 1
"""The version of the stored form."""

MAX_OPEN = 10_000
"""Open windows of an engine, to bound memory; the oldest are closed beyond."""

MAX_CLOSED_AT_ONCE = 64
"""Windows closed in one call, because a public call of the engine waits for it."""

NEVER_MS = 2**62
"""Later than any wall clock, in ms since 1970."""


class OpenWindow(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The slots of one decision that were seen or rewarded."""

    version: int
    """The version of the stored form."""

    user: str
    """The user's pseudonym."""

    end_ms: int
    """When the window ends, in ms since 1970."""

    slots: dict[int, str]
    """By slot the item that waits for a reward, or "" where the outcome is known."""

    def waiting(self) -> dict[int, str]:
        """Return the slots that were seen and have no reward, and their items."""
        return {slot: item for slot, item in self.slots.items() if item}


class ClosedWindow(NamedTuple):
    """A window that was just closed."""

    decision: str
    window: OpenWindow
    """The window as it was while open: its waiting slots get the default outcome."""

    states: dict[str, bytes]
    """The bytes to store, by key."""


class RewardWindows:
    """The windows of an engine, oldest first; `stored` holds the bytes that earlier processes left,
    by key.

    Methods that change something return the bytes to store, by key; empty bytes delete a key.
    `length_s` is None for an engine that opens no windows, but may still hold some of an earlier
    process.
    """

    def __init__(self, length_s: float | None, stored: Mapping[str, bytes]) -> None:
        self.length_ms = None if length_s is None else int(length_s * 1000)
        self._open: dict[str, OpenWindow] = {}
        for key, value in sorted(stored.items()):
            try:
                window = msgspec.msgpack.decode(value, type=OpenWindow)
            except msgspec.MsgspecError:
                continue
            self._open[key.removeprefix(PREFIX)] = window
        self._next_end_ms = self._earliest_end()

    def open_windows(self) -> dict[str, OpenWindow]:
        """Return the open windows by decision, oldest first."""
        return dict(self._open)

    def end_ms(self, decision: str) -> int:
        """Return when the window of a decision ends.

        An open window keeps the length with which it was opened; the time of the decision is in its
        id (UUID 7).
        """
        if decision in self._open:
            return self._open[decision].end_ms
        return NEVER_MS if self.length_ms is None else time_of(decision) + self.length_ms

    def is_over(self, decision: str, now_ms: int) -> bool:
        """Return whether the window of a decision has ended."""
        return now_ms > self.end_ms(decision)

    def open_window(
        self, decision: str, user: str, slots: Mapping[int, str], now_ms: int
    ) -> dict[str, bytes]:
        """Let slots, with their items, wait for rewards, except those that have one; a no-op after
        the end."""
        end_ms = self.end_ms(decision)
        if end_ms <= now_ms:
            return {}
        slots = {**slots, **self._slots(decision)}
        return self._put(decision, OpenWindow(VERSION, user, end_ms, slots))

    def settle(
        self, decision: str, user: str, slots: Iterable[int], now_ms: int
    ) -> dict[str, bytes]:
        """Note that slots have their reward: they do not wait any longer, nor when they are seen
        again; a no-op after the end."""
        if decision not in self._open and (
            self.length_ms is None or self.is_over(decision, now_ms)
        ):
            return {}
        slots = {**self._slots(decision), **dict.fromkeys(slots, "")}
        return self._put(decision, OpenWindow(VERSION, user, self.end_ms(decision), slots))

    def is_due(self, now_ms: int) -> bool:
        """Return whether `close_ended` may have something to close."""
        return now_ms >= self._next_end_ms or len(self._open) > MAX_OPEN

    def close_ended(self, now_ms: int) -> Iterator[ClosedWindow]:
        """Close windows that have ended, at most `MAX_CLOSED_AT_ONCE`, and the oldest beyond
        `MAX_OPEN`."""
        ended = (decision for decision, window in self._open.items() if window.end_ms <= now_ms)
        for decision in list(islice(ended, MAX_CLOSED_AT_ONCE)):
            yield self._close(decision)
        while len(self._open) > MAX_OPEN:
            yield self._close(next(iter(self._open)))
        self._next_end_ms = self._earliest_end()

    def close_early(self) -> Iterator[ClosedWindow]:
        """Close windows that still wait for a reward before they end, at most `MAX_CLOSED_AT_ONCE`
        a call."""
        waiting = (decision for decision, window in self._open.items() if window.waiting())
        for decision in list(islice(waiting, MAX_CLOSED_AT_ONCE)):
            yield self._close(decision)
        self._next_end_ms = self._earliest_end()

    def forget(self, user: str) -> list[str]:
        """Drop the windows of a pseudonym; return the keys under which they may be stored."""
        decisions = [each for each, window in self._open.items() if window.user == user]
        for decision in decisions:
            del self._open[decision]
        return [PREFIX + decision for decision in decisions]

    def _slots(self, decision: str) -> dict[int, str]:
        return self._open[decision].slots if decision in self._open else {}

    def _put(self, decision: str, window: OpenWindow) -> dict[str, bytes]:
        self._open[decision] = window
        self._next_end_ms = min(self._next_end_ms, window.end_ms)
        return {PREFIX + decision: msgspec.msgpack.encode(window)}

    def _close(self, decision: str) -> ClosedWindow:
        return ClosedWindow(decision, self._open.pop(decision), {PREFIX + decision: b""})

    def _earliest_end(self) -> int:
        return min((window.end_ms for window in self._open.values()), default=NEVER_MS)
