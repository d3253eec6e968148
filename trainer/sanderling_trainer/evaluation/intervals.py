"""Intervals: the bootstrap over users, and two that hold for any number of users when values have a known range.

Refuses to know what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
BLOCK = 2**22  # draws in memory at once
MOST_UNITS = 4096
LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value and its interval at 95 %."""

    value: float
    low: float
    high: float

    def plain(self) -> dict[str, float]:
        """Return it as plain data."""
        return asdict(self)


def ratio(top: Floats, bottom: Floats, rng: np.random.Generator) -> Interval:
    """Return sum(top) / sum(bottom) with users resampled; top and bottom float64 [u], bottom's sum positive."""
    return percentiles(
        top.sum() / bottom.sum(), _quotient(*resample(np.stack([top, bottom], axis=1), rng).T)
    )


def mean(values: Floats, rng: np.random.Generator) -> Interval:
    """Return the mean of values float64 [u] with users resampled; at least one."""
    return ratio(values, np.ones(len(values)), rng)


def ratio_difference(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], rng: np.random.Generator
) -> Interval:
    """Return ratio(first) - ratio(second), paired: both are of the same users, resampled together."""
    value = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    tops_and_bottoms = resample(np.stack([*first, *second], axis=1), rng).T
    return percentiles(value, _quotient(*tops_and_bottoms[:2]) - _quotient(*tops_and_bottoms[2:]))


