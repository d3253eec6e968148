"""Reads what people write for a bundle's manifest: the arms of an experiment, and rules."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

from sanderling.bundle.manifest import Experiment, Exploration, Manifest, Rules
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking import bundle_rules
from sanderling.ranking.scorer import Scorer


class ManifestFiles(NamedTuple):
    """The TOML files that a bundle is built with, None for none."""

    experiment: Path | None = None
    rules: Path | None = None

    def check(self) -> None:
        """Raise as `read_experiment` and `read_rules` do."""
        if self.experiment:
            read_experiment(self.experiment, Exploration())
        if self.rules:
            read_rules(self.rules)

    def added_to(self, folder: Path, manifest: Manifest) -> Manifest:
        """Return the manifest of a bundle with what the files say.

        Raises `ValueError` where a rule is of an attribute that no item has, or leaves none.
        """
        if self.experiment:
            arms = read_experiment(self.experiment, manifest.exploration)
            manifest = msgspec.structs.replace(manifest, experiment=arms)
        if self.rules:
            rules = read_rules(self.rules)
            _check_against_catalog(rules, folder, self.rules)
            manifest = msgspec.structs.replace(manifest, rules=rules)
        return manifest


NO_FILES = ManifestFiles()


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


def read_rules(path: Path) -> Rules:
    """Return the rules in a file, in the form of docs/RULES.md.

    Raises `FileNotFoundError`, and `ValueError` that names the file and the first wrong field.
    """
    try:
        rules = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Rules)
        bundle_rules.parse(rules)
    except (ValueError, TypeError, BundleError) as error:
        raise ValueError(
            f"{path}: expected `where`, `at_most`, `boost` or `diversity`, found: {error}"
        ) from error
    return rules


def _check_against_catalog(rules: Rules, folder: Path, path: Path) -> None:
    fault = bundle_rules.fault_in(Scorer(Bundle.open(folder)), bundle_rules.parse(rules))
    if fault is not None:
        raise ValueError(f"{path}: {fault}")
