"""What an app changed of a bundle's items since, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Attributes = Mapping[str, Any]

MIN_RECENT = 8192  # rows
RECENT_SHARE = 1 / 8


class RowChanges(Mapping[int, Attributes]):
    """Changed attributes by row, None for one taken away. Immutable.

    `updated` shares what was changed before: an app that changes the stock of a thousand items at
    a time must not copy, each time, what it ever changed of a hundred thousand.
    """

    def __init__(
        self,
        before: Mapping[int, Attributes] | None = None,
        recent: Mapping[int, Attributes] | None = None,
    ) -> None:
        self._before = before or {}
        self._recent = recent or {}  # comes before `before`, and is small beside it

    def updated(self, changes: Mapping[int, Attributes]) -> RowChanges:
        """Return these changes and further ones, of which the later counts for each attribute."""
        recent = dict(self._recent)
        for row, attributes in changes.items():
            earlier = recent.get(row) or self._before.get(row, {})
            recent[row] = {**earlier, **attributes}
        if len(recent) > max(MIN_RECENT, RECENT_SHARE * len(self._before)):
            return RowChanges({**self._before, **recent})
        return RowChanges(self._before, recent)

    def __getitem__(self, row: int) -> Attributes:
        found = self._recent.get(row)
        return self._before[row] if found is None else found

    def __iter__(self) -> Iterator[int]:
        yield from self._recent
        yield from (row for row in self._before if row not in self._recent)

    def __len__(self) -> int:
        return len(self._recent) + sum(row not in self._recent for row in self._before)

    def __bool__(self) -> bool:
        return bool(self._recent or self._before)  # without counting


NOTHING_CHANGED = RowChanges()
