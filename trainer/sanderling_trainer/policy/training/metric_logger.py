"""Destinations of training curves: TensorBoard, Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class MetricLogger(Protocol):
    """Records what an epoch of a stage measured."""

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, epoch)
        self._writer.flush()


class WeightsAndBiases:
    """A run of `wandb` (extra `wandb`), stored as `wandb`'s own configuration says."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(project=project, config=dict(config))

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self._run.log(named | {f"{stage}/epoch": epoch})


class CombinedLogger:
    """Records in each of several loggers, possibly none."""

    def __init__(self, loggers: Sequence[MetricLogger] = ()) -> None:
        self._loggers = loggers

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""
        for logger in self._loggers:
            logger.log(stage, epoch, values)


NO_METRICS = CombinedLogger()
