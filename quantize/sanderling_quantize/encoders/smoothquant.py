"""Making activations easy to quantize, before they are: the loudest channels apart, the others evened out.

A dynamic int8 multiplication rounds a whole activation by its one largest number. The few channels that reach it get a
small multiplication, and so a scale, of their own (after Dettmers et al. 2022, arXiv:2208.07339, LLM.int8, who keep it
in float: here that gained nothing). The others are divided by a factor that their weights take over (Xiao et al. 2022,
arXiv:2211.10438, eq. 3 and 4). In float nothing changes. Refuses to know ONNX.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.tokenization import Tokens, batches

SMALLEST = 1e-5
PARTS = ("attend", "merge", "expand", "contract")


class Smooth(nn.Module):
    """`inner`, fed with the evened channels; the `outlier` ones, int64 [m], go through `weight` [m, out]."""

    factor: Tensor
    outlier: Tensor
    weight: Tensor

    def __init__(self, inner: nn.Linear, factor: Tensor, outlier: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("factor", factor)
        self.register_buffer("loud", outlier)
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the linear layer gave before."""
        quiet = self.inner(x * self.factor)
        return (
            quiet + x.index_select(-1, self.outlier) @ self.weight if len(self.outlier) else quiet
        )


def smoothed(student: Student, tokens: Sequence[Tokens], strength: float, outlier: int) -> Student:
    """Return a copy that computes the same and quantizes better.

    `strength` in [0, 1] is how much of an activation's size the weights take over (alpha of the paper); `outlier` is how
    many channels of the feed-forward part's inner activation go apart.
    """
    largest = _largest(student, tokens)
    student = copy.deepcopy(student)
    for layer, peaks in zip(student.layers, largest, strict=True):
        for part in PARTS:
            count = min(outlier, len(peaks[part]) // 2) if part == "contract" else 0
            setattr(layer, part, _smooth(getattr(layer, part), peaks[part], strength, count))
    return student


@torch.no_grad()
def _smooth(linear: nn.Linear, peaks: Tensor, strength: float, outlier: int) -> Smooth:
    chosen = peaks.topk(outlier).indices
    weights = linear.weight.abs().amax(0).clamp(min=SMALLEST)
    factor = weights ** (1.0 - strength) / peaks.clamp(min=SMALLEST) ** strength
    aside = linear.weight[:, chosen].T.clone()
    linear.weight /= factor
    linear.weight[:, chosen] = 0.0
    factor[chosen] = 0.0
    return Smooth(linear, factor, chosen, aside)


@torch.inference_mode()
def _largest(student: Student, tokens: Sequence[Tokens]) -> list[dict[str, Tensor]]:
    """Return for each layer and part the largest absolute value of each input channel over texts."""
    found: list[dict[str, Tensor]] = [{} for _ in student.layers]
    hooks = [
        getattr(layer, part).register_forward_pre_hook(_note(found[at], part))
        for at, layer in enumerate(student.layers)
        for part in PARTS
    ]
    for ids, mask, _ in batches(tokens, torch.device("cpu"), 1):
        student(ids, mask)
    for hook in hooks:
        hook.remove()
    return found


def _note(found: dict[str, Tensor], part: str) -> Callable[[nn.Module, Any], None]:
    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        peaks = given[0].abs().amax((0, 1))
        found[part] = torch.maximum(found[part], peaks) if part in found else peaks

    return note
