"""Each user's state, and the pseudonym that stands for it: kept in memory for the busy, handed out as bytes to store.

A state lives in the space of one bundle. When the bundle changes, the state is built anew from the user's last events,
which are kept beside it. A pseudonym is drawn with an empty state, at random, and lives as long as what follows from
it: the lab rebuilds states by pseudonym, and whoever comes back without a state has another name. The key under which
a state is stored follows from the user's name and the device's secret, and never leaves the device. Refuses to know
where the bytes are stored.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import msgspec
import numpy as np

from sanderling.events.state_checksum import NO_EVENTS, next_check
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.runtime.clock import Entropy

TAIL = 256
RESTART_BYTES = 32 * 1024
CACHED_USERS = 4096
VERSION = 2


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    space: str
    state: bytes
    check: str
    events: int
    tail: list[tuple[str, str]]
    name: str


@dataclass(frozen=True)
class UserState:
    """A state [c] under a pseudonym, the checksum and number of the events that made it, and the last `TAIL` of them
    (item id, kind)."""

    name: str
    space: str
    state: Vector
    check: str
    events: int
    tail: tuple[tuple[str, str], ...]

    def dump(self) -> bytes:
        """Return the bytes from which `load` makes it again."""
        stored = _Stored(
            VERSION,
            self.space,
            self.state.tobytes(),
            self.check,
            self.events,
            list(self.tail),
            self.name,
        )
        return msgspec.msgpack.encode(stored)


class UserStates:
    """The states of all users of an install.

    `load` returns the stored bytes of a key, or None. What it raises passes through, and changes nothing: an unread
    state must not be taken for none.
    """

    def __init__(
        self, load: Callable[[str], bytes | None], secret: bytes, entropy: Entropy
    ) -> None:
        self._load, self._secret, self._entropy = load, secret, entropy
        self._states: OrderedDict[str, UserState] = OrderedDict()
        self._forgotten: dict[str, set[str]] = {}
        self.key = lru_cache(maxsize=CACHED_USERS)(self._key)

    def _key(self, user: str) -> str:
        """Return the key under which a user's state is stored: 32 hex digits, an HMAC of the name."""
        return hmac.digest(self._secret, user.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]

    def get(self, user: str, scorer: Scorer) -> UserState:
        """Return a user's state in the scorer's space; an unknown user starts empty."""
        key = self.key(user)
        found = self._states.get(key) or self._restore(key, scorer)
        if found.space != scorer.space:
            found = replace(found, space=scorer.space, state=_replay(found.tail, scorer))
        self._keep(key, found)
        return found

    def observe(self, user: str, item: str, kind: str, scorer: Scorer) -> UserState:
        """Move a user's state by one event and return it; an item that nobody knows only enters the checksum."""
        before = self.get(user, scorer)
        after = UserState(
            before.name,
            scorer.space,
            _step(before.state, item, kind, scorer),
            next_check(before.check, item, kind),
            before.events + 1,
            (*before.tail[-TAIL + 1 :], (item, kind)),
        )
        self._keep(self.key(user), after)
        return after

    def reset(self, user: str, scorer: Scorer) -> UserState:
        """Let a user's state be what the last of its events make of an empty one, and return it."""
        before = self.get(user, scorer)
        steps = before.tail
        while len(msgspec.json.encode(steps)) > RESTART_BYTES:
            steps = steps[len(steps) // 2 :]
        check = reduce(lambda check, step: next_check(check, *step), steps, NO_EVENTS)
        after = UserState(
            before.name, scorer.space, _replay(steps, scorer), check, len(steps), steps
        )
        self._keep(self.key(user), after)
        return after

    def stranger(self, scorer: Scorer) -> UserState:
        """Return an empty state under a fresh pseudonym."""
        return UserState(
            self._entropy(16).hex(),
            scorer.space,
            scorer.user_model.initial_state(),
            NO_EVENTS,
            0,
            (),
        )

    def forget(self, user: str) -> tuple[str, set[str]]:
        """Forget a user, whatever is still stored; return the key, and all pseudonyms that it stood for until
        `forgotten`."""
        key = self.key(user)
        names = self._forgotten.setdefault(key, set())
        found = self._states.pop(key, None) or self._stored(key)
        if found is not None:
            names.add(found.name)
        self.key.cache_clear()
        return key, set(names)

    def forgotten(self, key: str) -> None:
        """Note that nothing of a forgotten user is stored any more."""
        self._forgotten.pop(key, None)

    def _restore(self, key: str, scorer: Scorer) -> UserState:
        found = self._stored(key)
        if found is None or found.name in self._forgotten.get(key, ()):
            return self.stranger(scorer)
        return (
            found
            if found.state.shape == scorer.user_model.initial_state().shape
            else replace(found, space="")
        )

    def _stored(self, key: str) -> UserState | None:
        """Return what is stored under a key, in the space of its bundle; None where that is nothing or damaged."""
        data = self._load(key)
        if data is None:
            return None
        try:
            found = msgspec.msgpack.decode(data, type=_Stored)
        except msgspec.MsgspecError:
            return None
        if found.version != VERSION or len(found.state) % 4:
            return None
        state = np.frombuffer(found.state, np.float32)
        return UserState(
            found.name, found.space, state, found.check, found.events, tuple(found.tail)
        )

    def _keep(self, key: str, state: UserState) -> None:
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > CACHED_USERS:
            self._states.popitem(last=False)


def _step(state: Vector, item: str, kind: str, scorer: Scorer) -> Vector:
    row = scorer.find(item)
    return state if row is None else scorer.user_model.step(state, scorer.vector(row), kind)


def _replay(tail: tuple[tuple[str, str], ...], scorer: Scorer) -> Vector:
    state = scorer.user_model.initial_state()
    for item, kind in tail:
        state = _step(state, item, kind, scorer)
    return state
