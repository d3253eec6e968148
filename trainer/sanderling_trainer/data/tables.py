"""The three tables that training and evaluation read: items, interactions and slates.

| table | required columns | optional columns |
|---|---|---|
| items | `item_id`, `text` | `title`, and any other column is an attribute |
| interactions | `user_id`, `item_id`, `timestamp` | `reward` (-1 to 1), `kind`, `context` |
| slates | `user_id`, `rank` (from 1), `item_id`, `score` | |

Files are Parquet or CSV by their extension. A bad cell raises a `TableError` that names file, row
and column; no table is read in part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sanderling.errors import TableError
from sanderling_trainer.data.columns import (
    LAST_SECOND,
    Columns,
    catalog_rows,
    codes,
    kinds_by_sign,
    known_rows,
)
from sanderling_trainer.data.files import from_rows, read_file, write_file

SLATE_COLUMNS = ("user_id", "rank", "item_id", "score")


@dataclass(frozen=True)
class Catalog:
    """The n items."""

    ids: list[str]

    texts: list[str]
    """What the language model reads: the column `text`, then the attributes, as in
    `Toy Story (1995). genres: Animation Comedy`."""

    records: list[dict[str, object]]
    """What a bundle's catalog shows: `{"id", "title", attribute…}`. The title is the column
    `title` if there is one, else `text`, else the id, so that every item has a name.
    """

    def __len__(self) -> int:
        return len(self.ids)


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

    def __len__(self) -> int:
        return len(self.user)

    def select(self, mask: np.ndarray) -> Interactions:
        """Return the events under a mask [n] or at indices; `users`, `kinds`,
        `contexts` stay whole.
        """
        columns = ("user", "item", "time", "reward", "kind", "context")
        return replace(self, **{name: getattr(self, name)[mask] for name in columns})


def read_catalog(path: Path | str) -> Catalog:
    """Read the items; raise `TableError` for an empty or repeated id or an attribute `id`."""
    columns = Columns.read(Path(path), ("item_id", "text"))
    if columns.has("id"):
        raise TableError(
            f"{path}: expected attributes with other names than `id`, found a column `id`;"
            " rename it"
        )
    ids = columns.names("item_id", "an item id").to_pylist()
    _check_unique(columns, ids)

    texts = [text or "" for text in columns.strings("text").to_pylist()]
    attributes = columns.table.drop_columns(["item_id", "text"]).to_pylist()
    items = [_item(*cells) for cells in zip(ids, texts, attributes, strict=True)]
    return Catalog(ids, [text for text, _ in items], [record for _, record in items])


def read_interactions(
    path: Path | str,
    catalog: Catalog,
    latest: int = LAST_SECOND,
    *,
    keep_unknown: bool = False,
) -> Interactions:
    """Read the log; raise `TableError` for an unknown item and for a value out of its range.

    An event later than `latest` (seconds) is out of range, since one wrong clock would move every
    split in time. With `keep_unknown` an item that the catalog lacks is row -1 instead.
    """
    columns = Columns.read(Path(path), ("user_id", "item_id", "timestamp"))
    user = columns.names("user_id", "a user id")
    ids = pa.array(catalog.ids, pa.string())
    item = known_rows(columns, ids) if keep_unknown else catalog_rows(columns, ids)
    time = columns.seconds("timestamp", latest)
    reward = columns.rewards("reward") if columns.has("reward") else np.ones(len(time), np.float32)
    kind = columns.names("kind", "a kind") if columns.has("kind") else kinds_by_sign(reward)
    context = _context(columns, len(time))

    order = np.argsort(time, kind="stable")
    user_code, users = codes(user.take(order))
    kind_code, kinds = codes(kind.take(order))
    context_code, contexts = codes(context.take(order))
    return Interactions(
        user_code,
        item[order],
        time[order],
        reward[order],
        kind_code,
        context_code,
        users,
        kinds,
        contexts,
    )


def read_likes(path: Path | str) -> dict[str, set[str]]:
    """Return the item ids that each user liked: those with a positive reward, or
    all without rewards.
    """
    columns = Columns.read(Path(path), ("user_id", "item_id"))
    users = columns.names("user_id", "a user id").to_pylist()
    items = columns.names("item_id", "an item id").to_pylist()
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


def read_slates(path: Path | str) -> dict[str, list[str]]:
    """Return each user's item ids by rank.

    Raises `TableError` unless each user's ranks are 1, 2, 3… and no item is repeated.
    """
    columns = Columns.read(Path(path), SLATE_COLUMNS)
    ranks = columns.ranks("rank")
    users = columns.names("user_id", "a user id").to_pylist()
    items = columns.names("item_id", "an item id").to_pylist()
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
    """Rows as dictionaries, for the engine's command line, which cannot import Arrow itself."""

    @staticmethod
    def rows(path: Path | str) -> Iterator[dict[str, object]]:
        """Yield the rows of a Parquet or CSV file; raise `TableError` when it cannot be read."""
        for batch in read_file(Path(path)).to_batches(max_chunksize=4096):
            yield from batch.to_pylist()

    @staticmethod
    def write(path: Path | str, rows: list[dict[str, object]]) -> None:
        """Write the rows to a Parquet or CSV file; raise `TableError` when they
        do not form a table.
        """
        write_file(Path(path), from_rows(Path(path), rows))


def _item(item_id: str, text: str, attributes: dict[str, object]) -> tuple[str, dict[str, object]]:
    """Return the text for the language model and the record for the bundle."""
    values = {name: _plain(value) for name, value in attributes.items()}
    filled = {name: value for name, value in values.items() if value not in (None, "", [])}

    parts = [text.strip(), *(f"{name}: {_words(value)}" for name, value in filled.items())]
    full_text = ". ".join(part for part in parts if part) or item_id

    title = str(filled.get("title") or text.strip() or item_id)
    return full_text, {"id": item_id, **filled, "title": title}


def _plain(value: object) -> object:
    """Return a value that JSON can hold, None for a number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [part for part in map(_plain, value) if part is not None]
    return value if value is None or isinstance(value, str | int) else str(value)


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_unique(columns: Columns, ids: list[str]) -> None:
    if len(set(ids)) == len(ids):
        return

    first: dict[str, int] = {}
    for row, item_id in enumerate(ids):
        if first.setdefault(item_id, row) != row:
            expected = f"an id not used before (row {first[item_id] + 1} has it)"
            raise columns.fault(row, "item_id", expected, item_id)


def _context(columns: Columns, n: int) -> pa.Array:
    if not columns.has("context"):
        return pa.nulls(n, pa.string())
    text = columns.strings("context")
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
