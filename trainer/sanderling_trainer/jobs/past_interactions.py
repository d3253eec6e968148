"""The interaction log from before the devices, beside which the devices' histories teach."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sanderling_trainer.data.histories import History, histories_of
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.data.time_split import content_hash


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

    context_values: list[dict[str, object]] = field(default_factory=list)
    """The declared features of these contexts; empty where none are declared."""

    sha256: str = ""
    """Of the events, by which a repeated run knows its inputs again."""

    @staticmethod
    def none() -> PastInteractions:
        """Return no interactions."""
        return PastInteractions([], [], 0, 0, 0)

    @staticmethod
    def before_devices(
        log: Interactions, kinds: list[str], devices_from: int, latest: int
    ) -> PastInteractions:
        """Return a log, read with `keep_unknown`, up to the first event of a device.

        devices_from: its time in seconds, 0 where there was none.
        latest: the latest second that the log may have.
        """
        is_known = log.item >= 0
        is_past = log.time < devices_from if devices_from else np.ones(len(log), np.bool_)
        past = log.select(is_known & is_past)
        return PastInteractions(
            histories_of(past, kinds, validation_after=latest),
            log.contexts,
            len(past),
            int((is_known & ~is_past).sum()),
            int((~is_known).sum()),
            log.context_values,
            content_hash([*log.contexts, *map(str, log.context_values)], past),
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
