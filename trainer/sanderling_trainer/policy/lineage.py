"""The app and the number of a checkpoint that a training writes."""

from __future__ import annotations

from pathlib import Path

from sanderling_quantize.checkpoint import read_lineage


def lineage(parent: Path | None, app: str | None, out: Path) -> tuple[str, int]:
    """Return the app's name and the number of the release before, 0 for none.

    Raises `ValueError` where the parent is of another app or would be overwritten, and what
    `read_lineage` does where it is no checkpoint.
    """
    if parent is None:
        return app or "app", 0
    if parent.resolve() == out.resolve():
        raise ValueError(f"{out}: expected another folder than the parent's; choose another one")

    found, release = read_lineage(parent)
    if app not in (None, found):
        raise ValueError(f"{parent}: expected a checkpoint of the app {app}, found one of {found}")
    return found, release
