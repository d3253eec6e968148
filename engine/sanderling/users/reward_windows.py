"""Reward windows: a slot that was seen and not rewarded in time gets the default outcome, once, also after a restart.

A window ends so long after its decision, by the device's wall clock; a wrong clock moves its end and loses nothing, for
a reward that comes later is still told, as a late one. What has its outcome is remembered for a while after the end: a
clock that was set back would open the window again, and a default would take the place of a reward. Refuses to know
what the default is, and where bytes are stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice

import msgspec

from sanderling.runtime.clock import time_of

PREFIX = "seen:"
MOST_OPEN = 10_000
MOST_ENDED = 1000
AT_ONCE = 64
NEVER_MS = 2**62


class OpenWindow(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The slots of one decision: the user's pseudonym, the end of its window, `NEVER_MS` when that is behind us, and by
    slot the item that waits for a reward, or "" where the outcome is known."""

    version: int
    user: str
    end_ms: int
    slots: dict[int, str]

    def waiting(self) -> dict[int, str]:
        """Return the slots that were seen and have no reward, and their items."""
        return {slot: item for slot, item in self.slots.items() if item}


class RewardWindows:
    """The open windows of an engine, oldest first; `stored` are the bytes that earlier processes left, by key.

    Methods return what is to be stored: bytes by key, none to delete it.
    """

    def __init__(self, length_s: float | None, stored: Mapping[str, bytes]) -> None:
        self.length_ms = None if length_s is None else int(length_s * 1000)
        self._open: dict[str, OpenWindow] = {}
        self._ended: dict[str, OpenWindow] = {}
        for key, value in sorted(stored.items()):
            try:
                seen = msgspec.msgpack.decode(value, type=OpenWindow)
            except msgspec.MsgspecError:
                continue
            (self._ended if seen.end_ms == NEVER_MS else self._open)[key.removeprefix(PREFIX)] = (
                seen
            )
        self._next_ms = self._earliest()

    def end_ms(self, decision: str) -> int:
        """Return when the window of a decision ends, as it was opened; its time is in its id (UUID 7)."""
        if decision in self._open:
            return self._open[decision].end_ms
        return NEVER_MS if self.length_ms is None else time_of(decision) + self.length_ms

    def is_over(self, decision: str, now_ms: int) -> bool:
        """Tell whether the window of a decision has ended, by whatever length it had."""
        return decision in self._ended or now_ms > self.end_ms(decision)

    def see(
        self, decision: str, user: str, slots: Mapping[int, str], now_ms: int
    ) -> dict[str, bytes]:
        """Let these slots wait, but for those that have their reward; nothing waits when the window has ended."""
        if self.end_ms(decision) <= now_ms:
            return {}
        return self._keep(
            decision, OpenWindow(1, user, self.end_ms(decision), {**slots, **self._known(decision)})
        )

    def settle(
        self, decision: str, user: str, slots: Collection[int], now_ms: int
    ) -> dict[str, bytes]:
        """Let these slots wait no longer, nor when they are seen again: they have their reward."""
        if self.length_ms is None and decision not in self._open:
            return {}
        slots = {**self._known(decision), **dict.fromkeys(slots, "")}
        if self.end_ms(decision) <= now_ms and decision not in self._open:
            return self._end(decision, user, slots)
        return self._keep(decision, OpenWindow(1, user, self.end_ms(decision), slots))

    def _known(self, decision: str) -> dict[int, str]:
        found = self._open.get(decision) or self._ended.get(decision)
        return found.slots if found else {}

    def _keep(self, decision: str, seen: OpenWindow) -> dict[str, bytes]:
        self._ended.pop(decision, None)
        self._open[decision] = seen
        self._next_ms = min(self._next_ms, seen.end_ms)
        return {PREFIX + decision: msgspec.msgpack.encode(seen)}

    def closed(self, now_ms: int) -> Iterator[tuple[str, OpenWindow, dict[str, bytes]]]:
        """Yield decisions whose windows have ended, or are too many to wait, and wait for them no longer: some at a
        time, for whoever asks has other things to do."""
        ended = (decision for decision, seen in self._open.items() if seen.end_ms <= now_ms)
        for decision in list(islice(ended, AT_ONCE)):
            yield self._close(decision)
        while len(self._open) > MOST_OPEN:
            yield self._close(next(iter(self._open)))
        self._next_ms = self._earliest()

    def _close(self, decision: str) -> tuple[str, OpenWindow, dict[str, bytes]]:
        seen = self._open[decision]
        return decision, seen, self._end(decision, seen.user, dict.fromkeys(seen.slots, ""))

    def _end(self, decision: str, user: str, slots: Mapping[int, str]) -> dict[str, bytes]:
        """Remember what is known of a decision whose window has ended, and forget the one that ended longest ago."""
        self._open.pop(decision, None)
        self._ended.pop(decision, None)
        self._ended[decision] = ended = OpenWindow(1, user, NEVER_MS, dict(slots))
        states = {PREFIX + decision: msgspec.msgpack.encode(ended)}
        return states | (
            self._drop(next(iter(self._ended))) if len(self._ended) > MOST_ENDED else {}
        )

    def due(self, now_ms: int) -> bool:
        """Tell whether `closed` may have something to yield."""
        return now_ms >= self._next_ms or len(self._open) > MOST_OPEN

    def closed_early(self) -> Iterator[tuple[str, OpenWindow, dict[str, bytes]]]:
        """Close some of the windows that wait for a reward, as `closed` does, before they end."""
        waiting = (decision for decision, seen in self._open.items() if seen.waiting())
        for decision in list(islice(waiting, AT_ONCE)):
            yield self._close(decision)
        self._next_ms = self._earliest()

    def forget(self, user: str) -> list[str]:
        """Drop the windows of a pseudonym; return the keys under which they may be stored."""
        return [key for decision in self._of(user) for key in self._drop(decision)]

    def _of(self, user: str) -> list[str]:
        return [
            decision
            for decision, seen in (*self._open.items(), *self._ended.items())
            if seen.user == user
        ]

    def _drop(self, decision: str) -> dict[str, bytes]:
        self._open.pop(decision, None)
        self._ended.pop(decision, None)
        return {PREFIX + decision: b""}

    def _earliest(self) -> int:
        return min((seen.end_ms for seen in self._open.values()), default=NEVER_MS)
