"""Each user's state and the pseudonym that stands for the user, cached in memory and returned as
bytes to store.

A state lives in the vector space of one bundle. When the bundle changes, the state is recomputed
from the user's last events, which are stored beside it. A pseudonym is random, drawn together with
an empty state, and lives as long as the state: the collector's side rebuilds states by pseudonym,
so a user whose state is gone gets a new pseudonym. The key under which a state is stored is an HMAC
of the user's name under the device's secret, and never leaves the device.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import msgspec
import numpy as np

from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.user_model import UserModel
from sanderling.runtime.clock import Entropy
from sanderling.runtime.lru_cache import LruCache
from sanderling.users.user_cache import CACHED_USERS

MAX_HISTORY = 256
"""Events kept with a state, from which it is recomputed in another vector space."""

MAX_RESET_BYTES = 32 * 1024
"""Bytes of the steps of a `StateReset`, as JSON: the event then fits into a line."""

VERSION = 2
"""The version of the stored form."""


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    space: str
    vector: bytes
    checksum: str
    events: int
    history: list[tuple[str, str]]
    pseudonym: str


@dataclass(frozen=True)
class UserState:
    """The state of one user under one pseudonym."""

    pseudonym: str
    """32 random hex digits."""

    space: str
    """The vector space, that of one bundle, in which `vector` lives."""

    vector: Vector
    """The state, float32 [c]."""

    checksum: str
    """The checksum of the events that made the state, see `events.state_checksum`."""

    events: int
    """How many events made the state."""

    history: tuple[tuple[str, str], ...]
    """The last `MAX_HISTORY` of these events: item id and kind, oldest first."""

    def user_vector(self, model: UserModel) -> Vector:
        """Return the user vector [d] for no context, by the model of the state's space.

        It is computed once: pages, searches and refreshes ask again before anything happened.
        """
        known: Vector | None = self.__dict__.get("_user_vector")
        if known is None:
            known = model.user_vector(self.vector)
            known.flags.writeable = False
            self.__dict__["_user_vector"] = known
        return known

    def dump(self) -> bytes:
        """Return the bytes to store."""
        stored = _Stored(
            VERSION,
            self.space,
            self.vector.tobytes(),
            self.checksum,
            self.events,
            list(self.history),
            self.pseudonym,
        )
        return msgspec.msgpack.encode(stored)


class UserStates:
    """The states of all users of an install.

    `load` returns the stored bytes of a key, or None. What it raises passes through and changes
    nothing: a state that cannot be read now must not be replaced by an empty one.
    """

    def __init__(
        self, load: Callable[[str], bytes | None], secret: bytes, entropy: Entropy
    ) -> None:
        self._load = load
        self._secret = secret
        self._entropy = entropy
        self._states: LruCache[str, UserState] = LruCache(CACHED_USERS)
        self._forgotten: dict[str, set[str]] = {}
        self.key = lru_cache(maxsize=CACHED_USERS)(self._key)

    def _key(self, user: str) -> str:
        """Return the key under which a user's state is stored: 32 hex digits, an HMAC of the
        name."""
        return hmac.digest(self._secret, user.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]

    def get(self, user: str, scorer: Scorer) -> UserState:
        """Return a user's state in the scorer's space; an unknown user has an empty state."""
        key = self.key(user)
        state = self._states.get(key)
        if state is not None and state.space == scorer.space:
            return state

        state = state or self._restore(key, scorer)
        if state.space != scorer.space:
            state = replace(state, space=scorer.space, vector=_replay(state.history, scorer))
        self._states.put(key, state)
        return state

    def observe(self, user: str, item: str, kind: str, scorer: Scorer) -> UserState:
        """Update a user's state by one event and return it.

        An item that is not in the catalog changes only the checksum and the history.
        """
        before = self.get(user, scorer)
        after = UserState(
            before.pseudonym,
            scorer.space,
            _step(before.vector, item, kind, scorer),
            next_checksum(before.checksum, item, kind),
            before.events + 1,
            (*before.history[-MAX_HISTORY + 1 :], (item, kind)),
        )
        self._states.put(self.key(user), after)
        return after

    def reset(self, user: str, scorer: Scorer) -> UserState:
        """Rebuild a user's state from an empty one and the last of its events, and return it.

        As many events are taken as fit into `MAX_RESET_BYTES` of a `StateReset`.
        """
        before = self.get(user, scorer)
        steps = before.history
        while len(msgspec.json.encode(steps)) > MAX_RESET_BYTES:
            steps = steps[len(steps) // 2 :]

        checksum = reduce(lambda checksum, step: next_checksum(checksum, *step), steps, NO_EVENTS)
        vector = _replay(steps, scorer)
        after = UserState(before.pseudonym, scorer.space, vector, checksum, len(steps), steps)
        self._states.put(self.key(user), after)
        return after

    def new_user(self, scorer: Scorer) -> UserState:
        """Return an empty state under a fresh pseudonym."""
        pseudonym = self._entropy(16).hex()
        return UserState(
            pseudonym, scorer.space, scorer.user_model.initial_state(), NO_EVENTS, 0, ()
        )

    def forget(self, user: str) -> tuple[str, set[str]]:
        """Forget a user, whatever is still stored.

        Return the key, and all pseudonyms under which something may be stored until
        `confirm_forgotten`.
        """
        key = self.key(user)
        pseudonyms = self._forgotten.setdefault(key, set())
        state = self._states.pop(key) or self._load_state(key)
        if state is not None:
            pseudonyms.add(state.pseudonym)

        self.key.cache_clear()  # it holds the user's name
        return key, set(pseudonyms)

    def confirm_forgotten(self, key: str) -> None:
        """Use what is stored under a key again: the forgotten user's data has been deleted."""
        self._forgotten.pop(key, None)

    def _restore(self, key: str, scorer: Scorer) -> UserState:
        state = self._load_state(key)
        if state is None or state.pseudonym in self._forgotten.get(key, ()):
            return self.new_user(scorer)

        # A state of another width is recomputed by `get`, as one of another space is.
        fits = state.vector.shape == scorer.user_model.initial_state().shape
        return state if fits else replace(state, space="")

    def _load_state(self, key: str) -> UserState | None:
        """Return what is stored under a key, in the space of its bundle; None for nothing, and for
        damaged bytes."""
        data = self._load(key)
        if data is None:
            return None
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except msgspec.MsgspecError:
            return None
        if stored.version != VERSION or len(stored.vector) % 4:
            return None

        return UserState(
            stored.pseudonym,
            stored.space,
            np.frombuffer(stored.vector, np.float32),
            stored.checksum,
            stored.events,
            tuple(stored.history),
        )


def _step(vector: Vector, item: str, kind: str, scorer: Scorer) -> Vector:
    row = scorer.find(item)
    return vector if row is None else scorer.user_model.step(vector, scorer.vector(row), kind)


def _replay(history: tuple[tuple[str, str], ...], scorer: Scorer) -> Vector:
    vector = scorer.user_model.initial_state()
    for item, kind in history:
        vector = _step(vector, item, kind, scorer)
    return vector
