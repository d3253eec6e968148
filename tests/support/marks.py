"""Marks: canary strings that are found again however they were encoded or compressed."""

from __future__ import annotations

import base64
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

HEAD, TAIL = "Kanarienvogel", "Zaunkoenig"


class Marks:
    """Makes marks of one kind: each is different, and all have the kind's head and tail."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.made = 0
        self._head = f"{HEAD}{kind}"
        self._tail = f"{TAIL}{kind}"
        self._forms = [form.lower() for end in (self._head, self._tail) for form in _forms(end)]

    def new(self) -> str:
        self.made += 1
        return f"{self._head}{secrets.token_hex(4)}{self._tail}"

    def found(self, content: bytes) -> bool:
        """Return whether a mark, or one of its ends, is anywhere in the bytes, in one of the
        encodings of `_forms`.
        """
        lower = content.lower()
        return any(form in lower for form in self._forms)


def _forms(text: str) -> Iterator[bytes]:
    """Yield a text in several encodings: plain, hex, base64 at each of three offsets, UTF-16,
    UTF-32, reversed.
    """
    plain = text.encode()
    yield plain
    yield plain.hex().encode()
    for before in range(3):
        coded = base64.b64encode(bytes(before) + plain + bytes(3))
        whole = coded[-(-8 * before // 6) : (8 * (before + len(plain))) // 6]
        yield whole
        yield whole.replace(b"+", b"-").replace(b"/", b"_")
    for code in ("utf-16-le", "utf-16-be", "utf-32-le"):
        yield text.encode(code)
    yield plain[::-1]


def contents(path: Path) -> Iterable[bytes]:
    """Yield the bytes of a file, and its content decompressed."""
    data = path.read_bytes()
    yield data
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        yield zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if path.suffix == ".parquet":
        table = pq.read_table(pa.BufferReader(data))
        yield repr(table.to_pylist()).encode()
        yield repr(table.schema.metadata).encode()
    if data.startswith(b"SQLite format 3"):
        yield b"\n".join(_rows(path))


def _rows(path: Path) -> Iterator[bytes]:
    """Yield all values of a database; in the file a long value is split over pages that need not be
    adjacent.
    """
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    for (table,) in database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    ).fetchall():
        for row in database.execute(f"SELECT * FROM {table}"):
            yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)
    database.close()


def where(folder: Path, kinds: Iterable[Marks]) -> set[tuple[str, str]]:
    """Return the files of a folder whose names or contents have marks, with the kind of mark."""
    found: set[tuple[str, str]] = set()
    for path in sorted(folder.rglob("*")):
        texts = [
            str(path.relative_to(folder)).encode(),
            *(contents(path) if path.is_file() else ()),
        ]
        found |= {(path.name, marks.kind) for marks in kinds for text in texts if marks.found(text)}
    return found
