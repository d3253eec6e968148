"""Releases of the simulated fleet, made once and copied to where a device installs them."""

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
from tests.support.fleet.world import START_MS

MEMORY = Path("/dev/shm")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
GIVEN, MOST_ITEMS = 1, 60
PLANS = {1: (50, -500 * DAY_MS), 2: (40, 2 * HOUR_MS), 3: (MOST_ITEMS, 5 * DAY_MS)}


@dataclass(frozen=True)
class Edition:
    """One release: its folder, its items' titles by id, and when it was made."""

    folder: Path
    titles: dict[str, str]
    made_ms: int


def place() -> str | None:
    """Return a folder in memory where there is one: flushing then costs nothing."""
    return str(MEMORY) if os.access(MEMORY, os.W_OK) else None


@cache
def editions() -> dict[int, Edition]:
    """Return all releases by number, each with items, weights and an exploration of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-bundles-", dir=place()))
    return {
        release: _publish(folder / str(release), release, *plan) for release, plan in PLANS.items()
    }


def _publish(folder: Path, release: int, items: int, age_ms: int) -> Edition:
    made_s = (START_MS + age_ms) // 1000
    explores = Exploration(epsilon=0.3, pool=12 + 4 * release)
    write_bundle(folder, release, items, seed=release, created=made_s, exploration=explores)
    titles = {entry["id"]: entry["title"] for entry in map(record, range(items))}
    return Edition(folder, titles, 1000 * made_s)


def bring(release: int, slots: Slots, serving: Bundle) -> Path:
    """Put a release where an update would put it."""
    shutil.rmtree(slots.path(release), ignore_errors=True)
    return Path(
        shutil.copytree(editions()[release].folder, slots.path(release), copy_function=os.link)
    )
