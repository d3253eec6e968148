"""Mean pooling of token vectors, for the teacher, its students and the trainer's language model."""

from __future__ import annotations

from torch import Tensor


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [b, w] of token vectors [b, s, w] where the mask [b, s] is 1."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [b, t] scaled to length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-9)
