"""Options that several commands of the trainer share."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sanderling.cli.options import finite
from sanderling_trainer.policy.model.device import Device


def finite_or_none(value: float | None) -> float | None:
    """Check an optional number and return it unchanged: a callback."""
    return None if value is None else finite(value)


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

Items = Annotated[
    Path, typer.Option(help="Items: item_id, text, any attributes; .parquet or .csv.")
]
InteractionLog = Annotated[
    Path,
    typer.Option(
        help="Log: user_id, item_id, timestamp, optional reward, kind, context; Parquet or CSV."
    ),
]
LanguageModelOption = Annotated[
    str, typer.Option(help="Hugging Face id or folder; minilm comes with the trainer.")
]
Holdout = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=0.9,
        callback=finite,
        help="Latest share of the log, kept for the report; what ships is fitted on it too.",
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
        help="Predict whole visits, which end at a gap of so many hours; 0: each event."
        " [default: chosen by the log]",
    ),
]
HorizonDays = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        callback=finite_or_none,
        help="With visits: predict likes of the next so many days. [default: chosen by the log]",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the log. [default: chosen by the log]"),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.9,
        callback=finite_or_none,
        help="Share of the state hidden in a step. [default: chosen by the log]",
    ),
]

NextItems = Annotated[
    Path | None, typer.Option(help="The catalog from now on; by default it stays.")
]
EarlierLog = Annotated[
    Path | None, typer.Option(help="The log from before the devices, to learn from it again.")
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
