"""The estimators as formulas: what each slot of each slate contributes.

Every argument is float64 [m, K]. `weight` is π/β of one family (`propensities.importance_weights`),
`reward` the logged reward, `shown` the reward model's q̂ of the shown item and `expected` the mean
of q̂ under the target policy. An estimate is the mean of the contributions over judged slots. With
K = 1 all families of weights coincide, and these are IPS, clipped IPS, SNIPS, DM, DR, Switch-DR
and DRos of the contextual bandit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WEIGHT_CAP = float(np.exp(3.0))


def ips(weight: Floats, reward: Floats) -> Floats:
    """Return w r, inverse propensity scoring. Source: Horvitz and Thompson 1952.

    The family of the weight decides what must hold. SIPS: nothing. RIPS (McInerney et al. 2020,
    equation 9): a reward depends at most on its own item and those above. IIPS (Li et al. 2018,
    item-position): on item and slot. Inclusion (Li et al. 2018, document-based): on the item alone.
    """
    return weight * reward


def clipped(weight: Floats, reward: Floats, cap: float = WEIGHT_CAP) -> Floats:
    """Return min(w, cap) r. Source: Ionides 2008.

    For rewards in [0, 1] it is too low by at most the mean weight that was cut off.
    """
    return np.minimum(weight, cap) * reward


def self_normalized(weighted_reward: Floats, weight: Floats, slots: Floats) -> Floats:
    """Return Σ_k n_k (Σ w r)_k / (Σ w)_k / Σ_k n_k, normalized slot by slot.

    weighted_reward = Σ w r, weight = Σ w and slots = n are sums over slates, [..., K]; the result
    is [...]. E[w] = 1 holds in each slot for SIPS, RIPS and IIPS, but for inclusion only over
    all slots together, which are then passed as one (K = 1). A slot without any weight counts as
    0. V(r + c) = V(r) + c. Source: Swaminathan and Joachims 2015, equation 7.
    """
    zeros = np.zeros_like(weighted_reward)
    value = np.divide(weighted_reward, weight, out=zeros, where=weight > 0.0)
    return np.asarray((value * slots).sum(axis=-1) / slots.sum(axis=-1))


def direct(expected: Floats) -> Floats:
    """Return q̂(π), the direct method: as right as the reward model."""
    return expected


def doubly_robust(weight: Floats, reward: Floats, shown: Floats, expected: Floats) -> Floats:
    """Return q̂(π) + w (r - q̂(a)). Source: Dudík, Langford and Li 2011, equation 3."""
    return expected + weight * (reward - shown)


def switch(
    weight: Floats, reward: Floats, shown: Floats, expected: Floats, threshold: float = WEIGHT_CAP
) -> Floats:
    """Return doubly robust where w <= threshold, the direct method elsewhere (Switch-DR).

    Source: Wang, Agarwal and Dudík 2017.
    """
    return expected + weight * (weight <= threshold) * (reward - shown)


def optimistic_shrinkage(
    weight: Floats, reward: Floats, shown: Floats, expected: Floats, rate: float = WEIGHT_CAP**2
) -> Floats:
    """Return q̂(π) + λ w / (w² + λ) (r - q̂(a)) with λ = rate (DRos).

    λ = 0 is the direct method, λ = ∞ is doubly robust. Source: Su et al. 2020.
    """
    return expected + rate * weight / (weight * weight + rate) * (reward - shown)


def cascade(prefix: Floats, reward: Floats, shown: Floats, expected: Floats) -> Floats:
    """Return w_1:k (r_k - Q̂_k(a_1:k)) + w_1:k-1 E_π[Q̂_k(a_1:k-1, ·)] (Cascade-DR).

    `prefix` are the weights of RIPS and `expected` is the mean given the slots above. Q̂_k may be
    the reward of slot k alone or, when all slots are judged, the sum from slot k on: either way
    the errors of Q̂ cancel in expectation. Source: Kiyohara et al. 2022.
    """
    prefix_above = np.ones_like(prefix)
    prefix_above[:, 1:] = prefix[:, :-1]
    return prefix * (reward - shown) + prefix_above * expected
