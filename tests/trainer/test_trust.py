"""What one install can teach is bounded, and judge and learner believe the same decisions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import trust
from bench.trusting.attacks import ATTACKER, ATTACKS
from bench.trusting.fleet import CONFIG, IDS, METADATA, make_fleet
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import newcomers, schemes
from sanderling_trainer.data import influence
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.influence import influence_factors
from sanderling_trainer.data.logged_decisions import SCHEMES, Decisions
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.evaluation import ope
from sanderling_trainer.jobs.trust import anomalies, believed
from sanderling_trainer.policy.training.losses import next_items
from sanderling_trainer.policy.training.targets import targets_of, with_bounded_influence

pytestmark = pytest.mark.lab

ENTRIES = st.lists(
    st.tuples(st.integers(-1, 14), st.floats(0.0, 9.0), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=60,
)


def naive_factors(entries):
    """Return the factors by loops over installs and keys."""
    factor = [1.0] * len(entries)
    for key_of in (lambda e: 0, lambda e: e[2], lambda e: (e[2], e[3])):
        sent, kept = Counter(), Counter()
        for entry, share in zip(entries, factor, strict=True):
            sent[entry[0], key_of(entry)] += entry[1]
            kept[entry[0], key_of(entry)] += entry[1] * share
        installs = {entry[0] for entry in entries if entry[0] >= 0}
        largest = sorted(
            max(amount for (of, _), amount in sent.items() if of == install) for install in installs
        )
        for at, entry in enumerate(entries):
            if entry[0] >= 0:
                bound = largest[-(-9 * (len(largest) - 1) // 10)]
                amount = kept[entry[0], key_of(entry)]
                factor[at] *= bound / amount if amount > bound else 1.0
    return factor


@given(ENTRIES)
def test_factors_equal_their_definition(entries):
    """The vectorized factors are those computed install by install and key by key."""
    install, amount, item, day = (np.array(column) for column in zip(*entries, strict=True))
    found = influence_factors(install, amount.astype(float), item, 4 * day + item)
    np.testing.assert_allclose(found, naive_factors(entries), rtol=1e-9)
    assert (found[install < 0] == 1.0).all()


def test_a_kiosk_keeps_its_proportions_and_ten_installs_are_not_bounded():
    """A kiosk of many users counts as a large install does, its items in the shares that it sent;
    in a small fleet nothing is bounded.
    """
    items = np.array([0] * 60 + [1] * 30 + [2] * 10)
    install = np.concatenate([np.zeros(100, np.int64), np.repeat(np.arange(1, 40), 4)])
    item = np.concatenate([items, np.tile([0, 1, 2, 3], 39)])
    factor = influence_factors(install, np.ones(len(install)), item)
    # Of all 4, items 0 and 1 have 2.4 and 1.2, and no other install has more than 1 of an item.
    assert factor[:100].sum() == pytest.approx(1.0 + 1.0 + 0.4)
    assert (factor[100:] == 1.0).all()

    spread = np.concatenate([np.arange(100) % 50, item[100:]])
    factor = influence_factors(install, np.ones(len(install)), spread)
    assert factor[:100] == pytest.approx(0.04)

    few = install < 10
    assert (influence_factors(install[few], np.ones(int(few.sum())), item[few]) == 1.0).all()


def history(rows, install, day=0, **fields) -> History:
    n = len(rows)
    return History(
        np.array(rows), np.zeros(n, np.int64), np.ones(n, bool), np.full(n, -1), np.zeros(n, bool),
        np.full(n, day * DAY), install=install, **fields
    )  # fmt: skip


def test_pseudonyms_and_days_do_not_multiply_an_installs_count():
    """A hundred pseudonyms of one phone, on many days, count on an item as one phone does."""
    honest = [history([at % 5], at) for at in range(30)]
    forged = [history([9], 30, day) for day in range(100)]
    counts = PopularityHistory.of_histories([*honest, *forged], 10)
    assert counts.users[counts.row == 9].sum() == pytest.approx(1.0)
    assert counts.users[counts.row == 1].sum() == 6.0


def test_what_a_reset_replays_is_no_target():
    """The steps of a state reset are input of the state, and nobody's new likes."""
    targets = targets_of([history([1, 2, 3], 0, n_replayed=2)], 0.0, 0.0, True, None)
    assert (targets.target.tolist(), targets.position.tolist()) == ([3], [2])


