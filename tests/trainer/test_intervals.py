"""Intervals: coverage, paired differences, and those that hold for any sample size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling_trainer.evaluation import intervals
from tests.support.naive import naive_interval

pytestmark = pytest.mark.lab


def skewed(rng, n, largest=5.0):
    """Return n weighted clicks in {0, largest}, one in ten of them not 0: mean 1/2."""
    return largest * (rng.random(n) < 0.1)


@pytest.mark.parametrize("interval_of", [intervals.empirical_bernstein, intervals.betting])
def test_intervals_for_any_size_cover_at_least_as_often_as_they_say(interval_of):
    """At least 95 % of 300 intervals, less 3 binomial standard errors, hold the truth."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        interval = interval_of(skewed(rng, 80), np.ones(80), 0.0, 5.0)
        held += interval.low <= 0.5 <= interval.high
        assert 0.0 <= interval.low <= interval.value <= interval.high <= 5.0
    assert held >= 300 * (0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5)


def test_intervals_for_any_size_exclude_wrong_values():
    """At 5,000 users both kinds of interval are far narrower than the range of the values."""
    values = skewed(np.random.default_rng(1), 5000)
    for interval_of in (intervals.empirical_bernstein, intervals.betting):
        interval = interval_of(values, np.ones(5000), 0.0, 5.0)
        assert interval.low > 0.35
        assert interval.high < 0.65


def test_the_bernstein_bound_is_the_formula():
    """For values in [0, 1]: mean ± sqrt(2 S² ln(4/.05) / n) + 7 ln(4/.05) / (3 (n - 1))."""
    values = np.random.default_rng(2).random(500)
    interval = intervals.empirical_bernstein(values, np.ones(500), 0.0, 1.0)
    bound = np.log(4 / 0.05)
    width = np.sqrt(2 * values.var(ddof=1) * bound / 500) + 7 * bound / (3 * 499)
    assert interval.low == pytest.approx(values.mean() - width)
    assert interval.high == pytest.approx(values.mean() + width)


def test_the_betting_interval_ends_where_capital_reaches_its_limit():
    """At each end half of one gambler's capital, computed in a loop, is 1 / 0.05."""
    values = np.random.default_rng(3).random(60) ** 2
    interval = intervals.betting(values, np.ones(60), 0.0, 1.0)

    def capital(m, sign):
        mean_sum, variance_sum, variance, wealth = 0.5, 0.25, 0.25, 1.0
        for t, x in enumerate(values.tolist(), 1):
            bet = min(
                np.sqrt(2 * np.log(2 / 0.05) / (variance * t * np.log(t + 1))),
                0.5 / (m if sign > 0 else 1 - m),
            )
            wealth *= 1 + sign * bet * (x - m)
            mean_sum += x
            variance_sum += (x - mean_sum / (t + 1)) ** 2
            variance = variance_sum / (t + 1)
        return wealth / 2

    assert capital(interval.low, 1) == pytest.approx(20, rel=1e-6)
    assert capital(interval.high, -1) == pytest.approx(20, rel=1e-6)


def test_a_confidence_sequence_holds_however_often_it_is_inspected():
    """At most 5 % of 100 sequences, plus 3 standard errors, exclude the truth at any look.

    A normal interval that is inspected as often excludes it far more often.
    """
    rng, looks = np.random.default_rng(4), list(range(20, 401, 20))
    missed = naive_missed = 0
    for _ in range(100):
        values = skewed(rng, 400)
        sequence = intervals.confidence_sequence(values, np.ones(400), 0.0, 5.0, looks)
        missed += any(not look.low <= 0.5 <= look.high for look in sequence)
        assert all(
            later.low >= earlier.low and later.high <= earlier.high
            for earlier, later in itertools.pairwise(sequence)
        )
        means = np.cumsum(values)[np.array(looks) - 1] / looks
        errors = np.array([values[:look].std(ddof=1) / look**0.5 for look in looks])
        naive_missed += bool((np.abs(means - 0.5) > 1.96 * errors)[2:].any())
    assert missed <= 100 * (0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5)
    assert naive_missed > 15


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(0.5, 4))
def test_bounded_intervals_follow_shift_and_scale(seed, shift, scale):
    """Shifting and scaling values and their range shifts and scales the intervals."""
    values = np.random.default_rng(seed).random(40)
    for interval_of in (intervals.empirical_bernstein, intervals.betting):
        original = interval_of(values, np.ones(40), 0.0, 1.0)
        moved = interval_of(scale * values + shift, np.ones(40), shift, shift + scale)
        assert [moved.low, moved.high] == pytest.approx(
            [scale * original.low + shift, scale * original.high + shift], abs=1e-6
        )


def test_users_with_more_slots_weigh_more():
    """The value is the ratio of sums, and intervals of users with unequal slots hold the truth."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(150):
        bottom = rng.integers(1, 8, 120).astype(float)
        top = rng.binomial(bottom.astype(int), 0.3).astype(float)
        interval = intervals.betting(top, bottom, 0.0, 1.0)
        assert interval.value == pytest.approx(top.sum() / bottom.sum())
        held += interval.low <= 0.3 <= interval.high
    assert held >= 135


def test_the_bootstrap_equals_a_loop_over_users():
    """The interval of a ratio equals that of a plain loop, within the noise of 2,000 resamples."""
    rng = np.random.default_rng(6)
    top, bottom = rng.random(40), 1.0 + rng.random(40)
    fast = intervals.ratio(top, bottom, rng)
    low, high = naive_interval(list(zip(top.tolist(), bottom.tolist(), strict=True)), rng, 2000)
    assert [fast.low, fast.high] == pytest.approx([low, high], abs=0.1 * (high - low))


def test_resampling_random_groups_keeps_the_width():
    """20,000 users in 4,096 random groups give the interval of their standard error."""
    rng = np.random.default_rng(7)
    values = rng.exponential(1.0, 20_000)
    interval = intervals.mean(values, rng)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(
        2 * 1.96 * values.std() / 20_000**0.5, rel=0.08
    )
    assert np.bincount(intervals.random_groups(20_000, rng)).tolist() == pytest.approx(
        [20_000 / 4096] * 4096, abs=1
    )


def test_bca_intervals_cover_skewed_means_better():
    """On 250 means of 40 lognormal values BCa intervals miss less often than percentiles."""
    rng, missed = np.random.default_rng(8), np.zeros(2)
    truth = np.exp(0.5)
    for _ in range(250):
        values = rng.lognormal(0.0, 1.0, 40)
        resampled = intervals.resample(values[:, None], rng)[:, 0] / 40
        jackknife = (values.sum() - values) / 39
        for kind, interval in enumerate(
            (
                intervals.percentile_interval(values.mean(), resampled),
                intervals.bca_interval(values.mean(), resampled, jackknife),
            )
        ):
            missed[kind] += not interval.low <= truth <= interval.high
    assert missed[1] < missed[0]
    same = intervals.bca_interval(1.0, np.ones(2000), np.ones(40))
    assert (same.low, same.high) == (1.0, 1.0)
