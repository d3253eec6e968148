"""How a user reads a slate: which slots are looked at, and which of those are clicked.

An item's attraction is the probability that it is clicked once it is looked at. Refuses to know users and items.
Sources: position-based and cascade model, Craswell et al. 2008, "An experimental comparison of click position-bias
models"; the dependent click model, which goes on after a click with a known probability, Guo et al. 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class ClickModel(Protocol):
    """Attractions float64 [..., K] of a slate's items, top slot first, to clicks."""

    @property
    def slots(self) -> int:
        """K, the slots of a slate."""

    def probabilities(self, attraction: Floats) -> Floats:
        """Return the exact probability float64 [..., K] that each slot is clicked."""

    def draw(self, attraction: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Return clicks bool [..., K] and which slots were looked at, bool [..., K]."""


@dataclass(frozen=True)
class PositionBias:
    """Slot k is looked at with probability `examination[k]`, whatever the others show; in (0, 1]."""

    examination: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_probabilities("examination", self.examination)

    @property
    def slots(self) -> int:
        """K, the slots of a slate."""
        return len(self.examination)

    def probabilities(self, attraction: Floats) -> Floats:
        """P(click at k) = e_k a_k."""
        return attraction * np.array(self.examination)

    def draw(self, attraction: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Look at each slot by its own coin, click by another."""
        seen = rng.random(attraction.shape) < np.array(self.examination)
        return seen & (rng.random(attraction.shape) < attraction), seen


@dataclass(frozen=True)
class Cascade:
    """The user reads from the top; after a click at slot k the reading goes on with probability `onward[k]`, in [0, 1].

    All zeros give the cascade model of one click at most; all ones a user who reads everything.
    """

    onward: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_probabilities("onward", self.onward, least=0.0)

    @property
    def slots(self) -> int:
        """K, the slots of a slate."""
        return len(self.onward)

    def probabilities(self, attraction: Floats) -> Floats:
        """P(click at k) = a_k Π_{m<k} (1 - a_m (1 - λ_m))."""
        goes_on = 1.0 - attraction * (1.0 - np.array(self.onward))
        reached = np.cumprod(goes_on, axis=-1)
        return attraction * np.concatenate(
            [np.ones_like(reached[..., :1]), reached[..., :-1]], axis=-1
        )

    def draw(self, attraction: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Click what attracts, until a click ends the reading."""
        attracts = rng.random(attraction.shape) < attraction
        ends = attracts & (rng.random(attraction.shape) >= np.array(self.onward))
        ended_before: Ints = np.cumsum(ends, axis=-1) - ends
        seen: Bools = ended_before == 0
        return attracts & seen, seen


def whole_slate(slots: int) -> PositionBias:
    """Return the model of a user who looks at every slot."""
    return PositionBias((1.0,) * slots)


def _check_probabilities(name: str, values: tuple[float, ...], least: float = 1e-12) -> None:
    if not values or not all(least <= value <= 1.0 for value in values):
        raise ValueError(
            f"expected {name} with at least one probability, each in [{least:g}, 1], found {values}"
        )


ONE = whole_slate(1)
