"""Reads CSV strictly: a quote that stays open, or a row of another width, is an error with its row.

The dialect is that of spreadsheets and pandas: commas, cells in double quotes with quotes doubled.
A quote inside a cell without quotes, as in `27" screen`, is text.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from sanderling.errors import TableError

MAX_FIELD = 2**31 - 1
"""Characters of a cell. The csv module's own limit is lower than texts of a shop may be."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file in UTF-8, with or without a byte-order mark."""

    name: str
    """What error messages call it."""

    open_bytes: Callable[[], IO[bytes]]
    """Opens the unpacked content."""

    @staticmethod
    def at(path: Path) -> CsvFile:
        """Return a local file, which is unpacked where its name ends in .gz."""
        return CsvFile(str(path), lambda: _open_local(path))

    def records(self) -> Iterator[list[str]]:
        """Yield the header, then the cells of each row; blank lines are left out.

        Raises `TableError` where the file cannot be read, or is no CSV.
        """
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
        with self._errors_named(), self.open_bytes() as content:
            # The csv module finds the ends of lines itself: some are inside of quotes.
            lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
            yield from self._records(csv.reader(lines, strict=True))

    def _records(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        width = 0
        row = 0  # of the last record; the header is row 0
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise TableError(self._syntax_error(row + 1 if width else 0, error)) from error
            if cells is None:
                break
            if not cells:
                continue
            if not width:
                width = len(cells)
                self._check_header(cells)
            else:
                row += 1
            if len(cells) != width:
                raise TableError(
                    f"{self.name}, row {row}: expected {width} cells, as many as the header has,"
                    f" found {len(cells)}; put a text that has commas into double quotes"
                )
            yield cells
        if not width:
            raise TableError(f"{self.name}: expected a header and rows, found an empty file")

    def _check_header(self, names: list[str]) -> None:
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise TableError(
                f"{self.name}: expected each column once, found"
                f" {', '.join(map(repr, repeated))} more than once; rename them"
            )

    def _syntax_error(self, row: int, error: csv.Error) -> str:
        where = f"{self.name}, row {row}" if row else f"{self.name}, header"
        if "end of data" in str(error):
            return (
                f"{where}: expected a double quote that closes the one opened in this row, found"
                " the end of the file; close it, or double each quote that is part of a text"
            )
        if "expected after" in str(error):
            return (
                f"{where}: expected a comma or the end of the row after a closing double quote,"
                " found more text; a quote opened in this row is closed too early or too late:"
                " double each quote that is part of a text"
            )
        return f"{where}: expected CSV, found: {error}"

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            raise TableError(self._undecodable_line()) from error
        except FileNotFoundError as error:
            raise TableError(
                f"{self.name}: expected a file, found nothing; check the path"
            ) from error
        except IsADirectoryError as error:
            raise TableError(f"{self.name}: expected a file, found a folder") from error
        except (OSError, EOFError, zlib.error) as error:
            raise TableError(
                f"{self.name}: expected a CSV file, found one that cannot be read: {error}"
            ) from error

    def _undecodable_line(self) -> str:
        """Return the error that names the first line that is not UTF-8."""
        with self.open_bytes() as content:
            # Latin-1 has a character for each byte.
            for number, line in enumerate(io.TextIOWrapper(content, encoding="latin-1"), 1):
                try:
                    line.encode("latin-1").decode()
                except UnicodeDecodeError as error:
                    return (
                        f"{self.name}, line {number}: expected UTF-8 text, found the byte"
                        f" 0x{ord(line[error.start]):02x}; save the file as UTF-8, for example by"
                        " `iconv -f cp1252 -t utf-8`"
                    )
        return f"{self.name}: expected UTF-8 text, found other bytes; save the file as UTF-8"


def _open_local(path: Path) -> IO[bytes]:
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    return cast("IO[bytes]", gzip.GzipFile(path))
