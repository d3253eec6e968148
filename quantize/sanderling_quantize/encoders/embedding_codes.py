"""Word vectors in few bytes: product quantization, or int8 rows with a scale.

Jégou, Douze and Schmid 2011, "Product quantization for nearest neighbor search": one byte for each
group of numbers. A vocabulary of 30,522 words of 384 numbers takes 3 MB instead of 12, so that no
word has to be dropped; the codebooks are trained with the student. Both forms are plain Gather,
Cast and Mul in ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanderling_quantize.encoders.student import fold

CODES = 256
ROUNDS = 10


class Codes(nn.Module):
    """Word vectors [v, w] as bytes `codes` [v, groups] that index one codebook for each group.

    The codebooks lie one after the other in `books` [groups * k, w / groups], k at most 256;
    `offset` [groups] says where each begins.
    """

    codes: Tensor
    offset: Tensor

    def __init__(self, codes: Tensor, books: Tensor) -> None:
        super().__init__()
        groups = codes.shape[1]
        self.register_buffer("codes", codes)
        self.register_buffer("offset", torch.arange(groups) * (len(books) // groups))
        self.books = nn.Parameter(books)

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 [b, s, w] for ids int64 [b, s]."""
        rows = self.codes[ids].to(torch.int64) + self.offset
        return fold(self.books[rows], self.books.shape[1] * len(self.offset))


class Int8Rows(nn.Module):
    """Rows int8 [v, w] with a scale each: what an `nn.Embedding` becomes in the graph."""

    rows: Tensor
    scale: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scale = table.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("rows", (table / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 [..., w] for row numbers int64 [...]."""
        return self.rows[ids].to(torch.float32) * self.scale[ids]


class Int8Codes(nn.Module):
    """`Codes` whose codebooks are int8 rows."""

    codes: Tensor
    offset: Tensor

    def __init__(self, table: Codes) -> None:
        super().__init__()
        self.register_buffer("codes", table.codes)
        self.register_buffer("offset", table.offset)
        self.books = Int8Rows(table.books.detach())

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 [b, s, w] for ids int64 [b, s]."""
        rows = self.codes[ids].to(torch.int64) + self.offset
        return fold(self.books(rows), self.books.rows.shape[1] * len(self.offset))


def to_int8(table: nn.Module) -> nn.Module:
    """Return the int8 form of an `nn.Embedding` or of `Codes`."""
    if isinstance(table, Codes):
        return Int8Codes(table)
    assert isinstance(table, nn.Embedding)
    return Int8Rows(table.weight.detach())


def encode_table(table: Tensor, weights: Tensor, group: int, seed: int) -> Codes:
    """Return codes of word vectors [v, w], `group` numbers to a byte.

    w must be divisible by `group`. Words with a larger weight [v] lose less.
    """
    generator = torch.Generator().manual_seed(seed)
    clusters = [_cluster(part, weights, generator) for part in table.detach().split(group, 1)]
    codes = torch.stack([nearest for _, nearest in clusters], 1).to(torch.uint8)
    return Codes(codes, torch.cat([centres for centres, _ in clusters]))


def _cluster(points: Tensor, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return centres [k, group] and the nearest centre of each point [v], by Lloyd's algorithm."""
    count = min(CODES, len(points))
    centres = points[torch.multinomial(weights, count, generator=generator)].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        mass = torch.zeros(count).index_add_(0, nearest, weights)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points * weights[:, None])

        # a centre that no point is nearest to starts again from a random point
        restarts = points[torch.multinomial(weights, count, generator=generator)]
        means = sums / mass[:, None].clamp(min=1e-12)
        centres = torch.where(mass[:, None] > 0, means, restarts)
    return centres, torch.cdist(points, centres).argmin(1)
