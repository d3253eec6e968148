"""Sampled softmax with log-q correction, for catalogs too large to score in full.

The items in a batch are scored for certain; all others are represented by S draws from a proposal q
that the batch shares. Correcting a draw's score by -log(S q) makes the estimate of the softmax's
denominator unbiased at every point of the batch (Bengio and Senécal 2008, eq. 6; as a correction of
the logits Yi et al. 2019, eq. 4):

    Σ_i exp(s_i)  ≈  Σ_{i certain} exp(s_i) + Σ_{j drawn, not certain} exp(s_j - log(S q_j))

A draw that hits a certain item is dropped, since that item is counted in full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sanderling_trainer.policy.model.network import PolicyNetwork

UNIFORM = 0.5  # share of draws that ignore how often an item occurs


@dataclass(frozen=True)
class Proposal:
    """The distribution q over n items that negatives are drawn from."""

    log_q: Tensor
    """float32 [n]."""

    cumulative: Tensor
    """float64 [n], the cumulative sum of q."""

    generator: torch.Generator | None = None
    """Source of the draws; torch's global one unless given."""

    @staticmethod
    def of(counts: NDArray[np.int64], device: torch.device, uniform: float = UNIFORM) -> Proposal:
        """Return a mixture: a uniform share, the rest in proportion to counts
        int64 [n] of the items.
        """
        q = uniform / len(counts) + (1.0 - uniform) * counts / max(1, counts.sum())
        return Proposal(
            torch.from_numpy(np.log(q)).float().to(device),
            torch.from_numpy(np.cumsum(q)).to(device),
        )

    def fixed(self, seed: int = 0) -> Proposal:
        """Return the distribution with a generator of its own, so that passes can be repeated."""
        return replace(self, generator=torch.Generator(self.log_q.device).manual_seed(seed))

    def draw(self, size: int) -> Tensor:
        """Return `size` independent draws, rows int64."""
        device = self.cumulative.device
        uniform = torch.rand(size, generator=self.generator, dtype=torch.float64, device=device)
        quantiles = uniform * self.cumulative[-1]
        rows = torch.searchsorted(self.cumulative, quantiles, right=True)
        return rows.clamp(max=len(self.cumulative) - 1)

    def candidates(self, certain: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return the candidates int64 [c], ascending, and the corrections of their
        logits, float32 [c].

        certain: rows that are candidates without correction; -1 is ignored.
        size: S, the number of draws; an item drawn m times counts m times.
        """
        certain = certain.unique()
        certain = certain[certain >= 0]

        drawn, times = self.draw(size).unique(return_counts=True)
        other = ~torch.isin(drawn, certain, assume_unique=True)
        drawn = drawn[other]
        times = times[other]

        corrections = times.log() - math.log(size) - self.log_q[drawn]
        rows, order = torch.cat([certain, drawn]).sort()
        return rows, torch.cat([corrections.new_zeros(len(certain)), corrections])[order]


def item_vectors(network: PolicyNetwork, rows: Tensor, hide: Tensor | None) -> Tensor:
    """Return the item vectors [c, d] of some rows; the residual's gradient is sparse.

    Where `hide` bool [c] is true, without the residual.
    """
    residual = nn.functional.embedding(rows, network.residual, sparse=True)
    if hide is not None:
        residual = residual.masked_fill(hide[:, None], 0.0)
    return network.content(rows) + residual
