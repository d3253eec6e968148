"""A synthetic fleet with known tastes, whose honest installs' events are real wire events.

    P(click | examined) = σ(-2.5 + b_i + 2 u·v_i)

A policy is trained on an interaction log from before. Then phones with one user and kiosks with
twenty are shown slates of that policy for a week, with log-normal activity, and like things by
themselves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.events.schema import ClockReading, Decision, Event, Observation, Outcome, Slot
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.exploration import schemes
from sanderling_trainer.data.histories import History, policy_kinds
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.warm_start import warm_start

ITEMS, TASTES, SLOTS = 500, 8, 10
PHONES, KIOSKS, USERS_OF_KIOSK = 295, 5, 20
PAST_USERS, PAST_LIKES, PAST_DAYS = 600, 15, 60
FIRST_DAY, NIGHT_DAYS = 20_400, 7  # days since 1970
ACTIVITY_SPREAD = 1.0
IDS = [f"item-{row}" for row in range(ITEMS)]
KINDS = policy_kinds(["purchase"])
PLAN = Exploration(epsilon=0.1, pool=50)
# A small log has few batches: larger steps make the gradient count for as much as on a large one.
CONFIG = Config(language_model="none", dim=16, epochs=6, policy_learning_rate=2e-3)
METADATA = CheckpointMetadata("bench", 1, 0, KINDS, False, 0, FIRST_DAY * DAY, "")


@dataclass
class Install:
    """Makes the events of one install, numbered without gaps."""

    id: str
    ids: random.Random
    """Draws the ids of events and users."""
    seq: int = 0
    boot: str = "b" * 32

    def hex(self) -> str:
        """Return a new id."""
        return f"{self.ids.getrandbits(128):032x}"

    def common(self, user: str, time_s: float) -> dict:
        """Return the fields that all events of a user have."""
        self.seq += 1
        clock = ClockReading(int(1000 * time_s), 1000 * self.seq, self.boot)
        return {
            "id": self.hex(),
            "install": self.id,
            "seq": self.seq,
            "user": user,
            "clock": clock,
        }


@dataclass
class User:
    """A user of an install, with the state that the device keeps."""

    install: Install
    pseudonym: str
    taste: NDArray[np.float64]
    items: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    checksum: str = NO_EVENTS

    def step(self, row: int, kind: str) -> None:
        """Let an event update the state."""
        self.items.append(row)
        self.kinds.append(KINDS.index(kind))
        self.checksum = next_checksum(self.checksum, IDS[row], kind)


@dataclass(frozen=True)
class Fleet:
    """The active policy, and the events of honest installs."""

    network: PolicyNetwork
    past: list[History]
    popularity: PopularityHistory
    users: list[User]
    events: list[Event]


def make_fleet(seed: int, phones: int = PHONES, kiosks: int = KIOSKS) -> Fleet:
    """Return a fleet after one week; with the usual sizes 4,000 decisions of ten slots."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(ITEMS, TASTES)) / TASTES**0.5
    bias = 1.2 * rng.gumbel(size=ITEMS) - 1.0
    past = [_past(rng, bias + 2.0 * vectors @ _taste(rng)) for _ in range(PAST_USERS)]
    text = np.concatenate([vectors, rng.normal(size=(ITEMS, TASTES))], axis=1)
    network, popularity = _trained(past, text.astype(np.float32), seed)

    users = _users(rng, seed, [1] * phones + [USERS_OF_KIOSK] * kiosks)
    events = [event for user in users for event in _week(rng, network, user, bias, vectors)]
    return Fleet(network, past, popularity, users, events)


