"""Rates of independent units, such as installs, with 95 % intervals by linearization and Student's
t: no random draws, and right for a dozen units as for a million."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sanderling_trainer.evaluation.intervals import CONFIDENCE, Interval, betting

Floats = NDArray[np.float64]
Sums = tuple[Floats, Floats]
"""Numerator and denominator of each unit, both float64 [u]."""

UNKNOWN = float("nan")


def rate(numerator: Floats, denominator: Floats) -> Interval:
    """Return sum(numerator) / sum(denominator), float64 [u] each, one entry a unit, in [0, 1].

    The variance is that of the residuals (Cochran 1977, chapter 6); where all units agree, which
    says nothing of the spread, the interval is the betting one. The ends are nan with fewer than
    two units, and everything is without any.
    """
    judged = denominator > 0.0
    if not judged.any():
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN)
    numerator, denominator = numerator[judged], denominator[judged]
    value = float(numerator.sum() / denominator.sum())
    influence = _influence(numerator, denominator)
    if len(influence) > 1 and not influence.any() and 0.0 <= value <= 1.0:
        return betting(numerator, denominator, 0.0, 1.0)
    found = around(value, influence)
    return Interval(value, max(found.low, min(value, 0.0)), min(found.high, max(value, 1.0)))


def difference(first: Sums, second: Sums) -> Interval:
    """Return rate(first) - rate(second); both have the same units in the same order, with zeros
    where a unit is in one of them alone."""
    values = [numerator.sum() / denominator.sum() for numerator, denominator in (first, second)]
    influence = _influence(*first) - _influence(*second)
    return around(float(values[0] - values[1]), influence[_present(first, second)])


def change(first: Sums, second: Sums) -> Interval:
    """Return rate(first) / rate(second) - 1, for units as in `difference`.

    The interval is that of the logarithm of the quotient. All is nan where a rate is not positive.
    """
    rates = [numerator.sum() / denominator.sum() for numerator, denominator in (first, second)]
    if min(rates) <= 0.0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN)
    influence = _influence(*first) / rates[0] - _influence(*second) / rates[1]
    quotient = float(np.log(rates[0] / rates[1]))
    found = around(quotient, influence[_present(first, second)])
    return Interval(*(float(np.expm1(end)) for end in (found.value, found.low, found.high)))


def cost(explored: Sums, greedy: Sums, everything: Floats) -> Interval:
    """Return how many clicks a seen slot exploration cost: what the explored slots would have got
    at the rate of the greedy ones, less what they got, over all seen slots.

    `everything` float64 [u] counts all seen slots of each unit; units are as in `difference`.
    """
    clicks, slots = explored
    greedy_rate = greedy[0].sum() / greedy[1].sum()
    total = everything.sum()
    value = float((greedy_rate * slots.sum() - clicks.sum()) / total)
    influence = greedy_rate * slots - clicks - value * everything
    influence = (influence + slots.sum() * _influence(*greedy)) / total
    return around(value, influence[everything > 0.0])


def around(value: float, influence: Floats) -> Interval:
    """Return a value with its interval, from how much each unit moves it, float64 [u]; the ends
    are nan with fewer than two units."""
    units = len(influence)
    if units < 2:
        return Interval(value, UNKNOWN, UNKNOWN)
    error = float(np.sqrt(np.square(influence).sum() * units / (units - 1)))
    width = float(student.ppf(0.5 + CONFIDENCE / 2.0, units - 1)) * error
    return Interval(value, value - width, value + width)


def _influence(numerator: Floats, denominator: Floats) -> Floats:
    """Return how much each unit moves the rate, float64 [u], which sums to 0."""
    value = numerator.sum() / denominator.sum()
    return (numerator - value * denominator) / denominator.sum()


def _present(first: Sums, second: Sums) -> NDArray[np.bool_]:
    return (first[1] > 0.0) | (second[1] > 0.0)
