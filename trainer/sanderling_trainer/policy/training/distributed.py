"""Data-parallel training: each process has its own batches, all apply the mean of the gradients.

The same steps as DistributedDataParallel's, written out because a loss here needs more of a network
than one `forward`. In a single process all of this does nothing. The launcher joins the processes
with `torch.distributed` (gloo on CPUs, NCCL on GPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


def size() -> int:
    """Return how many processes train together, 1 for a single one."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; a missing one counts as 0."""
    if size() == 1:
        return

    dense = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad.is_sparse:
            parameter.grad = _mean_of_rows(parameter.grad.coalesce())
        else:
            dense.append(parameter.grad)

    # One message for all dense gradients instead of one for each.
    flat = torch.cat([gradient.flatten() for gradient in dense])
    distributed.all_reduce(flat)
    means = (flat / size()).split([gradient.numel() for gradient in dense])
    for gradient, mean in zip(dense, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def total(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the sums of values over the processes."""
    if size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def in_step(
    batches: Iterator[T], restart: Callable[[], Iterator[T]], device: torch.device
) -> Iterator[T]:
    """Yield batches until every process has finished its own.

    A process that finishes early continues with `restart`, so that all take the
    same number of steps.

    Raises ValueError where `restart` yields nothing.
    """
    finished = False
    while True:
        batch = next(batches, None)
        if batch is None:
            finished = True
            if size() == 1:
                return
        if size() > 1 and total([float(not finished)], device) == [0.0]:
            return
        if batch is None:
            batches = restart()
            batch = next(batches, None)
        if batch is None:
            raise ValueError(
                f"process {rank()} of {size()}: expected batches to train on, found none;"
                " use fewer processes, or more data"
            )
        yield batch


def _mean_of_rows(gradient: Tensor) -> Tensor:
    """Return the mean of the processes' coalesced gradients; NCCL reduces no sparse tensors."""
    rows, values = (_gathered(part) for part in (gradient.indices()[0], gradient.values()))
    mean = torch.sparse_coo_tensor(
        rows[None], values / size(), gradient.shape, check_invariants=False
    )
    return mean.coalesce()


def _gathered(part: Tensor) -> Tensor:
    """Return the processes' tensors [r, ...], of different lengths, one after the other."""
    lengths = [part.new_zeros(1, dtype=torch.int64) for _ in range(size())]
    distributed.all_gather(lengths, lengths[0].new_tensor([len(part)]))

    # all_gather needs equal shapes.
    longest = int(torch.stack(lengths).max())
    padded = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(size())]
    distributed.all_gather(parts, padded)
    return torch.cat([one[: int(length)] for one, length in zip(parts, lengths, strict=True)])
