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


def skewed(rng, n, most=5.0):
    """Return n weighted clicks in [0, most] with mean 1/2, most of them 0."""
    return most * (rng.random(n) < 0.1)


@pytest.mark.parametrize("how", [intervals.empirical_bernstein, intervals.betting])
def test_intervals_for_any_size_cover_at_least_as_often_as_they_say(how):
    """Of 300 logs of 80 weighted clicks at least 95 % less 3 binomial s.e. hold the truth, none beyond the range."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        found = how(skewed(rng, 80), np.ones(80), 0.0, 5.0)
        held += found.low <= 0.5 <= found.high
        assert 0.0 <= found.low <= found.value <= found.high <= 5.0
    assert held >= 300 * (0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5)


def test_intervals_for_any_size_can_miss():
    """They are not the whole range: at 5,000 users both are far from 0 and 5, and hold no wrong truth."""
    values = skewed(np.random.default_rng(1), 5000)
    for how in (intervals.empirical_bernstein, intervals.betting):
        found = how(values, np.ones(5000), 0.0, 5.0)
        assert found.low > 0.35
        assert found.high < 0.65


def test_the_bernstein_bound_is_the_formula():
    """For a mean of values in [0, 1] it is the mean ± sqrt(2 S² ln(4/.05) / n) + 7 ln(4/.05) / (3 (n - 1))."""
    values = np.random.default_rng(2).random(500)
    found = intervals.empirical_bernstein(values, np.ones(500), 0.0, 1.0)
    bound = np.log(4 / 0.05)
    width = np.sqrt(2 * values.var(ddof=1) * bound / 500) + 7 * bound / (3 * 499)
    assert found.low == pytest.approx(values.mean() - width)
    assert found.high == pytest.approx(values.mean() + width)


def test_the_capital_is_the_papers():
    """At the ends of the betting interval half of one gambler's capital, played in a loop, is 1 / 0.05."""
    values = np.random.default_rng(3).random(60) ** 2
    found = intervals.betting(values, np.ones(60), 0.0, 1.0)

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

    assert capital(found.low, 1) == pytest.approx(20, rel=1e-6)
    assert capital(found.high, -1) == pytest.approx(20, rel=1e-6)


def test_one_may_look_as_often_as_one_likes():
    """Looking after every twentieth user, 100 sequences leave the truth out at any look in at most 5 % plus 3 s.e.; a
    bootstrap looked at so often would leave it out far more often."""
    rng, looks = np.random.default_rng(4), list(range(20, 401, 20))
    missed = blind = 0
    for _ in range(100):
        values = skewed(rng, 400)
        sequence = intervals.confidence_sequence(values, np.ones(400), 0.0, 5.0, looks)
        missed += any(not one.low <= 0.5 <= one.high for one in sequence)
        assert all(
            later.low >= one.low and later.high <= one.high
            for one, later in itertools.pairwise(sequence)
        )
        means = np.cumsum(values)[np.array(looks) - 1] / looks
        errors = np.array([values[:look].std(ddof=1) / look**0.5 for look in looks])
        blind += bool((np.abs(means - 0.5) > 1.96 * errors)[2:].any())
    assert missed <= 100 * (0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5)
    assert blind > 15


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(0.5, 4))
def test_bounded_intervals_follow_shift_and_scale(seed, shift, scale):
    """Moving and stretching values with their range moves and stretches the intervals."""
    values = np.random.default_rng(seed).random(40)
    for how in (intervals.empirical_bernstein, intervals.betting):
        one = how(values, np.ones(40), 0.0, 1.0)
        other = how(scale * values + shift, np.ones(40), shift, shift + scale)
        assert [other.low, other.high] == pytest.approx(
            [scale * one.low + shift, scale * one.high + shift], abs=1e-6
        )


def test_users_with_more_slots_weigh_more():
    """The value is the ratio of sums, and intervals of users with unequal slots hold the truth."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(150):
        bottom = rng.integers(1, 8, 120).astype(float)
        top = rng.binomial(bottom.astype(int), 0.3).astype(float)
        found = intervals.betting(top, bottom, 0.0, 1.0)
        assert found.value == pytest.approx(top.sum() / bottom.sum())
        held += found.low <= 0.3 <= found.high
    assert held >= 135


def test_the_bootstrap_equals_drawing_users_one_by_one():
    """The interval of a ratio is that of a loop which draws users again, within the noise of 2,000 resamples."""
    rng = np.random.default_rng(6)
    top, bottom = rng.random(40), 1.0 + rng.random(40)
    fast = intervals.ratio(top, bottom, rng)
    low, high = naive_interval(list(zip(top.tolist(), bottom.tolist(), strict=True)), rng, 2000)
    assert [fast.low, fast.high] == pytest.approx([low, high], abs=0.1 * (high - low))


def test_lots_of_users_have_the_width_of_users():
    """20,000 users in 4,096 lots give the interval of their standard error, and the same mean."""
    rng = np.random.default_rng(7)
    values = rng.exponential(1.0, 20_000)
    found = intervals.mean(values, rng)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20_000**0.5, rel=0.08)
    assert np.bincount(intervals.lots(20_000, rng)).tolist() == pytest.approx(
        [20_000 / 4096] * 4096, abs=1
    )


def test_the_corrected_bootstrap_covers_skewed_means_better():
    """Of 250 means of 40 lognormal users, bias-corrected and accelerated intervals miss less often than percentiles."""
    rng, missed = np.random.default_rng(8), np.zeros(2)
    truth = np.exp(0.5)
    for _ in range(250):
        values = rng.lognormal(0.0, 1.0, 40)
        resampled = intervals.resample(values[:, None], rng)[:, 0] / 40
        without = (values.sum() - values) / 39
        for at, one in enumerate(
            (
                intervals.percentiles(values.mean(), resampled),
                intervals.corrected(values.mean(), resampled, without),
            )
        ):
            missed[at] += not one.low <= truth <= one.high
    assert missed[1] < missed[0]
    same = intervals.corrected(1.0, np.ones(2000), np.ones(40))
    assert (same.low, same.high) == (1.0, 1.0)
