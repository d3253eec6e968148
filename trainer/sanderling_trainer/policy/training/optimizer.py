"""Optimization: AdamW, linear warm-up and one cosine, clipped gradients, gradient accumulation.

On a GPU the loss is computed in bfloat16 where that is safe; the parameters stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sanderling_trainer.policy.training import distributed

MAX_NORM = 1.0  # of all gradients together


@dataclass(frozen=True)
class Schedule:
    """How large the steps are and how many there are."""

    learning_rate: float

    weight_decay: float

    epochs: int

    batches: int
    """In an epoch, of this process."""

    accumulate: int = 1
    """Batches whose gradients make one step."""

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has, at least 1."""
        return max(1, -(-self.batches // self.accumulate))

    def factor(self, step: int) -> float:
        """Return what the learning rate is multiplied by at a step, from 0.

        It rises linearly over the first epoch and falls as one cosine over the others. A process
        may take a few steps more than planned (`distributed.in_step`); those have factor 0.
        """
        warm = self.steps_per_epoch
        if step < warm:
            return (step + 1) / warm
        rest = max(1, self.epochs * self.steps_per_epoch - warm)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / rest)))


class RowAdamW(torch.optim.SparseAdam):
    """AdamW without momentum on the rows that a sparse gradient touches; others keep their values.

    A step costs what its batch costs, however large the table is. With momentum a row would take
    1 - β₁, a tenth, of its gradient in this step and the rest in the next ones, which do not touch
    it: rows of rare items would hardly move.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(list(parameters), learning_rate, betas=(0.0, 0.999))
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Decay the touched rows, then move them."""
        for group in self.param_groups:
            for table in group["params"]:
                rows = table.grad.coalesce().indices()[0]
                table.index_copy_(0, rows, table[rows] * (1.0 - group["lr"] * self.weight_decay))
        super().step()


class Optimizer:
    """Steps of AdamW on a schedule. `sparse` are parameters whose gradients are sparse."""

    def __init__(
        self, network: nn.Module, schedule: Schedule, sparse: Sequence[nn.Parameter] = ()
    ) -> None:
        self._network = network
        self._accumulate = schedule.accumulate
        self._accumulated = 0

        dense = [
            parameter
            for parameter in network.parameters()
            if all(parameter is not table for table in sparse)
        ]
        rate, decay = schedule.learning_rate, schedule.weight_decay
        self._dense = dense
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, rate, weight_decay=decay)
        ]
        if sparse:
            self._parts.append(RowAdamW(sparse, rate, decay))
        self._schedulers = [
            torch.optim.lr_scheduler.LambdaLR(part, schedule.factor) for part in self._parts
        ]

    def accumulate_and_step(self, loss: Tensor) -> None:
        """Add the gradient of a batch's loss; step when `accumulate` batches are added."""
        self.add(loss / self._accumulate)
        if self._accumulated == self._accumulate:
            self.step()

    def add(self, loss: Tensor) -> None:
        """Add the gradient of a batch's loss to those of the next step."""
        loss.backward()
        self._accumulated += 1

    def step(self) -> None:
        """Step with the gradients added so far, if any; an epoch ends with this."""
        if self._accumulated == 0:
            return

        # AdamW takes no sparse gradient, which a sampled softmax gives a table that it is to move
        # as a whole.
        for parameter in self._dense:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()

        distributed.average_gradients(self._network.parameters())
        _clip(self._network.parameters())
        for part, scheduler in zip(self._parts, self._schedulers, strict=True):
            part.step()
            part.zero_grad(set_to_none=True)
            scheduler.step()
        self._accumulated = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to resume after a whole step."""
        return {
            "parts": [part.state_dict() for part in self._parts],
            "schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned."""
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for scheduler, saved in zip(self._schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)


def precision(device: torch.device) -> torch.autocast:
    """Return the context in which a loss is computed: bfloat16 on a GPU, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _clip(parameters: Iterable[nn.Parameter]) -> None:
    """Scale all gradients to a joint norm of at most 1.

    The same as torch's `clip_grad_norm_`, which does not support sparse gradients.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)

    norms = torch.stack([torch.linalg.vector_norm(value) for value in values])
    scale = (MAX_NORM / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
