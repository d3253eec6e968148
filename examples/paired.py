"""The interval of a difference between two models that served the same users."""

from __future__ import annotations

import numpy as np

from sanderling_trainer.evaluation import intervals


def interval(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Return low and high of the 95 % interval of the mean of `first` - `second`.

    first, second: float [users], a figure of each user, in the same order. Bootstrap over users.
    """
    ones = np.ones(len(first))
    found = intervals.ratio_difference((first, ones), (second, ones), np.random.default_rng(0))
    return [round(found.low, 4), round(found.high, 4)]