def resample(values: Floats, rng: np.random.Generator) -> Floats:
    """Return the sums float64 [2000, c] of values float64 [u, c] over users drawn again with replacement.

    A few resamples at a time, so that thousands of users fit in memory; beyond 4,096 users `lots` of them are drawn.
    """
    if len(values) > MOST_UNITS:
        lot = lots(len(values), rng)
        values = np.stack([np.bincount(lot, column, MOST_UNITS) for column in values.T], axis=1)
    users = len(values)
    chances, at_once = np.full(users, 1.0 / users), max(1, BLOCK // users)
    blocks = [min(at_once, RESAMPLES - done) for done in range(0, RESAMPLES, at_once)]
    return np.concatenate(
        [
            rng.multinomial(users, chances, size=block).astype(np.float64) @ values
            for block in blocks
        ]
    )


def lots(users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return for each user which of at most 4,096 equal lots they are in, by chance.

    Lots of independent users are independent, so resampling lots estimates the same variance, with a relative
    standard error of 1 / sqrt(2 · 4096) = 1.1 % of its own (the random groups of Wolter 2007, chapter 2).
    """
    return np.asarray(
        rng.permutation(users) % MOST_UNITS if users > MOST_UNITS else np.arange(users)
    )


def percentiles(value: float, resampled: Floats) -> Interval:
    """Return a value with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def corrected(value: float, resampled: Floats, without: Floats) -> Interval:
    """Return a value with its bias-corrected and accelerated interval (Efron 1987, BCa), which heavy weights need.

    resampled float64 [RESAMPLES] are the values on the resamples, without float64 [u] those with one user left out.
    """
    away = without.mean() - without
    spread = float(np.square(away).sum())
    if spread <= 1e-24 * max(1.0, value * value):
        return percentiles(value, resampled)
    normal, b = NormalDist(), len(resampled)
    below = float((resampled < value).sum() + 0.5 * (resampled == value).sum())
    bias = normal.inv_cdf(min(max(below, 1.0), b - 1.0) / b)
    skew = float((away**3).sum()) / (6.0 * spread**1.5)
    levels = []
    for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        z = bias + normal.inv_cdf(level)
        levels.append(normal.cdf(bias + z / max(1.0 - skew * z, 1e-6)))
    low, high = np.quantile(resampled, levels)
    return Interval(float(value), float(low), float(high))


def empirical_bernstein(top: Floats, bottom: Floats, low: float, high: float) -> Interval:
    """Return sum(top) / sum(bottom) of users float64 [u] with the interval of Maurer and Pontil 2009, theorem 4.

    It holds for every u of at least 2 when low <= top / bottom <= high is known, with independent users and the largest
    bottom taken as given. The ratio v is the one with mean of top - v bottom = 0, and the interval is every v at which
    that mean is within sqrt(2 S² L / u) + 7 R L / (3 (u - 1)) of 0, with L = ln(4 / 0.05) and R the range.
    """
    u, scale = len(top), float(bottom.max())
    x, y = (top - low * bottom) / scale, bottom / scale
    (xx, xy), (_, yy) = np.cov(x, y) if u > 1 else np.full((2, 2), np.inf)
    bound, reach = np.log(4.0 / (1.0 - LEVEL)), high - low
    value = float(x.sum() / y.sum())

    def beyond(v: float) -> bool:
        spread = max(0.0, xx - 2.0 * v * xy + v * v * yy)
        width = np.sqrt(2.0 * spread * bound / u) + 7.0 * reach * bound / (3.0 * max(u - 1, 1))
        return bool(abs(x.mean() - v * y.mean()) > width)

    return Interval(value + low, low + _edge(beyond, value, 0.0), low + _edge(beyond, value, reach))


def betting(top: Floats, bottom: Floats, low: float, high: float) -> Interval:
    """Return sum(top) / sum(bottom) of users float64 [u] with `confidence_sequence`'s interval after all of them."""
    return confidence_sequence(top, bottom, low, high, [len(top)])[0]


def confidence_sequence(
    top: Floats, bottom: Floats, low: float, high: float, looks: Sequence[int]
) -> list[Interval]:
    """Return an interval after each of `looks` users, which all together hold the truth with 95 %, however often one
    looks: the hedged capital of Waudby-Smith and Ramdas 2023, theorem 3, with running intersection.

    top and bottom float64 [u] in the order in which users came, low <= top / bottom <= high known. One gambler bets
    that v is too small, another that it is too large: K± = Π (1 ± λ (x - v y)), where the users before set the stake
    λ = sqrt(2 ln(2 / 0.05) / (S² t ln(t + 1))), at most 1/2 of what keeps K positive; v is out once half of either
    capital reaches 20.
    """
    scale, reach = float(bottom.max()), high - low
    x, y = (top - low * bottom) / (scale * reach), bottom / scale
    bet, limit = _bets(x, y), np.log(2.0 / (1.0 - LEVEL))
    found, least, most = [], 0.0, 1.0
    for look in looks:
        seen, own, stake = x[:look], y[:look], bet[:look]
        value = min(1.0, float(seen.sum() / own.sum()))

        def too_low(
            v: float, seen: Floats = seen, own: Floats = own, stake: Floats = stake
        ) -> bool:
            return (
                float(np.log1p(np.minimum(stake, 0.5 / max(v, 1e-300)) * (seen - v * own)).sum())
                > limit
            )

        def too_high(
            v: float, seen: Floats = seen, own: Floats = own, stake: Floats = stake
        ) -> bool:
            return (
                float(
                    np.log1p(
                        -np.minimum(stake, 0.5 / max(1.0 - v, 1e-300)) * (seen - v * own)
                    ).sum()
                )
                > limit
            )

        least, most = max(least, _edge(too_low, value, 0.0)), min(most, _edge(too_high, value, 1.0))
        found.append(Interval(low + reach * value, low + reach * least, low + reach * most))
    return found


def _bets(x: Floats, y: Floats) -> Floats:
    """Return the predictable λ of each user: from the mean and variance of those before, begun with 1/2 and 1/4."""
    t = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (1.0 + np.cumsum(y))
    variance = (0.25 + np.cumsum(np.square(x - mean * y))) / (t + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    return np.sqrt(2.0 * np.log(2.0 / (1.0 - LEVEL)) / (before * t * np.log(t + 1)))


def _edge(beyond: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where, between `inside` and `outside`, `beyond` becomes true, to the outer side; `outside` if nowhere."""
    if not beyond(outside):
        return outside
    for _ in range(40):
        middle = 0.5 * (inside + outside)
        inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
    return outside


def _quotient(top: Floats, bottom: Floats) -> Floats:
    return top / np.maximum(bottom, 1e-300)
