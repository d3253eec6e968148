"""The losses. Pure functions of scores; each one is the formula it cites."""

from __future__ import annotations

import torch
from torch import Tensor


def next_items(log_policy: Tensor, point: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy over the full softmax: the weighted mean of -log π(target | point).

    log_policy [q, n]; point, target int64 [p] and weight [p] are the pairs.
    """
    return -(weight * log_policy[point, target]).sum() / weight.sum()


def top_k_off_policy(
    log_chosen: Tensor,
    logged: Tensor,
    reward: Tensor,
    counts: Tensor,
    baseline: float,
    cap: float,
    slate: int,
) -> Tensor:
    """Minus the surrogate of the top-K off-policy-corrected gradient (Chen et al. 2019, arXiv:1812.02353, eq. 6).

        E_β[ ω λ_K (r - b) log π(a|s) ],  ω = min(π/β, c),  λ_K = K (1 - π)^(K-1),  both detached

    log_chosen = log π(a|s), logged = β(a|s) as it was logged, reward in [-1, 1], and how much each counts, of mean 1
    over the log: all of one shape. `baseline` b should not exceed the mean reward; K = 1 gives plain IPS.
    """
    policy = log_chosen.detach().exp()
    weight = (policy / logged.clamp(min=torch.finfo(logged.dtype).tiny)).clamp(max=cap)
    top_k = slate * (1.0 - policy) ** (slate - 1)
    return -(counts * weight * top_k * (reward - baseline) * log_chosen).mean()


def kl_divergence(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """Mean over states of KL(π || π_ref); both [s, n] and normalised, -inf where an item is not eligible."""
    difference = (log_policy - log_reference).masked_fill(torch.isinf(log_policy), 0.0)
    return (log_policy.exp() * difference).sum(-1).mean()
