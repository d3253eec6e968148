"""Options that several commands of the trainer share."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sanderling.bundle.manifest import APP_NAME
from sanderling.cli.options import finite
from sanderling_trainer.policy.model.device import Device


def finite_or_none(value: float | None) -> float | None:
    """Check an optional number and return it unchanged: a callback."""
    return None if value is None else finite(value)


def app_name_checked(name: str | None) -> str | None:
    """Check the name of an app, which every bundle states, and return it unchanged: a callback."""
    if name is not None and re.fullmatch(APP_NAME, name) is None:
        raise typer.BadParameter(
            "expected 1 to 64 small letters, digits, dots, hyphens or underscores, beginning with"
            f" a letter or digit, found {name!r:.100}"
        )
    return name


def print_config(wanted: bool) -> None:
    """Print the template of a settings file and end the command: a callback."""
    if not wanted:
        return
    from sanderling_trainer.policy.settings_file import settings_template

    print(settings_template())
    raise typer.Exit


StoreUrl = Annotated[
    str,
    typer.Option("--store", help="Folder, or URL of an object store, that `collect` writes to."),
]
Repository = Annotated[
    str, typer.Option(help="Folder, or URL of an object store, of the signed releases.")
]
Keys = Annotated[Path, typer.Option(help="Folder of the online keys, which sign releases.")]
RootKeys = Annotated[
    Path, typer.Option(help="Folder of the root keys, which replace keys; kept off line.")
]
EncoderOf = Annotated[Path | None, typer.Option(help="Take the encoder of this earlier bundle.")]

TABLE = "file, folder or URL; Parquet, CSV or .csv.gz"
ItemsOrLog = Annotated[
    str | None,
    typer.Option(
        help=f"Items: item_id, text, any attributes ({TABLE}).", show_default="those of the log"
    ),
]
OwnItems = Annotated[
    str | None, typer.Option(help=f"Your items instead of MovieLens-100K ({TABLE}).")
]
OwnLog = Annotated[str | None, typer.Option(help="Your log; needs --items.")]
Web = Annotated[
    bool, typer.Option("--web", help="Only a page that learns, and a collector; until Ctrl-C.")
]
PageBundle = Annotated[
    Path | None,
    typer.Option(
        help="With --web: folder of its bundle.",
        show_default="the newest release in --out, or 96 classics",
    ),
]
PagePort = Annotated[
    int, typer.Option(min=0, max=65535, help="With --web: port of 127.0.0.1; 0 is a free one.")
]
CountedItems = Annotated[
    str | None, typer.Option(help="Items, for the coverage; by default those in the two tables.")
]
InteractionLog = Annotated[
    str,
    typer.Option(
        help=f"Log: user_id, item_id, timestamp, optional reward, kind, context ({TABLE})."
    ),
]
LaterLog = Annotated[
    str, typer.Option(help="The later log: user_id, item_id, timestamp, optional reward.")
]
AppName = Annotated[
    str | None,
    typer.Option(
        callback=app_name_checked,
        help="Name of the app that the bundle will be for.",
        show_default="app",
    ),
]
Parent = Annotated[
    Path | None,
    typer.Option(help="Checkpoint of the release before, whose number and app go on."),
]
LanguageModelOption = Annotated[
    str | None,
    typer.Option(
        help="Hugging Face id or folder.", show_default="minilm, which comes with the trainer"
    ),
]
TrainAnyway = Annotated[
    bool | None,
    typer.Option(
        "--train-anyway",
        help="Train even if the language model cannot read the texts.",
        show_default=False,
    ),
]
Holdout = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.9,
        callback=finite_or_none,
        help="Latest share of the log, kept for the report; what ships is fitted on it too.",
        show_default="0.1",
    ),
]
Lora = Annotated[
    bool | None,
    typer.Option("--lora/--no-lora", help="Fine-tune the language model on the log (LoRA)."),
]
WandbProject = Annotated[
    str | None, typer.Option(help="Also log metrics to this Weights & Biases project.")
]
MLflowExperiment = Annotated[
    str | None, typer.Option(help="Also log metrics to this MLflow experiment.")
]
TrainDevice = Annotated[
    Device | None,
    typer.Option(
        "--device",
        help="Where to compute; auto takes a GPU where there is one.",
        show_default="auto",
    ),
]
TrainSeed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=2**32 - 1, help="Seed of everything random.", show_default="0"
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of settings, which flags override; see --print-config.",
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        is_eager=True,
        callback=print_config,
        help="Print a settings file with every setting and its meaning, and exit.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster to train on; auto finds one or starts one here."),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where to compute; auto takes a GPU where there is one.")
]
VisitHours = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        callback=finite_or_none,
        help="Predict whole visits, which end at a gap of so many hours; 0: each event.",
        show_default="chosen by the log",
    ),
]
HorizonDays = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        callback=finite_or_none,
        help="With visits: predict likes of the next so many days.",
        show_default="chosen by the log",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the log.", show_default="chosen by the log"),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.9,
        callback=finite_or_none,
        help="Share of the state hidden in a step.",
        show_default="chosen by the log",
    ),
]

NextItems = Annotated[
    str | None, typer.Option(help="The catalog from now on; by default it stays.")
]
SchemaFile = Annotated[
    Path | None,
    typer.Option(
        help="Types of the items' attributes, a TOML file; by default schema.toml beside the table."
    ),
]
EarlierLog = Annotated[
    str | None, typer.Option(help="The log from before the devices, to learn from it again.")
]
TeachingDays = Annotated[
    float,
    typer.Option(
        min=0.0,
        callback=finite,
        help="For so many days decisions that have taught before teach again.",
    ),
]
ShipAnyway = Annotated[
    bool,
    typer.Option("--ship-anyway", help="Write the checkpoint even if the release gate holds it."),
]


class Encoder(StrEnum):
    """How large a bundle's encoder is, as in `sanderling_quantize.cli`, which an image of the
    collector lacks.
    """

    base = "base"
    small = "small"
    nano = "nano"


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as 20s; raise `BadParameter` for anything else."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)s?", text)
    if found is None:
        raise typer.BadParameter(f"expected seconds such as 20s, found {text!r}")
    return float(found[1])


def duration(text: str) -> str:
    """Check a duration and return it unchanged: a callback."""
    seconds_of(text)
    return text
