"""Per-user data under one identity, and how decisions, behaviour and rewards change it.

States, budgets, residuals, open windows and the last decisions are behind one lock, which is never
held while waiting for a disk. Each event goes to the outbox together with the states that changed
with it. After an erasure or a rotation of the identity the engine makes new, empty profiles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock
from typing import NamedTuple

from sanderling.bundle.manifest import Arm
from sanderling.errors import StorageError
from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.exploration.arms import assigned_arm, plan_of
from sanderling.outbox.identity import Identity
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.records import QueuedEvent
from sanderling.outbox.state_gaps import gap_key
from sanderling.ranking import decision as decisions
from sanderling.ranking.decision import DecisionRecord
from sanderling.ranking.reasons import DecisionInputs
from sanderling.ranking.reasons_history import UserHistory
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.runtime.clock import Clock, Entropy
from sanderling.runtime.lru_cache import LruCache
from sanderling.slate import Slate, SlateItem
from sanderling.users.event_factory import EventFactory, ShownSlot
from sanderling.users.exploration_budget import ExplorationBudget
from sanderling.users.identity_rotation import IdentityRotation
from sanderling.users.personalization import Floats, Residuals
from sanderling.users.reward_windows import PREFIX, ClosedWindow, RewardWindows
from sanderling.users.user_states import UserState, UserStates

log = logging.getLogger("sanderling")

REMEMBERED_DECISIONS = 256
"""Decisions that can be explained, and whose rewards change a residual: the last of the process."""

DEFAULT_REWARD = -1.0
"""The reward of an item that was seen and not rewarded in time: not clicked."""


class UserSnapshot(NamedTuple):
    """What a decision needs of its user."""

    state: UserState
    """The user's state and pseudonym."""

    explored: int
    """The explored slots that the user was shown today."""

    residual: Floats | None
    """δ [d], what was learned on the device; None where the engine does not learn."""

    arm: Arm | None
    """The arm of the bundle's experiment that the install is in, if it is in one."""


class _Remembered(NamedTuple):
    record: DecisionRecord
    applied_rewards: dict[int, float]  # by slot: what the residual has learned from already
    state: UserState
    context: Vector | None


