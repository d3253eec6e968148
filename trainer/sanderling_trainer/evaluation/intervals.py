"""Confidence intervals: the bootstrap over users, and two bounds that hold for any sample size.

The bounds for any sample size need values whose range is known in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
TAILS = (1.0 - CONFIDENCE) / 2.0, (1.0 + CONFIDENCE) / 2.0

MAX_UNITS = 4096
"""Above this number of users, the bootstrap resamples random groups of users instead."""

DRAWS_PER_BLOCK = 2**22

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return the three numbers by name, ready for JSON."""
        return asdict(self)


def ratio(numerator: Floats, denominator: Floats, rng: np.random.Generator) -> Interval:
    """Return sum(numerator) / sum(denominator) with a bootstrap interval over users.

    Both are float64 [u], one entry a user; the denominator's sum is positive.
    """
    value = numerator.sum() / denominator.sum()
    sums = resample(np.stack([numerator, denominator], axis=1), rng)
    return percentile_interval(value, _quotient(*sums.T))


def mean(values: Floats, rng: np.random.Generator) -> Interval:
    """Return the mean of values float64 [u], u >= 1, with a bootstrap interval over users."""
    return ratio(values, np.ones(len(values)), rng)


def ratio_difference(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], rng: np.random.Generator
) -> Interval:
    """Return ratio(first) - ratio(second) with a paired bootstrap interval.

    Each is (numerator, denominator), float64 [u]; both are of the same users in the same order,
    who are resampled together.
    """
    value = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    sums = resample(np.stack([*first, *second], axis=1), rng).T
    return percentile_interval(value, _quotient(*sums[:2]) - _quotient(*sums[2:]))


