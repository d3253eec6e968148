"""Reads the arms of an experiment from a TOML file, the same one for `quantize` and for
`experiment`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from sanderling.bundle.manifest import Experiment, Exploration


def read_experiment(path: Path, plan: Exploration) -> Experiment:
    """Return the experiment in a file; an arm's `exploration` has what differs from `plan`.

    Raises `FileNotFoundError`, and `ValueError` that names the file and the first wrong field.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        for arm in fields.get("arms", []):
            if "exploration" in arm:
                arm["exploration"] = {**msgspec.to_builtins(plan), **arm["exploration"]}
        return msgspec.convert(fields, Experiment)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected `name` and `arms`, each with `name` and `share`, found: {error}"
        ) from error
