"""The diagonal linear recurrence h_t = Λ h_{t-1} + x_t over whole sequences, with its gradient.

A parallel scan (Hillis and Steele 1986): log2(s) passes over all of x, each one kernel. The
gradient is the same scan backwards, so that no intermediate pass is stored. On one core, both ways
together, a plain loop over events takes 0.55 to 0.65 × the scan's time for 64 to 256 events and 1.2
to 3 × for 1,024 to 4,096; one implementation for all lengths is simpler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: Tensor) -> Tensor:
        h = _scan(x, decay)
        ctx.save_for_backward(h, decay)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        h, decay = ctx.saved_tensors
        g = _scan(gradient.flip(0), decay).flip(0)
        return g, (g[1:] * h[:-1]).sum((0, 1))


def recurrence(x: Tensor, decay: Tensor) -> Tensor:
    """Return h [b, s, c] for x [b, s, c] and decay Λ [c] in (0, 1)."""
    return _Recurrence.apply(x.transpose(0, 1), decay).transpose(0, 1)


def _scan(x: Tensor, decay: Tensor) -> Tensor:
    """Return h [s, b, c]; after the pass of width w each h_t covers the last 2w events."""
    h = x.clone()
    width = 1
    while width < len(x):
        h = torch.cat([h[:width], torch.addcmul(h[width:], h[:-width], decay**width)])
        width *= 2
    return h
