"""The features of a catalog's typed attributes, as the item tower reads them.

They come from `sanderling.ranking.features`, so that lab and device cannot differ in them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sanderling.ranking.features import Features

PREFIX = "attributes."


class AttributeTable(nn.Module):
    """The features ψ of n items: `dense` [n, D], and entries of categories, of which item i has
    `offsets[i]` to `offsets[i + 1]`. Fixed; F columns in all."""

    dense: Tensor
    columns: Tensor
    weights: Tensor
    offsets: Tensor

    width: int
    """F"""

    # Six parameters: the four arrays of a table, and its width.
    def __init__(
        self, dense: Tensor, columns: Tensor, weights: Tensor, offsets: Tensor, width: int
    ) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("dense", dense)
        self.register_buffer("columns", columns)
        self.register_buffer("weights", weights)
        self.register_buffer("offsets", offsets)

    @staticmethod
    def of(features: Features, width: int) -> AttributeTable:
        """Return the table of a catalog's features, F of them."""
        n = len(features.dense)
        counts = torch.bincount(torch.from_numpy(features.rows), minlength=n)
        offsets = nn.functional.pad(counts.cumsum(0), (1, 0))
        return AttributeTable(
            torch.from_numpy(features.dense),
            torch.from_numpy(features.columns - features.dense.shape[1]),
            torch.from_numpy(features.weights),
            offsets,
            width,
        )

    @staticmethod
    def of_state(state: Mapping[str, Tensor]) -> AttributeTable | None:
        """Return the table of a network's `state_dict`, None where it has none."""
        names = ("dense", "columns", "weights", "offsets")
        if PREFIX + names[0] not in state:
            return None
        dense, columns, weights, offsets = (state[PREFIX + name] for name in names)
        return AttributeTable(dense, columns, weights, offsets, state["feature_project"].shape[1])

    def __len__(self) -> int:
        return len(self.dense)

    def project(self, project: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return B ψ [n, d] of all items, or of some rows, given B [d, F]."""
        width = self.dense.shape[1]
        dense = self.dense if rows is None else self.dense[rows]
        projected = dense @ project[:, :width].T
        if not len(self.columns):
            return projected
        columns, weights, offsets = self._entries(rows)
        table = project[:, width:].T.contiguous()
        of_categories = nn.functional.embedding_bag(
            columns, table, offsets, mode="sum", per_sample_weights=weights
        )
        return projected + of_categories

    def as_matrix(self, rows: Tensor) -> Tensor:
        """Return ψ [r, F] of some rows."""
        return self.project(torch.eye(self.width, device=self.dense.device), rows)

    def _entries(self, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return columns and weights of the entries of some rows, and where each row's begin."""
        if rows is None:
            return self.columns, self.weights, self.offsets[:-1]
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        first = lengths.cumsum(0) - lengths
        shift = torch.repeat_interleave(starts - first, lengths)
        places = torch.arange(len(shift), device=shift.device) + shift
        return self.columns[places], self.weights[places], first