def _taste(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.normal(size=TASTES)


def _past(rng: np.random.Generator, utility: NDArray[np.float64]) -> History:
    """Return the likes of one user before the fleet: items in the order of Gumbel noise."""
    rows = np.argsort(-(utility + rng.gumbel(size=ITEMS)))[:PAST_LIKES]
    rows = rng.permutation(rows)
    days = np.sort(FIRST_DAY - rng.integers(1, PAST_DAYS, PAST_LIKES))
    return History(
        items=rows,
        kinds=np.full(PAST_LIKES, KINDS.index("purchase")),
        liked=np.ones(PAST_LIKES, np.bool_),
        contexts=np.full(PAST_LIKES, -1),
        is_validation=np.zeros(PAST_LIKES, np.bool_),
        times=days * DAY,
    )


def _trained(
    past: list[History], text: NDArray[np.float32], seed: int
) -> tuple[PolicyNetwork, PopularityHistory]:
    torch.manual_seed(seed)
    network = PolicyNetwork(
        CONFIG, torch.from_numpy(text), torch.empty(0, text.shape[1]), len(KINDS)
    )
    linear_init.initialize(
        network, linear_init.ridge_factors(past, ITEMS, CONFIG.dim, CONFIG.ridge)
    )
    popularity = PopularityHistory.of_histories(past, ITEMS)
    warm_start(TrainingContext(network, past, CONFIG, METADATA.repeats, popularity))
    network.set_popularity_day(popularity, FIRST_DAY)
    return network.eval(), popularity


def _users(rng: np.random.Generator, seed: int, sizes: list[int]) -> list[User]:
    ids = random.Random(seed)
    users = []
    for size in sizes:
        install = Install(f"{ids.getrandbits(128):032x}", ids)
        users += [User(install, install.hex(), _taste(rng)) for _ in range(size)]
    return users


def _week(
    rng: np.random.Generator,
    network: PolicyNetwork,
    user: User,
    bias: NDArray[np.float64],
    vectors: NDArray[np.float64],
) -> Iterator[Event]:
    """Yield what one user does: slates with outcomes, and as many likes without a slate."""
    utility = bias + 2.0 * vectors @ user.taste
    visits = min(100, 1 + int(5.0 * rng.lognormal(0.0, ACTIVITY_SPREAD)))
    for time_s in (FIRST_DAY + np.sort(rng.random(visits)) * NIGHT_DAYS) * DAY:
        chosen = utility + rng.gumbel(size=ITEMS)
        chosen[user.items] = -np.inf
        row = int(chosen.argmax())
        common = user.install.common(user.pseudonym, time_s)
        yield Observation(**common, item=IDS[row], kind="purchase")
        user.step(row, "purchase")
        yield from _slate(rng, network, user, utility, time_s)


def _slate(
    rng: np.random.Generator,
    network: PolicyNetwork,
    user: User,
    utility: NDArray[np.float64],
    time_s: float,
) -> Iterator[Event]:
    order = best_items(network, user.items, user.kinds, PLAN.pool)
    uniforms = rng.random((SLOTS, 2)).tolist()
    drawn = schemes.draw(PLAN, SLOTS, np.zeros(PLAN.pool), uniforms)
    columns = (drawn.ranks, drawn.explored, drawn.conditional, drawn.marginal)
    decision = Decision(
        **user.install.common(user.pseudonym, time_s),
        release=1,
        scheme="sequential",
        epsilon=PLAN.epsilon,
        pool=PLAN.pool,
        eligible=ITEMS - len(user.items),
        slate=[Slot(IDS[order[rank]], rank, *rest) for rank, *rest in zip(*columns, strict=True)],
        state_checksum=user.checksum,
        state_events=len(user.items),
    )
    yield decision

    examined = int(rng.geometric(0.1))
    for slot, rank in enumerate(drawn.ranks[:examined]):
        row = int(order[rank])
        clicks = rng.random() < 1.0 / (1.0 + np.exp(2.5 - utility[row]))
        kind = "click" if clicks else "skip"
        yield Outcome(
            **user.install.common(user.pseudonym, time_s),
            decision=decision.id,
            slot=slot,
            item=IDS[row],
            kind=kind,
            value=1.0 if clicks else -1.0,
            updates_state=bool(clicks),
        )
        if clicks:
            user.step(row, kind)


@torch.no_grad()
def best_items(
    network: PolicyNetwork, had: Sequence[int], kinds: Sequence[int], k: int
) -> NDArray[np.int64]:
    """Return the k best items int64 [k] for a user, without those that the user had."""
    items = network.items()
    sequence = torch.tensor(had)[None].long()
    codes = torch.tensor(kinds)[None].long()
    state = network.states(items, sequence, codes)[0, -1]
    scores = network.logits(network.users(state), items)
    scores[sequence[0]] = -torch.inf
    return scores.topk(k).indices.numpy()
