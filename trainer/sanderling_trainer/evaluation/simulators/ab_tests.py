"""Randomised tests of texts: each visitor of a test saw one of its arms, drawn with probability 1/K.

A visitor stands for a test, an arm for an item. The arms' click rates are measured, not known, so the world's truth has
their sampling error; the propensities are exact. Refuses to know files and what the texts say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    ONE,
    Bools,
    ClickModel,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class RandomisedTests:
    """test int64 [n] of each arm (0 … users - 1, at least two arms each), impressions int64 [n] > 0, clicks int64 [n].

    Arms of equal text in one test must have been merged.
    """

    texts: Sequence[str]
    test: Ints
    impressions: Ints
    clicked: Ints
    clicks: ClickModel = ONE
    steps: int = 1

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.test) == len(self.impressions) == len(self.clicked) > 0:
            raise ValueError("expected texts, test, impressions and clicked of one length above 0")
        if (np.bincount(self.test) < 2).any():
            raise ValueError(
                f"expected two arms in a test, found fewer in {int((np.bincount(self.test) < 2).sum())}"
            )
        if (
            (self.impressions < 1).any()
            or (self.clicked < 0).any()
            or (self.clicked > self.impressions).any()
        ):
            raise ValueError(
                "expected 0 <= clicked <= impressions and impressions >= 1 in every arm"
            )
        if len(set(zip(self.test.tolist(), self.texts, strict=True))) < len(self.texts):
            raise ValueError("expected different texts in a test, found equal ones: merge them")

    @property
    def users(self) -> int:
        """How many tests there are."""
        return int(self.test.max()) + 1

    @property
    def rates(self) -> Floats:
        """The measured click rate of each arm, float64 [n]."""
        found: Floats = self.clicked / self.impressions
        return found

    def attraction(self, users: Ints, time: int) -> Floats:
        """The measured click rates, float64 [b, n]."""
        return np.broadcast_to(self.rates, (len(users), len(self.test)))

    def eligible(self, users: Ints, time: int) -> Bools:
        """The arms of each test, bool [b, n]."""
        return self.test == np.asarray(users)[:, None]

    def uniform(self) -> Floats:
        """Return the logging policy, 1/K for each arm of its test, float64 [n]."""
        arms: Floats = np.bincount(self.test).astype(np.float64)[self.test]
        return 1.0 / arms

    def direct(self, policy: Floats) -> Floats:
        """Return the click rate of a policy in each test, float64 [tests]: Σ_a π_a clicks_a / impressions_a."""
        return np.bincount(self.test, policy * self.rates).astype(np.float64)

    def ips(self, policy: Floats) -> Floats:
        """Return the inverse-propensity estimate in each test, float64 [tests]: mean over visitors of π_a K click.

        Horvitz and Thompson 1952. `policy` float64 [n] sums to 1 in each test.
        """
        weighted = np.bincount(self.test, policy / self.uniform() * self.clicked)
        return weighted / np.bincount(self.test, self.impressions)

    def halves(self, rng: np.random.Generator) -> tuple[RandomisedTests, RandomisedTests]:
        """Split the visitors of each arm at random: one half to pick by, the other to value (the winner's curse)."""
        size = self.impressions // 2
        first = rng.hypergeometric(self.clicked, self.impressions - self.clicked, size)
        return (
            replace(self, impressions=size, clicked=first),
            replace(self, impressions=self.impressions - size, clicked=self.clicked - first),
        )

    def select(self, tests: Ints) -> RandomisedTests:
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
