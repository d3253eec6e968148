"""Reads and checks what `sanderling train` learns from, before torch is imported: that takes
seconds.
"""

from __future__ import annotations

import time

from sanderling.tables.event_log import ReadOptions
from sanderling_trainer.data.files import read_source
from sanderling_trainer.data.tables import Catalog, Interactions, read_catalog, read_interactions
from sanderling_trainer.evaluation.inner_windows import check_liked, cut_after

DAY_S = 86_400
"""Seconds of a day: a device's clock may be ahead by as much."""


def read_training_tables(
    items: str | None, interactions: str, options: ReadOptions, holdout: float
) -> tuple[Catalog, Interactions]:
    """Return the items, those of the log itself where no others are given, and the log.

    Raises `TableError` for a bad cell, and where nothing before the part held out is liked.
    """
    events = read_source(interactions)
    catalog = read_catalog(events if items is None else items, options)
    latest = int(time.time()) + DAY_S
    log = read_interactions(events, catalog, latest, options=options)
    check_liked(cut_after(log, 1.0 - holdout, 1.0))
    return catalog, log
