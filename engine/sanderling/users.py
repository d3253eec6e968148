"""Each user's state: kept in memory for the busy ones, handed out as bytes for storing.

A state lives in the space of one bundle. When the bundle changes, the state is built anew from the user's last events,
which are kept beside it. Refuses to know where the bytes are stored.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from sanderling.scorer import Scorer, Vector

TAIL = 256
CACHED_USERS = 4096
NO_EVENTS = "0" * 32


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    space: str
    state: bytes
    check: str
    events: int
    tail: list[tuple[str, str]]


@dataclass(frozen=True)
class UserState:
    """A state [c], the checksum and number of the events that made it, and the last `TAIL` of them (item id, kind)."""

    space: str
    state: Vector
    check: str
    events: int
    tail: tuple[tuple[str, str], ...]

    def dump(self) -> bytes:
        """Return the bytes from which `load` makes it again."""
        stored = _Stored(1, self.space, self.state.tobytes(), self.check, self.events, list(self.tail))
        return msgspec.msgpack.encode(stored)


def next_check(check: str, item: str, kind: str) -> str:
    """Return the checksum after one more event: BLAKE2b-128 of the checksum so far, the item id and the kind."""
    content = f"{check}\0{item}\0{kind}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Users:
    """The states of all users of an engine; `load` returns the stored bytes of a pseudonym, or None."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._load = load
        self._states: OrderedDict[str, UserState] = OrderedDict()

    def get(self, user: str, scorer: Scorer) -> UserState:
        """Return a user's state in the scorer's space; an unknown user starts empty."""
        found = self._states.get(user) or self._restore(self._load(user), scorer)
        if found.space != scorer.space:
            found = UserState(scorer.space, _replay(found.tail, scorer), found.check, found.events, found.tail)
        self._keep(user, found)
        return found

    def observe(self, user: str, item: str, kind: str, scorer: Scorer) -> UserState:
        """Move a user's state by one event and return it; an item that nobody knows only enters the checksum."""
        before = self.get(user, scorer)
        after = UserState(
            scorer.space,
            _step(before.state, item, kind, scorer),
            next_check(before.check, item, kind),
            before.events + 1,
            (*before.tail[-TAIL + 1 :], (item, kind)),
        )
        self._keep(user, after)
        return after

    def forget(self, user: str) -> str:
        """Drop a user's state from memory; return the key under which it may be stored."""
        self._states.pop(user, None)
        return user

    def _restore(self, data: bytes | None, scorer: Scorer) -> UserState:
        start = UserState(scorer.space, scorer.state.start(), NO_EVENTS, 0, ())
        if data is None:
            return start
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except msgspec.MsgspecError:
            return start
        if stored.version != 1:
            return start
        state = np.frombuffer(stored.state, np.float32) if len(stored.state) % 4 == 0 else start.state
        same = stored.space == scorer.space and state.shape == start.state.shape
        return UserState(stored.space if same else "", state, stored.check, stored.events, tuple(stored.tail))

    def _keep(self, user: str, state: UserState) -> None:
        self._states[user] = state
        self._states.move_to_end(user)
        if len(self._states) > CACHED_USERS:
            self._states.popitem(last=False)


def _step(state: Vector, item: str, kind: str, scorer: Scorer) -> Vector:
    row = scorer.find(item)
    return state if row is None else scorer.state.step(state, scorer.vector(row), kind)


def _replay(tail: tuple[tuple[str, str], ...], scorer: Scorer) -> Vector:
    state = scorer.state.start()
    for item, kind in tail:
        state = _step(state, item, kind, scorer)
    return state
