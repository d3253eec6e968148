"""The device's encoder: a lean BERT with its pooling, in the operators that every ONNX runtime has.

Queries, keys and values come from one multiplication, and the scale of attention lies in the query's weights. Refuses
to know where its weights come from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e4


class Layer(nn.Module):
    """One transformer layer, normalised after each part, `heads` of `depth` dimensions each (Devlin et al. 2019)."""

    def __init__(self, width: int, heads: int, depth: int, neurons: int, epsilon: float) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.attend: nn.Module = nn.Linear(width, 3 * heads * depth)
        self.merge: nn.Module = nn.Linear(heads * depth, width)
        self.merged = nn.LayerNorm(width, epsilon)
        self.expand: nn.Module = nn.Linear(width, neurons)
        self.contract: nn.Module = nn.Linear(neurons, width)
        self.contracted = nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float32 [b, s, width]; `mask` [b, 1, 1, s] is added to the scores."""
        parts = fold(self.attend(x), 3 * self.heads, self.depth).transpose(1, 2)
        query, key, value = parts.split(self.heads, 1)
        weights = (query @ key.transpose(-1, -2) + mask).softmax(-1)
        read = fold((weights @ value).transpose(1, 2), self.heads * self.depth)
        x = self.merged(x + self.merge(read))
        return self.contracted(x + self.contract(functional.gelu(self.expand(x))))


class Student(nn.Module):
    """Token ids and mask, int64 [b, s], -> unit vectors float32 [b, t]; at most as many tokens as `positions` has."""

    def __init__(
        self, words: nn.Module, positions: Tensor, epsilon: float, layers: list[Layer], out: int
    ) -> None:
        super().__init__()
        width = positions.shape[1]
        self.words = words
        self.positions: nn.Module = nn.Embedding.from_pretrained(positions, freeze=False)
        self.embedded = nn.LayerNorm(width, epsilon)
        self.layers = nn.ModuleList(layers)
        self.out = nn.Linear(width, out) if width != out else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean over the tokens, scaled to length 1."""
        at = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.embedded(self.words(input_ids) + self.positions(at))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * MASKED
        for layer in self.layers:
            x = layer(x, mask)
        return unit(
            mean(x, attention_mask) if self.out is None else self.out(mean(x, attention_mask))
        )


def fold(x: Tensor, *shape: int) -> Tensor:
    """Return x [b, s, ...] as [b, s, *shape]."""
    return x.reshape(x.shape[0], x.shape[1], *shape)


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [b, w] over the tokens [b, s, w] that the mask [b, s] has."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [b, t] scaled to length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-9)
