"""Nights in which an app excludes what it has shown, judged on the pools that were logged."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch

from bench.estimation.slate_simulator import draw_ranks
from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.exploration.sequential import marginals
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.jobs.candidate import judge_candidate, orders_of
from sanderling_trainer.jobs.trust import active_policy
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import batches, decision_points
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import OffPolicy, hidden_items, scores_at
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.engines import stored

pytestmark = pytest.mark.lab

USERS, ITEMS, SLOTS, POOL, EPSILON = 150, 120, 5, 20, 0.3
SESSIONS, VISITS = 8, 5
HAD = 4
CONFIG = Config(
    dim=8,
    state=8,
    hidden=8,
    pool=POOL,
    slate=SLOTS,
    epsilon=EPSILON,
    newcomers=0.0,
    batch_events=64,
)
METADATA = CheckpointMetadata("app", 1, 0, ["view"], False, 0, 1, "0" * 64)


class Night(NamedTuple):
    """A night of the active policy, and the truth about it."""

    active: TrainingContext
    decisions: Decisions

    excluded: np.ndarray
    """What the app excluded, bool [m, ITEMS]."""

    attraction: np.ndarray
    """The probability of a click, float64 [USERS, ITEMS]."""


def scores_of(context: TrainingContext) -> np.ndarray:
    """Return the scores [USERS, ITEMS] of a network at the ends of the histories."""
    network = context.network
    with torch.no_grad():
        items = network.items()
        sequence = torch.tensor(np.stack([history.items for history in context.histories]))
        state = network.states(items, sequence, torch.zeros_like(sequence))[:, -1]
        return network.logits(network.users(state), items).numpy()


def night(seed: int = 0, repeats: bool = False, unavailable: float = 0.0, genres: int = 1) -> Night:
    """Let an app show slates in sessions; it excludes what the session has shown, what a user had
    before, and a share of the catalog. Each call asks for one of some genres."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = PolicyNetwork(CONFIG, torch.randn(ITEMS, 6), torch.empty(0, 6), 1).eval()
    with torch.no_grad():
        network.w2.mul_(0.3)
        network.bias.copy_(torch.randn(ITEMS))
    histories = [
        History(
            items=rng.choice(ITEMS, HAD, replace=False),
            kinds=np.zeros(HAD, np.int64),
            liked=np.ones(HAD, np.bool_),
            contexts=np.full(HAD, -1),
            is_validation=np.zeros(HAD, np.bool_),
            install=user,
        )
        for user in range(USERS)
    ]
    active = TrainingContext(network, histories, CONFIG, repeats)
    scores = scores_of(active)
    logits = scores + rng.normal(size=ITEMS) - 2.5
    attraction = 1.0 / (1.0 + np.exp(-logits))

    parts, excluded = [], []
    had = np.tile(rng.random(ITEMS) < unavailable, (USERS, 1))
    had[np.arange(USERS)[:, None], [history.items for history in histories]] = True
    for visit in range(SESSIONS * VISITS):
        if visit % VISITS == 0:
            hidden = had.copy()
        genre = rng.integers(genres, size=(USERS, 1))
        left_out = hidden | (np.arange(ITEMS) % genres != genre)
        decisions = shown(scores, left_out, attraction, rng)
        parts.append(decisions)
        excluded.append(left_out)
        np.put_along_axis(hidden, decisions.items, values=True, axis=1)
    columns = {
        name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])
    }
    return Night(active, Decisions(**columns), np.concatenate(excluded), attraction)


def shown(scores, hidden, attraction, rng) -> Decisions:
    """Return a slate for each user, with its pool, and clicks."""
    order = np.argsort(np.where(hidden, np.inf, -scores), axis=1, kind="stable")[:, :POOL]
    ranks = draw_ranks(USERS, SLOTS, POOL, EPSILON, rng)
    items = np.take_along_axis(order, ranks, axis=1)
    clicked = rng.random(items.shape) < np.take_along_axis(attraction, items, axis=1)
    logged = ope.sequential_propensities(ranks, SLOTS, POOL, EPSILON)
    users = np.arange(USERS)
    return Decisions(
        history=users,
        position=np.full(USERS, HAD),
        items=items,
        marginal=logged.marginal,
        conditional=logged.conditional,
        reward=np.where(clicked, 1.0, -1.0).astype(np.float32),
        judged=np.ones(items.shape, np.bool_),
        context=np.full(USERS, -1),
        ranks=ranks,
        group=users,
        release=np.ones(USERS, np.int64),
        pool=np.full(USERS, POOL),
        eligible=(~hidden).sum(axis=1),
        epsilon=np.full(USERS, EPSILON),
        pool_items=np.array([pool.astype(np.int32).tobytes() for pool in order], np.object_),
    )


def without_pools(decisions: Decisions) -> Decisions:
    """Return decisions as an engine logged them that named no pools."""
    return replace(decisions, pool_items=np.empty(0, np.object_))


