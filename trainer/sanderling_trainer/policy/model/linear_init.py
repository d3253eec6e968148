"""Where a policy starts from: the closed-form linear recommender, which is already as good as many trained ones.

The ridge autoencoder of rank d, B = V diag(σ² / (σ² + λ)) Vᵀ with X = U diag(σ) Vᵀ (Jin et al. 2021, "Towards a better
understanding of linear models for recommendation"; EASE, Steck 2019, is its full-rank sibling), scores item i for
someone with items j by Σ_j q_j · q_i, q_i = V_i sqrt(σ² / (σ² + λ)). The network can be exactly that: residuals q_i, a
state that adds them up slowly forgetting, and a linear map behind it, which silu gives as silu(x) - silu(-x) = x. From
there the gradient goes on. Refuses to know time, text and kinds of event.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from sanderling_trainer.data.histories import History
from sanderling_trainer.policy.model.network import PolicyNetwork

RIDGE = 200.0
HORIZON = 300.0
GAIN = 0.5
SMALL = 0.3


def factors(histories: Sequence[History], items: int, rank: int) -> NDArray[np.float32]:
    """Return q float32 [n, r] of the items liked before the inner split, r <= rank: as many as the log can give."""
    liked = [history.items[history.liked & ~history.fresh] for history in histories]
    user = np.repeat(np.arange(len(liked)), [len(rows) for rows in liked])
    rows = np.concatenate([np.empty(0, np.int64), *liked])
    x = sparse.csr_matrix((np.ones(len(rows), np.float32), (user, rows)), shape=(len(liked), items))
    x.data[:] = 1.0
    rank = min(rank, min(x.shape) - 1)
    if rank < 1 or not len(rows):
        return np.zeros((items, 0), np.float32)
    _, sigma, v = svds(x, k=rank, v0=np.ones(min(x.shape), np.float32))
    return (v * np.sqrt(sigma**2 / (sigma**2 + RIDGE))[:, None]).T.astype(np.float32)


@torch.no_grad()
def begin(network: PolicyNetwork, q: NDArray[np.float32]) -> None:
    """Make the network the linear recommender with factors q [n, r], as far as its sizes allow, beside what it was."""
    r = min(q.shape[1], len(network.decay_logit), len(network.b1) // 2)
    q = q[:, q.shape[1] - r :]
    if r == 0:
        return
    keep = math.exp(-1.0 / HORIZON)
    one = torch.eye(r)
    network.residual[:, :r] = torch.from_numpy(q)
    network.project.mul_(SMALL)
    network.decay_logit[:r] = math.log(keep / (1.0 - keep))
    network.input[:r] = 0.0
    network.input[:r, :r] = one
    network.w1[: 2 * r] = 0.0
    network.w1[:r, :r], network.w1[r : 2 * r, :r] = one, -one
    network.w2.mul_(SMALL)
    network.w2[:, : 2 * r] = 0.0
    network.w2[:r, :r], network.w2[:r, r : 2 * r] = GAIN * one, -GAIN * one
