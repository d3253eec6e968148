"""Where a run of learning stands, so that an interrupted one goes on as if it had not been. Refuses to know losses."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sanderling_trainer.policy.optimise import Optimiser


@dataclass
class Run:
    """Epochs done, what each one measured, the best parameters by `validation`, and the epochs since."""

    network: nn.Module
    optimiser: Optimiser
    rng: np.random.Generator
    file: Path | None
    best: dict[str, Any]
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
            self.best, self.best_loss, self.worse = copy.deepcopy(self.network.state_dict()), found["validation"], 0
        else:
            self.worse += 1
        self.epoch = epoch + 1
        if self.file is not None:
            self._save(self.file)

    def _save(self, file: Path) -> None:
        beside = file.with_suffix(".new")
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": {"numpy": json.dumps(self.rng.bit_generator.state), "torch": torch.get_rng_state()},
            **{name: getattr(self, name) for name in ("best", "epoch", "best_loss", "worse", "history")},
        }
        torch.save(state, beside)
        beside.replace(file)


def begin(network: nn.Module, optimiser: Optimiser, seed: int, file: Path | None) -> Run:
    """Start a run, or go on with the one in `file` when it is there."""
    run = Run(network, optimiser, seeded(seed), file, copy.deepcopy(network.state_dict()))
    if file is None or not file.exists():
        return run
    state = torch.load(file, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    run.rng.bit_generator.state = json.loads(state["random"]["numpy"])
    torch.set_rng_state(state["random"]["torch"])
    for name in ("best", "epoch", "best_loss", "worse", "history"):
        setattr(run, name, state[name])
    return run


def seeded(seed: int) -> np.random.Generator:
    """Seed torch, and return a generator of the same seed."""
    torch.manual_seed(seed)
    return np.random.default_rng(seed)
