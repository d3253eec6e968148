"""How a network descends: AdamW, a linear warm-up and one cosine, gradients clipped, and added over several batches.

On a GPU the loss is computed in bfloat16 where that is safe; the parameters stay float32. Refuses to know losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training import distributed

CLIP = 1.0


class RowAdamW(torch.optim.SparseAdam):
    """AdamW on the rows that a sparse gradient touches; the others' moments and decay wait for them.

    A step costs what its batch costs, however large the table is.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], rate: float, weight_decay: float
    ) -> None:
        super().__init__(list(parameters), rate)
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Decay the touched rows, then move them."""
        for group in self.param_groups:
            for table in group["params"]:
                rows = table.grad.coalesce().indices()[0]
                table.index_copy_(0, rows, table[rows] * (1.0 - group["lr"] * self.weight_decay))
        super().step()


class Optimiser:
    """One descent over so many epochs of so many batches; the first epoch warms up.

    `by_row` are tables whose gradients are sparse.
    """

    def __init__(
        self,
        network: nn.Module,
        rate: float,
        weight_decay: float,
        epochs: int,
        batches: int,
        config: Config,
        by_row: Sequence[nn.Parameter] = (),
    ) -> None:
        self.network, self.accumulate, self._added = network, config.accumulate, 0
        steps = max(1, -(-batches // config.accumulate))
        whole = [
            parameter
            for parameter in network.parameters()
            if all(parameter is not table for table in by_row)
        ]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(whole, rate, weight_decay=weight_decay)
        ]
        if by_row:
            self._parts.append(RowAdamW(by_row, rate, weight_decay))
        factor = _cosine(epochs * steps, warm=steps)
        self._schedules = [torch.optim.lr_scheduler.LambdaLR(part, factor) for part in self._parts]

    def accumulate_and_step(self, loss: Tensor) -> None:
        """Add the gradient of a batch's loss, and take a step when enough are added."""
        (loss / self.accumulate).backward()
        self._added += 1
        if self._added == self.accumulate:
            self.step()

    def step(self) -> None:
        """Take a step with what is added, at the end of an epoch too; with nothing added do nothing."""
        if self._added == 0:
            return
        distributed.average(self.network.parameters())
        _clip(self.network.parameters())
        for part, schedule in zip(self._parts, self._schedules, strict=True):
            part.step()
            part.zero_grad(set_to_none=True)
            schedule.step()
        self._added = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on after a whole step."""
        return {
            "parts": [part.state_dict() for part in self._parts],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for schedule, saved in zip(self._schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)


def precision(device: torch.device) -> torch.autocast:
    """Return the context in which a loss is computed: bfloat16 on a GPU, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _clip(parameters: Iterable[nn.Parameter]) -> None:
    """Scale all gradients together to a length of at most 1, as `clip_grad_norm_`, which knows no sparse ones."""
    values = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    length = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(value) for value in values])
    )
    scale = (CLIP / (length + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)


def _cosine(steps: int, warm: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor
