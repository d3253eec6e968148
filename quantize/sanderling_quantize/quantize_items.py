"""Item vectors -> int8 rows with a scale each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sanderling.bundle.writer import write_items
from sanderling.ranking.column_file import write_columns
from sanderling.ranking.quantization import quantize_rows
from sanderling_quantize.checkpoint import Checkpoint

NO_DOMAIN: Mapping[str, NDArray[np.float32]] = MappingProxyType({})

# prefixes of the policy's tensors that the device needs; the others serve training only
ON_DEVICE = (
    "state.",
    "output.",
    "context.project",
    "context.feature",
    "item.project",
    "item.feature",
)


def quantize_items(
    checkpoint: Checkpoint, folder: Path, domain: Mapping[str, NDArray[np.float32]] = NO_DOMAIN
) -> None:
    """Write a bundle's items.safetensors, catalog.jsonl, columns.safetensors and
    policy.safetensors, the last with the tensors of the texts' domain."""
    rows, scale = quantize_rows(checkpoint.tensors["item.vectors"])
    biases = checkpoint.tensors["item.biases"]
    write_items(folder, rows, scale, biases, checkpoint.records, checkpoint.newcomers())
    write_columns(folder, checkpoint.records, checkpoint.attribute_types())

    policy = {
        name: np.ascontiguousarray(tensor)
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(ON_DEVICE)
    }
    policy["item.bias"] = np.ascontiguousarray(checkpoint.tensors["item.bias"])
    policy |= domain
    save_file(policy, folder / "policy.safetensors")
