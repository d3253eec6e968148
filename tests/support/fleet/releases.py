"""Releases of the simulated fleet, built once and hard-linked into each device's slots."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sanderling.bundle.manifest import Exploration
from sanderling.bundle.reader import Bundle
from sanderling.releases.slots import Slots
from tests.support.bundles import record, write_bundle
from tests.support.fleet.simulation import START_MS

SHARED_MEMORY = Path("/dev/shm")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SHIPPED_RELEASE, MAX_ITEMS = 1, 60
# By release: how many items it has, and its creation time in ms after the simulation's start.
PLANS = {1: (50, -500 * DAY_MS), 2: (40, 2 * HOUR_MS), 3: (MAX_ITEMS, 5 * DAY_MS)}


@dataclass(frozen=True)
class FleetRelease:
    """A published release."""

    folder: Path
    titles: dict[str, str]
    """The titles of its items by id."""
    created_ms: int
    """When it was built, ms since 1970."""


def scratch_folder() -> str | None:
    """Return a folder in memory, where flushing costs nothing, or None for the system's default."""
    return str(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else None


@cache
def releases() -> dict[int, FleetRelease]:
    """Return all releases by number; they differ in items, weights and exploration."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-bundles-", dir=scratch_folder()))
    return {
        release: _publish(folder / str(release), release, *plan) for release, plan in PLANS.items()
    }


def _publish(folder: Path, release: int, items: int, offset_ms: int) -> FleetRelease:
    created_s = (START_MS + offset_ms) // 1000
    exploration = Exploration(epsilon=0.3, pool=12 + 4 * release)
    write_bundle(folder, release, items, seed=release, created=created_s, exploration=exploration)
    titles = {entry["id"]: entry["title"] for entry in map(record, range(items))}
    return FleetRelease(folder, titles, 1000 * created_s)


def install_copy(release: int, slots: Slots, serving: Bundle) -> Path:
    """Put a release where an update would put it; return its folder."""
    shutil.rmtree(slots.path(release), ignore_errors=True)
    return Path(
        shutil.copytree(releases()[release].folder, slots.path(release), copy_function=os.link)
    )
