"""Word vectors in few bytes: one byte for each group of numbers (product quantization), or an int8 row with a scale.

Jégou, Douze and Schmid 2011, "Product quantization for nearest neighbor search". A whole vocabulary of 30,522 words of
384 numbers takes 3 MB instead of 12, so that no word has to be thrown away; the codebooks are trained with the student.
Both forms are plain Gather, Cast and Mul in ONNX. Refuses to know transformers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanderling_quantize.encoders.student import fold

CODES = 256
ROUNDS = 10


class Codes(nn.Module):
    """Word vectors [v, w] as bytes `codes` [v, w / group] that point into a codebook of each group."""

    codes: Tensor
    first: Tensor

    def __init__(self, codes: Tensor, books: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("first", torch.arange(codes.shape[1]) * (len(books) // codes.shape[1]))
        self.books = nn.Parameter(books)

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 [b, s, w] for ids int64 [b, s]."""
        return fold(
            self.books[self.codes[ids].to(torch.int64) + self.first],
            self.books.shape[1] * len(self.first),
        )


class Int8Rows(nn.Module):
    """Rows int8 [v, w] with a scale each; what an `nn.Embedding` becomes in the graph."""

    rows: Tensor
    scale: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scale = table.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("rows", (table / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, at: Tensor) -> Tensor:
        """Return float32 [..., w] for positions int64 [...]."""
        return self.rows[at].to(torch.float32) * self.scale[at]


class Int8Codes(nn.Module):
    """`Codes` whose codebooks are int8 rows."""

    codes: Tensor
    first: Tensor

    def __init__(self, table: Codes) -> None:
        super().__init__()
        self.register_buffer("codes", table.codes)
        self.register_buffer("first", table.first)
        self.books = Int8Rows(table.books.detach())

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 [b, s, w] for ids int64 [b, s]."""
        return fold(
            self.books(self.codes[ids].to(torch.int64) + self.first),
            self.books.rows.shape[1] * len(self.first),
        )


def frozen(table: nn.Module) -> nn.Module:
    """Return the int8 form of an `nn.Embedding` or of `Codes`."""
    if isinstance(table, Codes):
        return Int8Codes(table)
    assert isinstance(table, nn.Embedding)
    return Int8Rows(table.weight.detach())


def coded(table: Tensor, weights: Tensor, group: int, seed: int) -> Codes:
    """Return codes of word vectors [v, w]; words with more weight [v] are kept more exactly. w must divide by group."""
    generator = torch.Generator().manual_seed(seed)
    parts = [_cluster(part, weights, generator) for part in table.detach().split(group, 1)]
    codes = torch.stack([nearest for _, nearest in parts], 1).to(torch.uint8)
    return Codes(codes, torch.cat([centres for centres, _ in parts]))


def _cluster(points: Tensor, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: centres [k, group] and the nearest centre of each point [v]; an empty centre starts anew."""
    count = min(CODES, len(points))
    centres = points[torch.multinomial(weights, count, generator=generator)].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        mass = torch.zeros(count).index_add_(0, nearest, weights)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points * weights[:, None])
        fresh = points[torch.multinomial(weights, count, generator=generator)]
        centres = torch.where(mass[:, None] > 0, sums / mass[:, None].clamp(min=1e-12), fresh)
    return centres, torch.cdist(points, centres).argmin(1)
