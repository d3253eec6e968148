"""The diagonal linear recurrence h_t = Λ h_{t-1} + x_t over whole sequences, with its gradient.

One pass over the events forwards and one backwards. A parallel scan (Hillis and Steele 1986) takes log2(s) passes over
all of x: on two cores its epoch took twice the time. Refuses to know what x is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: Tensor) -> Tensor:
        h = x.clone(memory_format=torch.contiguous_format)
        for t in range(1, len(h)):
            h[t].addcmul_(h[t - 1], decay)
        ctx.save_for_backward(h, decay)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        h, decay = ctx.saved_tensors
        g = gradient.clone(memory_format=torch.contiguous_format)
        for t in range(len(g) - 2, -1, -1):
            g[t].addcmul_(g[t + 1], decay)
        return g, (g[1:] * h[:-1]).sum((0, 1))


def recurrence(x: Tensor, decay: Tensor) -> Tensor:
    """Return h [b, s, c] for x [b, s, c] and decay Λ [c] in (0, 1)."""
    return _Recurrence.apply(x.transpose(0, 1), decay).transpose(0, 1)