def resample(values: Floats, rng: np.random.Generator) -> Floats:
    """Return bootstrap sums float64 [RESAMPLES, c] of values float64 [u, c].

    Each resample draws u users with replacement; beyond `MAX_UNITS` users, random groups of
    users are drawn instead.
    """
    if len(values) > MAX_UNITS:
        group = random_groups(len(values), rng)
        columns = [np.bincount(group, column, MAX_UNITS) for column in values.T]
        values = np.stack(columns, axis=1)

    users = len(values)
    probabilities = np.full(users, 1.0 / users)

    # The counts of all resamples at once would be RESAMPLES x users; blocks bound the memory.
    block_size = max(1, DRAWS_PER_BLOCK // users)
    sums = []
    for done in range(0, RESAMPLES, block_size):
        size = min(block_size, RESAMPLES - done)
        counts = rng.multinomial(users, probabilities, size=size)
        sums.append(counts.astype(np.float64) @ values)
    return np.concatenate(sums)


def random_groups(users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return for each user one of at most `MAX_UNITS` equal groups, assigned at random.

    Random groups of independent users are independent, so resampling groups estimates the same
    variance, with a relative standard error of 1 / sqrt(2 · 4096) = 1.1 % (Wolter 2007,
    chapter 2). Up to `MAX_UNITS` users, each is a group of their own.
    """
    if users <= MAX_UNITS:
        return np.arange(users)
    return np.asarray(rng.permutation(users) % MAX_UNITS)


def percentile_interval(value: float, resampled: Floats) -> Interval:
    """Return a value with its percentile bootstrap interval.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    low, high = np.quantile(resampled, TAILS)
    return Interval(float(value), float(low), float(high))


def bca_interval(value: float, resampled: Floats, jackknife: Floats) -> Interval:
    """Return a value with its bias-corrected and accelerated interval, for skewed estimates.

    resampled float64 [RESAMPLES] holds the value on each bootstrap resample, jackknife
    float64 [u] the value with one user left out. Source: Efron 1987 (BCa).
    """
    influence = jackknife.mean() - jackknife
    spread = float(np.square(influence).sum())
    if spread <= 1e-24 * max(1.0, value * value):
        # No user changes the value: there is no skew to correct.
        return percentile_interval(value, resampled)

    normal = NormalDist()
    count = len(resampled)
    below = float((resampled < value).sum() + 0.5 * (resampled == value).sum())
    bias = normal.inv_cdf(min(max(below, 1.0), count - 1.0) / count)
    acceleration = float((influence**3).sum()) / (6.0 * spread**1.5)

    levels = []
    for tail in TAILS:
        z = bias + normal.inv_cdf(tail)
        levels.append(normal.cdf(bias + z / max(1.0 - acceleration * z, 1e-6)))
    low, high = np.quantile(resampled, levels)
    return Interval(float(value), float(low), float(high))


def empirical_bernstein(
    numerator: Floats, denominator: Floats, lower: float, upper: float
) -> Interval:
    """Return sum(numerator) / sum(denominator) with an empirical Bernstein interval.

    Both are float64 [u], one entry a user. The interval holds for every u >= 2 where
    lower <= numerator / denominator <= upper is known, with independent users and the largest
    denominator taken as given. The ratio v solves mean(numerator - v denominator) = 0; the
    interval is every v at which that mean is within sqrt(2 S² L / u) + 7 R L / (3 (u - 1)) of 0,
    with L = ln(4 / 0.05) and R the range. Source: Maurer and Pontil 2009, theorem 4.
    """
    users = len(numerator)
    scale = float(denominator.max())
    width = upper - lower
    log_term = np.log(4.0 / (1.0 - CONFIDENCE))

    # Shift so that the ratio lies in [0, width] and scale so that the denominator is at most 1.
    x = (numerator - lower * denominator) / scale
    y = denominator / scale
    (xx, xy), (_, yy) = np.cov(x, y) if users > 1 else np.full((2, 2), np.inf)
    value = float(x.sum() / y.sum())

    def excluded(v: float) -> bool:
        variance = max(0.0, xx - 2.0 * v * xy + v * v * yy)
        radius = np.sqrt(2.0 * variance * log_term / users)
        radius += 7.0 * width * log_term / (3.0 * max(users - 1, 1))
        return bool(abs(x.mean() - v * y.mean()) > radius)

    low = _boundary(excluded, value, 0.0)
    high = _boundary(excluded, value, width)
    return Interval(value + lower, lower + low, lower + high)


def betting(
    numerator: Floats,
    denominator: Floats,
    lower: float,
    upper: float,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return sum(numerator) / sum(denominator) with the betting interval over all users.

    It is the last interval of `confidence_sequence`, which gives shapes and source.
    """
    looks = [len(numerator)]
    return confidence_sequence(numerator, denominator, lower, upper, looks, confidence)[0]


# Six parameters: the values, their range, and when and how surely they are looked at.
def confidence_sequence(
    numerator: Floats,
    denominator: Floats,
    lower: float,
    upper: float,
    looks: Sequence[int],
    confidence: float = CONFIDENCE,
) -> list[Interval]:
    """Return an interval after each of `looks` users; with `confidence` all hold the truth.

    numerator and denominator are float64 [u] in the order in which users came, and
    lower <= numerator / denominator <= upper is known. One gambler bets that v is too small,
    another that it is too large: K± = Π (1 ± λ (x - v y)), where the earlier users set the stake
    λ = sqrt(2 ln(2 / α) / (S² t ln(t + 1))), at most 1/2 of what keeps K positive, with
    α = 1 - `confidence`. A value v is excluded once half of either capital reaches 1 / α. Source:
    the hedged capital of Waudby-Smith and Ramdas 2023, theorem 3, with running intersection.
    """
    scale = float(denominator.max())
    width = upper - lower
    x = (numerator - lower * denominator) / (scale * width)
    y = denominator / scale
    limit = float(np.log(2.0 / (1.0 - confidence)))
    stakes = _stakes(x, y, limit)

    intervals = []
    low = 0.0
    high = 1.0
    for look in looks:
        value = min(1.0, float(x[:look].sum() / y[:look].sum()))
        capital = _Capital(x[:look], y[:look], stakes[:look], limit)
        low = max(low, _boundary(capital.excludes_from_below, value, 0.0))
        high = min(high, _boundary(capital.excludes_from_above, value, 1.0))
        intervals.append(Interval(*(lower + width * v for v in (value, low, high))))
    return intervals


@dataclass(frozen=True)
class _Capital:
    """The two gamblers' bets after some users: x, y and stakes, each float64 [t].

    Who wins has a log capital above `limit`.
    """

    x: Floats
    y: Floats
    stakes: Floats

    limit: float

    def excludes_from_below(self, v: float) -> bool:
        """Return whether the gambler who bets that v is too small has won."""
        stakes = np.minimum(self.stakes, 0.5 / max(v, 1e-300))
        return float(np.log1p(stakes * (self.x - v * self.y)).sum()) > self.limit

    def excludes_from_above(self, v: float) -> bool:
        """Return whether the gambler who bets that v is too large has won."""
        stakes = np.minimum(self.stakes, 0.5 / max(1.0 - v, 1e-300))
        return float(np.log1p(-stakes * (self.x - v * self.y)).sum()) > self.limit


def _stakes(x: Floats, y: Floats, log_term: float) -> Floats:
    """Return the predictable λ of each user, from the mean and variance of those before.

    Both running estimates start from a prior observation: mean 1/2, variance 1/4.
    """
    t = np.arange(1, len(x) + 1)
    running_mean = (0.5 + np.cumsum(x)) / (1.0 + np.cumsum(y))
    variance = (0.25 + np.cumsum(np.square(x - running_mean * y))) / (t + 1)
    earlier_variance = np.concatenate([[0.25], variance[:-1]])
    return np.sqrt(2.0 * log_term / (earlier_variance * t * np.log(t + 1)))


def _boundary(excluded: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return by bisection where `excluded` becomes true between inside and outside.

    Rounds towards `outside`, and returns `outside` where nothing is excluded.
    """
    if not excluded(outside):
        return outside
    for _ in range(40):
        middle = 0.5 * (inside + outside)
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    return numerator / np.maximum(denominator, 1e-300)
