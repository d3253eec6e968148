"""Intervals of rates over installs: they cover the truth, also with a dozen installs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sanderling_trainer.evaluation import clustered_rates as rates

pytestmark = pytest.mark.lab


def fleet(rng, units, rate):
    """Return clicks and slots of installs that differ in rate and in use."""
    slots = rng.integers(10, 60, units)
    own = rng.beta(8.0 * rate, 8.0 * (1.0 - rate), units)
    return rng.binomial(slots, own).astype(float), slots.astype(float)


def estimate(clicks, slots):
    """Return the estimate of installs' sums, as one stratum."""
    is_clicked = [
        np.repeat([1.0, 0.0], [c, s - c]) for c, s in zip(*as_ints(clicks, slots), strict=True)
    ]
    unit = np.repeat(np.arange(len(slots)), as_ints(slots)[0])
    seen = rates.Slots(
        np.concatenate(is_clicked), unit, np.zeros(len(unit), np.int64), len(slots), 1
    )
    return rates.standardized(seen, np.ones(1))


def as_ints(*columns):
    """Return columns of counts as whole numbers."""
    return [column.astype(int) for column in columns]


@pytest.mark.parametrize("units", [12, 60])
def test_the_intervals_cover_rate_difference_and_change(units):
    """Of 400 fleets, about 95 % have intervals with the truth: of rates, paired differences and
    relative changes."""
    rng = np.random.default_rng(units)
    hits = np.zeros(3)
    for _ in range(400):
        first, second = fleet(rng, units, 0.3), fleet(rng, units, 0.25)
        pair = estimate(*first), estimate(*second)
        found = (
            (rates.rate(*first), 0.3),
            (rates.difference(*pair), 0.05),
            (rates.change(*pair), 0.2),
        )
        hits += [interval.low <= truth <= interval.high for interval, truth in found]
    assert (hits / 400 > 0.91).all()
    assert (hits / 400 < 0.985).all()


def test_pairing_counts():
    """The same installs in both releases give a narrower difference than other installs."""
    rng = np.random.default_rng(1)
    slots = np.full(50, 1000.0)
    own = rng.beta(2.0, 6.0, 50)
    first, second = rng.binomial(1000, own).astype(float), rng.binomial(1000, own).astype(float)
    none = np.zeros(50)
    paired = rates.difference(estimate(first, slots), estimate(second, slots))
    apart = rates.difference(
        estimate(np.append(first, none), np.append(slots, none)),
        estimate(np.append(none, second), np.append(none, slots)),
    )
    assert apart.high - apart.low > 3.0 * (paired.high - paired.low)
    assert paired.value == pytest.approx(apart.value)


@pytest.mark.parametrize("few", [2, 3, 5])
def test_a_few_installs_against_many_are_still_few(few):
    """Of 400 fleets whose canary has two, three or five installs, and the rest a hundred, at least
    91 % have a difference and a change whose intervals hold the truth, which is none."""
    rng = np.random.default_rng(few)
    hits = np.zeros(2)
    for _ in range(400):
        canary, rest = fleet(rng, few, 0.3), fleet(rng, 100, 0.3)
        pair = (
            estimate(*(np.append(column, np.zeros(100)) for column in canary)),
            estimate(*(np.append(np.zeros(few), column) for column in rest)),
        )
        found = rates.difference(*pair), rates.change(*pair)
        hits += [not interval.low > 0.0 and not interval.high < 0.0 for interval in found]
    assert (hits / 400 > 0.91).all()


def test_units_that_agree_do_not_make_it_certain():
    """Where no install clicked, the interval is that of a method for any sample size."""
    found = rates.rate(np.zeros(20), np.full(20, 10.0))
    assert found.value == found.low == 0.0
    assert 0.05 < found.high < 0.5


def test_one_unit_has_no_interval_and_none_no_value():
    """A single install says nothing of the spread, and no install nothing at all."""
    alone = rates.rate(np.array([3.0, 0.0]), np.array([10.0, 0.0]))
    assert alone.value == pytest.approx(0.3)
    assert math.isnan(alone.low)
    assert math.isnan(rates.rate(np.zeros(2), np.zeros(2)).value)
    never, always = (estimate(np.full(2, clicks), np.ones(2)) for clicks in (0.0, 1.0))
    assert math.isnan(rates.change(never, always).value)


def slots_of(rng, rate_of, shares, units=30):
    """Return seen slots of two strata, whose shares and rates are given; rates differ by unit."""
    unit = np.repeat(np.arange(units), 100)
    stratum = rng.choice(2, len(unit), p=shares)
    own = rng.beta(8.0, 8.0, units)[unit] * 2.0
    click = rng.random(len(unit)) < np.asarray(rate_of)[stratum] * own
    return rates.Slots(click.astype(float), unit, stratum, units, 2)


def test_days_that_differ_do_not_look_like_a_difference():
    """Two releases that are equal on both days, one mostly on the bad day, the other mostly on the
    good one: plain rates differ, standardized ones do not, in about 95 % of 400 fleets."""
    rng = np.random.default_rng(4)
    hits, plain = 0, []
    for _ in range(400):
        new, old = slots_of(rng, (0.1, 0.4), (0.2, 0.8)), slots_of(rng, (0.1, 0.4), (0.8, 0.2))
        shares = new.counts() / new.counts().sum()
        found = rates.difference(rates.standardized(new, shares), rates.standardized(old, shares))
        hits += found.low <= 0.0 <= found.high
        plain.append(new.click.mean() - old.click.mean())
    assert 0.91 < hits / 400 < 0.985
    assert np.mean(plain) > 0.15


def test_the_cost_of_exploration_covers_the_truth():
    """Of 400 fleets that explore at half the rate, and mostly in the better stratum, about 95 %
    have an interval with the clicks that this costs."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        greedy = slots_of(rng, (0.1, 0.4), (0.8, 0.2))
        explored = slots_of(rng, (0.05, 0.2), (0.3, 0.7))
        everything = np.full(30, 200.0)
        found = rates.cost(explored, greedy, everything)
        truth = (0.05, 0.2) @ explored.counts() / everything.sum()
        hits += found.low <= truth <= found.high
    assert 0.91 < hits / 400 < 0.985


def test_explored_slots_without_their_like_cost_nothing():
    """An explored slot of a stratum without greedy ones is left out of the cost."""
    greedy = rates.Slots(np.ones(4), np.arange(4), np.zeros(4, np.int64), 4, 2)
    explored = rates.Slots(np.zeros(4), np.arange(4), np.array([0, 0, 1, 1]), 4, 2)
    assert rates.cost(explored, greedy, np.full(4, 2.0)).value == pytest.approx(2 / 8)
