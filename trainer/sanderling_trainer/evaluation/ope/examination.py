"""How much each slot is looked at, estimated from what the scheme explored.

Position-based model: a click has the probability θ_k g(a). Under scheme `sequential` an item that
the logging policy ranks beyond the slate is shown by exploring alone, and then with the same
chance in every slot, so that the click rates of such items by slot are θ up to a factor: which
items stand where does not confound them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STEPS = 25
PRIOR_VARIANCE = 1.0


class Examination(NamedTuple):
    """θ of K slots as a curve of two coefficients, and how each decision moves them."""

    coefficients: Floats
    """Float64 [2]: 0 where every slot is looked at alike."""

    influence: Floats
    """How much each decision moved the coefficients, float64 [m, 2]."""

    basis: Floats
    """The two functions of the slot that the coefficients multiply, float64 [K, 2]."""

    def curve(self, coefficients: Floats | None = None) -> Floats:
        """Return θ float64 [K], the largest 1, for other coefficients if given."""
        chosen = self.coefficients if coefficients is None else coefficients
        logarithm = self.basis @ chosen
        return np.asarray(np.exp(logarithm - logarithm.max(initial=-np.inf)))


def fit_examination(reward: Floats, explored: Bools, count: Floats) -> Examination:
    """Return θ = exp(c_1 f_1 + c_2 f_2) fitted to the clicks of explored items, [m, K].

    f_1 and f_2 are the log of the slot's number and its square, made orthonormal; the fit is a
    Poisson regression with a normal prior of variance 1 on both coefficients, so that few data
    leave θ near 1. `count` float64 [m] says for how many decisions each one stands.
    """
    weight = explored * count[:, None]
    clicks = (weight * np.where(explored, reward, 0.0)).sum(axis=0)
    shown = weight.sum(axis=0)
    slots = len(shown)
    basis = _basis(slots)
    columns = np.column_stack([np.ones(slots), basis])
    if clicks.sum() == 0.0 or slots == 1:
        return Examination(np.zeros(2), np.zeros((len(count), 2)), basis)

    # The rate itself has no prior.
    penalty = np.diag([0.0, 1.0 / PRIOR_VARIANCE, 1.0 / PRIOR_VARIANCE])
    beta = np.array([np.log(clicks.sum() / shown.sum()), 0.0, 0.0])
    for _ in range(STEPS):
        expected = shown * np.exp(np.clip(columns @ beta, -30.0, 5.0))
        gradient = columns.T @ (clicks - expected) - penalty @ beta
        hessian = (columns * expected[:, None]).T @ columns + penalty
        beta = beta + np.clip(np.linalg.solve(hessian, gradient), -1.0, 1.0)

    rate = np.exp(columns @ beta)
    residual = weight * (np.where(explored, reward, 0.0) - rate)
    influence = np.linalg.solve(hessian, (residual @ columns).T).T
    return Examination(beta[1:], influence[:, 1:], basis)


def _basis(slots: int) -> Floats:
    """Return orthonormal columns of mean 0 and mean square 1, float64 [slots, 2]."""
    logarithm = np.log(np.arange(1, slots + 1))
    powers = np.column_stack([np.ones(slots), logarithm, np.square(logarithm)])
    q, r = np.linalg.qr(powers) if slots > 2 else (np.zeros((slots, 3)), np.eye(3))
    return np.asarray(q[:, 1:] * np.sign(np.diag(r))[1:] * np.sqrt(slots))
