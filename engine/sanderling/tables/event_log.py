"""A log of events as plain lists, and how a device reads it from CSV."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sanderling.errors import TableError
from sanderling.tables.cells import (
    A_KIND,
    A_REWARD,
    A_TIME,
    A_USER,
    AN_ITEM,
    fault,
    is_name,
    is_reward,
    is_time,
    kind_by_sign,
    lacking,
    parse_number,
    parse_time,
)
from sanderling.tables.columns import LOG_REQUIRED, check_fields, locate
from sanderling.tables.csv_file import CsvFile

log = logging.getLogger("sanderling")


@dataclass(frozen=True)
class ReadOptions:
    """How the columns of a table are read. Raises `ValueError` for a field that no table has."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """The column of each field that has another name."""

    drop_incomplete: bool = False
    """Leave out rows in which a value is missing."""

    time_format: str | None = None
    """Of times in text, as strptime has it; None: seconds or ISO 8601."""

    def __post_init__(self) -> None:
        check_fields(self.columns)


@dataclass(frozen=True)
class EventLog:
    """The n events of a log by time; events of the same second keep the order of the file."""

    users: list[str]
    items: list[str]

    times: list[int]
    """Seconds since 1970 UTC."""

    kinds: list[str]

    left_out: int = 0
    """Rows that lacked a value."""


def read_csv_log(path: Path, options: ReadOptions) -> EventLog:
    """Read a log of `user_id`, `item_id`, `timestamp`, optional `reward` and `kind` from CSV.

    Raises `TableError` that names file, row and column of a bad cell.
    """
    return _CsvLog(path, options).read()


class _CsvLog:
    """The cells of a log, column by column."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._name = str(path)
        self._options = options
        records = CsvFile.at(path).records()
        header = next(records)
        fields = locate(self._name, header, LOG_REQUIRED, ("reward", "kind"), options.columns)
        places = [header.index(column) for column in fields.values()]
        # A text stands thousands of times in a log: it is kept once.
        once: dict[str, str] = {}
        rows = [tuple(once.setdefault(cells[at], cells[at]) for at in places) for cells in records]
        if not rows:
            raise TableError(f"{self._name}: expected at least one row, found none")
        self._column_of = fields
        self._row_numbers = [row for row, cells in enumerate(rows) if all(cells)]
        self._incomplete = len(rows) - len(self._row_numbers)
        if not options.drop_incomplete:
            self._row_numbers = list(range(len(rows)))
        elif not self._row_numbers:
            raise TableError(f"{self._name}: expected a row with all values, found none")
        elif self._incomplete:
            log.warning("%s: left out: %s", self._name, lacking(self._incomplete))
        self._cells = {
            field: [rows[row][place] for row in self._row_numbers]
            for place, field in enumerate(fields)
        }

    def read(self) -> EventLog:
        """Return the checked log, in the order in which the lab checks the columns."""
        users = self._checked("user_id", A_USER, is_name)
        items = self._checked("item_id", AN_ITEM, is_name)
        seconds = self._times()
        rewards = [1.0] * len(users)
        if "reward" in self._cells:
            rewards = list(map(parse_number, self._cells["reward"]))
            self._check("reward", A_REWARD, map(is_reward, rewards))
        if "kind" in self._cells:
            kinds = self._checked("kind", A_KIND, is_name)
        else:
            kinds = list(map(kind_by_sign, rewards))

        order = sorted(range(len(seconds)), key=seconds.__getitem__)
        return EventLog(
            [users[row] for row in order],
            [items[row] for row in order],
            [seconds[row] for row in order],
            [kinds[row] for row in order],
            self._incomplete if self._options.drop_incomplete else 0,
        )

    def _times(self) -> list[int]:
        texts = self._cells["timestamp"]
        time_format = self._options.time_format
        second_of = {text: parse_time(text, time_format) for text in dict.fromkeys(texts)}
        expected = A_TIME if time_format is None else f"a time such as {time_format}"
        self._check("timestamp", expected, (is_time(second_of[text]) for text in texts))
        return [math.floor(second_of[text]) for text in texts]

    def _checked(self, field: str, expected: str, is_right: Callable[[str], bool]) -> list[str]:
        cells = self._cells[field]
        self._check(field, expected, map(is_right, cells))
        return cells

    def _check(self, field: str, expected: str, is_right: Iterable[bool]) -> None:
        """Raise the error for the first cell of a column that is wrong, if there is one."""
        bad = next((row for row, right in enumerate(is_right) if not right), None)
        if bad is None:
            return
        raise fault(
            self._name,
            self._row_numbers[bad],
            self._column_of[field],
            expected,
            self._cells[field][bad],
            incomplete=self._incomplete,
        )
