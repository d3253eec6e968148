"""How a network descends: AdamW, a linear warm-up and one cosine, gradients clipped, and added over several batches.

On a GPU the loss is computed in bfloat16 where that is safe; the parameters stay float32. Refuses to know losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sanderling_trainer.policy.config import Config

CLIP = 1.0


class Optimiser:
    """One descent over so many epochs of so many batches; the first epoch warms up."""

    def __init__(
        self, network: nn.Module, rate: float, weight_decay: float, epochs: int, batches: int, config: Config
    ) -> None:
        self.network, self.accumulate, self._added = network, config.accumulate, 0
        steps = max(1, batches // config.accumulate)
        self.adam = torch.optim.AdamW(network.parameters(), rate, weight_decay=weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, _cosine(epochs * steps, warm=steps))

    def descend(self, loss: Tensor) -> None:
        """Add the gradient of a batch's loss, and take a step when enough are added."""
        (loss / self.accumulate).backward()
        self._added += 1
        if self._added < self.accumulate:
            return
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.schedule.step()
        self._added = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on after a whole step."""
        return {"adam": self.adam.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.adam.load_state_dict(state["adam"])
        self.schedule.load_state_dict(state["schedule"])


def precision(device: torch.device) -> torch.autocast:
    """Return the context in which a loss is computed: bfloat16 on a GPU, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _cosine(steps: int, warm: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor
