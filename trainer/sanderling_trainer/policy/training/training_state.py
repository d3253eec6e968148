"""Resumable training state, so that an interrupted run ends as if it had not been interrupted."""

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
from sanderling_trainer.policy.training.optimizer import Optimizer


@dataclass
class TrainingCurves:
    """What each epoch measured."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)


@dataclass
class TrainingState:
    """Where a run stands: the finished epochs and the best parameters so far."""

    network: nn.Module
    optimizer: Optimizer
    rng: np.random.Generator

    file: Path | None
    """Written after every epoch, if given."""

    best: dict[str, Tensor]
    """The parameters of the epoch with the lowest validation loss."""

    epoch: int = 0
    """How many epochs are finished."""

    best_loss: float = math.inf

    epochs_since_best: int = 0

    history: dict[str, list[float]] = field(default_factory=dict)
    """Values by name, one an epoch."""

    def finish_epoch(self, epoch: int, values: dict[str, float]) -> None:
        """Record what an epoch measured, keep the parameters if they are the best, write the file.

        Where the validation loss is NaN, for want of events, the last parameters are the best.
        """
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

        loss = values["validation"]
        if math.isnan(loss) or loss < self.best_loss:
            self.best = copy_parameters(self.network)
            self.best_loss = loss
            self.epochs_since_best = 0
        else:
            self.epochs_since_best += 1

        self.epoch = epoch + 1
        if self.file is not None and distributed.rank() == 0:
            self._save(self.file)

    def restore_best(self) -> None:
        """Give the network its best parameters."""
        load_parameters(self.network, self.best)

    def _save(self, file: Path) -> None:
        parameters = self.network.named_parameters()
        state = {
            "network": {name: parameter.detach() for name, parameter in parameters},
            "optimizer": self.optimizer.state_dict(),
            "random": {
                "numpy": json.dumps(self.rng.bit_generator.state),
                "torch": torch.get_rng_state(),
            },
            **{name: getattr(self, name) for name in _SAVED},
        }
        # Renamed when complete, so that a crash leaves the previous epoch's file.
        temporary = file.with_suffix(".new")
        torch.save(state, temporary)
        replace_durably(temporary, file)


_SAVED = ("best", "epoch", "best_loss", "epochs_since_best", "history")


def start_or_resume(
    network: nn.Module, optimizer: Optimizer, seed: int, file: Path | None
) -> TrainingState:
    """Return the state of a new run, or of the interrupted one whose `file` is there."""
    state = TrainingState(network, optimizer, seeded(seed), file, copy_parameters(network))
    if file is None or not file.exists():
        return state

    saved = torch.load(file, weights_only=True)
    load_parameters(network, saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    state.rng.bit_generator.state = json.loads(saved["random"]["numpy"])
    torch.set_rng_state(saved["random"]["torch"])
    for name in _SAVED:
        setattr(state, name, saved[name])
    return state


def copy_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters; not of the buffers, whose text vectors may exceed memory."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@torch.no_grad()
def load_parameters(network: nn.Module, parameters: dict[str, Tensor]) -> None:
    """Copy parameters into a network."""
    for name, parameter in network.named_parameters():
        parameter.copy_(parameters[name])


def seeded(seed: int) -> np.random.Generator:
    """Seed torch, and return a generator of the same seed."""
    torch.manual_seed(seed)
    return np.random.default_rng(seed)
