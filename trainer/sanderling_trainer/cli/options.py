"""Options that several commands of the trainer share."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

StoreUrl = Annotated[
    str,
    typer.Option("--store", help="Folder, or URL of an object store, that `collect` writes to."),
]
Repository = Annotated[Path, typer.Option(help="Folder of the signed releases.")]
Keys = Annotated[Path, typer.Option(help="Folder of the private keys that sign releases.")]


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
