"""The checkerboard: even users like even items, odd users like odd items, and nothing else.

Every policy that learns from behaviour must solve it; the tests of implicit use the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    SINGLE_SLOT,
    Bools,
    ClickModel,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class Checkerboard:
    """An environment in which the best policy is clicked every time while such items last."""

    users: int
    items: int
    steps: int
    click_model: ClickModel = SINGLE_SLOT

    @property
    def texts(self) -> list[str]:
        """The items' texts, n of them: a colour and a number."""
        return [f"{('red', 'blue')[item % 2]} number {item}" for item in range(self.items)]

    def attraction(self, users: Ints, time: int) -> Floats:
        """Return 1 where user and item are both even or both odd, else 0; float64 [b, n]."""
        return (users[:, None] % 2 == np.arange(self.items) % 2).astype(np.float64)

    def eligible(self, users: Ints, time: int) -> Bools:
        """Return True for every item, bool [b, n]."""
        return np.ones((len(users), self.items), np.bool_)