def moved(one: Night, amount: float) -> TrainingContext:
    """Return a candidate whose biases are moved towards the truth, or away from it."""
    network = copy.deepcopy(one.active.network)
    logits = np.log(one.attraction / (1.0 - one.attraction))
    error = (logits - scores_of(one.active)).mean(axis=0)
    with torch.no_grad():
        network.bias.add_(amount * torch.from_numpy(error).float())
    return replace(one.active, network=network)


def clicks_of(one: Night, policy: TrainingContext) -> float:
    """Return the true clicks of a policy at the night's decisions: the app excludes the same."""
    users = one.decisions.history
    scores = np.where(one.excluded, -np.inf, scores_of(policy)[users])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :POOL]
    inclusion = marginals(SLOTS, POOL, EPSILON).sum(axis=0)
    return float((np.take_along_axis(one.attraction[users], order, axis=1) @ inclusion).sum())


@pytest.mark.parametrize("repeats", [False, True])
def test_the_active_policy_against_itself_has_the_weight_1_and_ships(repeats):
    """The weights are 1 and the difference 0, whatever the app excluded and the lab knows."""
    one = night(repeats=repeats)
    policy = active_policy(METADATA, CONFIG)
    decisions, slates, left_out = ope.usable(one.decisions, policy)
    orders = orders_of(one.active, one.active, decisions)
    sums = ope.judge(slates, orders, ITEMS, np.random.default_rng(0)).sums
    assert left_out == {}
    # Single precision ties two neighbours now and then.
    assert (orders.ranks != slates.ranks).mean() < 1e-3
    assert sums.weight.sum() == pytest.approx(sums.examined.sum(), rel=1e-3)
    assert sums.unsupported_slots.sum() == 0.0

    report = judge_candidate(one.active, one.active, one.decisions, METADATA)
    assert report["gate"]["verdict"] == ope.SHIP
    assert report["difference"]["value"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("repeats", [False, True])
def test_without_the_pools_the_same_night_cannot_be_judged(repeats):
    """The lab guesses other pools, and the mean weight gives it away: the active policy itself is
    held."""
    one = night(repeats=repeats)
    report = judge_candidate(one.active, one.active, without_pools(one.decisions), METADATA)
    assert report["gate"]["verdict"] == ope.HOLD
    assert "mean weight" in report["gate"]["reasons"][0]


@pytest.mark.parametrize(("unavailable", "genres"), [(0.0, 1), (0.5, 1), (0.0, 3)])
@pytest.mark.parametrize("amount", [0.3, -0.3])
def test_candidates_are_judged_on_the_logged_pools(amount, unavailable, genres):
    """A better candidate ships and a worse one is held; the interval holds the true difference,
    where the app excludes half of the catalog or asks for a genre, too."""
    one = night(seed=1, unavailable=unavailable, genres=genres)
    candidate = moved(one, amount)
    report = judge_candidate(one.active, candidate, one.decisions, METADATA)
    truth = clicks_of(one, candidate) / clicks_of(one, one.active) - 1.0
    assert truth * amount > 0
    assert report["gate"]["verdict"] == (ope.SHIP if amount > 0 else ope.HOLD)
    assert report["gate"]["is_sound"]
    assert report["difference"]["low"] < truth < report["difference"]["high"]


def test_what_the_candidate_brings_into_its_pool_is_bounded_not_ignored():
    """Items below the logged pool count as never shown; those that the app excluded cannot come."""
    one = night(seed=1)
    candidate = moved(one, 0.4)
    decisions, slates, _ = ope.usable(one.decisions, active_policy(METADATA, CONFIG))
    orders = orders_of(one.active, candidate, decisions)
    sums = ope.judge(slates, orders, ITEMS, np.random.default_rng(0)).sums
    assert 0.0 < sums.unsupported_slots.sum() < 0.1 * sums.examined.sum()
    assert sums.weight.sum() == pytest.approx(sums.expected_weight.sum(), rel=0.05)
    is_excluded = np.take_along_axis(one.excluded, orders.items, axis=1)
    in_pool = slates.pool[:, None] > np.arange(POOL)
    # What an app excluded without need, below the pool's last item, no log tells.
    assert (is_excluded & in_pool).mean() < 0.02


def test_the_logged_order_is_kept_and_unknown_items_take_no_place():
    """What devices ranked first is their own order, whatever the float network says; items that the
    catalog lacks leave the end of the pool empty, and nothing below it moves up."""
    one = night()
    some = one.decisions.take(np.arange(4))
    pools = some.logged_pools(np.arange(4)).astype(np.int32)
    rows = [pools[0], pools[1, ::-1], pools[2, 3:], np.empty(0, np.int32)]
    some = replace(some, pool_items=np.array([row.tobytes() for row in rows], np.object_))
    found = orders_of(one.active, one.active, some).logged_items
    for at, row in enumerate(rows[:3]):
        assert found[at].tolist() == row.tolist() + [-1] * (POOL - len(row))
    assert (found[3] >= 0).all()


def test_hidden_items_equal_a_loop():
    """With and without logged pools, and whether or not users come back to items."""
    one = night()
    some = one.decisions.take(np.arange(0, len(one.decisions), 97))
    pools = some.pool_items.copy()
    pools[::3] = b""
    pools[1] = np.frombuffer(pools[1], np.int32)[3:9].tobytes()
    # An app may show again what a user had.
    pools[2] = one.active.histories[some.history[2]].items[:2].astype(np.int32).tobytes()
    some = replace(some, pool_items=pools)
    # A pool that has all that a rule left says that nothing else could be shown.
    is_whole = np.arange(len(some)) % 5 == 0
    some = replace(some, eligible=np.where(is_whole, some.pool, some.eligible))
    scores = scores_of(one.active)
    for repeats in (False, True):
        for batch in batches(one.active.histories, 64, torch.device("cpu")):
            points = decision_points(batch, some)
            with torch.no_grad():
                found = hidden_items(some, points, scores_at(one.active.network, points), repeats)
            for at, index in enumerate(points.indices):
                user = some.history[index]
                pool = np.frombuffer(some.pool_items[index], np.int32).tolist()
                had = [] if repeats else one.active.histories[user].items.tolist()
                last = min(scores[user, pool], default=np.inf)
                if is_whole[index] and pool:
                    last = -np.inf
                for item in range(ITEMS):
                    wanted = (item in had or scores[user, item] > last) and item not in pool
                    assert (found is not None and bool(found[at, item])) == wanted


def test_excluded_items_get_no_gradient():
    """The policy gradient does not teach that what the app kept out ranks too high."""
    one = night(repeats=True)
    first = one.decisions.take(np.array([VISITS - 1]) * USERS)
    kept_out = one.excluded[(VISITS - 1) * USERS]
    first = replace(first, reward=np.ones_like(first.reward))
    network = one.active.network
    batch = next(batches(one.active.histories[:1], 64, torch.device("cpu")))
    gradients = []
    for decisions in (first, without_pools(first)):
        network.zero_grad()
        reference = copy.deepcopy(network)
        objective = OffPolicy(one.active, reference, decisions, 0.0)
        objective(decision_points(batch, decisions))[0].backward()
        gradients.append(network.bias.grad.numpy()[kept_out].copy())
    assert not gradients[0][scores_of(one.active)[0, kept_out] > last_score(one, first)].any()
    assert (gradients[1] > 0.0).all()


def last_score(one: Night, decision: Decisions) -> float:
    """Return the score of the last item of the first user's logged pool."""
    return float(scores_of(one.active)[0, decision.logged_pools(np.array([0]))[0]].min())


def test_pools_come_from_the_wire_and_old_events_are_still_read(tmp_path):
    """Each decision keeps its own pool, in catalog rows, through the merging of partitions; ids
    that the catalog lacks are left out, and an event without the field has no pool."""
    write_bundle(tmp_path / "bundle", exploration=Exploration(epsilon=0.5, pool=10))
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        for _ in range(6):
            # The best item is excluded in every second call.
            slate = engine.recommend("anna", k=4)
            engine.reward_all(slate, dict.fromkeys(slate, -1.0), observe=False)
            best = engine.recommend("anna", k=1, greedy=True)[0].id
            slate = engine.recommend("anna", k=4, exclude=[best])
            engine.reward_all(slate, dict.fromkeys(slate, -1.0), observe=False)
        events = stored(engine)
    logged = {
        event.id: list(event.pool_items or [])
        for event in events
        if event.id in {other.decision for other in events if hasattr(other, "decision")}
    }
    assert sum(bool(pool) for pool in logged.values()) == 6

    ids = [f"item-{row}" for row in range(50) if row != 7]
    log = EventLog(events={(events[0].install, events[0].user): events})
    found = merge_examples([examples_of(log, ids, KINDS, TEXT) for _ in range(2)]).decisions
    wanted = [[ids.index(item) for item in pool if item in ids] for pool in logged.values()] * 2
    for row, pool in enumerate(found.logged_pools(np.arange(len(found))).tolist()):
        assert [item for item in pool if item >= 0] == wanted[row]
    picked = found.take(np.array([3, 0])).truncate(2)
    assert picked.logged_pools(np.arange(2))[0].tolist()[: len(wanted[3])] == wanted[3]
    assert found.take(found.pool_items == b"").logged_pools(np.arange(6)).shape == (6, 0)

    old = [
        msgspec.structs.replace(event, pool_items=msgspec.UNSET)
        if hasattr(event, "pool_items")
        else event
        for event in events
    ]
    log = EventLog(events={(events[0].install, events[0].user): old})
    before = examples_of(log, ids, KINDS, TEXT).decisions
    assert len(before) == 12
    assert set(before.pool_items) == {b""}
