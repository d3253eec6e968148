"""The commands that the distributions declare, whatever an environment has installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("engine", "quantize", "trainer")


def declared(group: str) -> list[EntryPoint]:
    """Return the entry points of a group in the three pyproject.toml."""
    points = []
    for part in PARTS:
        project = tomllib.loads((ROOT / part / "pyproject.toml").read_text())["project"]
        names = project["entry-points"].get(group, {})
        points += [EntryPoint(name, value, group) for name, value in names.items()]
    return points
