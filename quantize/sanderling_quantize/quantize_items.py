"""Item vectors -> int8 rows with a scale each. Refuses to know texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sanderling.bundle.writer import write_items
from sanderling.ranking.quantization import quantize_rows
from sanderling_quantize.checkpoint import Checkpoint


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Write items.safetensors, catalog.jsonl and policy.safetensors of a bundle from a checkpoint's tensors."""
    rows, scale = quantize_rows(checkpoint.tensors["item.vectors"])
    write_items(folder, rows, scale, checkpoint.tensors["item.biases"], checkpoint.records)
    on_device = ("state.", "output.", "context.project", "item.project")
    policy = {
        name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(on_device)
    }
    policy["item.bias"] = checkpoint.tensors["item.bias"]
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in policy.items()},
        folder / "policy.safetensors",
    )
