"""Options that commands share, and checks of option values that would otherwise fail after the work
is done.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object on the last line of stdout."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")
]


def finite(value: float) -> float:
    """Return an option's number; a callback, for click's own ranges let NaN through."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, found {value}")
    return value


def check_creatable(path: Path) -> None:
    """Raise `OSError` unless `path`, and the folders above it that are missing, can be made."""
    above = next(parent for parent in path.absolute().parents if parent.exists())

    if not above.is_dir():
        raise NotADirectoryError(
            f"{path}: expected a folder above it, found the file {above}; choose another path"
        )
    if not os.access(above, os.W_OK):
        raise PermissionError(
            f"{path}: expected a folder that can be written, found {above}; choose another path"
        )
