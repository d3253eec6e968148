"""Reward windows: a slot that was seen and not rewarded in time gets the default outcome, once, also after a restart.

A window ends so long after its decision, by the device's wall clock; a wrong clock moves its end and loses nothing, for
a reward that comes later is still told, as a late one. Refuses to know what the default is, and where bytes are stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

PREFIX = "seen:"
MOST_OPEN = 10_000
NEVER_MS = 2**62


class Seen(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The slots of one decision that wait for a reward: the user's pseudonym, the end, and the item of each slot."""

    version: int
    user: str
    end_ms: int
    slots: dict[int, str]


class Windows:
    """The open windows of an engine, oldest first; `stored` are the bytes that earlier processes left, by key.

    Methods return what is to be stored: bytes by key, none to delete it.
    """

    def __init__(self, length_s: float | None, stored: Mapping[str, bytes]) -> None:
        self.length_ms = None if length_s is None else int(length_s * 1000)
        self._open: dict[str, Seen] = {}
        for key, value in sorted(stored.items()):
            try:
                self._open[key.removeprefix(PREFIX)] = msgspec.msgpack.decode(value, type=Seen)
            except msgspec.MsgspecError:
                continue
        self._next_ms = self._earliest()

    def end_ms(self, decision: str) -> int:
        """Return when the window of a decision ends; the time of a decision is in its id (UUID 7)."""
        return NEVER_MS if self.length_ms is None else int(decision[:12], 16) + self.length_ms

    def see(self, decision: str, user: str, slots: Mapping[int, str]) -> dict[str, bytes]:
        """Let these slots wait, beside those of the decision that wait already."""
        before = self._open.get(decision)
        seen = Seen(1, user, self.end_ms(decision), {**(before.slots if before else {}), **slots})
        self._open[decision] = seen
        self._next_ms = min(self._next_ms, seen.end_ms)
        return {PREFIX + decision: msgspec.msgpack.encode(seen)}

    def settle(self, decision: str, slots: Collection[int]) -> dict[str, bytes]:
        """Let these slots wait no longer: they have their reward."""
        seen = self._open.get(decision)
        if seen is None:
            return {}
        seen.slots = {slot: item for slot, item in seen.slots.items() if slot not in slots}
        if seen.slots:
            return {PREFIX + decision: msgspec.msgpack.encode(seen)}
        return self._drop(decision)

    def closed(self, now_ms: int) -> Iterator[tuple[str, Seen, dict[str, bytes]]]:
        """Yield the decisions whose windows have ended, or are too many to wait, and wait for them no longer."""
        for decision in [decision for decision, seen in self._open.items() if seen.end_ms <= now_ms]:
            yield decision, self._open[decision], self._drop(decision)
        while len(self._open) > MOST_OPEN:
            decision = next(iter(self._open))
            yield decision, self._open[decision], self._drop(decision)
        self._next_ms = self._earliest()

    def due(self, now_ms: int) -> bool:
        """Tell whether `closed` may have something to yield."""
        return now_ms >= self._next_ms or len(self._open) > MOST_OPEN

    def forget(self, user: str) -> list[str]:
        """Drop the windows of a pseudonym; return the keys under which they may be stored."""
        return [key for decision in self._of(user) for key in self._drop(decision)]

    def _of(self, user: str) -> list[str]:
        return [decision for decision, seen in self._open.items() if seen.user == user]

    def _drop(self, decision: str) -> dict[str, bytes]:
        del self._open[decision]
        return {PREFIX + decision: b""}

    def _earliest(self) -> int:
        return min((seen.end_ms for seen in self._open.values()), default=NEVER_MS)
