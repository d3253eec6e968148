"""The estimators, bare: what each slot of each slate contributes, arrays in, an array out.

Contract: every argument is float64 [m, K]; `weight` is π/β as the name of the family says (see `propensities.weights`),
`reward` the logged reward, `shown` the reward model's q̂ of the shown item, `expected` its mean over the target policy.
An estimate is the mean of the contributions over judged slots. With K = 1 all families of weights are the same, and
these are IPS, clipped IPS, SNIPS, DM, DR, Switch-DR and DRos of the contextual bandit. Refuses to know who calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CAP = float(np.exp(3.0))


def ips(weight: Floats, reward: Floats) -> Floats:
    """w r (Horvitz and Thompson 1952).

    The family tells what must hold: SIPS nothing; RIPS (McInerney et al. 2020, eq. 9) a reward depends on the items
    above it at most; IIPS (Li et al. 2018, item-position) on item and slot; inclusion (Li et al. 2018, document-based)
    on the item alone.
    """
    return weight * reward


def clipped(weight: Floats, reward: Floats, cap: float = CAP) -> Floats:
    """min(w, c) r (Ionides 2008): too low for rewards of at least 0, by at most the mean weight that was cut."""
    return np.minimum(weight, cap) * reward


def self_normalised(top: Floats, bottom: Floats, slots: Floats) -> Floats:
    """Σ_k n_k (Σ w r)_k / (Σ w)_k / Σ_k n_k (Swaminathan and Joachims 2015, eq. 7), slot by slot.

    top = Σ w r, bottom = Σ w and slots = n, all [..., K], sums over slates. Each slot is normalised by its own weights:
    E[w] = 1 holds in each slot for SIPS, RIPS and IIPS, but for `inclusion` only over all slots, which come as one
    (K = 1). A slot without any weight counts as 0. V(r + c) = V(r) + c.
    """
    value = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0.0)
    return np.asarray((value * slots).sum(axis=-1) / slots.sum(axis=-1))


def direct(expected: Floats) -> Floats:
    """q̂(π), the direct method: as right as the model."""
    return expected


def doubly_robust(weight: Floats, reward: Floats, shown: Floats, expected: Floats) -> Floats:
    """q̂(π) + w (r - q̂(a)) (Dudík, Langford and Li 2011, eq. 3)."""
    return expected + weight * (reward - shown)


def switch(
    weight: Floats, reward: Floats, shown: Floats, expected: Floats, threshold: float = CAP
) -> Floats:
    """Doubly robust where w ≤ τ, the direct method elsewhere (Wang, Agarwal and Dudík 2017, Switch-DR)."""
    return expected + weight * (weight <= threshold) * (reward - shown)


def optimistic_shrinkage(
    weight: Floats, reward: Floats, shown: Floats, expected: Floats, rate: float = CAP**2
) -> Floats:
    """q̂(π) + λ w / (w² + λ) (r - q̂(a)) (Su et al. 2020, DRos): λ = 0 is the direct method, λ = ∞ doubly robust."""
    return expected + rate * weight / (weight * weight + rate) * (reward - shown)


def cascade(prefix: Floats, reward: Floats, shown: Floats, expected: Floats) -> Floats:
    """w_1:k (r_k - Q̂_k(a_1:k)) + w_1:k-1 E_π[Q̂_k(a_1:k-1, ·)] (Kiyohara et al. 2022, Cascade-DR).

    `prefix` are the weights of RIPS, `expected` is given the slots above. Q̂_k may be the reward of slot k alone or,
    when all slots are judged, what is still to come from slot k on: either way the terms of a wrong Q̂ cancel.
    """
    before = np.ones_like(prefix)
    before[:, 1:] = prefix[:, :-1]
    return prefix * (reward - shown) + before * expected
