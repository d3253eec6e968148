"""Whether a daily figure has changed, by a sequential test that raises few false alarms.

Each day gets a conformal p-value: the rank of its residual among those of all days so far. While
days are alike, these p-values are independent and uniform, however it is distributed; where
weekdays differ, nearly so. Bets against that are summed up as by Shiryaev and Roberts
(docs/MONITORING.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST_BET = 14
"""Days that are only watched: before, a day has hardly any of its weekday to be compared with."""

WEEK = 7


@dataclass(frozen=True)
class Changes:
    """What a sequence of days gives to the test."""

    evidence: Floats
    """[n], the statistic at the end of each day: an alarm is where it reaches the quiet days."""

    alarms: tuple[int, ...]
    """The positions of the days that raised one; after each the test starts anew."""


def changes(days: Sequence[int], values: Floats, quiet_days: float, *, rises: bool) -> Changes:
    """Return on which days a figure has risen, or fallen, against those before.

    days: numbers of days, ascending; days of one weekday are compared with each other.
    values: float64 [n], the figure on each of them, finite.
    quiet_days: how many days there are between two false alarms, at least, on average.

    Sources: Vovk, Gammerman and Shafer 2005, chapter 2 (p-values); Vovk 2021, "Testing randomness
    online" (bets); Shin, Ramdas and Rinaldo 2024, "E-detectors" (their sum).
    """
    signed = values if rises else -values
    weekdays = np.array(days, np.int64) % WEEK
    evidence = np.zeros(len(values))
    alarms = []
    start = 0
    statistic = 0.0
    for last in range(len(values)):
        seen = slice(start, last + 1)
        p_value = _p_value(signed[seen], weekdays[seen], days[last])
        if p_value is not None:
            statistic = (statistic + 1.0) * bet(p_value)
        evidence[last] = statistic
        if statistic >= quiet_days:
            alarms.append(last)
            start = last
            statistic = 0.0
    return Changes(evidence, tuple(alarms))


def bet(p_value: float) -> float:
    """Return what a unit staked against a uniform p-value in (0, 1) becomes, 1 on average: the mean
    of ε p^(ε - 1) over ε in [0, 1]."""
    if p_value > 1.0 - 1e-6:
        return 0.5
    log = float(np.log(p_value))
    return (1.0 - p_value + p_value * log) / (p_value * log * log)


def _p_value(values: Floats, weekdays: Ints, day: int) -> float | None:
    """Return the share of the days whose residual is as large as the last one's, in (0, 1); None
    while too few were seen. Equal ones are put into a random order, that of the day."""
    residuals = _residuals(values, weekdays) if len(values) > FIRST_BET else None
    if residuals is None:
        return None
    last = residuals[-1]
    close = 1e-12 * max(1.0, float(np.abs(residuals).max()))
    larger = int((residuals > last + close).sum())
    equal = int((np.abs(residuals - last) <= close).sum())
    drawn = float(np.random.default_rng(day).random())
    return (larger + max(drawn, 1e-9) * equal) / len(residuals)


def _residuals(values: Floats, weekdays: Ints) -> Floats | None:
    """Return the values less the mean of their weekday, scaled so that each has the same variance;
    None where the last day is the only one of its weekday."""
    counts = np.bincount(weekdays, minlength=WEEK)
    if counts[weekdays[-1]] < 2:
        return None
    means = np.bincount(weekdays, values, WEEK) / np.maximum(counts, 1)
    is_compared = counts[weekdays] > 1
    residuals = values - means[weekdays]
    scale = np.sqrt(1.0 - 1.0 / np.maximum(counts, 2))
    return np.asarray((residuals / scale[weekdays])[is_compared])
