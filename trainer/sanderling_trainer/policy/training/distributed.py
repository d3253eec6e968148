"""The processes that learn one network together: each sees its own batches, all take the mean of the gradients.

The same steps as DistributedDataParallel's, written out because a loss here asks more of a network than one `forward`.
Alone, all of this does nothing. Refuses to know networks and to start processes: whoever runs the processes joins them
with `torch.distributed` (gloo on CPUs, NCCL on GPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


def size() -> int:
    """Return how many processes learn together, 1 for one alone."""
    return (
        distributed.get_world_size()
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def rank() -> int:
    """Return which one of them this is, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def average(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; where one has none it counts as 0."""
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
    flat = torch.cat([gradient.flatten() for gradient in dense])
    distributed.all_reduce(flat)
    for gradient, mean in zip(
        dense, (flat / size()).split([one.numel() for one in dense]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def total(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the sums of some numbers over the processes."""
    if size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def in_step(
    once: Iterator[T], again: Callable[[], Iterator[T]], device: torch.device
) -> Iterator[T]:
    """Yield `once` as long as any process has more; one that is through goes on with `again` until all are.

    Raises ValueError where `again` has nothing.
    """
    through = False
    while True:
        following = next(once, None)
        if following is None:
            through = True
            if size() == 1:
                return
        if size() > 1 and total([float(not through)], device) == [0.0]:
            return
        if following is None:
            once = again()
            following = next(once, None)
        if following is None:
            raise ValueError(
                f"process {rank()} of {size()}: expected something to learn from, found nothing"
            )
        yield following


def _mean_of_rows(gradient: Tensor) -> Tensor:
    """Return the mean of the processes' coalesced gradients; NCCL itself knows no sparse ones."""
    rows, values = (_gathered(part) for part in (gradient.indices()[0], gradient.values()))
    return torch.sparse_coo_tensor(
        rows[None], values / size(), gradient.shape, check_invariants=False
    ).coalesce()


def _gathered(part: Tensor) -> Tensor:
    """Return the processes' tensors [r, ...], of different lengths, one after the other."""
    lengths = [part.new_zeros(1, dtype=torch.int64) for _ in range(size())]
    distributed.all_gather(lengths, lengths[0].new_tensor([len(part)]))
    longest = int(torch.stack(lengths).max())
    padded = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(size())]
    distributed.all_gather(parts, padded)
    return torch.cat([one[: int(length)] for one, length in zip(parts, lengths, strict=True)])
