"""The diagonal linear recurrence h_t = Λ h_{t-1} + x_t over whole sequences, with its gradient.

On a CPU one pass over the events forwards and one backwards. On a GPU a parallel scan (Hillis and Steele 1986): log2(s)
passes over all of x, each one kernel, where the other takes s kernels; on two cores its epoch took twice the time.
Refuses to know what x is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Scan = Callable[[Tensor, Tensor], Tensor]


def stepwise(x: Tensor, decay: Tensor) -> Tensor:
    """Return h [s, b, c] for x [s, b, c] and decay [c], one event after the other."""
    h = x.clone(memory_format=torch.contiguous_format)
    for t in range(1, len(h)):
        h[t].addcmul_(h[t - 1], decay)
    return h


def doubling(x: Tensor, decay: Tensor) -> Tensor:
    """Return the same: after the pass of width w each h_t holds the last 2w events."""
    h, width = x, 1
    while width < len(x):
        h = torch.cat([h[:width], torch.addcmul(h[width:], h[:-width], decay**width)])
        width *= 2
    return h.clone() if h is x else h


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: Tensor, scan: Scan) -> Tensor:
        h = scan(x, decay)
        ctx.save_for_backward(h, decay)
        ctx.scan = scan
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        h, decay = ctx.saved_tensors
        g = ctx.scan(gradient.flip(0), decay).flip(0)
        return g, (g[1:] * h[:-1]).sum((0, 1)), None


def recurrence(x: Tensor, decay: Tensor, scan: Scan | None = None) -> Tensor:
    """Return h [b, s, c] for x [b, s, c] and decay Λ [c] in (0, 1); `scan` is the device's own unless one is given."""
    scan = scan or (doubling if x.is_cuda else stepwise)
    return _Recurrence.apply(x.transpose(0, 1), decay, scan).transpose(0, 1)
