"""A catalogue too large to score whole: which of its items a batch is scored on, and how their scores are corrected.

The items that a batch itself speaks of are scored for certain; all others stand behind S draws from a proposal q that
the whole batch shares. With a draw's score corrected by -log(S q) the softmax's denominator is estimated without bias
(Bengio and Senécal 2008, eq. 6; as a correction of the logits Yi et al. 2019, eq. 4), at every point of the batch:

    Σ_i exp(s_i)  ≈  Σ_{i certain} exp(s_i) + Σ_{j drawn, not certain} exp(s_j - log(S q_j))

A draw that hits a certain item is dropped, since that one is counted in full. Refuses to know users and losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sanderling_trainer.policy.model.network import PolicyNetwork

UNIFORM = 0.5


@dataclass(frozen=True)
class Proposal:
    """q over n items: log q float32 [n], q's running sum float64 [n]; draws come from `generator`, or torch's own."""

    log_q: Tensor
    cumulative: Tensor
    generator: torch.Generator | None = None

    @staticmethod
    def of(counts: NDArray[np.int64], device: torch.device, uniform: float = UNIFORM) -> Proposal:
        """Return a share of uniform draws, the rest in proportion to how often each item occurs, int64 [n]."""
        q = uniform / len(counts) + (1.0 - uniform) * counts / max(1, counts.sum())
        return Proposal(
            torch.from_numpy(np.log(q)).float().to(device),
            torch.from_numpy(np.cumsum(q)).to(device),
        )

    def fixed(self, seed: int = 0) -> Proposal:
        """Return the same with draws of its own, so that two passes over the same batches see the same ones."""
        return replace(self, generator=torch.Generator(self.log_q.device).manual_seed(seed))

    def draw(self, size: int) -> Tensor:
        """Return `size` independent draws, rows int64."""
        device = self.cumulative.device
        at = (
            torch.rand(size, generator=self.generator, dtype=torch.float64, device=device)
            * self.cumulative[-1]
        )
        return torch.searchsorted(self.cumulative, at, right=True).clamp(
            max=len(self.cumulative) - 1
        )

    def candidates(self, certain: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return rows int64 [c], ascending, and what is added to their logits, float32 [c]: 0 for the certain ones.

        `certain` holds rows, or -1; of the `size` draws an item drawn m times counts m times.
        """
        certain = certain.unique()
        certain = certain[certain >= 0]
        drawn, times = self.draw(size).unique(return_counts=True)
        other = ~torch.isin(drawn, certain, assume_unique=True)
        drawn, times = drawn[other], times[other]
        rows, order = torch.cat([certain, drawn]).sort()
        corrections = times.log() - math.log(size) - self.log_q[drawn]
        return rows, torch.cat([corrections.new_zeros(len(certain)), corrections])[order]


def vectors(network: PolicyNetwork, rows: Tensor, hide: Tensor | None) -> Tensor:
    """Return the item vectors [c, d] of some rows; the residual's gradient is sparse. `hide` bool [c] takes it away."""
    residual = nn.functional.embedding(rows, network.residual, sparse=True)
    if hide is not None:
        residual = residual.masked_fill(hide[:, None], 0.0)
    return network.text[rows] @ network.project.T + residual
