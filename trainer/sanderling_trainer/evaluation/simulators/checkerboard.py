"""The checkerboard: even users like even items, odd users odd ones, and nobody anything else.

Every policy that learns from behaviour must solve it (as implicit's tests demand). Refuses to know texts of substance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    ONE,
    Bools,
    ClickModel,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class Checkerboard:
    """users and n items; the best policy that knows the user is always clicked while such items last."""

    users: int
    items: int
    steps: int
    clicks: ClickModel = ONE

    @property
    def texts(self) -> list[str]:
        """The items' texts, n of them: the colour and a number."""
        return [f"{('red', 'blue')[item % 2]} number {item}" for item in range(self.items)]

    def attraction(self, users: Ints, time: int) -> Floats:
        """1 where user and item are of one colour, else 0; float64 [b, n]."""
        return (users[:, None] % 2 == np.arange(self.items) % 2).astype(np.float64)

    def eligible(self, users: Ints, time: int) -> Bools:
        """Every item, bool [b, n]."""
        return np.ones((len(users), self.items), np.bool_)
