"""The weights and the paired difference against enumeration of all slates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.estimation.loops import joint, slates
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.paired_difference import FAMILIES

pytestmark = pytest.mark.lab

ITEMS, SLOTS, POOL = 7, 3, 5
LOGGING, TARGET = 0.7, 0.5
THETA = np.array([1.0, 0.6, 0.3])


def enumerated(seed, length=SLOTS, theta=THETA, judged=None):
    """Return all slates of a pool as one log, each counting its probability, and the truth.

    Rewards are click probabilities, so that sums are expectations. The candidate's pool holds
    items that the log never shows. `judged` bool [patterns, SLOTS] are equally likely.
    """
    rng = np.random.default_rng(seed)
    logged_order, order = rng.permutation(ITEMS), rng.permutation(ITEMS)
    q = rng.uniform(0.1, 0.9, ITEMS)
    patterns = np.ones((1, SLOTS), bool) if judged is None else judged
    every = np.array([(*ranks, *[0] * (SLOTS - length)) for ranks in slates(length, POOL)])
    chance = np.array([joint(tuple(ranks[:length]), POOL, LOGGING) for ranks in every.tolist()])
    mask = np.tile(patterns, (len(every), 1)) & (np.arange(SLOTS) < length)
    every = np.repeat(every, len(patterns), axis=0)
    chance = np.repeat(chance, len(patterns)) / len(patterns)
    m = len(every)
    lengths = np.full(m, length)
    items = np.where(np.arange(SLOTS) < length, logged_order[every], -1)
    log = ope.SlateLog(
        reward=theta * q[items],
        judged=mask,
        group=np.arange(m),
        logged=ope.sequential_propensities(every, SLOTS, POOL, LOGGING, lengths),
        pass_probability=1.0 / chance,
    )
    logging = np.full((m, SLOTS), LOGGING)
    sample = ope.Slates(log, items, every, np.full(m, POOL), logging, lengths)
    orders = ope.Orders(
        ranks=np.where(items >= 0, np.argsort(order)[items], 0),
        items=np.tile(order[:POOL], (m, 1)),
        logged_items=np.tile(logged_order[:POOL], (m, 1)),
        pool=np.full(m, POOL),
        epsilon=np.full((m, SLOTS), TARGET),
    )
    value = patterns.mean(axis=0) * theta

    def clicks(of_order, epsilon, known):
        return sum(
            joint(one, POOL, epsilon)
            * sum(
                value[slot] * q[of_order[rank]]
                for slot, rank in enumerate(one)
                if of_order[rank] in known
            )
            for one in slates(length, POOL)
        )

    known = set(logged_order[:POOL].tolist())
    return sample, orders, clicks(order, TARGET, known) - clicks(logged_order, LOGGING, known)


def model_of(m):
    """Return an arbitrary model, the same for every decision."""
    effects = np.linspace(-0.1, 0.3, ITEMS)[None]
    return ope.RewardModel(np.full((1, SLOTS), 0.3), effects, np.zeros(m, np.int64))


def examination_of(m, theta=THETA):
    """Return an examination with a given curve."""
    fitted = ope.fit_examination(np.zeros((m, SLOTS)), np.zeros((m, SLOTS), bool), np.ones(m))
    logarithm = np.log(theta)
    coefficients = np.linalg.lstsq(fitted.basis, logarithm - logarithm.mean(), rcond=None)[0]
    return fitted._replace(coefficients=coefficients)


def sums_of(sample, orders, theta=THETA):
    """Return the sums over all slates."""
    m = len(sample.items)
    unit = np.zeros(m, np.int64)
    return ope.sums_by_unit(sample, orders, model_of(m), examination_of(m, theta), unit)


@pytest.mark.parametrize("seed", range(12))
def test_the_difference_is_exact_over_all_slates(seed):
    """PBM and IIPS give the enumerated difference, whatever the model, without the unsupported.

    The mean weight is its expectation.
    """
    sample, orders, truth = enumerated(seed)
    sums = sums_of(sample, orders)
    for family in ("PBM", "IIPS"):
        assert sums.difference[0, FAMILIES.index(family)] == pytest.approx(truth), family
    assert sums.weight[0] == pytest.approx(sums.expected_weight[0])


@pytest.mark.parametrize("seed", range(12))
def test_inclusion_is_the_case_of_equal_examination(seed):
    """Where every slot is looked at alike the families PBM and inclusion are one, and exact."""
    sample, orders, truth = enumerated(seed, theta=np.ones(SLOTS))
    sums = sums_of(sample, orders, np.ones(SLOTS))
    assert sums.difference[0, FAMILIES.index("PBM")] == pytest.approx(truth)
    assert sums.difference[0, FAMILIES.index("inclusion")] == pytest.approx(truth)


@pytest.mark.parametrize("length", [1, 2])
def test_short_slates_are_exact_too(length):
    """Slates with fewer slots give their own enumerated difference."""
    sample, orders, truth = enumerated(3, length=length)
    assert sums_of(sample, orders).difference[0, 0] == pytest.approx(truth)


def test_slots_judged_at_different_rates_are_exact():
    """Where lower slots are judged half as often, PBM still gives the enumerated difference."""
    patterns = np.array([[True, True, True], [True, False, False]])
    sample, orders, truth = enumerated(4, judged=patterns)
    assert sums_of(sample, orders).difference[0, 0] == pytest.approx(truth)


def test_the_weights_equal_loops_over_all_slates():
    """Σ_l θ_l P(rank in slot l) equals the sum over enumerated slates, for each pool."""
    pools, lengths = np.array([4, 5, 5]), np.array([3, 3, 2])
    found, flat = ope.examined_by_rank([THETA, np.ones(SLOTS)], pools, TARGET, lengths)
    for at, rank in itertools.product(range(3), range(POOL)):
        wanted = inclusion = 0.0
        for one in slates(int(lengths[at]), int(pools[at])):
            if rank in one:
                wanted += joint(one, int(pools[at]), TARGET) * THETA[one.index(rank)]
                inclusion += joint(one, int(pools[at]), TARGET)
        assert found[at, rank] == pytest.approx(wanted, abs=1e-12)
        assert flat[at, rank] == pytest.approx(inclusion, abs=1e-12)


def test_sums_by_unit_add_up_and_blocks_change_nothing(monkeypatch):
    """Sums of single decisions, in small blocks, add up to the sums of all at once."""
    sample, orders, _ = enumerated(5)
    m = len(sample.items)
    whole = sums_of(sample, orders)
    place = "sanderling_trainer.evaluation.ope.paired_difference.DECISIONS_PER_BLOCK"
    monkeypatch.setattr(place, 7)
    single = ope.sums_by_unit(sample, orders, model_of(m), examination_of(m), np.arange(m))
    for one, other in zip(single, whole, strict=True):
        np.testing.assert_allclose(one.sum(axis=0), other[0])


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("seed", [6, 7, 8])
def test_unsupported_slots_and_clicks_equal_loops(seed, unknown):
    """What the log never shows is counted by slot and by the model's clicks there, where the lab
    lacks an item of the logged pool, too."""
    sample, orders, _ = enumerated(seed)
    if unknown:
        orders.logged_items[orders.logged_items == ITEMS - 1] = -1
    sums = sums_of(sample, orders)
    effects = model_of(1).item_effect[0]
    known = set(orders.logged_items[0].tolist())
    mass, clicks = np.zeros(2), np.zeros(2)
    for one in slates(SLOTS, POOL):
        for slot, rank in enumerate(one):
            item = int(orders.items[0, rank])
            if item not in known:
                kind = int(rank >= SLOTS)
                mass[kind] += joint(one, POOL, TARGET) * THETA[slot]
                clicks[kind] += joint(one, POOL, TARGET) * THETA[slot] * (0.3 + effects[item])
    np.testing.assert_allclose(sums.unsupported_slots[0], mass)
    np.testing.assert_allclose(sums.unsupported_model[0], clicks)


def test_examination_is_recovered_and_shrunken():
    """Many explored clicks give θ within a tenth, none give 1 in every slot, few stay near 1."""
    rng = np.random.default_rng(0)
    theta = 1.0 / np.arange(1, 11) ** 0.7
    explored = rng.random((40000, 10)) < 0.2
    clicks = (rng.random((40000, 10)) < 0.1 * theta).astype(float)
    many = ope.fit_examination(clicks, explored, np.ones(40000))
    np.testing.assert_allclose(many.curve(), theta, atol=0.1)
    none = ope.fit_examination(np.zeros((5, 10)), explored[:5], np.ones(5))
    assert none.curve().tolist() == [1.0] * 10
    few = ope.fit_examination(clicks[:60], explored[:60], np.ones(60))
    assert few.curve().min() > 0.15


def test_the_influence_of_decisions_is_that_of_leaving_them_out():
    """The coefficients without some decisions are those of all minus the decisions' influence."""
    rng = np.random.default_rng(1)
    explored = rng.random((20000, 10)) < 0.2
    clicks = (rng.random((20000, 10)) < 0.1).astype(float)
    whole = ope.fit_examination(clicks, explored, np.ones(20000))
    kept = ope.fit_examination(clicks[200:], explored[200:], np.ones(19800))
    moved = whole.coefficients - kept.coefficients
    np.testing.assert_allclose(whole.influence[:200].sum(axis=0), moved, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("theta", [THETA, np.ones(SLOTS)])
@pytest.mark.parametrize("seed", range(12))
def test_the_known_variance_of_the_weights_is_the_enumerated_one_or_more(seed, theta):
    """Slots are drawn without replacement, so that independent ones bound the variance, loosely."""
    sample, orders, _ = enumerated(seed, theta=theta)
    m = len(sample.items)
    chance = 1.0 / sample.log.pass_probability
    sums = ope.sums_by_unit(sample, orders, model_of(m), examination_of(m, theta), np.arange(m))
    truth = (np.square(sums.weight) / chance).sum() - np.square(sums.weight.sum())
    known = sums.weight_variance / np.square(chance)
    assert known == pytest.approx(known[0])
    assert truth <= known[0] <= 2.5 * truth


def test_the_active_policy_itself_has_weights_without_variance():
    """Where both policies are one, every weight is 1, and nothing may be off by chance."""
    sample, orders, _ = enumerated(0)
    same = orders._replace(
        ranks=sample.ranks, items=orders.logged_items, epsilon=np.full_like(orders.epsilon, LOGGING)
    )
    assert sums_of(sample, same).weight_variance[0] == pytest.approx(0.0, abs=1e-12)
