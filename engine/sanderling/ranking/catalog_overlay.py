"""The items that the app added to this device or removed from it, kept across restarts in one JSON-lines file.

Refuses to know vectors: they are made anew by the encoder of whatever bundle is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sanderling.bundle.reader import Bundle
from sanderling.runtime.files import write_durably

FILE = "added-items.jsonl"


def clean(record: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Return a record fit to keep: id and text are non-empty strings, and a title stands for the catalogue's.

    Raises `ValueError` naming the field that is wrong.
    """
    for field in ("id", "text"):
        value = record.get(field)
        if not isinstance(value, str) or not value or len(value) > 65536:
            raise ValueError(
                f"item: {field}: expected a non-empty string of at most 65536 characters, found {value!r:.80}"
            )
    if len(record["id"]) > 512:
        raise ValueError(f"item: id: expected at most 512 characters, found {len(record['id'])}")
    return _kept({"title": record["text"], **record, "added_ms": now_ms})


def removal(item: object, now_ms: int) -> dict[str, Any]:
    """Return the record of an item that was removed, one without text; raise `ValueError` for what cannot be an id."""
    if not isinstance(item, str) or not 1 <= len(item) <= 512:
        raise ValueError(f"item: id: expected a string of 1 to 512 characters, found {item!r:.80}")
    return _kept({"id": item, "added_ms": now_ms})


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record that can be written; raise `ValueError` naming the first field that cannot."""
    for field, value in record.items():
        try:
            msgspec.json.encode({field: value})
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise ValueError(
                f"item: {field!r:.80}: expected what JSON can hold, found {error}"
            ) from None
    return record


def after(records: Iterable[Mapping[str, Any]], bundle: Bundle) -> list[dict[str, Any]]:
    """Return records that come while this bundle serves: they are newer than it, whatever the clock says."""
    made_ms = bundle.manifest.created * 1000
    return [{**record, "added_ms": max(record["added_ms"], made_ms)} for record in records]


def read(folder: Path | None) -> list[dict[str, Any]]:
    """Return the kept records."""
    if folder is None or not (folder / FILE).exists():
        return []
    records = []
    for line in (folder / FILE).read_bytes().splitlines():
        try:
            record = msgspec.json.decode(line, type=dict[str, Any])
            if isinstance(record["id"], str) and isinstance(record["added_ms"], int):
                records.append(record)
        except (msgspec.MsgspecError, KeyError):
            continue
    return records


def standing(records: Iterable[Mapping[str, Any]], bundle: Bundle) -> list[Mapping[str, Any]]:
    """Return the records that this bundle does not know better: it does when it was made later and has the id of an
    added item. What was removed stays so until the app adds it again."""
    made_ms = bundle.manifest.created * 1000
    return [
        record
        for record in records
        if "text" not in record
        or made_ms <= record["added_ms"]
        or bundle.find(record["id"]) is None
    ]


def write(folder: Path | None, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace the kept records, durably."""
    if folder is None:
        return
    data = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    write_durably(folder / FILE, data)
