"""The interaction log from before the devices, beside which the devices' histories teach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sanderling_trainer.data.histories import History, histories_of
from sanderling_trainer.data.tables import Catalog, read_interactions


@dataclass(frozen=True)
class PastInteractions:
    """Histories of a log's users, without what devices report themselves."""

    histories: list[History]

    contexts: list[str]
    """The texts that the histories' contexts number."""

    events: int
    """How many events the histories have."""

    reported_by_devices: int
    """Events that were left out because they are later than the first event of a device.

    From then on devices report: the users of both have different ids, so that nothing else could
    tell whether the two tell of the same event.
    """

    unknown_items: int
    """Events that were left out because the catalog has not their item."""

    @staticmethod
    def none() -> PastInteractions:
        """Return no interactions."""
        return PastInteractions([], [], 0, 0, 0)

    @staticmethod
    def read(
        path: Path, catalog: Catalog, kinds: list[str], devices_from: int, latest: int
    ) -> PastInteractions:
        """Read a log up to the first event of a device.

        devices_from: its time in seconds, 0 where there was none.
        latest: in seconds; a later event is an error.

        Raises `TableError` where a cell is out of its range.
        """
        log = read_interactions(path, catalog, latest, keep_unknown=True)
        is_known = log.item >= 0
        is_past = log.time < devices_from if devices_from else np.ones(len(log), np.bool_)
        past = log.select(is_known & is_past)
        return PastInteractions(
            histories_of(past, kinds, validation_after=latest),
            log.contexts,
            len(past),
            int((is_known & ~is_past).sum()),
            int((~is_known).sum()),
        )

    def numbered_from(self, first_context: int) -> list[History]:
        """Return the histories with contexts that are numbered from another row on."""
        return [
            replace(
                history,
                contexts=np.where(history.contexts < 0, -1, history.contexts + first_context),
            )
            for history in self.histories
        ]
