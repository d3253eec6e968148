"""Where the curves of learning go: TensorBoard, Weights & Biases. Refuses to decide what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class MetricLogger(Protocol):
    """Takes what an epoch of a stage measured."""

    def add(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Write values down."""


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def add(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Write values down."""
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, epoch)
        self._writer.flush()


class WeightsAndBiases:
    """A run of `wandb` (extra `wandb`); where and how it is kept is `wandb`'s own configuration."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(project=project, config=dict(config))

    def add(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Write values down."""
        self._run.log(
            {f"{stage}/{name}": value for name, value in values.items()} | {f"{stage}/epoch": epoch}
        )


class Several:
    """Writes into each of several journals; with none, nowhere."""

    def __init__(self, journals: Sequence[MetricLogger] = ()) -> None:
        self._journals = journals

    def add(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Write values down."""
        for journal in self._journals:
            journal.add(stage, epoch, values)


NOWHERE = Several()
