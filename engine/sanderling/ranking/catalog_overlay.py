"""The items that the app added to this device or removed from it, in a JSON-lines file.

A record of an added item has `id`, `text` and attributes, one of a removed item no `text`;
`added_ms` is when the app made the call. Vectors are not stored: the encoder of the open bundle
makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sanderling.bundle.manifest import MAX_ID
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError
from sanderling.runtime.files import write_durably

FILE = "added-items.jsonl"
MAX_TEXT = 65536  # characters


def addition(record: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Return the record to store for an added item; without a `title` its text is used.

    Raises `TypeError` for no record, `ValueError` naming the field that is wrong.
    """
    if not isinstance(record, Mapping):
        raise TypeError(f"item: expected a record of fields, found {type(record).__name__}")
    for field in ("id", "text"):
        value = record.get(field)
        if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
            raise ValueError(
                f"item: {field}: expected a non-empty string of at most {MAX_TEXT} characters, "
                f"found {value!r:.80}"
            )
    if len(record["id"]) > MAX_ID:
        raise ValueError(
            f"item: id: expected at most {MAX_ID} characters, found {len(record['id'])}"
        )
    return _checked({"title": record["text"], **record, "added_ms": now_ms})


def removal(item: object, now_ms: int) -> dict[str, Any]:
    """Return the record to store for a removed item; raise `ValueError` for a wrong id."""
    if not isinstance(item, str) or not 1 <= len(item) <= MAX_ID:
        raise ValueError(
            f"item: id: expected a string of 1 to {MAX_ID} characters, found {item!r:.80}"
        )
    return _checked({"id": item, "added_ms": now_ms})


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record as it reads when the file is read again: attributes that JSON changes,
    such as dates, are the same before and after a restart.

    Raises `ValueError` naming the first field that JSON cannot hold.
    """
    as_read: dict[str, Any] = {}
    for field, value in record.items():
        try:
            as_read |= msgspec.json.decode(msgspec.json.encode({field: value}))
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise ValueError(
                f"item: {field!r:.80}: expected what JSON can hold, found {error}"
            ) from None
    return as_read


def dated_after(
    records: Iterable[Mapping[str, Any]], bundle: Bundle, after_ms: int = 0
) -> list[dict[str, Any]]:
    """Return the records dated no earlier than the active bundle and `after_ms`.

    A change is newer than that bundle, even where the device's clock is behind.
    """
    least_ms = max(bundle.manifest.created * 1000, after_ms)
    return [{**record, "added_ms": max(record["added_ms"], least_ms)} for record in records]


def read(folder: Path | None) -> list[dict[str, Any]]:
    """Return the stored records; lines that are damaged are left out.

    Raises `StorageError` where the file cannot be read.
    """
    if folder is None:
        return []
    path = folder / FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(
            f"{path}: expected a file that can be read, found: {error}; fix access"
        ) from error

    records = []
    for line in data.splitlines():
        try:
            record = msgspec.json.decode(line, type=dict[str, Any])
            if isinstance(record["id"], str) and isinstance(record["added_ms"], int):
                records.append(record)
        except (msgspec.MsgspecError, KeyError):
            continue
    return records


def in_force(records: Iterable[Mapping[str, Any]], bundle: Bundle) -> list[Mapping[str, Any]]:
    """Return the records that still apply when this bundle is active.

    An added item gives way to a bundle that was created later and has its id. A removed item stays
    removed until the app adds it again.
    """
    created_ms = bundle.manifest.created * 1000
    return [
        record
        for record in records
        if "text" not in record
        or created_ms <= record["added_ms"]
        or bundle.find(record["id"]) is None
    ]


def write(folder: Path | None, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace the stored records, durably; raise `StorageError` where that fails."""
    if folder is None:
        return
    path = folder / FILE
    data = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    try:
        write_durably(path, data)
    except OSError as error:
        raise StorageError(
            f"{path}: could not be written: {error}; free space, fix access, or open the engine"
            " again if its state folder was removed"
        ) from error
