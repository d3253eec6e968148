"""The three tables that training and evaluation read: items, interactions and slates.

| table | required columns | optional columns |
|---|---|---|
| items | `item_id`, `text` | `title`, and any other column is an attribute (`schema`) |
| interactions | `user_id`, `item_id`, `timestamp` | `reward` (-1 to 1), `kind`, `context` |
| slates | `user_id`, `rank` (from 1), `item_id`, `score` | |

A source is a Parquet or CSV file, a folder of them, the URL of an object store, an Arrow table, or
a frame of pandas or polars. A bad cell raises a `TableError` that names file, row and column; no
table is read in part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sanderling.errors import TableError
from sanderling.ranking.item_text import described, is_empty
from sanderling.tables import cells
from sanderling.tables.columns import LOG_OPTIONAL, LOG_REQUIRED, is_row_index
from sanderling.tables.event_log import EventLog, ReadOptions
from sanderling_trainer.data.attribute_values import TEXT_TYPES, typed_columns
from sanderling_trainer.data.columns import (
    Columns,
    catalog_rows,
    codes,
    kinds_by_sign,
    known_rows,
)
from sanderling_trainer.data.context_values import values_of, with_values
from sanderling_trainer.data.files import Source, SourceTable, from_rows, write_file
from sanderling_trainer.data.repeated_items import merge_rows
from sanderling_trainer.data.schema import Attributes, find_schema

if TYPE_CHECKING:
    from sanderling_quantize.checkpoint_ranker import CheckpointRanker

SLATE_COLUMNS = ("user_id", "rank", "item_id", "score")


@dataclass(frozen=True)
class Catalog:
    """The n items."""

    ids: list[str]

    texts: list[str]
    """What the language model reads: the column `text`, then the attributes in words, as in
    `Toy Story (1995). genres: Animation Comedy`. It makes little of numbers, times and booleans,
    which the policy has as features."""

    records: list[dict[str, object]]
    """What a bundle's catalog shows: `{"id", "title", attribute…}`. The title is the column
    `title` if there is one, else `text`, else the id, so that every item has a name. Vectors are
    left out.
    """

    attributes: Attributes = field(default_factory=dict)
    """The types of the attributes by name, in the order of the table's columns."""

    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    """By attribute float32 [n, w]; rows of NaN are of items without a vector."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text_attributes(self) -> tuple[str, ...]:
        """The attributes whose words are in the texts, in this order."""
        return tuple(name for name, each in self.attributes.items() if each.type in TEXT_TYPES)


@dataclass(frozen=True)
class Interactions:
    """The n events of a log by time; events of the same second keep the order of the file."""

    user: np.ndarray
    """int64 [n], codes into `users`."""

    item: np.ndarray
    """int64 [n], rows of the catalog."""

    time: np.ndarray
    """int64 [n], seconds since 1970 UTC."""

    reward: np.ndarray
    """float32 [n] in [-1, 1]; 1 where the table has no rewards."""

    kind: np.ndarray
    """int64 [n], codes into `kinds`; `like`, `dislike` or `neutral` by the reward's sign where the
    table has no kinds."""

    context: np.ndarray
    """int64 [n], codes into `contexts`, -1 for none."""

    users: list[str]
    kinds: list[str]
    contexts: list[str]

    left_out: int = 0
    """Rows of the table that lacked a value."""

    context_types: Attributes = field(default_factory=dict)
    """The declared features of contexts."""

    context_values: list[dict[str, object]] = field(default_factory=list)
    """Where features are declared, their values in each of `contexts`, whose text may be empty."""

    def __len__(self) -> int:
        return len(self.user)

    def select(self, mask: np.ndarray) -> Interactions:
        """Return the events under a mask [n] or at indices; `users`, `kinds`,
        `contexts` stay whole.
        """
        columns = ("user", "item", "time", "reward", "kind", "context")
        return replace(self, **{name: getattr(self, name)[mask] for name in columns})


def read_catalog(
    source: Source, options: ReadOptions | None = None, declared: Attributes | None = None
) -> Catalog:
    """Read the items, whose attributes have the types that are `declared`, by default in
    schema.toml beside the table.

    Raises `TableError` for an empty id, an attribute `id`, and a value of another type than the
    declared one. See `read_items`.
    """
    types = find_schema(source).items if declared is None else declared
    return catalog_of(read_items(source, options), types)


def read_items(source: Source, options: ReadOptions | None = None) -> SourceTable:
    """Return one row for each item, with its id as text and its columns under the fields' names.

    An item may have several rows in the source, so that a log with texts is a table of items too:
    its text is the most frequent one, and its attributes are the columns that are the same in all
    of its rows.

    Raises `TableError` for an empty id or an attribute `id`.
    """
    columns = Columns.read(source, ("item_id", "text"), ("title",), options, keep_others=True)
    if columns.has("id"):
        raise TableError(
            f"{columns.source.name}: expected attributes with other names than `id`, found a column"
            " `id`; rename it, or read it as the item's id: --columns item_id=id"
        )
    columns = columns.complete(("item_id",))
    ids = columns.names("item_id", cells.AN_ITEM)
    items = columns.table.drop_columns([*_no_attributes(columns), "item_id", "text"])
    items = items.add_column(0, "item_id", ids).add_column(1, "text", columns.strings("text"))
    name = columns.source.name
    merged = merge_rows(name, items, ids, ("text", "title"))
    return SourceTable(name, merged, lambda: [(name, len(merged))])


def catalog_of(items: SourceTable, declared: Attributes | None = None) -> Catalog:
    """Return the catalog of a table of `read_items`, with the types of `typed_columns`."""
    ids = items.table.column("item_id").to_pylist()
    texts = [text or "" for text in items.table.column("text").to_pylist()]
    names = [name for name in items.table.column_names if name not in ("item_id", "text")]
    attributes, columns = typed_columns(items, names, declared or {})
    vectors = {name: values for name, values in columns.items() if isinstance(values, np.ndarray)}
    shown = [name for name in columns if name not in vectors]
    in_words = [name for name in shown if attributes[name].type in TEXT_TYPES]
    rows = zip(*(columns[name] for name in shown), strict=True) if shown else repeat((), len(ids))

    full_texts = []
    records = []
    for id, text, values in zip(ids, texts, rows, strict=True):
        record = dict(zip(shown, values, strict=True))
        full_texts.append(described(text, record, in_words) or id)
        filled = {name: value for name, value in record.items() if not is_empty(value)}
        title = str(filled.get("title") or text.strip() or id)
        records.append({"id": id, **filled, "title": title})
    return Catalog(ids, full_texts, records, attributes, vectors)


def read_interactions(
    source: Source,
    catalog: Catalog,
    latest: int = cells.LAST_SECOND,
    *,
    keep_unknown: bool = False,
    options: ReadOptions | None = None,
    context: Attributes | None = None,
) -> Interactions:
    """Read the log; raise `TableError` for an unknown item and for a value out of its range.

    An event later than `latest` (seconds) is out of range, since one wrong clock would move every
    split in time. With `keep_unknown` an item that the catalog lacks is row -1 instead. `context`
    declares columns that are features of contexts; values of another type are an error.
    """
    columns = _log_columns(source, LOG_OPTIONAL, options)
    user = columns.names("user_id", cells.A_USER)
    ids = pa.array(catalog.ids, pa.string())
    item = known_rows(columns, ids) if keep_unknown else catalog_rows(columns, ids)
    time = columns.seconds("timestamp", latest)
    reward, kind = _rewards_and_kinds(columns)
    texts, values = with_values(columns, _context(columns, len(time)), context or {})

    order = np.argsort(time, kind="stable")
    user_code, users = codes(user.take(order))
    kind_code, kinds = codes(kind.take(order))
    context_code, contexts = codes(texts.take(order))
    context_texts, context_values = values_of(contexts, values)
    return Interactions(
        user_code,
        item[order],
        time[order],
        reward[order],
        kind_code,
        context_code,
        users,
        kinds,
        context_texts,
        columns.left_out,
        context or {},
        context_values,
    )


def read_log(source: Source, options: ReadOptions | None = None) -> EventLog:
    """Read a log without a catalog, as the device's reader of CSV does."""
    columns = _log_columns(source, ("reward", "kind"), options)
    user = columns.names("user_id", cells.A_USER)
    item = columns.names("item_id", cells.AN_ITEM)
    time = columns.seconds("timestamp")
    _, kind = _rewards_and_kinds(columns)
    order = np.argsort(time, kind="stable")
    texts = [column.take(order).to_pylist() for column in (user, item, kind)]
    return EventLog(texts[0], texts[1], time[order].tolist(), texts[2], columns.left_out)