def test_targets_of_one_install_are_bounded_even_in_a_batch_of_its_own():
    """Pairs of an install on one item weigh together what a phone's do, and the loss of a batch
    that has no others is as small.
    """
    histories = [history([at % 5, 6], at) for at in range(30)]
    histories += [history([9], 30) for _ in range(100)]
    bounded = with_bounded_influence(histories, 0.0, 0.0, False)
    assert sum(each.influence.sum() for each in bounded[30:]) == pytest.approx(1.0)
    assert all((each.influence == 1.0).all() for each in bounded[:30])

    targets = targets_of(bounded[30:], 0.0, 0.0, False, None)
    log_policy = torch.full((100, 10), 0.1).log()
    pairs = (targets.point, targets.target, targets.weight, targets.influence)
    loss = next_items(log_policy, *map(torch.from_numpy, pairs))
    assert loss.item() == pytest.approx(-np.log(0.1) / 100, rel=1e-5)


def drawn(plan: Exploration, n=200, capped=False) -> Decisions:
    """Return decisions as an engine with this plan draws them, with three newcomers if any."""
    rng = np.random.default_rng(0)
    count = 3 if plan.newcomers else 0
    uniforms = rng.random((n, schemes.n_uniforms(plan, 4, 12, count), 2))
    scores = np.linspace(3, 0, 12)
    draws = [schemes.draw(plan, 4, scores, each.tolist(), count) for each in uniforms]
    epsilon = newcomers.regular(plan).epsilon if count else plan.epsilon
    conditional = np.array([draw.conditional for draw in draws])
    marginal = np.array(
        [[m or c for m, c in zip(d.marginal, d.conditional, strict=True)] for d in draws]
    )
    ranks = np.array([draw.ranks for draw in draws])
    return Decisions(
        history=np.arange(n), position=np.zeros(n, np.int64), items=ranks, marginal=marginal,
        conditional=conditional, reward=np.ones((n, 4), np.float32), judged=np.ones((n, 4), bool),
        context=np.full(n, -1), ranks=ranks, group=np.arange(n), release=np.ones(n, np.int64),
        pool=np.full(n, 12), eligible=np.full(n, 12),
        newcomers=np.full(n, count), newcomer=ranks >= 12,
        newcomer_rate=np.full(n, newcomers.rate(plan) if count else 0.0),
        epsilon=np.full(n, epsilon), guarded=np.full(n, plan.guarded),
        capped=np.full(n, capped), scheme=np.full(n, SCHEMES.index(plan.scheme)),
    )  # fmt: skip


PLANS = [
    (Exploration("sequential", 0.1, 12, newcomers=0.0), False),
    (Exploration("sequential", 0.1, 12, guarded=2, newcomers=0.0), False),
    (Exploration("sequential", 0.1, 12, newcomers=0.0), True),
    (Exploration("mixture", 0.1, 12, newcomers=0.0), False),
    (Exploration("mixture", 0.1, 12, guarded=2, newcomers=0.0), False),
    (Exploration("softmax", 0.1, 12, temperature=0.5, newcomers=0.0), False),
    (Exploration("softmax", 0.1, 12, guarded=2, newcomers=0.0), False),
    (Exploration("sequential", 0.3, 12, guarded=1, newcomers=0.5), False),
    (Exploration("mixture", 0.3, 12, newcomers=0.5), True),
    (Exploration("softmax", 0.3, 12, newcomers=0.5), False),
]


def policy_of(plan: Exploration) -> ope.ActivePolicy:
    return ope.ActivePolicy(
        1, plan.pool, plan.epsilon, plan.scheme, plan.guarded, plan.newcomers or 0.0
    )


@pytest.mark.parametrize(("plan", "capped"), PLANS)
def test_what_an_engine_draws_is_plausible(plan, capped):
    """Every decision of every scheme, guarded or capped, is believed, and none of another scheme,
    ε or number of guarded slots.
    """
    decisions = drawn(plan, capped=capped)
    kept, left_out = ope.plausible(decisions, policy_of(plan))
    assert (len(kept), left_out) == (200, {})

    other = "mixture" if plan.scheme != "mixture" else "softmax"
    for forged in ({"scheme": other}, {"epsilon": 0.2}, {"pool": 11}):
        assert len(ope.plausible(decisions, policy_of(plan)._replace(**forged))[0]) == 0
    if plan.guarded:
        assert len(ope.plausible(decisions, policy_of(plan)._replace(guarded=3))[0]) == 0


