"""How a training runs, and which settings it chooses. Importing this does not import torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Annotated

from msgspec import Meta

from sanderling.bundle.manifest import APP_NAME
from sanderling_quantize.settings import checked, types_of
from sanderling_trainer.policy.model.config import Count, Natural
from sanderling_trainer.policy.model.device import Device

SETTINGS = (
    "visit_hours",
    "horizon_days",
    "dropout",
    "id_dropout",
    "learning_rate",
    "epochs",
    "batch_events",
    "stop_after",
    "ridge",
    "memory",
    "gain",
)
"""The settings of `Config` that a training chooses by the log unless they are given."""

EXTRAS = {"lora": "peft", "cluster": "ray", "wandb": "wandb", "mlflow": "mlflow"}
"""Options that need an extra of the same name, each with the package that it brings."""


def free_settings(given: Collection[str]) -> frozenset[str]:
    """Return the settings to choose where those of `given` are fixed."""
    free = frozenset(SETTINGS) - frozenset(given)
    return free - {"stop_after"} if "epochs" in given else free


@dataclass(frozen=True)
class TrainOptions:
    """How a training runs. Raises `ValueError` for a value out of its bounds."""

    app: Annotated[str, Meta(pattern=APP_NAME)] = "app"
    """The name of the app that the bundle will be for."""

    parent: Natural = 0
    """The number of the release before, 0 for the first: the checkpoint has the next number."""

    holdout: Annotated[float, Meta(ge=0.0, le=0.9)] = 0.1
    """The latest share of the log, by which the ranking is measured; nothing is with 0."""

    choose: Collection[str] = SETTINGS
    """The settings to choose by the log; the others stay as the configuration has them."""

    refit: bool = True
    """Whether the policy that ships is fitted on the part held out too. Without it the measured
    policy ships, which a replay of that part needs.
    """

    wandb: str | None = None
    """A Weights & Biases project that records the curves, beside TensorBoard in `out/runs`."""

    mlflow: str | None = None
    """An MLflow experiment that records them; MLFLOW_TRACKING_URI says where."""

    lora: bool = False
    """Fine-tune the language model on the log first."""

    cluster: str | None = None
    """Address of a Ray cluster, or "auto", to encode the catalog and run the last fits there."""

    device: Device = Device.auto
    """Where this process encodes and fits: auto, cpu or cuda; workers of a cluster use their own.
    """

    threads: Count | None = None
    """Threads that this process computes with; as many as there are cores unless given."""

    def __post_init__(self) -> None:
        checked({name: vars(self)[name] for name in FILE_OPTIONS}, types_of(TrainOptions))

    def check_extras(self) -> None:
        """Raise `ModuleNotFoundError` where an option needs a package that is missing."""
        for extra, package in EXTRAS.items():
            if vars(self)[extra] and importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(
                    f"{extra} needs the package {package}:"
                    f" pip install 'sanderling-trainer[{extra}]'"
                )


FILE_OPTIONS = tuple(
    field.name for field in fields(TrainOptions) if field.name not in ("choose", "parent")
)
"""The options that a settings file can have (`settings_file`)."""
