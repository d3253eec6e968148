"""Simulated users, each with an install, who are shown slates by a policy night after night."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes
from sanderling.exploration.draw import Draw
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.evaluation.simulators.population import Population
from sanderling_trainer.policy.checkpoint import Checkpoint
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import batches

KINDS = ["view", "purchase", "click"]
PURCHASE, CLICK = 1, 2
SLATES = 3  # a user's, each night
ORGANIC = 0.5  # what a user does without a slate, events a night
NOON = DAY // 2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Night:
    """What one night came to. Values are expected clicks, summed over all slates."""

    value: float
    """Of the slates that were shown."""

    greedy: float
    """Of the policy's slates without exploration."""

    best: float
    """Of the slates that the truth would show to the same users."""

    newcomer_slots: float
    """Share of slots with items born in the last `NEW_NIGHTS` nights."""

    newcomer_best: float
    """The same share of the slates that the truth would show."""


NEW_NIGHTS = 3


class Fleet:
    """The users of a population; what they did, and what was decided for them."""

    def __init__(self, people: Population, seed: int) -> None:
        self.people = people
        self._rng = np.random.default_rng(seed)
        known = max(people.users, int(people.user.max()) + 1)
        order = np.argsort(people.user, kind="stable")
        bounds = np.searchsorted(people.user[order], np.arange(1, known))
        self._items = [people.item[rows].tolist() for rows in np.split(order, bounds)]
        self._times = [people.time[rows].tolist() for rows in np.split(order, bounds)]
        self._kinds = [[PURCHASE] * len(items) for items in self._items]
        self._had = np.zeros((people.users, people.items), np.bool_)
        takes_part = people.user < people.users
        self._had[people.user[takes_part], people.item[takes_part]] = True
        self._decisions: list[Decisions] = []

    def histories(self) -> list[History]:
        """Return what each user did so far; user u of the population has install u.

        Those after them are the shop's other users, who have none.
        """
        return [
            History(
                items=np.array(items, np.int64),
                kinds=np.array(kinds, np.int64),
                liked=np.ones(len(items), np.bool_),
                contexts=np.full(len(items), -1),
                is_validation=np.zeros(len(items), np.bool_),
                times=np.array(times, np.int64),
                install=user if user < self.people.users else -1,
                is_response=np.array(kinds, np.int64) == CLICK,
            )
            for user, (items, kinds, times) in enumerate(
                zip(self._items, self._kinds, self._times, strict=True)
            )
        ]

    def decisions(self, since: int = 0) -> Decisions:
        """Return the decisions from a night on."""
        chosen = [each for night, each in enumerate(self._decisions) if night // SLATES >= since]
        columns = [vars(each) for each in chosen]
        return Decisions(
            **{name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
        )

    def night(self, number: int, release: Checkpoint, plan: Exploration) -> Night:
        """Show every user three slates by a release, and let them click and do as they please."""
        people = self.people
        truth = people.attraction(number)
        born = people.born(number)
        known = min(len(release.catalog), born)
        newcomers = np.flatnonzero(release.exposure.newcomers[:known])
        state = _States(release.network, self.histories()[: people.users])

        is_new = np.zeros(people.items, np.bool_)
        is_new[people.born(max(0, number - NEW_NIGHTS)) : born] = True
        sums = np.zeros(5)
        for slate in range(SLATES):
            scores = np.where(self._had[:, :known], -np.inf, state.scores()[:, :known])
            shown, greedy, decided = self._show(scores, plan, newcomers)
            allowed = np.where(self._had[:, :born], 0.0, truth[:, :born])
            best = np.argsort(-allowed, axis=1)[:, : shown.shape[1]]
            clicks = self._click(truth, shown)
            values = [self._value(truth, items) for items in (shown, greedy, best)]
            sums += [*values, is_new[shown].mean(), is_new[best].mean()]

            now = (people.first_day + number) * DAY + NOON + slate * 3600
            self._log(decided, clicks, now, release)
            for user, slot in zip(*np.nonzero(clicks), strict=True):
                self._happen(state, user, shown[user, slot], CLICK, now)
            self._act_without_slate(state, truth, born, now)
        sums[3:] /= SLATES
        return Night(*sums.tolist())

    def _show(
        self, scores: Floats, plan: Exploration, newcomers: Ints
    ) -> tuple[Ints, Ints, Decisions]:
        """Return the slates int64 [u, K] that are drawn, the greedy ones, and both as decisions."""
        users = len(scores)
        slots = self.people.truth.click_model.slots
        pool = np.argpartition(-scores, plan.pool, axis=1)[:, : plan.pool]
        order = np.argsort(-np.take_along_axis(scores, pool, axis=1), axis=1, kind="stable")
        pool = np.take_along_axis(pool, order, axis=1)

        shown = np.empty((users, slots), np.int64)
        draws: list[Draw] = []
        counts = np.empty(users, np.int64)
        for user in range(users):
            outside = newcomers[~self._had[user, newcomers]]
            outside = outside[~np.isin(outside, pool[user])]
            blocks = schemes.n_uniforms(plan, slots, plan.pool, len(outside))
            pairs = [tuple(pair) for pair in self._rng.random((blocks, 2)).tolist()]
            drawn = schemes.draw(plan, slots, scores[user, pool[user]], pairs, len(outside))
            shown[user] = np.concatenate([pool[user], outside])[drawn.ranks]
            draws.append(drawn)
            counts[user] = len(outside)
        return shown, pool[:, :slots], _decisions(shown, draws, counts, plan, scores)

    def _click(self, truth: Floats, shown: Ints) -> NDArray[np.bool_]:
        attraction = np.take_along_axis(truth, shown, axis=1)
        clicks, _ = self.people.truth.click_model.draw(attraction, self._rng)
        return clicks

    def _value(self, truth: Floats, slates: Ints) -> float:
        attraction = np.take_along_axis(truth, slates, axis=1)
        return float(self.people.truth.click_model.probabilities(attraction).sum())

    def _log(
        self, decided: Decisions, clicks: NDArray[np.bool_], now: int, release: Checkpoint
    ) -> None:
        m = len(decided)
        columns = vars(decided) | {
            "position": np.array([len(items) for items in self._items[:m]], np.int64),
            "reward": np.where(clicks, 1.0, -1.0).astype(np.float32),
            "time": np.full(m, now),
            "release": np.full(m, release.metadata.release),
        }
        self._decisions.append(Decisions(**columns))

    def _act_without_slate(self, state: _States, truth: Floats, born: int, now: int) -> None:
        """Let some users take an item that they have not had, in proportion to its odds."""
        users = np.flatnonzero(self._rng.random(len(truth)) < ORGANIC / SLATES)
        odds = np.maximum(truth[users, :born], 1e-12)
        utility = np.where(self._had[users, :born], -np.inf, np.log(odds) - np.log1p(-odds))
        chosen = (utility + self._rng.gumbel(size=utility.shape)).argmax(axis=1)
        for user, item in zip(users, chosen, strict=True):
            self._happen(state, user, item, PURCHASE, now + 1800)

    def _happen(self, state: _States, user: int, item: int, kind: int, now: int) -> None:
        self._items[user].append(int(item))
        self._kinds[user].append(kind)
        self._times[user].append(now)
        self._had[user, item] = True
        state.step(user, int(item), kind)


class _States:
    """The users' states under a network, kept as events happen."""

    @torch.no_grad()
    def __init__(self, network: PolicyNetwork, histories: list[History]) -> None:
        self._network = network
        self._vectors = network.items()
        known = len(self._vectors)
        self._states = torch.zeros(len(histories), len(network.decay_logit))
        for batch in batches(histories, 20_000, torch.device("cpu")):
            # An item born later than the release does not move its states.
            sequence = batch.items.masked_fill(batch.items >= known, -1)
            states = network.states(self._vectors, sequence, batch.kinds)
            length = (batch.items >= 0).sum(dim=1)
            self._states[batch.indices] = states[torch.arange(len(length)), length]

    @torch.no_grad()
    def scores(self) -> Floats:
        """Return the scores float64 [u, n]."""
        network = self._network
        return network.logits(network.users(self._states), self._vectors).double().numpy()

    @torch.no_grad()
    def step(self, user: int, item: int, kind: int) -> None:
        """Apply an event, as `network.states` does."""
        if item >= len(self._vectors):
            return
        network, decay = self._network, self._network.decay
        x = network.kind[kind] * (network.input @ self._vectors[item])
        self._states[user] = decay * self._states[user] + torch.sqrt(1.0 - decay**2) * x


def _decisions(
    shown: Ints, draws: list[Draw], newcomers: Ints, plan: Exploration, scores: Floats
) -> Decisions:
    """Return slates as decisions without outcomes; user u has history, group and install u."""
    m = len(shown)
    ranks = np.array([drawn.ranks for drawn in draws], np.int64)
    has_quota = np.array([schemes.has_quota(plan, int(count)) for count in newcomers])
    rate = plan.epsilon * plan.newcomers
    regular = (plan.epsilon - rate) / (1.0 - rate)
    return Decisions(
        history=np.arange(m),
        position=np.zeros(m, np.int64),
        items=shown,
        marginal=np.array([drawn.marginal for drawn in draws]),
        conditional=np.array([drawn.conditional for drawn in draws]),
        reward=np.zeros(shown.shape, np.float32),
        judged=np.ones(shown.shape, np.bool_),
        context=np.full(m, -1),
        ranks=ranks,
        group=np.arange(m),
        pool=np.full(m, plan.pool),
        eligible=np.isfinite(scores).sum(axis=1),
        epsilon=np.where(has_quota, regular, plan.epsilon),
        newcomers=newcomers,
        newcomer_rate=np.where(has_quota, rate, 0.0),
        newcomer=ranks >= plan.pool,
    )
