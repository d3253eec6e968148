"""SmoothQuant: makes activations easy to quantize before they are, with the largest channels apart.

A dynamic int8 multiplication rounds a whole activation by its largest number. The few channels
that reach it get a small multiplication, and so a scale, of their own (after Dettmers et al. 2022,
arXiv:2208.07339, LLM.int8, who keep it in float: here that gained nothing). The others are divided
by a factor that their weights take over (Xiao et al. 2022, arXiv:2211.10438, eq. 3 and 4). In
float the result is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.tokenization import Tokens, unpadded_batches

SMALLEST = 1e-5
PARTS = ("qkv", "attention_out", "ffn_in", "ffn_out")


class SmoothedLinear(nn.Module):
    """A linear layer whose inputs are evened out, with its outlier channels multiplied apart.

    `inner` gets the inputs times `factor` [in], which is 0 for the channels `outliers` int64 [m];
    those go through `outlier_weight` [m, out].
    """

    factor: Tensor
    outliers: Tensor
    outlier_weight: Tensor

    def __init__(
        self, inner: nn.Linear, factor: Tensor, outliers: Tensor, outlier_weight: Tensor
    ) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("factor", factor)
        self.register_buffer("outliers", outliers)
        self.register_buffer("outlier_weight", outlier_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the linear layer returned before."""
        output = self.inner(x * self.factor)
        if len(self.outliers):
            output = output + x.index_select(-1, self.outliers) @ self.outlier_weight
        return output


def smooth(student: Student, tokens: Sequence[Tokens], strength: float, outliers: int) -> Student:
    """Return a copy that computes the same and quantizes better.

    Channels are measured on `tokens`. `strength` in [0, 1] is how much of an activation's size the
    weights take over (alpha of the paper); `outliers` is how many channels of the feed-forward
    part's inner activation are multiplied apart.
    """
    peaks = _channel_peaks(student, tokens)
    student = copy.deepcopy(student)
    for layer, layer_peaks in zip(student.layers, peaks, strict=True):
        for part in PARTS:
            # most of what int8 loses is lost here: docs/LOG.md
            n_outliers = min(outliers, len(layer_peaks[part]) // 2) if part == "ffn_out" else 0
            linear = getattr(layer, part)
            setattr(layer, part, _smooth_linear(linear, layer_peaks[part], strength, n_outliers))
    return student


@torch.no_grad()
def _smooth_linear(
    linear: nn.Linear, peaks: Tensor, strength: float, n_outliers: int
) -> SmoothedLinear:
    outliers = peaks.topk(n_outliers).indices
    weight_peaks = linear.weight.abs().amax(0).clamp(min=SMALLEST)
    factor = weight_peaks ** (1.0 - strength) / peaks.clamp(min=SMALLEST) ** strength

    outlier_weight = linear.weight[:, outliers].T.clone()
    linear.weight /= factor
    linear.weight[:, outliers] = 0.0
    factor[outliers] = 0.0
    return SmoothedLinear(linear, factor, outliers, outlier_weight)


@torch.inference_mode()
def _channel_peaks(student: Student, tokens: Sequence[Tokens]) -> list[dict[str, Tensor]]:
    """Return, for each layer and part, each input channel's largest absolute value over texts."""
    peaks: list[dict[str, Tensor]] = [{} for _ in student.layers]
    hooks = [
        getattr(layer, part).register_forward_pre_hook(_record_peaks(layer_peaks, part))
        for layer, layer_peaks in zip(student.layers, peaks, strict=True)
        for part in PARTS
    ]
    # without padding, which the hooks would measure too
    for ids, mask in unpadded_batches(tokens, torch.device("cpu")):
        student(ids, mask)
    for hook in hooks:
        hook.remove()
    return peaks


def _record_peaks(peaks: dict[str, Tensor], part: str) -> Callable[..., None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        largest = inputs[0].abs().amax((0, 1))
        peaks[part] = torch.maximum(peaks[part], largest) if part in peaks else largest

    return record
