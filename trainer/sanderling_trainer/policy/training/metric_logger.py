"""Destinations of training curves: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class MetricLogger(Protocol):
    """Records what an epoch of a stage measured."""

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""

    def close(self) -> None:
        """End the run."""


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

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of `wandb` (extra `wandb`), stored as `wandb`'s own configuration says."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(project=project, config=dict(config))

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self._run.log(named | {f"{stage}/epoch": epoch})

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflow:
    """A run of an MLflow experiment (extra `mlflow`), stored as MLflow's own settings say."""

    def __init__(self, experiment: str, config: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        # Not mlflow's global run, which may be the caller's own.
        self._client: Any = MlflowClient()
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run: str = self._client.create_run(number).info.run_id
        params = [Param(name, str(value)) for name, value in config.items()]
        self._client.log_batch(self._run, params=params)

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""
        for name, value in values.items():
            self._client.log_metric(self._run, f"{stage}/{name}", value, step=epoch)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


class CombinedLogger:
    """Records in each of several loggers, possibly none."""

    def __init__(self, loggers: Sequence[MetricLogger] = ()) -> None:
        self._loggers = loggers

    def log(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of one epoch."""
        for logger in self._loggers:
            logger.log(stage, epoch, values)

    def close(self) -> None:
        """Close each of them."""
        for logger in self._loggers:
            logger.close()


NO_METRICS = CombinedLogger()
