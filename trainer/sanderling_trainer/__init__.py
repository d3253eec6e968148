"""Trains and evaluates policies, receives events, retrains, and publishes releases."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sanderling.tables.event_log import ReadOptions
    from sanderling_trainer.api import Evaluation, TrainResult, evaluate, retrain, train
    from sanderling_trainer.jobs.retrain import RetrainResult

# onnxruntime reads it when it is imported, by Optimum too: it would report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Evaluation",
    "ReadOptions",
    "RetrainResult",
    "TrainResult",
    "evaluate",
    "retrain",
    "train",
]

_LAZY = {
    "Evaluation": "sanderling_trainer.api",
    "ReadOptions": "sanderling.tables.event_log",
    "RetrainResult": "sanderling_trainer.jobs.retrain",
    "TrainResult": "sanderling_trainer.api",
    "evaluate": "sanderling_trainer.api",
    "retrain": "sanderling_trainer.api",
    "train": "sanderling_trainer.api",
}


def __getattr__(name: str) -> Any:
    # Looked up on first use: importing the package must not load torch.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
