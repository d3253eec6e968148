"""Rates of independent units, such as installs, with 95 % intervals by linearization and Student's
t: no random draws, and right for a dozen units as for a million.

Where two sides are compared, the spread and the degrees of freedom are those of the side with fewer
units (as Welch's, at least): three installs against a hundred say as little as three do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sanderling_trainer.evaluation.intervals import CONFIDENCE, Interval, betting

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

UNKNOWN = float("nan")
NOTHING = Interval(UNKNOWN, UNKNOWN, UNKNOWN)


class Estimate(NamedTuple):
    """A rate, and how much each unit moves it."""

    value: float

    influence: Floats
    """Float64 [u], which sums to 0."""

    is_present: NDArray[np.bool_]
    """Which units have data, bool [u]."""


class Slots(NamedTuple):
    """Seen slots, one entry each."""

    click: Floats
    """1 or 0, or an unbiased estimate of it."""

    unit: Integers
    """Number of the unit, less than `units`."""

    stratum: Integers
    """What is compared with its like alone, such as the day: numbers less than `strata`."""

    units: int
    strata: int

    def counts(self) -> Floats:
        """Return the slots of each stratum, float64 [strata]."""
        return np.bincount(self.stratum, minlength=self.strata).astype(np.float64)

    def rates(self) -> Floats:
        """Return the clicks a slot of each stratum, float64 [strata], 0 where there is no slot."""
        clicks = np.bincount(self.stratum, self.click, self.strata)
        return np.asarray(clicks / np.maximum(self.counts(), 1.0))

    def by_unit(self, values: Floats) -> Floats:
        """Return the sums of one value a slot over the slots of each unit, float64 [u]."""
        return np.bincount(self.unit, values, self.units).astype(np.float64)


def rate(numerator: Floats, denominator: Floats) -> Interval:
    """Return sum(numerator) / sum(denominator), float64 [u] each, one entry a unit, in [0, 1].

    The variance is that of the residuals (Cochran 1977, chapter 6); where all units agree, which
    says nothing of the spread, the interval is the betting one. The ends are nan with fewer than
    two units, and everything is without any.
    """
    judged = denominator > 0.0
    if not judged.any():
        return NOTHING
    numerator, denominator = numerator[judged], denominator[judged]
    value = float(numerator.sum() / denominator.sum())
    influence = (numerator - value * denominator) / denominator.sum()
    if len(influence) > 1 and not influence.any() and 0.0 <= value <= 1.0:
        return betting(numerator, denominator, 0.0, 1.0)
    found = around(value, influence, len(influence))
    return Interval(value, max(found.low, min(value, 0.0)), min(found.high, max(value, 1.0)))


def standardized(slots: Slots, shares: Floats) -> Estimate:
    """Return the mean of the strata's click rates, weighted by `shares` float64 [strata], which sum
    to 1 and are 0 where a stratum has no slot.

    The shares count as known: with those of other slots, this is the rate that these slots' units
    would have had there (direct standardization).
    """
    rates = slots.rates()
    weights = shares / np.maximum(slots.counts(), 1.0)
    influence = slots.by_unit(weights[slots.stratum] * (slots.click - rates[slots.stratum]))
    is_present = slots.by_unit(np.ones(len(slots.click))) > 0.0
    return Estimate(float(shares @ rates), influence, is_present)


def difference(first: Estimate, second: Estimate) -> Interval:
    """Return first - second, of the same units in the same order: those with data in both count as
    pairs."""
    influence = first.influence - second.influence
    return around(first.value - second.value, influence, _fewest(first, second))


def change(first: Estimate, second: Estimate) -> Interval:
    """Return first / second - 1, for units as in `difference`.

    The interval is that of the logarithm of the quotient. All is nan where a rate is not positive.
    """
    if min(first.value, second.value) <= 0.0:
        return NOTHING
    influence = first.influence / first.value - second.influence / second.value
    quotient = float(np.log(first.value / second.value))
    found = around(quotient, influence, _fewest(first, second))
    return Interval(*(float(np.expm1(end)) for end in (found.value, found.low, found.high)))


def cost(explored: Slots, greedy: Slots, everything: Floats) -> Interval:
    """Return how many clicks a seen slot exploration cost: what the explored slots would have got
    at the rate of the greedy ones of their stratum, less what they got, over all seen slots.

    `everything` float64 [u] counts all seen slots of each unit. Explored slots of strata without a
    greedy one count for nothing.
    """
    is_matched = greedy.counts() > 0.0
    rates = greedy.rates()
    lost = np.where(is_matched[explored.stratum], rates[explored.stratum] - explored.click, 0.0)
    total = everything.sum()
    value = float(lost.sum() / total)
    weights = explored.counts() / np.maximum(greedy.counts(), 1.0)
    of_rates = weights[greedy.stratum] * (greedy.click - rates[greedy.stratum])
    influence = explored.by_unit(lost) + greedy.by_unit(of_rates) - value * everything
    fewest = min(len(np.unique(explored.unit)), len(np.unique(greedy.unit)))
    return around(value, influence / total, fewest)


def _fewest(first: Estimate, second: Estimate) -> int:
    """Return the number of units with data of the side that has fewer."""
    return int(min(first.is_present.sum(), second.is_present.sum()))


def around(value: float, influence: Floats, units: int) -> Interval:
    """Return a value with its interval, from how much each unit moves it, float64 [u], and the
    number of units that tell of the spread; the ends are nan with fewer than two."""
    if units < 2:
        return Interval(value, UNKNOWN, UNKNOWN)
    error = float(np.sqrt(np.square(influence).sum() * units / (units - 1)))
    width = float(student.ppf(0.5 + CONFIDENCE / 2.0, units - 1)) * error
    return Interval(value, value - width, value + width)
