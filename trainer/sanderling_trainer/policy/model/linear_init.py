"""Initializes the network as the closed-form linear recommender of the log.

The ridge autoencoder of rank d, B = V diag(σ² / (σ² + λ)) Vᵀ with X = U diag(σ) Vᵀ (Jin et al.
2021, "Towards a better understanding of linear models for recommendation"; EASE, Steck 2019, is its
full-rank sibling), scores item i for a user of items j by Σ_j q_j · q_i, where q_i = V_i sqrt(σ² /
(σ² + λ)). It is already as good as many trained recommenders, and the network can express it
exactly: residuals q_i, a state that adds them up and slowly forgets, and a linear map after it,
which silu gives as silu(x) - silu(-x) = x. Training goes on from there.
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

DENSE = 1_000_000
"""Users times items up to which the whole decomposition is computed: the iterative one may restart
at random on small matrices."""

SHRINK = 0.3  # what is left of the random projection of texts


def singular_vectors(
    histories: Sequence[History], items: int, rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return σ [r] and V [n, r] of the likes before the inner split, the largest σ last.

    r <= rank is what the log allows.
    """
    liked = [history.items[history.liked & ~history.is_validation] for history in histories]
    users = np.repeat(np.arange(len(liked)), [len(rows) for rows in liked])
    rows = np.concatenate([np.empty(0, np.int64), *liked])
    parts = [history.influence[history.liked & ~history.is_validation] for history in histories]
    values = np.concatenate([np.empty(0, np.float32), *parts])
    x = sparse.csr_matrix((values, (users, rows)), shape=(len(liked), items))
    # An item that a user liked twice counts once. The factors are those of xᵀx, which is to be
    # linear in an install's influence.
    np.sqrt(np.minimum(x.data, 1.0), out=x.data)

    rank = min(rank, min(x.shape) - 1)
    if rank < 1 or not len(rows):
        return np.zeros(0, np.float32), np.zeros((items, 0), np.float32)

    if x.shape[0] * x.shape[1] <= DENSE:
        _, sigma, v = np.linalg.svd(x.toarray(), full_matrices=False)
        return sigma[:rank][::-1], v[:rank][::-1].T

    # A fixed starting vector makes the decomposition the same in every run.
    _, sigma, v = svds(x, k=rank, v0=np.ones(min(x.shape), np.float32))
    return sigma, v.T


def ridge_factors(
    histories: Sequence[History], items: int, rank: int, ridge: float
) -> NDArray[np.float32]:
    """Return q float32 [n, r] with the ridge penalty λ."""
    sigma, v = singular_vectors(histories, items, rank)
    return (v * np.sqrt(sigma**2 / (sigma**2 + ridge))).astype(np.float32)


@torch.no_grad()
def initialize(
    network: PolicyNetwork, q: NDArray[np.float32], memory: float = 300.0, gain: float = 0.5
) -> None:
    """Make the network the linear recommender of factors q [n, r], as far as its sizes allow.

    The other channels and hidden units stay at random, but reach no score before training.

    memory: events until a channel has forgotten to 1/e.
    gain: of the linear map, so that scores are linear in it.
    """
    r = min(q.shape[1], len(network.decay_logit), len(network.b1) // 2)
    q = q[:, q.shape[1] - r :]  # `svds` returns the largest singular values last
    if r == 0:
        return

    decay = math.exp(-1.0 / memory)
    identity = torch.eye(r)

    # Items: vectors are q; the residual makes up for a smaller projection of the text.
    network.project.mul_(SHRINK)
    network.residual[:, :r] = torch.from_numpy(q) - network.text @ network.project[:r].T

    # State: the first r channels add up the first r dimensions of the item vectors. Where there is
    # room the next r have the opposite sign.
    has_mirror = 2 * r <= len(network.decay_logit)
    for sign, start in ((1.0, 0), (-1.0, r))[: 1 + has_mirror]:
        channels = slice(start, start + r)
        network.decay_logit[channels] = math.log(decay / (1.0 - decay))
        network.input[channels] = 0.0
        network.input[channels, :r] = sign * identity

    # User vector: silu(x) - silu(-x) = x for these channels. Half the difference of a channel and
    # its mirror is free of the mean over all channels, which the norm subtracts.
    network.w1[: 2 * r] = 0.0
    for sign, rows in ((1.0, slice(0, r)), (-1.0, slice(r, 2 * r))):
        if has_mirror:
            network.w1[rows, :r] = 0.5 * sign * identity
            network.w1[rows, r : 2 * r] = -0.5 * sign * identity
        else:
            network.w1[rows, :r] = sign * identity

    # The other hidden units are silent until training gives them a weight.
    network.w2.zero_()
    network.w2[:r, :r] = gain * identity
    network.w2[:r, r : 2 * r] = -gain * identity
