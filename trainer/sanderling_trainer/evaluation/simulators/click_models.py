"""Click models: which slots of a slate a user examines, and which of those are clicked.

An item's attraction is the probability that it is clicked once it is examined. Sources: the
position-based and the cascade model, Craswell et al. 2008, "An experimental comparison of click
position-bias models"; the dependent click model, in which the user goes on after a click with a
known probability, Guo et al. 2009.
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
    """From the attractions float64 [..., K] of a slate's items, top slot first, to clicks."""

    @property
    def slots(self) -> int:
        """K, the slots of a slate."""

    def probabilities(self, attraction: Floats) -> Floats:
        """Return the exact probability float64 [..., K] that each slot is clicked."""

    def draw(self, attraction: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Return clicks bool [..., K] and which slots were examined, bool [..., K]."""


@dataclass(frozen=True)
class PositionBias:
    """Slot k is examined with probability `examination[k]` in (0, 1], whatever it shows."""

    examination: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_probabilities("examination", self.examination, at_least=1e-12)

    @property
    def slots(self) -> int:
        """K, the slots of a slate."""
        return len(self.examination)

    def probabilities(self, attraction: Floats) -> Floats:
        """Return P(click at k) = e_k a_k."""
        return attraction * np.array(self.examination)

    def draw(self, attraction: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Draw examination and attraction independently, slot by slot."""
        examined = rng.random(attraction.shape) < np.array(self.examination)
        return examined & (rng.random(attraction.shape) < attraction), examined


@dataclass(frozen=True)
class Cascade:
    """The user reads from the top and goes on after a click at slot k with `continuation[k]`.

    Each probability is in [0, 1]. All zeros give the cascade model with at most one click; all
    ones a user who examines every slot.
    """

    continuation: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_probabilities("continuation", self.continuation, at_least=0.0)

    @property
    def slots(self) -> int:
        """K, the slots of a slate."""
        return len(self.continuation)

    def probabilities(self, attraction: Floats) -> Floats:
        """Return P(click at k) = a_k Π_{m<k} (1 - a_m (1 - λ_m)), λ being the continuation."""
        goes_on = 1.0 - attraction * (1.0 - np.array(self.continuation))
        reached = np.cumprod(goes_on, axis=-1)
        always = np.ones_like(reached[..., :1])
        return attraction * np.concatenate([always, reached[..., :-1]], axis=-1)

    def draw(self, attraction: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Click what attracts, until a click ends the reading."""
        attracts = rng.random(attraction.shape) < attraction
        ends = attracts & (rng.random(attraction.shape) >= np.array(self.continuation))
        ended_before: Ints = np.cumsum(ends, axis=-1) - ends
        examined: Bools = ended_before == 0
        return attracts & examined, examined


def examine_all(slots: int) -> PositionBias:
    """Return the model of a user who examines every slot."""
    return PositionBias((1.0,) * slots)


def _check_probabilities(name: str, values: tuple[float, ...], at_least: float) -> None:
    if not values or not all(at_least <= value <= 1.0 for value in values):
        raise ValueError(
            f"expected {name} with at least one probability, each in [{at_least:g}, 1],"
            f" found {values}"
        )


SINGLE_SLOT = examine_all(1)
