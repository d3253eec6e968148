"""The last slates of a service, by the id of their decision."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import msgspec

from sanderling.service.limits import Limits, RefusalError
from sanderling.slate import Slate


class RecentSlates:
    """Holds the slates decided last, so that later calls can refer to them. Not thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slates: OrderedDict[str, Slate] = OrderedDict()
        self._n_items = 0

    def put(self, slate: Slate) -> None:
        """Keep a slate without titles and attributes, and drop the oldest where there are too
        many."""
        items = tuple(
            msgspec.structs.replace(item, title="", attributes=_NO_ATTRIBUTES)
            for item in slate.items
        )
        self._slates[slate.decision] = replace(slate, items=items)
        self._n_items += len(items)
        while len(self._slates) > self._limits.slates or self._n_items > self._limits.slate_items:
            _, oldest = self._slates.popitem(last=False)
            self._n_items -= len(oldest.items)

    def get(self, decision: str) -> Slate:
        """Return a slate; raise `RefusalError` with 404 for one that is not held."""
        slate = self._slates.get(decision)
        if slate is None:
            raise RefusalError(
                404,
                f"decision: expected one of the last {self._limits.slates} slates (or"
                f" {self._limits.slate_items} items on them) that this process decided and whose"
                f" user was not forgotten, found {decision!r:.80}",
            )
        return slate

    def forget(self, user: str) -> None:
        """Drop all slates of a user."""
        for decision in [each.decision for each in self._slates.values() if each.user == user]:
            self._n_items -= len(self._slates.pop(decision).items)


_NO_ATTRIBUTES: dict[str, object] = {}
