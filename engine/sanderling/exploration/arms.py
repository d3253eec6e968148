"""The arms of an experiment: which one an install is in follows from its id alone."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from sanderling.bundle.manifest import Arm, Experiment, Exploration, Manifest


@lru_cache(maxsize=64)
def arm_of(experiment: str, shares: tuple[float, ...], install: str) -> int | None:
    """Return the place of an install's arm among those with these shares; None for the rest.

    u = the first 8 bytes of SHA-256(`experiment/install`) as a number in [0, 1) falls into the
    shares one after the other, so that the lab can tell every install's arm, too.
    """
    digest = hashlib.sha256(f"{experiment}/{install}".encode()).digest()
    left = int.from_bytes(digest[:8], "big") / 2**64
    for place, share in enumerate(shares):
        left -= share
        if left < 0.0:
            return place
    return None


def assigned_arm(experiment: Experiment | None, install: str) -> Arm | None:
    """Return the arm of an install; None without an experiment, and for the rest."""
    if experiment is None:
        return None
    place = arm_of(experiment.name, experiment.shares, install)
    return None if place is None else experiment.arms[place]


def plan_of(manifest: Manifest, arm: Arm | None) -> Exploration:
    """Return how the installs of an arm explore: as the bundle says unless the arm says else."""
    own = None if arm is None else arm.exploration
    return own or manifest.exploration
