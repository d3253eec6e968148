"""A small shop whose items have attributes of every type, some missing, for tests of rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sanderling.bundle.manifest import Exploration
from tests.support.bundles import write_bundle

ITEMS = 300
GENRES = ["jazz", "folk", "sci-fi", "crime", ""]
DAYS = ["2024-02-29", "2025-01-01T12:00:00+02:00", "2025-01-01T10:00:00Z", "1969-12-31 23:59"]
TIMES = {"released"}
PLAN = Exploration("sequential", 0.5, pool=12, newcomers=0.5)


def attributes_of(row: int):
    """Return the attributes of one of 300 items: some lack each, genres are rare and frequent."""
    rng = np.random.default_rng(row)
    values = {
        "stock": int(rng.integers(0, 5)),
        "genre": GENRES[min(int(rng.exponential(1.0)), 3)],
        "tags": rng.choice(GENRES[:4], rng.integers(0, 3), replace=False).tolist(),
        "sale": bool(rng.random() < 0.3),
        "released": DAYS[int(rng.integers(0, 4))],
    }
    return {name: value for name, value in values.items() if rng.random() < 0.9}


def write_shop(folder: Path, plan: Exploration = PLAN, *, with_columns: bool = False) -> Path:
    """Write the bundle of the shop, of which every seventh item is a newcomer; return it."""
    write_bundle(
        folder,
        items=ITEMS,
        attributes=attributes_of,
        with_columns=with_columns,
        exploration=plan,
        newcomers=range(0, ITEMS, 7),
    )
    return folder