def read_likes(source: Source, options: ReadOptions | None = None) -> dict[str, set[str]]:
    """Return the item ids that each user liked: those with a positive reward, or
    all without rewards.
    """
    columns = Columns.read(source, ("user_id", "item_id"), ("reward",), options)
    columns = columns.complete(("user_id", "item_id", "reward"))
    users = columns.names("user_id", cells.A_USER).to_pylist()
    items = columns.names("item_id", cells.AN_ITEM).to_pylist()
    has_rewards = columns.has("reward")
    rewards = columns.rewards("reward") if has_rewards else np.ones(len(users), np.float32)

    likes: dict[str, set[str]] = {}
    for user, item, reward in zip(users, items, rewards, strict=True):
        if reward > 0:
            likes.setdefault(user, set()).add(item)
    return likes


def write_slates(path: Path | str, rows: Iterable[dict[str, object]]) -> None:
    """Write rows of `user_id`, `rank` (from 1), `item_id`, `score`; raise `TableError`
    if one is missing.
    """
    table = from_rows(Path(path), rows)
    missing = [name for name in SLATE_COLUMNS if name not in table.column_names]
    if missing:
        raise TableError(
            f"{path}: expected rows with {', '.join(SLATE_COLUMNS)},"
            f" found none of {', '.join(missing)}"
        )
    write_file(Path(path), table.select(list(SLATE_COLUMNS)))