class UserProfiles:
    """The users of an install under one identity. Thread-safe.

    `now_ms` is everywhere the wall clock in ms since 1970, read once for each call of the engine.
    """

    def __init__(
        self,
        outbox: Outbox | None,
        make_events: Callable[[Identity, BootClock], EventFactory],
        *,
        adapts: bool,
        window_s: float | None,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.identity = outbox.identity if outbox else Identity.fresh(entropy)
        self.rotation = IdentityRotation(outbox, self.identity.install)
        boot = outbox.boot if outbox else BootClock(clock, entropy)
        load = outbox.state if outbox else _load_nothing

        self._outbox = outbox
        self._event_factory = make_events(self.identity, boot)
        self._adapts = adapts
        self._states = UserStates(load, self.identity.secret, entropy)
        self._budget = ExplorationBudget(load)
        self._residuals = Residuals(load)
        self._windows = RewardWindows(window_s, outbox.states(PREFIX) if outbox else {})
        self._decisions: LruCache[str, _Remembered] = LruCache(REMEMBERED_DECISIONS)
        self._opens_windows = True
        self._lock = Lock()

    def close_ended_windows(self, now_ms: int, scorer: Scorer) -> None:
        """Record the default outcomes of windows that have ended; public calls begin with this."""
        if not self.rotation.has_age:
            with suppress(StorageError):
                self.rotation.record_creation(now_ms)

        if self._windows.is_due(now_ms):
            with self._lock:
                self._record_defaults(self._windows.close_ended(now_ms), scorer)

    def prepare_rotation(self, days: float | None, now_ms: int, scorer: Scorer) -> bool:
        """Close open windows if a rotation is due; return whether it may take place now.

        While it is due, by age or by request, no window is opened, and each call gives some of the
        open ones their default outcomes. It may take place when none is left. Raises `StorageError`
        when the age cannot be read.
        """
        with self._lock:
            is_due = self.rotation.is_due(days, now_ms)
            self._opens_windows = not is_due
            return is_due and not self._record_defaults(self._windows.close_early(), scorer)

    def snapshot(self, user: str, now_ms: int, scorer: Scorer) -> UserSnapshot:
        """Return what a decision needs of a user.

        Where the stored state cannot be read now, the user counts as a new one for this decision.
        """
        manifest = scorer.bundle.manifest
        arm = assigned_arm(manifest.experiment, self.identity.install)
        with self._lock:
            try:
                state = self._rebuildable_state(user, scorer)
                explored = 0
                if plan_of(manifest, arm).daily is not None:
                    explored = self._budget.spent(state.pseudonym, now_ms)

                residual = None
                if self._adapts and (arm is None or arm.personalized):
                    residual = self._residuals.get(
                        state.pseudonym, scorer.space, manifest.sizes.dim
                    ).delta
                return UserSnapshot(state, explored, residual, arm)
            except StorageError as error:
                log.warning("a user's state cannot be read, using an empty one: %s", error)
                return UserSnapshot(self._states.new_user(scorer), 0, None, arm)

    def _rebuildable_state(self, user: str, scorer: Scorer) -> UserState:
        """Return a user's state; reset it first where an event was lost from which it was made.

        Training rebuilds each state from the uploaded events and drops decisions whose state it
        cannot rebuild.
        """
        state = self._states.get(user, scorer)
        if self._outbox is None or not state.history:
            return state
        if self._outbox.clear_gap(state.pseudonym):
            state = self._states.reset(user, scorer)
            states = {self._states.key(user): state.dump(), gap_key(state.pseudonym): b""}
            self._put([self._event_factory.state_reset(state)], states)
        return state

    def record_decision(
        self, record: DecisionRecord, state: UserState, context: Vector | None, now_ms: int
    ) -> None:
        """Keep a decision in memory, put its event into the outbox, and count what it explored.

        Nothing is recorded of a user who was forgotten meanwhile or whose state could not be read.
        The first decisions for a user store the empty state too, so that its pseudonym survives a
        restart.
        """
        slate = record.slate
        user = record.request.user
        is_adapted = self._adapts and record.residual is not None
        event = self._event_factory.decision(record, state, context, is_adapted)
        is_budgeted = record.plan.daily is not None
        explored = sum(item.explored for item in slate) if is_budgeted else 0

        with self._lock, suppress(StorageError):
            current = self._states.get(user, record.scorer)
            if current.pseudonym != state.pseudonym:
                return
            self._decisions.put(slate.decision, _Remembered(record, {}, state, context))

            states = self._budget.spend(state.pseudonym, now_ms, explored) if explored else {}
            if current.events == 0:
                states[self._states.key(user)] = current.dump()
            self._put([event], states)

    def decision_record(self, decision: str) -> DecisionRecord:
        """Return one of the last `REMEMBERED_DECISIONS`; raise `KeyError` for any other."""
        return self._remembered(decision).record

    def decision_inputs(self, slate: Slate, scorer: Scorer) -> DecisionInputs:
        """Return what one of the last `REMEMBERED_DECISIONS` was made of.

        Raises `KeyError`, with the reason, for any other, and for one of a user who was forgotten.
        """
        try:
            remembered = self._remembered(slate.decision)
        except KeyError:
            raise KeyError(self._why_gone(slate, scorer)) from None
        state = remembered.state
        history = UserHistory(state.vector, state.history, state.events)
        return DecisionInputs(remembered.record, history, remembered.context)

    def _remembered(self, decision: str) -> _Remembered:
        with self._lock:
            remembered = self._decisions.peek(decision)
        if remembered is None:
            raise KeyError(decision)
        return remembered

    def _why_gone(self, slate: Slate, scorer: Scorer) -> str:
        with self._lock, suppress(StorageError):
            if self._states.get(slate.user, scorer).pseudonym != slate.pseudonym:
                return (
                    f"decision {slate.decision}: its user was forgotten since, or this install was"
                    " erased or took a new id"
                )
        return (
            f"decision {slate.decision}: expected one of the last {REMEMBERED_DECISIONS} of this"
            " engine, found an older one or another engine's"
        )

    def observe(self, user: str, item: str, kind: str, scorer: Scorer) -> None:
        """Update a user's state by organic behaviour, and record it.

        Neither happens where the state cannot be read now.
        """
        with self._lock, suppress(StorageError):
            state = self._states.observe(user, item, kind, scorer)
            event = self._event_factory.observation(state.pseudonym, item, kind)
            self._put([event], {self._states.key(user): state.dump()})

    def open_window(
        self, slate: Slate, items: Iterable[SlateItem], now_ms: int, scorer: Scorer
    ) -> None:
        """Let the slots of these items wait for rewards.

        Nothing happens when the user was forgotten since, or while a rotation is due: a user
        who always has an open window would postpone it for ever.
        """
        slots = {item.slot: item.id for item in items}
        with self._lock, suppress(StorageError):
            if not slots or not self._opens_windows:
                return
            if self._states.get(slate.user, scorer).pseudonym == slate.pseudonym:
                states = self._windows.open_window(slate.decision, slate.pseudonym, slots, now_ms)
                self._put([], states)

    def record_rewards(
        self,
        slate: Slate,
        values: Sequence[tuple[SlateItem, float]],
        kind: str | None,
        observe: bool | None,
        now_ms: int,
        scorer: Scorer,
    ) -> Future[None]:
        """Record the rewards of items of a slate, and what they change.

        Return what is settled when all of it is durable (`Outbox.submit`). Raises `StorageError`
        when it cannot be stored, or the slate was made under another pseudonym: the reward would
        link the two.
        """
        with self._lock:
            if self._outbox is None:
                raise StorageError("not stored: there is no outbox")
            if self._states.get(slate.user, scorer).pseudonym != slate.pseudonym:
                raise StorageError(
                    "not stored: since this slate was decided the user's pseudonym has changed,"
                    " because the user was forgotten, or this install was erased or took a new id"
                )

            decision = slate.decision
            pseudonym = slate.pseudonym
            late = self._windows.is_over(decision, now_ms)
            outcomes: list[wire.Event] = []
            states: dict[str, bytes] = {}
            for item, value in values:
                is_positive = value > 0 if observe is None else observe
                updates_state = self._event_factory.is_exact and is_positive
                shown = ShownSlot(decision, item.slot, item.id, pseudonym)
                outcome = self._event_factory.outcome(
                    shown, value, kind, updates_state=updates_state, late=late
                )
                outcomes.append(outcome)
                if updates_state:
                    state = self._states.observe(slate.user, item.id, outcome.kind, scorer)
                    states[self._states.key(slate.user)] = state.dump()

            rewards = {item.slot: value for item, value in values}
            states |= self._windows.settle(decision, pseudonym, rewards, now_ms)
            states |= self._learn(pseudonym, decision, rewards, scorer)
            return self._outbox.submit(outcomes, states, self.identity.install)

    def _record_defaults(self, closed: Iterable[ClosedWindow], scorer: Scorer) -> int:
        """Record the default outcomes of closed windows; return how many windows there were."""
        count = 0
        for decision, window, states in closed:
            count += 1
            waiting = window.waiting()
            events = [
                self._event_factory.outcome(
                    ShownSlot(decision, slot, item, window.user), DEFAULT_REWARD
                )
                for slot, item in waiting.items()
            ]
            rewards = dict.fromkeys(waiting, DEFAULT_REWARD)
            self._put(events, states | self._learn(window.user, decision, rewards, scorer))
        return count

    def _learn(
        self, pseudonym: str, decision: str, rewards: Mapping[int, float], scorer: Scorer
    ) -> dict[str, bytes]:
        """Update the user's residual δ [d] by new rewards, by slot, of a decision still in memory.

        Return the bytes to store, by key; {} if nothing changed, as where each reward repeats the
        value from which δ was updated before.
        """
        remembered = self._decisions.peek(decision) if self._adapts else None
        if remembered is None:
            return {}
        record = remembered.record
        if record.residual is None or record.scorer.space != scorer.space:
            return {}

        applied = remembered.applied_rewards
        new_rewards = {
            slot: value
            for slot, value in rewards.items()
            if slot < len(record.slate)
            and applied.get(slot) != value
            # The residual ranks the pool alone.
            and not (record.slate[slot].newcomer or record.slate[slot].pinned)
        }
        if not new_rewards:
            return {}

        by_rank = {record.slate[slot].rank: value for slot, value in new_rewards.items()}
        pool = decisions.pool_vectors(record)
        scores_without_residual = record.ranking.scores - pool @ record.residual
        boosts = decisions.pool_boosts(record)
        if boosts is not None:
            # The residual learns what the user likes, not what the app promotes.
            scores_without_residual -= boosts
        try:
            states = self._residuals.learn(
                pseudonym, record.scorer.space, pool, scores_without_residual, by_rank
            )
        except StorageError as error:
            log.warning("the residual cannot be read, nothing was learned: %s", error)
            return {}
        applied.update(new_rewards)
        return states

    def forget(self, user: str) -> None:
        """Delete all data of a user; raise `StorageError` when the outbox cannot."""
        with self._lock:
            key, pseudonyms = self._states.forget(user)
            keys = [key]
            for pseudonym in pseudonyms:
                keys.append(self._budget.forget(pseudonym))
                keys.append(self._residuals.forget(pseudonym))
                keys.append(gap_key(pseudonym))
                keys.extend(self._windows.forget(pseudonym))
            for decision, remembered in list(self._decisions.items()):
                if remembered.record.request.user == user:
                    self._decisions.pop(decision)

        # The lock is not held while the disk works. Until then `_states` ignores what is stored.
        if self._outbox:
            self._outbox.forget(pseudonyms, keys)
        with self._lock:
            self._states.confirm_forgotten(key)

    def _put(self, events: Sequence[QueuedEvent], states: Mapping[str, bytes]) -> None:
        if self._outbox is not None:
            self._outbox.put(events, states, self.identity.install)


def _load_nothing(key: str) -> None:
    """Load nothing: there is no outbox."""
