"""Where a run of learning stands, so that an interrupted one goes on as if it had not been. Refuses to know losses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sanderling.runtime.files import replace_durably
from sanderling_trainer.policy.training import distributed
from sanderling_trainer.policy.training.optimizer import Optimiser


@dataclass
class Run:
    """Epochs done, what each one measured, the best parameters by `validation`, and the epochs since."""

    network: nn.Module
    optimiser: Optimiser
    rng: np.random.Generator
    file: Path | None
    best: dict[str, Tensor]
    epoch: int = 0
    best_loss: float = math.inf
    worse: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)

    def finish(self, epoch: int, found: dict[str, float]) -> None:
        """Note what an epoch measured, keep the parameters if they are the best, and write the file.

        Where nothing validates, the last parameters are the best.
        """
        for name, value in found.items():
            self.history.setdefault(name, []).append(value)
        if math.isnan(found["validation"]) or found["validation"] < self.best_loss:
            self.best, self.best_loss, self.worse = learned(self.network), found["validation"], 0
        else:
            self.worse += 1
        self.epoch = epoch + 1
        if self.file is not None and distributed.rank() == 0:
            self._save(self.file)

    def restore_best(self) -> None:
        """Give the network the best parameters."""
        give(self.network, self.best)

    def _save(self, file: Path) -> None:
        beside = file.with_suffix(".new")
        state = {
            "network": {
                name: parameter.detach() for name, parameter in self.network.named_parameters()
            },
            "optimiser": self.optimiser.state_dict(),
            "random": {
                "numpy": json.dumps(self.rng.bit_generator.state),
                "torch": torch.get_rng_state(),
            },
            **{
                name: getattr(self, name)
                for name in ("best", "epoch", "best_loss", "worse", "history")
            },
        }
        torch.save(state, beside)
        replace_durably(beside, file)


def begin(network: nn.Module, optimiser: Optimiser, seed: int, file: Path | None) -> Run:
    """Start a run, or go on with the one in `file` when it is there."""
    run = Run(network, optimiser, seeded(seed), file, learned(network))
    if file is None or not file.exists():
        return run
    state = torch.load(file, weights_only=True)
    give(network, state["network"])
    optimiser.load_state_dict(state["optimiser"])
    run.rng.bit_generator.state = json.loads(state["random"]["numpy"])
    torch.set_rng_state(state["random"]["torch"])
    for name in ("best", "epoch", "best_loss", "worse", "history"):
        setattr(run, name, state[name])
    return run


def learned(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters; what is fixed, as the texts' vectors, may be larger than memory."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@torch.no_grad()
def give(network: nn.Module, parameters: dict[str, Tensor]) -> None:
    """Copy parameters into a network."""
    for name, parameter in network.named_parameters():
        parameter.copy_(parameters[name])


def seeded(seed: int) -> np.random.Generator:
    """Seed torch, and return a generator of the same seed."""
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


@dataclass
class Trace:
    """What happened while learning, an entry an epoch."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