def read_slates(source: Source) -> dict[str, list[str]]:
    """Return each user's item ids by rank.

    Raises `TableError` unless each user's ranks are 1, 2, 3… and no item is repeated.
    """
    columns = Columns.read(source, SLATE_COLUMNS)
    ranks = columns.ranks("rank")
    users = columns.names("user_id", cells.A_USER).to_pylist()
    items = columns.names("item_id", cells.AN_ITEM).to_pylist()
    slates: dict[str, list[str]] = {}
    for row in np.argsort(ranks, kind="stable"):
        slate = slates.setdefault(users[row], [])
        if ranks[row] != len(slate) + 1:
            expected = f"{len(slate) + 1} as the next rank of {users[row]}"
            raise columns.fault(row, "rank", expected, ranks[row])
        if items[row] in slate:
            expected = f"an item new to the slate of {users[row]}"
            raise columns.fault(row, "item_id", expected, items[row])
        slate.append(items[row])
    return slates


class Parquet:
    """What the engine's command line uses of the lab where the trainer is installed: it cannot
    import Arrow itself, nor read checkpoints.
    """

    @staticmethod
    def open_checkpoint(folder: Path) -> CheckpointRanker:
        """Return a checkpoint's ranking."""
        from sanderling_quantize.checkpoint_ranker import CheckpointRanker

        return CheckpointRanker(folder)

    @staticmethod
    def read_log(source: str, options: ReadOptions) -> EventLog:
        """Return a log by time. See `read_log`."""
        return read_log(source, options)

    @staticmethod
    def write(path: Path | str, rows: list[dict[str, object]]) -> None:
        """Write the rows to a Parquet or CSV file; raise `TableError` when they
        do not form a table.
        """
        write_file(Path(path), from_rows(Path(path), rows))


def _no_attributes(columns: Columns) -> list[str]:
    """Return the columns that say nothing of an item: an index that pandas wrote along, and, where
    the table is a log, the fields of its events.
    """
    metadata = columns.source.table.schema.pandas_metadata or {}
    written = {name for name in metadata.get("index_columns", []) if isinstance(name, str)}
    mapped = columns.options.columns
    event = [mapped.get(field, field) for field in ("user_id", "timestamp", *LOG_OPTIONAL)]
    event += ["user_id", "timestamp", *LOG_OPTIONAL]
    is_log = columns.has(event[0]) and columns.has(event[1])
    return [
        name
        for name in columns.table.column_names
        if name not in columns.column_of
        and (is_row_index(name) or name in written or (is_log and name in event))
    ]


def _log_columns(source: Source, optional: tuple[str, ...], options: ReadOptions | None) -> Columns:
    columns = Columns.read(source, LOG_REQUIRED, optional, options)
    return columns.complete((*LOG_REQUIRED, "reward", "kind"))


def _rewards_and_kinds(columns: Columns) -> tuple[np.ndarray, pa.Array]:
    """Return rewards float32 [n], 1 where the table has none, and kinds [n], by the sign of the
    reward where it has none.
    """
    if columns.has("reward"):
        reward = columns.rewards("reward")
    else:
        reward = np.ones(len(columns.table), np.float32)
    if columns.has("kind"):
        return reward, columns.names("kind", cells.A_KIND)
    return reward, kinds_by_sign(reward)


def _context(columns: Columns, n: int) -> pa.Array:
    if not columns.has("context"):
        return pa.nulls(n, pa.string())
    text = columns.strings("context")
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
