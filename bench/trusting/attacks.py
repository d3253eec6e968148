"""What one install can send to move its item, in each form that the wire allows.

Each form yields events until the caller has enough of them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import reduce

import numpy as np

from bench.trusting.fleet import FIRST_DAY, IDS, ITEMS, NIGHT_DAYS, PLAN, SLOTS, Fleet, Install
from sanderling.events.schema import (
    Decision,
    Event,
    Loss,
    Observation,
    Outcome,
    Slot,
    StateReset,
)
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.evaluation.ope import sequential_propensities

ATTACKER = "e" * 32
LAST_S = (FIRST_DAY + NIGHT_DAYS - 1) * DAY
MAX_STEPS = 20

Attack = Callable[["Attacker"], Iterator[Event]]


class Attacker:
    """One install that wants its item to be shown."""

    def __init__(self, fleet: Fleet, row: int, seed: int) -> None:
        self.item = IDS[row]
        self.install = Install(ATTACKER, random.Random(f"attack {seed}"))
        self.rng = np.random.default_rng(seed)
        # Items that honest users have, as many as they have them: what looks honest.
        self.honest = [user.items for user in fleet.users if user.items]
        popular = np.bincount(np.concatenate(self.honest), minlength=ITEMS).argsort()[::-1]
        self.rivals = [IDS[other] for other in popular if other != row]

    def like(self, user: str, time_s: float = LAST_S) -> Event:
        """Return a like of the item without a slate."""
        return Observation(**self.install.common(user, time_s), item=self.item, kind="purchase")

    def honest_state(self, user: str, steps_at_least: int = 1) -> StateReset:
        """Return a state that an honest user might have, repeated up to a number of steps."""
        rows = self.honest[int(self.rng.integers(len(self.honest)))][:MAX_STEPS]
        steps = [(IDS[row], "purchase") for row in rows if IDS[row] != self.item]
        steps = steps or [(self.rivals[0], "purchase")]
        if len(steps) < steps_at_least:
            steps = (steps * steps_at_least)[:steps_at_least]
        return StateReset(**self.install.common(user, LAST_S), steps=steps)

    def slate(
        self, user: str, ranks: list[int], slot: int, state: StateReset | None = None, **fields
    ) -> Decision:
        """Return a slate with the item in a slot, with exact propensities unless `fields` has a
        `probability`.
        """
        probability = fields.pop("probability", None)
        exact = sequential_propensities(np.array([ranks]), SLOTS, PLAN.pool, PLAN.epsilon)
        others = iter(self.rivals)
        slots = []
        for place, rank in enumerate(ranks):
            item = self.item if place == slot else next(others)
            conditional = probability or float(exact.conditional[0, place])
            marginal = probability or float(exact.marginal[0, place])
            slots.append(Slot(item, rank, rank != place, conditional, marginal))
        steps = state.steps if state else []
        base = {
            "release": 1,
            "scheme": "sequential",
            "epsilon": PLAN.epsilon,
            "pool": PLAN.pool,
            "eligible": ITEMS,
            "slate": slots,
            "state_checksum": reduce(lambda sum, step: next_checksum(sum, *step), steps, NO_EVENTS),
            "state_events": len(steps),
        }
        return Decision(**self.install.common(user, LAST_S), **(base | fields))

    def outcome(self, decision: Decision, slot: int, value: float = 1.0, **fields) -> Outcome:
        """Return the reward of a slot."""
        return Outcome(
            **self.install.common(decision.user, LAST_S),
            decision=decision.id,
            slot=slot,
            item=decision.slate[slot].item,
            kind="click" if value > 0 else "skip",
            value=value,
            # An empty history teaches nothing, so a like gives the user one.
            updates_state=value > 0,
            **fields,
        )

    def declared_loss(self) -> Loss:
        """Return the loss that a full outbox declares."""
        common = self.install.common("", LAST_S)
        del common["user"]
        return Loss(**common, reason="full", decisions=10**6)


GREEDY = list(range(SLOTS))
EXPLORED = [PLAN.pool - 1, *range(SLOTS - 1)]
PUSHED_DOWN = [*range(1, SLOTS), 0]
"""The best item in the last slot: all others must have been explored, so this is very rare."""


def likes_of_one_user(by: Attacker) -> Iterator[Event]:
    """Likes under one pseudonym."""
    user = by.install.hex()
    while True:
        yield by.like(user)


def likes_of_many_users(by: Attacker) -> Iterator[Event]:
    """Each like under a new pseudonym."""
    while True:
        yield by.like(by.install.hex())


def likes_with_wrong_clocks(by: Attacker) -> Iterator[Event]:
    """Each under a new pseudonym, on one of ninety days."""
    for number in itertools.count():
        yield by.like(by.install.hex(), LAST_S - number % 90 * DAY)


def likes_of_honest_states(by: Attacker) -> Iterator[Event]:
    """Each like follows a state that an honest user might have."""
    while True:
        user = by.install.hex()
        yield by.honest_state(user)
        yield by.like(user)


def likes_in_batches_of_their_own(by: Attacker) -> Iterator[Event]:
    """Each like follows states of 256 steps, which no honest user has: they fill a batch of
    training in which little else is learned.
    """
    while True:
        for _ in range(15):
            yield by.honest_state(by.install.hex(), 256)
        user = by.install.hex()
        yield by.honest_state(user, 255)
        yield by.like(user)


def clicks_in_batches_of_their_own(by: Attacker) -> Iterator[Event]:
    """The same with a click on an explored slot."""
    while True:
        for _ in range(15):
            yield by.honest_state(by.install.hex(), 256)
        user = by.install.hex()
        state = by.honest_state(user, 255)
        yield state
        decision = by.slate(user, EXPLORED, 0, state)
        yield decision
        yield by.outcome(decision, 0)


def resets_to_the_item(by: Attacker) -> Iterator[Event]:
    """States of 256 steps, all on the item."""
    user = by.install.hex()
    while True:
        steps = [(by.item, "purchase")] * 256
        yield StateReset(**by.install.common(user, LAST_S), steps=steps)


def greedy_clicks(by: Attacker) -> Iterator[Event]:
    """Clicks on the item as the best one."""
    yield from _clicks(by, GREEDY, 0)


def explored_clicks(by: Attacker) -> Iterator[Event]:
    """Clicks on the item as an explored one, probability ε / M."""
    yield from _clicks(by, EXPLORED, 0)


def explored_clicks_in_honest_states(by: Attacker) -> Iterator[Event]:
    """The same in states that honest users might have."""
    while True:
        user = by.install.hex()
        state = by.honest_state(user)
        yield state
        decision = by.slate(user, EXPLORED, 0, state)
        yield decision
        yield by.outcome(decision, 0)


def rare_clicks(by: Attacker) -> Iterator[Event]:
    """Clicks on a slate that is legal and has a probability of 1e-9."""
    yield from _clicks(by, PUSHED_DOWN, SLOTS - 1)


def impossible_propensities(by: Attacker) -> Iterator[Event]:
    """Clicks with a propensity of 1e-300."""
    yield from _clicks(by, EXPLORED, 0, probability=1e-300)


def undeclared_shedding(by: Attacker) -> Iterator[Event]:
    """Explored clicks that survived with 1/64, and no loss that says so."""
    yield from _clicks(by, EXPLORED, 0, pass_probability=1 / 64)


def declared_shedding(by: Attacker) -> Iterator[Event]:
    """The same with a loss that says so."""
    yield by.declared_loss()
    yield from _clicks(by, EXPLORED, 0, pass_probability=1 / 64)


def flipped_rewards(by: Attacker) -> Iterator[Event]:
    """Explored clicks that were flipped with probability .49."""
    while True:
        decision = by.slate(by.install.hex(), EXPLORED, 0)
        yield decision
        yield by.outcome(decision, 0, flip_probability=0.49)


def skipped_rivals(by: Attacker) -> Iterator[Event]:
    """Rare slates on which the item is liked and every popular one is not."""
    yield by.declared_loss()
    while True:
        user = by.install.hex()
        state = by.honest_state(user)
        yield state
        decision = by.slate(user, PUSHED_DOWN, SLOTS - 1, state, pass_probability=1 / 64)
        yield decision
        for slot in range(SLOTS):
            yield by.outcome(decision, slot, 1.0 if slot == SLOTS - 1 else -1.0)


def everything(by: Attacker) -> Iterator[Event]:
    """Likes and declared explored clicks in honest states, by turns."""
    yield by.declared_loss()
    while True:
        user = by.install.hex()
        state = by.honest_state(user)
        yield state
        decision = by.slate(user, EXPLORED, 0, state, pass_probability=1 / 64)
        yield decision
        yield by.outcome(decision, 0)
        yield by.like(user)


def _clicks(by: Attacker, ranks: list[int], slot: int, **fields) -> Iterator[Event]:
    while True:
        decision = by.slate(by.install.hex(), ranks, slot, **fields)
        yield decision
        yield by.outcome(decision, slot)


ATTACKS: dict[str, Attack] = {
    "likes, one pseudonym": likes_of_one_user,
    "likes, many pseudonyms": likes_of_many_users,
    "likes, many pseudonyms, clocks over 90 days": likes_with_wrong_clocks,
    "likes in honest-looking states": likes_of_honest_states,
    "likes after 256 steps, in batches of their own": likes_in_batches_of_their_own,
    "clicks after 256 steps, in batches of their own": clicks_in_batches_of_their_own,
    "state resets of 256 steps": resets_to_the_item,
    "clicks on greedy slots": greedy_clicks,
    "clicks on explored slots": explored_clicks,
    "clicks on explored slots, honest-looking states": explored_clicks_in_honest_states,
    "clicks on legal slots of probability 1e-9": rare_clicks,
    "propensities of 1e-300": impossible_propensities,
    "pass_probability 1/64, no loss": undeclared_shedding,
    "pass_probability 1/64, declared": declared_shedding,
    "rewards flipped with .49": flipped_rewards,
    "rivals skipped, pass_probability 1/64": skipped_rivals,
    "likes and clicks together": everything,
}
