"""Intervals of rates over installs: they cover the truth, also with a dozen installs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sanderling_trainer.evaluation import clustered_rates as rates

pytestmark = pytest.mark.lab


def fleet(rng, units, rate):
    """Return clicks and slots of installs that differ in rate and in use."""
    slots = rng.integers(20, 200, units)
    own = rng.beta(8.0 * rate, 8.0 * (1.0 - rate), units)
    return rng.binomial(slots, own).astype(float), slots.astype(float)


@pytest.mark.parametrize("units", [12, 200])
def test_the_intervals_cover_rate_difference_and_change(units):
    """Of 800 fleets, about 95 % have intervals with the truth: of rates, paired differences and
    relative changes."""
    rng = np.random.default_rng(units)
    hits = np.zeros(3)
    for _ in range(800):
        first, second = fleet(rng, units, 0.3), fleet(rng, units, 0.25)
        found = (
            (rates.rate(*first), 0.3),
            (rates.difference(first, second), 0.05),
            (rates.change(first, second), 0.2),
        )
        hits += [interval.low <= truth <= interval.high for interval, truth in found]
    assert (hits / 800 > 0.915).all()
    assert (hits / 800 < 0.98).all()


def test_pairing_counts():
    """The same installs in both releases give a narrower difference than other installs."""
    rng = np.random.default_rng(1)
    slots = np.full(50, 1000.0)
    own = rng.beta(2.0, 6.0, 50)
    first, second = rng.binomial(1000, own).astype(float), rng.binomial(1000, own).astype(float)
    none = np.zeros(50)
    paired = rates.difference((first, slots), (second, slots))
    apart = rates.difference(
        (np.append(first, none), np.append(slots, none)),
        (np.append(none, second), np.append(none, slots)),
    )
    assert apart.high - apart.low > 3.0 * (paired.high - paired.low)
    assert paired.value == pytest.approx(apart.value)


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
    assert math.isnan(rates.change((np.zeros(2), np.ones(2)), (np.ones(2), np.ones(2))).value)


def test_the_cost_of_exploration_covers_the_truth():
    """Of 400 fleets that explore a tenth of the slots at half the rate, about 95 % have an
    interval with the clicks that this costs."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        greedy, explored = fleet(rng, 30, 0.3), fleet(rng, 30, 0.15)
        everything = greedy[1] + explored[1]
        found = rates.cost(explored, greedy, everything)
        truth = 0.15 * explored[1].sum() / everything.sum()
        hits += found.low <= truth <= found.high
    assert 0.91 < hits / 400 < 0.985
