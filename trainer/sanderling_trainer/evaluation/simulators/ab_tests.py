"""An environment from A/B tests of texts: each visitor saw one arm, drawn with probability 1/K.

A "user" of the environment is a test and an "item" is an arm. The propensities are exact; the
click rates are measured, so the environment's truth has their sampling error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    SINGLE_SLOT,
    Bools,
    ClickModel,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class ABTests:
    """n arms in several tests of at least two arms each."""

    texts: Sequence[str]
    """The arms' texts; arms of equal text in one test must have been merged."""

    test: Ints
    """The test of each arm, 0 … users - 1, int64 [n]."""

    impressions: Ints
    """Visitors of each arm, int64 [n], above 0."""

    clicked: Ints
    """Visitors of each arm who clicked, int64 [n]."""

    click_model: ClickModel = SINGLE_SLOT
    steps: int = 1

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.test) == len(self.impressions) == len(self.clicked) > 0:
            raise ValueError("expected texts, test, impressions and clicked of one length above 0")
        single = int((np.bincount(self.test) < 2).sum())
        if single:
            raise ValueError(f"expected two arms in a test, found fewer in {single}")
        valid = (self.impressions >= 1) & (self.clicked >= 0) & (self.clicked <= self.impressions)
        if not valid.all():
            raise ValueError(
                "expected 0 <= clicked <= impressions and impressions >= 1 in every arm,"
                f" found otherwise in {int((~valid).sum())}"
            )
        if len(set(zip(self.test.tolist(), self.texts, strict=True))) < len(self.texts):
            raise ValueError("expected different texts in a test, found equal ones: merge them")

    @property
    def users(self) -> int:
        """The number of tests."""
        return int(self.test.max()) + 1

    @property
    def rates(self) -> Floats:
        """The measured click rate of each arm, float64 [n]."""
        rates: Floats = self.clicked / self.impressions
        return rates

    def attraction(self, users: Ints, time: int) -> Floats:
        """Return the measured click rates, float64 [b, n]."""
        return np.broadcast_to(self.rates, (len(users), len(self.test)))

    def eligible(self, users: Ints, time: int) -> Bools:
        """Return the arms of each test, bool [b, n]."""
        return self.test == np.asarray(users)[:, None]

    def uniform(self) -> Floats:
        """Return the logging policy, 1/K for each arm of its test, float64 [n]."""
        arms: Floats = np.bincount(self.test).astype(np.float64)[self.test]
        return 1.0 / arms

    def direct(self, policy: Floats) -> Floats:
        """Return a policy's click rate in each test, float64 [tests]: Σ_a π_a clicks_a / n_a."""
        return np.bincount(self.test, policy * self.rates).astype(np.float64)

    def ips(self, policy: Floats) -> Floats:
        """Return the inverse propensity estimate in each test, float64 [tests].

        It is the mean over visitors of π_a K click; policy float64 [n] sums to 1 in each test.
        Source: Horvitz and Thompson 1952.
        """
        weighted_clicks = np.bincount(self.test, policy / self.uniform() * self.clicked)
        return weighted_clicks / np.bincount(self.test, self.impressions)

    def halves(self, rng: np.random.Generator) -> tuple[ABTests, ABTests]:
        """Split the visitors of each arm at random, to select on one half and value on the other.

        Valuing the best arm on the visitors that selected it would overstate it (winner's curse).
        """
        size = self.impressions // 2
        clicked = rng.hypergeometric(self.clicked, self.impressions - self.clicked, size)
        return (
            replace(self, impressions=size, clicked=clicked),
            replace(self, impressions=self.impressions - size, clicked=self.clicked - clicked),
        )

    def select(self, tests: Ints) -> ABTests:
        """Return some of the tests, renumbered in the order given."""
        rows = np.concatenate([np.flatnonzero(self.test == test) for test in tests])
        sizes = np.bincount(self.test)[tests]
        return replace(
            self,
            texts=[self.texts[row] for row in rows],
            test=np.repeat(np.arange(len(tests)), sizes),
            impressions=self.impressions[rows],
            clicked=self.clicked[rows],
        )
