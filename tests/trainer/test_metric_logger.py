"""Training curves in MLflow, where it is installed."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training.metric_logger import MLflow

pytestmark = pytest.mark.lab


def test_mlflow_gets_a_finished_run(tmp_path, monkeypatch):
    """Two runs of an experiment hold settings and curves, and leave the caller's own run alone."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tmp_path.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for epochs in (2, 3):
        logger = MLflow("shop", asdict(Config()))
        for epoch in range(epochs):
            logger.log("warm start", epoch, {"loss": 1.0 / (1 + epoch)})
        logger.close()
    assert mlflow.active_run() is None

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("shop")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert runs[0].data.params["dim"] == "64"
    lengths = [len(client.get_metric_history(run.info.run_id, "warm start/loss")) for run in runs]
    assert sorted(lengths) == [2, 3]
