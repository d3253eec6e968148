"""How many threads this process computes with."""

from __future__ import annotations


def use_threads(count: int | None) -> None:
    """Let torch, ONNX Runtime below it, and Arrow compute with so many threads; None changes
    nothing.

    numpy reads OMP_NUM_THREADS and the like when it is imported.
    """
    if count is None:
        return
    import pyarrow
    import torch

    torch.set_num_threads(count)
    pyarrow.set_cpu_count(count)
