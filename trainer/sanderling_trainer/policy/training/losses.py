"""Losses: pure functions of scores, each the formula that it cites."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def next_items(
    log_policy: Tensor,
    point: Tensor,
    target: Tensor,
    weight: Tensor,
    influence: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy over the softmax: the weighted mean of -log π(target | point).

    log_policy [q, n]; the p pairs have point, target int64 [p] and weight [p]. influence [p] in
    [0, 1], if given, scales the terms of the mean and not its denominator: the bound of an install
    holds even in a batch that has no other.
    """
    scaled = weight if influence is None else weight * influence
    return -(scaled * log_policy[point, target]).sum() / weight.sum()


@dataclass(frozen=True)
class TopKOffPolicy:
    """Minus the surrogate of the top-K off-policy-corrected policy gradient.

        E_β[ ω λ_K (r - b) log π(a|s) ],  ω = min(π/β, c),  λ_K = K (1 - π)^(K-1),  both detached

    Chen et al. 2019, arXiv:1812.02353, eq. 6.
    """

    baseline: float
    """b, which should not exceed the mean reward."""

    cap: float
    """c, the largest importance weight."""

    slate: int
    """K; 1 gives plain inverse propensity scoring."""

    def __call__(
        self, log_chosen: Tensor, logged: Tensor, reward: Tensor, counts: Tensor
    ) -> Tensor:
        """Return the mean over actions; all arguments have one shape.

        log_chosen = log π(a|s); logged = β(a|s); reward r in [-1, 1]; counts, of mean 1 over the
        log, is how much each action counts.
        """
        policy = log_chosen.detach().exp()
        # A propensity may underflow to 0 in single precision: 0/0 would make the gradient NaN.
        smallest = torch.finfo(logged.dtype).tiny
        weight = (policy / logged.clamp(min=smallest)).clamp(max=self.cap)
        top_k = self.slate * (1.0 - policy) ** (self.slate - 1)
        return -(counts * weight * top_k * (reward - self.baseline) * log_chosen).mean()


def kl_divergence(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """Return the mean over states of KL(π || π_ref).

    Both [s, n], normalized, -inf where an item is not eligible.
    """
    difference = (log_policy - log_reference).masked_fill(torch.isinf(log_policy), 0.0)
    return (log_policy.exp() * difference).sum(-1).mean()
