"""The device's encoder: a lean BERT with its pooling, in operators that every ONNX runtime has.

Queries, keys and values come from one multiplication; the scale of attention is folded into the
query's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sanderling_quantize.encoders.pooling import mean_pool, unit

# Added to the scores of padding. Finite, so that a text without tokens does not give NaN.
MASKED = -1e4


class Layer(nn.Module):
    """One post-norm transformer layer, `heads` of `depth` dimensions each (Devlin et al. 2019)."""

    def __init__(self, width: int, heads: int, depth: int, neurons: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.depth = depth
        # `nn.Module`, not `nn.Linear`: SmoothQuant puts a `SmoothedLinear` in their place
        self.qkv: nn.Module = nn.Linear(width, 3 * heads * depth)
        self.attention_out: nn.Module = nn.Linear(heads * depth, width)
        self.attention_norm = nn.LayerNorm(width, epsilon)
        self.ffn_in: nn.Module = nn.Linear(width, neurons)
        self.ffn_out: nn.Module = nn.Linear(neurons, width)
        self.ffn_norm = nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float32 [b, s, width]; `mask` [b, 1, 1, s] is added to the scores."""
        parts = fold(self.qkv(x), 3 * self.heads, self.depth).transpose(1, 2)
        query, key, value = parts.split(self.heads, 1)

        weights = (query @ key.transpose(-1, -2) + mask).softmax(-1)
        context = fold((weights @ value).transpose(1, 2), self.heads * self.depth)

        x = self.attention_norm(x + self.attention_out(context))
        return self.ffn_norm(x + self.ffn_out(functional.gelu(self.ffn_in(x))))


class Student(nn.Module):
    """Token ids and mask, int64 [b, s], -> unit vectors float32 [b, t].

    s is at most the number of rows of `position_embeddings`.
    """

    def __init__(
        self, words: nn.Module, positions: Tensor, epsilon: float, layers: list[Layer], out: int
    ) -> None:
        super().__init__()
        width = positions.shape[1]
        self.word_embeddings = words
        self.position_embeddings: nn.Module = nn.Embedding.from_pretrained(positions, freeze=False)
        self.embedding_norm = nn.LayerNorm(width, epsilon)
        self.layers = nn.ModuleList(layers)
        self.projection = nn.Linear(width, out) if width != out else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean over the tokens, scaled to length 1."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        embedded = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        x = self.embedding_norm(embedded)

        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * MASKED
        for layer in self.layers:
            x = layer(x, mask)

        pooled = mean_pool(x, attention_mask)
        return unit(pooled if self.projection is None else self.projection(pooled))


def fold(x: Tensor, *shape: int) -> Tensor:
    """Return x [b, s, ...] as [b, s, *shape].

    Written so that the exported Reshape keeps its first two axes, which `export` relies on.
    """
    return x.reshape(x.shape[0], x.shape[1], *shape)
