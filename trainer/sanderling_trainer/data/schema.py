"""`schema.toml` beside the items table: the types of attributes and of context features.

    [items]
    price = "number"
    genres = { type = "categories", separator = "|" }
    stock = { type = "number", learn = false }
    image = { type = "vector", file = "image.npy" }

    [context]
    hour = "category"

What it does not name is inferred from the values. docs/ATTRIBUTES.md describes it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sanderling.bundle.columns import TYPES, AttributeType
from sanderling.errors import TableError
from sanderling_trainer.data.files import SourceTable

FILE = "schema.toml"
CONTEXT_TYPES: tuple[AttributeType, ...] = ("category", "categories", "number", "boolean", "time")
NOT_ATTRIBUTES = ("id", "item_id", "text")


@dataclass(frozen=True)
class Attribute:
    """What is known of an attribute beside its values."""

    type: AttributeType

    learn: bool = True
    """Whether it moves the item's vector. What changes by the hour, such as a stock, should not."""

    separator: str | None = None
    """Of categories in text: what stands between two of them."""

    file: Path | None = None
    """Of a vector that is no column of the items table: where it is read from."""

    since: int = 0
    """The active release, whose catalog has this type; 0 if `schema.toml` declares it."""

    def as_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"type": self.type, "learn": self.learn, "separator": self.separator}


Attributes = dict[str, Attribute]


@dataclass(frozen=True)
class Schema:
    """The declared attributes of items and features of contexts, by name."""

    items: Attributes = field(default_factory=dict)
    context: Attributes = field(default_factory=dict)

    name: str = FILE
    """What error messages call it."""


NO_SCHEMA = Schema()


def find_schema(source: object, given: object = None) -> Schema:
    """Return the schema that is given, as a path or a mapping, or the one beside a table; an empty
    one without either.

    Raises `TableError` for a wrong one, and where a given path is missing.
    """
    if isinstance(given, Schema):
        return given
    if isinstance(given, Mapping):
        return schema_of(given, "schema", Path())
    if given is not None:
        return read_schema(Path(str(given)))
    if isinstance(source, SourceTable):
        source = source.name
    if not isinstance(source, str | Path) or "://" in str(source):
        return NO_SCHEMA
    path = Path(source)
    if not path.exists():
        return NO_SCHEMA
    path = (path if path.is_dir() else path.parent) / FILE
    return read_schema(path) if path.is_file() else NO_SCHEMA


def read_schema(path: Path) -> Schema:
    """Read a file; raise `TableError` that names the entry that is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: expected a schema in TOML, found: {error}") from error
    return schema_of(content, str(path), path.parent)


def schema_of(content: Mapping[str, Any], name: str, folder: Path) -> Schema:
    """Return the schema of a decoded file; `folder` is where its paths begin."""
    unknown = sorted(set(content) - {"items", "context"})
    if unknown:
        raise TableError(
            f"{name}: expected the tables `items` and `context`, found `{unknown[0]}`; move or"
            " remove it"
        )
    items = _attributes(content, name, "items", TYPES, folder)
    for attribute in NOT_ATTRIBUTES:
        if attribute in items:
            raise TableError(
                f"{name}: items.{attribute}: expected an attribute, found a field that every item"
                " has; remove it"
            )
    if "title" in items and items["title"].type != "text":
        raise TableError(f"{name}: items.title: expected text, found {items['title'].type}")
    return Schema(items, _attributes(content, name, "context", CONTEXT_TYPES, folder), name)


def _attributes(
    content: Mapping[str, Any],
    name: str,
    table: str,
    types: tuple[AttributeType, ...],
    folder: Path,
) -> Attributes:
    entries = content.get(table, {})
    if not isinstance(entries, Mapping):
        raise TableError(f"{name}: {table}: expected a table of names and types, found {entries!r}")
    return {
        attribute: _attribute(entry, f"{name}: {table}.{attribute}", types, folder)
        for attribute, entry in entries.items()
    }


def _attribute(
    entry: object, place: str, types: tuple[AttributeType, ...], folder: Path
) -> Attribute:
    """Return one attribute; `place` names it in errors."""
    given = {"type": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping) or given.get("type") not in types:
        found = given.get("type") if isinstance(given, Mapping) else given
        raise TableError(f"{place}: expected one of {', '.join(types)}, found {found!r}")
    kind = cast("AttributeType", given["type"])
    allowed: dict[str, tuple[type, tuple[AttributeType, ...]]] = {
        "type": (str, types),
        "learn": (bool, types),
        "separator": (str, ("categories",)),
        "file": (str, ("vector",)),
    }
    for option, value in given.items():
        wanted, of = allowed.get(option, (None, ()))
        if wanted is None or kind not in of:
            options = ", ".join(each for each, (_, of) in allowed.items() if kind in of)
            raise TableError(f"{place}: expected {options} of a {kind}, found {option!r}")
        if not isinstance(value, wanted) or value == "":
            raise TableError(f"{place}: {option}: expected a {wanted.__name__}, found {value!r}")
    file = given.get("file")
    return Attribute(
        kind,
        given.get("learn", True),
        given.get("separator"),
        folder / file if file else None,
    )
