"""Attributes that the app changed on this device, without a change of text or vector, in a
JSON-lines file.

A line is one call: `changed_ms` is when it was made, `items` has the changed attributes by item id,
null for one that was taken away. Later lines count; the file is compacted as it grows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sanderling.bundle.manifest import MAX_ID
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError, shown
from sanderling.runtime.files import flush_path, make_private, write_durably

FILE = "changed-attributes.jsonl"
FIXED = {"id", "title", "text", "added_ms"}
SMALL_BYTES = 1_000_000  # up to which a file is not compacted

Changes = dict[str, dict[str, Any]]
"""Attributes by item id."""


class Batch(msgspec.Struct):
    """The changes of one call."""

    changed_ms: int
    items: Changes


def checked(changes: object) -> Changes:
    """Return changed attributes by item id, as JSON reads them.

    Raises `TypeError` for another form, `ValueError` for an id or an attribute that cannot be
    changed, and for a value that JSON cannot hold; both name the item.
    """
    if not isinstance(changes, Mapping):
        raise TypeError(
            "changes: expected a mapping such as {'sku-1': {'stock': 0}}, found"
            f" {type(changes).__name__} {shown(changes)}"
        )
    # All at once, since apps change thousands of items in one call.
    is_plain = set(map(type, changes)) <= {str} and set(map(type, changes.values())) <= {dict}
    names: set[object] = set().union(*changes.values()) if is_plain else set(FIXED)
    lengths = set(map(len, changes)) if is_plain else {0}
    is_fine = set(map(type, names)) <= {str} and FIXED.isdisjoint(names)
    if not is_fine or min(lengths, default=1) < 1 or max(lengths, default=1) > MAX_ID:
        for item, attributes in changes.items():
            _check_item(item, attributes)
    try:
        return msgspec.json.decode(msgspec.json.encode(changes), type=Changes)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"changes: expected values that JSON can hold, found {error}") from None


def _check_item(item: object, attributes: object) -> None:
    """Raise `TypeError` or `ValueError` for an id or attributes that cannot be changed."""
    if not isinstance(item, str) or not 1 <= len(item) <= MAX_ID:
        raise ValueError(f"changes: expected ids of 1 to {MAX_ID} characters, found {shown(item)}")
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) for name in attributes):
        raise TypeError(
            f"changes: {item:.80}: expected attributes by name, found {shown(attributes)}"
        )
    fixed = sorted(FIXED.intersection(attributes))
    if fixed:
        raise ValueError(
            f"changes: {item:.80}: expected attributes, found {', '.join(fixed)}: use"
            " `upsert_items` to change what an item is"
        )


def in_force(batches: Iterable[Batch], bundle: Bundle, added_ms: Mapping[str, int]) -> Changes:
    """Return what still applies when a bundle is active, of items that were added `added_ms`.

    As an added item does, a changed attribute gives way to a bundle that was created later and has
    it; so does one of an added item to a later `upsert_items`.
    """
    created_ms = bundle.manifest.created * 1000
    merged: Changes = {}
    for batch in batches:
        for item, attributes in batch.items.items():
            if batch.changed_ms < added_ms.get(item, 0):
                continue
            if batch.changed_ms < created_ms and item not in added_ms:
                row = bundle.find(item)
                known = {} if row is None else bundle.record(row)
                attributes = {
                    name: value for name, value in attributes.items() if known.get(name) is None
                }
            if attributes:
                merged[item] = {**merged.get(item, {}), **attributes}
    return merged


class ChangeFile:
    """The file of one state folder; without a folder nothing is stored. Not thread-safe."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / FILE if folder else None
        self._compacted_bytes = 0
        self.last_ms = max((batch.changed_ms for batch in self.read()), default=0)
        """The time of the last change: later ones, and items added later, are not dated before."""

    def read(self) -> list[Batch]:
        """Return the stored changes, oldest first; lines that are damaged are left out.

        Raises `StorageError` where the file cannot be read.
        """
        if self._path is None:
            return []
        try:
            data = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(
                f"{self._path}: expected a file that can be read, found: {error}; fix access"
            ) from error
        batches = []
        for line in data.splitlines():
            try:
                batches.append(msgspec.json.decode(line, type=Batch))
            except msgspec.MsgspecError:
                continue
        return batches

    def append(self, batch: Batch) -> None:
        """Store the changes of a call, durably; raise `StorageError` where that fails."""
        self.last_ms = max(self.last_ms, batch.changed_ms)
        if self._path is None:
            return
        try:
            is_new = not self._path.exists()
            if is_new:
                make_private(self._path)
            with self._path.open("ab") as file:
                # What a crash left of the line before is no part of this one.
                file.write(b"\n" + msgspec.json.encode(batch) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            if is_new:
                flush_path(self._path.parent)
            if size > SMALL_BYTES + 2 * self._compacted_bytes:
                self._compact(self._path)
        except OSError as error:
            raise StorageError(
                f"{self._path}: could not be written: {error}; free space, fix access, or open the"
                " engine again if its state folder was removed"
            ) from error

    def _compact(self, path: Path) -> None:
        lines = [msgspec.json.encode(batch) + b"\n" for batch in _last_values(self.read())]
        self._compacted_bytes = sum(map(len, lines))
        write_durably(path, b"".join(lines))


def _last_values(batches: Iterable[Batch]) -> list[Batch]:
    """Return batches in their order with the last value of each attribute alone."""
    last: dict[tuple[str, str], tuple[int, Any]] = {}
    for batch in batches:
        for item, attributes in batch.items.items():
            for name, value in attributes.items():
                last[item, name] = (batch.changed_ms, value)
    by_time: dict[int, Changes] = {}
    for (item, name), (changed_ms, value) in last.items():
        by_time.setdefault(changed_ms, {}).setdefault(item, {})[name] = value
    return [Batch(changed_ms, by_time[changed_ms]) for changed_ms in sorted(by_time)]
