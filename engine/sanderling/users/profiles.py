"""What a device knows of its users, for as long as it goes by one name, and how what happens changes it.

States, budgets, residuals, open windows and the last decisions stand behind one lock, which is never held while waiting
for a disk. Events go to the outbox with the states that they made, under this name and no other. After an erasure
others take this one's place, and know nobody. Refuses to know how bundles are chosen and anything is stored.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import NamedTuple

from sanderling.errors import StorageError
from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.outbox.identity import Identity
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.state_gaps import gap_key
from sanderling.outbox.state_table import CREATED_AT
from sanderling.ranking import decision as decisions
from sanderling.ranking.decision import DecisionRecord
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.runtime.clock import OLDEST_MS, Clock, Entropy
from sanderling.slate import Slate, SlateItem
from sanderling.users.event_factory import EventFactory
from sanderling.users.exploration_budget import DAY_MS, ExplorationBudget
from sanderling.users.personalization import Floats, Residuals
from sanderling.users.reward_windows import PREFIX, OpenWindow, RewardWindows
from sanderling.users.user_states import UserState, UserStates

log = logging.getLogger("sanderling")

REMEMBERED = 256


class UserSnapshot(NamedTuple):
    """What a decision needs of its user: the state, the slots explored today, and what was learned here, [d]."""

    state: UserState
    explored: int
    shift: Floats | None


class UserProfiles:
    """The users of an install under one identity. Thread-safe; methods that tell something put it into the outbox.

    `now_ms`, wherever it is asked for, is the wall clock in ms since 1970, read once for each call of the engine.
    """

    def __init__(
        self,
        outbox: Outbox | None,
        tell: Callable[[Identity, BootClock], EventFactory],
        *,
        adapts: bool,
        window_s: float | None,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.identity = identity = outbox.identity if outbox else Identity.fresh(entropy)
        boot = outbox.boot if outbox else BootClock(clock, entropy)
        self._outbox, self._tell, self._adapts = outbox, tell(identity, boot), adapts
        load = outbox.state if outbox else _nothing
        self._users = UserStates(load, identity.secret, entropy)
        self._budget, self._residuals = ExplorationBudget(load), Residuals(load)
        self._windows = RewardWindows(window_s, outbox.states(PREFIX) if outbox else {})
        self._made: OrderedDict[str, DecisionRecord] = OrderedDict()
        self._applied_rewards: dict[str, dict[int, float]] = {}
        self._lock = Lock()
        self._born_ms = 0  # not known before the first `tick` under a clock that is set
        self._asked = self._ending = False

    def tick(self, now_ms: int, scorer: Scorer) -> None:
        """Begin a call: start the age of this identity, and give the default outcome, -1, to slots that were seen and
        not rewarded in time."""
        with suppress(StorageError):
            if not self._born_ms:
                self._age_ms(now_ms)

        if self._windows.due(now_ms):
            with self._lock:
                self._tell_defaults(self._windows.closed(now_ms), scorer)

    def request_rotation(self) -> None:
        """The lab wants this install to go by another name."""
        self._asked = True

    def should_rotate(self, days: float | None, now_ms: int, scorer: Scorer) -> bool:
        """Tell whether this identity is so many days old, or was asked to end, and may end now.

        Open windows get their default outcomes first, some of them a call, and from then on `see` opens none. Raises
        `StorageError` when the age cannot be read.
        """
        with self._lock:
            is_due = self._asked or (days is not None and self._age_ms(now_ms) >= days * DAY_MS)
            self._ending = is_due
            return is_due and not self._tell_defaults(self._windows.closed_early(), scorer)

    def _age_ms(self, now_ms: int) -> int:
        """Return the age by the wall clock; it begins anew where an earlier clock was ahead of this one."""
        if self._outbox is None or now_ms < OLDEST_MS:
            return 0

        born_ms = self._born_ms or int.from_bytes(self._outbox.state(CREATED_AT) or b"")
        if not 0 < born_ms <= now_ms:
            born_ms = now_ms
            self._put([], {CREATED_AT: born_ms.to_bytes(8)})

        self._born_ms = born_ms
        return now_ms - born_ms

    def known(self, user: str, now_ms: int, scorer: Scorer) -> UserSnapshot:
        """Return what is known of a user, known or not; where it cannot be read now, what is known of a stranger."""
        manifest = scorer.bundle.manifest
        with self._lock:
            try:
                state, explored, shift = self._rebuildable(user, scorer), 0, None
                if manifest.exploration.daily is not None:
                    explored = self._budget.spent(state.name, now_ms)
                if self._adapts:
                    shift = self._residuals.get(state.name, scorer.space, manifest.sizes.dim).shift
                return UserSnapshot(state, explored, shift)
            except StorageError as error:
                log.warning("a user is taken for a stranger: %s", error)
                return UserSnapshot(self._users.stranger(scorer), 0, None)

    def _rebuildable(self, user: str, scorer: Scorer) -> UserState:
        """Return a user's state; where the lab could not rebuild it, for something was lost, let it begin anew."""
        state = self._users.get(user, scorer)
        if self._outbox is not None and state.tail and self._outbox.clear_gap(state.name):
            state = self._users.reset(user, scorer)
            self._put(
                [self._tell.state_reset(state)],
                {self._users.key(user): state.dump(), gap_key(state.name): b""},
            )
        return state

    def decided(
        self, made: DecisionRecord, state: UserState, context: Vector | None, now_ms: int
    ) -> None:
        """Remember and tell a decision that was made for a state, and count what it explored.

        A user who was forgotten meanwhile, or whose state could not be read, is not told of. The first decisions for a
        user store the empty state too, so that its pseudonym outlives the process.
        """
        event = self._tell.decision(made, state, context, self._adapts)
        explored = sum(item.explored for item in made.slate) if made.plan.daily is not None else 0
        with self._lock, suppress(StorageError):
            now = self._users.get(made.request.user, made.scorer)
            if now.name != state.name:
                return
            self._made[made.slate.decision] = made
            if len(self._made) > REMEMBERED:
                self._applied_rewards.pop(self._made.popitem(last=False)[0], None)
            states = self._budget.spend(state.name, now_ms, explored) if explored else {}
            if now.events == 0:
                states[self._users.key(made.request.user)] = now.dump()
            self._put([event], states)

    def remembered(self, decision: str) -> DecisionRecord:
        """Return one of the last decisions; raise `KeyError` for any other."""
        with self._lock:
            return self._made[decision]

    def observe(self, user: str, item: str, kind: str, scorer: Scorer) -> None:
        """Move a user's state by organic behaviour, and tell of it; neither where the state cannot be read now."""
        with self._lock, suppress(StorageError):
            state = self._users.observe(user, item, kind, scorer)
            self._put(
                [self._tell.observation(state.name, item, kind)],
                {self._users.key(user): state.dump()},
            )

    def see(self, slate: Slate, items: Iterable[SlateItem], now_ms: int, scorer: Scorer) -> None:
        """Let the window of these items' slots wait for rewards, unless the user was forgotten or this identity is
        about to end, which nothing is to put off."""
        slots = {item.slot: item.id for item in items}
        with self._lock, suppress(StorageError):
            if not slots or self._ending:
                return
            if self._users.get(slate.user, scorer).name == slate.pseudonym:
                self._put([], self._windows.see(slate.decision, slate.pseudonym, slots, now_ms))

    def rewarded(
        self,
        slate: Slate,
        values: Sequence[tuple[SlateItem, float]],
        kind: str | None,
        observe: bool | None,
        now_ms: int,
        scorer: Scorer,
    ) -> Callable[[float], None]:
        """Tell what became of items of a slate; return the function that waits so many seconds until it is durable.

        Raises `StorageError` when it cannot be, or the slate was decided under another name: that would join the two.
        """
        with self._lock:
            if self._outbox is None:
                raise StorageError("not stored: there is no outbox")
            if self._users.get(slate.user, scorer).name != slate.pseudonym:
                raise StorageError(
                    "not stored: since this slate was decided the user's pseudonym has changed, because the user was"
                    " forgotten, or this install was erased or took another name"
                )

            decision, name = slate.decision, slate.pseudonym
            late = self._windows.is_over(decision, now_ms)
            outcomes: list[wire.Event] = []
            states: dict[str, bytes] = {}
            for item, value in values:
                moves = self._tell.exact and (value > 0 if observe is None else observe)
                outcome = self._tell.outcome(
                    decision,
                    item.slot,
                    item.id,
                    name,
                    value,
                    kind,
                    moves=moves,
                    late=late,
                )
                outcomes.append(outcome)
                if moves:
                    state = self._users.observe(slate.user, item.id, outcome.kind, scorer)
                    states[self._users.key(slate.user)] = state.dump()

            rewards = {item.slot: value for item, value in values}
            states |= self._windows.settle(decision, name, rewards, now_ms)
            states |= self._learn(name, decision, rewards, scorer)
            return self._outbox.submit(outcomes, states, self.identity.install)

    def _tell_defaults(
        self, closed: Iterable[tuple[str, OpenWindow, dict[str, bytes]]], scorer: Scorer
    ) -> int:
        """Tell the default outcomes of windows that are closed; return how many windows there were."""
        count = 0
        for decision, seen, states in closed:
            count += 1
            waiting = seen.waiting()
            events = [
                self._tell.outcome(decision, slot, item, seen.user, -1.0)
                for slot, item in waiting.items()
            ]
            learned = self._learn(seen.user, decision, dict.fromkeys(waiting, -1.0), scorer)
            self._put(events, states | learned)
        return count

    def _learn(
        self, name: str, decision: str, rewards: Mapping[int, float], scorer: Scorer
    ) -> dict[str, bytes]:
        """Move the user's residual by the rewards by slot of a remembered decision; return what is to be stored.

        A reward that is told again teaches nothing again.
        """
        made = self._made.get(decision) if self._adapts else None
        if made is None or made.residual is None or made.scorer.space != scorer.space:
            return {}
        applied_rewards = self._applied_rewards.setdefault(decision, {})
        new = {
            slot: value
            for slot, value in rewards.items()
            if slot < len(made.slate) and applied_rewards.get(slot) != value
        }
        if not new:
            return {}
        by_rank = {made.slate[slot].rank: value for slot, value in new.items()}
        pool = decisions.pool_vectors(made)
        shipped = made.ranking.scores - pool @ made.residual
        try:
            learned = self._residuals.learn(name, made.scorer.space, pool, shipped, by_rank)
        except StorageError as error:
            log.warning("nothing was learned: %s", error)
            return {}
        applied_rewards |= new
        return learned

    def forget(self, user: str) -> None:
        """Delete all that is known of a user, here and in the outbox; raise `StorageError` when that fails there."""
        with self._lock:
            key, names = self._users.forget(user)
            keys = [key]
            for name in names:
                own = self._budget.forget(name), self._residuals.forget(name), gap_key(name)
                keys += [*own, *self._windows.forget(name)]
            for decision in [id for id, made in self._made.items() if made.request.user == user]:
                del self._made[decision]
                self._applied_rewards.pop(decision, None)
        if self._outbox:
            self._outbox.forget(names, keys)
        with self._lock:
            self._users.forgotten(key)

    def _put(self, events: Sequence[wire.Event], states: Mapping[str, bytes]) -> None:
        if self._outbox is not None:
            self._outbox.put(events, states, self.identity.install)


def _nothing(key: str) -> None:
    """Load nothing: there is no outbox."""