def test_each_release_is_held_to_how_it_explored():
    """A decision is believed with the settings of its own release alone; between two that are known
    the earlier one counts, before the first of all that one.
    """
    before = Exploration("sequential", 0.1, 12, newcomers=0.0)
    now = Exploration("sequential", 0.3, 12, guarded=1, newcomers=0.5)
    policy = policy_of(now)._replace(release=5, earlier=(policy_of(before)._replace(release=2),))
    for release, plan in ((1, before), (2, before), (4, before), (5, now), (6, now)):
        for drawn_by in (before, now):
            decisions = replace(drawn(drawn_by), release=np.full(200, release))
            kept, _ = ope.plausible(decisions, policy)
            assert len(kept) == (200 if drawn_by is plan else 0), (release, drawn_by)


@pytest.mark.parametrize(("plan", "capped"), PLANS)
def test_tiny_propensities_are_not_plausible(plan, capped):
    """No scheme of an engine gives 1e-300, which the wire allows."""
    decisions = drawn(plan, capped=capped)
    decisions.conditional[::2, 3] = decisions.marginal[::2, 3] = 1e-300
    kept, left_out = ope.plausible(decisions, policy_of(plan))
    assert kept.history.tolist() == list(range(1, 200, 2))
    assert left_out == {"propensities that rank, pool and ε do not explain": 100}


def test_decisions_of_one_install_are_bounded():
    """An install's decisions weigh together what nine in ten installs' do, its likes of one item
    too, and a marginal below ε / M counts as ε / M.
    """
    plan = PLANS[0][0]
    decisions = drawn(plan)
    honest = replace(decisions, items=np.arange(800).reshape(200, 4))
    honest.group[100:] = 200
    honest.pass_probability[100:] = 1 / 64
    honest.items[100:, 0] = 5
    honest.marginal[0] = 1e-9
    bounded = honest.bound_influence()
    share = bounded.weights() / len(bounded)
    assert share[100:].sum() == pytest.approx(1 / 101)
    assert (bounded.learned_marginal()[0] == 0.1 / 12).all()


@pytest.fixture(scope="module")
def fleet():
    return make_fleet(0, phones=60, kiosks=0)


def sent(fleet, name, row=0, share=0.05):
    return trust.attack_events(fleet, ATTACKS[name], row, share, seed=0)


def test_a_survival_probability_needs_the_loss_that_declares_it(fleet):
    """`pass_probability` below 1 counts as 1 unless a loss of the install declares shedding."""
    undeclared = trust.read(sent(fleet, "pass_probability 1/64, no loss"))
    assert (undeclared.decisions.pass_probability == 1.0).all()
    assert sum(undeclared.dropped.values()) == len(undeclared.decisions) > 10

    declared = trust.read(sent(fleet, "pass_probability 1/64, declared"))
    assert (declared.decisions.pass_probability == 1 / 64).all()
    assert "pass_probability" not in str(declared.dropped)


def test_the_table_of_anomalies_names_the_install(fleet):
    """The install that is cut most stands first, with its item and what it counts for."""
    events = [*fleet.events, *sent(fleet, "likes and clicks together", row=3)]
    examples = believed(trust.read(events), METADATA, CONFIG)
    sizes = Counter(event.install for event in events)
    rows = anomalies(examples, IDS, sizes)
    assert len(rows) <= 20
    assert (rows[0]["install"], rows[0]["top_item"]) == (ATTACKER, IDS[3])
    assert rows[0]["share_of_events"] == pytest.approx(0.05, abs=0.01)
    for of in ("likes", "decisions"):
        assert rows[0][f"share_of_{of}"]["counted"] < 0.2 * rows[0][f"share_of_{of}"]["sent"]


def test_one_install_cannot_buy_its_item_a_place(fleet):
    """With 5 % of all events an install moves its item by at most one point of top tens; without
    the bound by more than ten.
    """
    base = trust.night(fleet, [], bounded=True)
    row = trust.target_items(fleet, base)[0]
    events = sent(fleet, "likes and clicks together", row)
    moved = trust.top_ten_shares(fleet, trust.night(fleet, events, bounded=True))[row]
    assert moved <= 0.01

    with mock.patch.object(influence, "TYPICAL", 1.0):
        moved = trust.top_ten_shares(fleet, trust.night(fleet, events, bounded=True))[row]
    assert moved > 0.1
