"""The lab's tables: every bad cell is named by file, row and column, and CSV and
Parquet mean the same.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sanderling.errors import TableError
from sanderling_trainer.data.tables import (
    Catalog,
    Parquet,
    read_catalog,
    read_interactions,
    read_likes,
    read_slates,
    write_slates,
)

pytestmark = pytest.mark.lab

ITEMS = {
    "item_id": ["007", "7", "ß"],
    "text": ["red shoe", "", "blue coat"],
    "genres": ["a b", "", "c"],
}
LOG = {
    "user_id": ["01", "1", "01", "01"],
    "item_id": ["007", "ß", "7", "007"],
    "timestamp": ["300", "100", "200", "100"],
    "reward": ["1", "-1", "0.5", "0"],
    "kind": ["click", "skip", "click", "view"],
    "context": ["rainy", "", "rainy", ""],
}
SLATES = {
    "user_id": ["a", "b", "a"],
    "rank": ["2", "1", "1"],
    "item_id": ["7", "7", "007"],
    "score": ["0.1", "0.2", "0.3"],
}


def csv(path: Path, columns: dict[str, list[str]]) -> Path:
    lines = [
        ",".join(columns),
        *(",".join(f'"{cell}"' for cell in row) for row in zip(*columns.values(), strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(ITEMS["item_id"], ITEMS["text"], [])


def columns_of(log: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(log).items()
    }


def test_csv_and_parquet_give_the_same_tables(tmp_path: Path) -> None:
    """Items, interactions, likes and slates do not depend on the format of their file."""
    files = [(csv, "csv"), (parquet, "parquet")]
    items = [read_catalog(write(tmp_path / f"items.{end}", ITEMS)) for write, end in files]
    logs = [
        read_interactions(write(tmp_path / f"log.{end}", LOG), items[0]) for write, end in files
    ]
    assert items[0] == items[1]
    assert columns_of(logs[0]) == columns_of(logs[1])
    assert (
        read_likes(tmp_path / "log.csv")
        == read_likes(tmp_path / "log.parquet")
        == {"01": {"007", "7"}}
    )
    slates = [read_slates(write(tmp_path / f"slates.{end}", SLATES)) for write, end in files]
    assert slates == [{"a": ["007", "7"], "b": ["7"]}] * 2


def test_ids_stay_text(tmp_path: Path) -> None:
    """The ids 007, 7 and 01 keep their zeros in CSV; Parquet's whole numbers become digits."""
    items = read_catalog(csv(tmp_path / "items.csv", ITEMS))
    assert items.ids == ["007", "7", "ß"]
    log = read_interactions(csv(tmp_path / "log.csv", LOG), items)
    assert log.users == ["1", "01"]
    numbers = parquet(
        tmp_path / "items.parquet", {"item_id": pa.array([7, 42], pa.int32()), "text": ["x", "y"]}
    )
    assert read_catalog(numbers).ids == ["7", "42"]


def test_items_have_texts_and_records(tmp_path: Path) -> None:
    """A text is the words and the attributes; a record has a title and no empty attribute."""
    items = read_catalog(csv(tmp_path / "items.csv", ITEMS))
    assert items.texts == ["red shoe. genres: a b", "7", "blue coat. genres: c"]
    assert items.records == [
        {"id": "007", "genres": "a b", "title": "red shoe"},
        {"id": "7", "title": "7"},
        {"id": "ß", "genres": "c", "title": "blue coat"},
    ]


def test_records_can_be_json(tmp_path: Path) -> None:
    """Numbers stay numbers, lists stay lists, and what JSON cannot hold is left
    out or becomes text. The language model reads no numbers and times.
    """
    columns = {
        "item_id": ["a"],
        "text": ["shoe"],
        "title": pa.array([1984], pa.int64()),
        "price": [1.5],
        "weight": [float("nan")],
        "sizes": pa.array([[40.0, None, float("inf")]], pa.list_(pa.float64())),
        "since": [date(2020, 1, 2)],
        "none": pa.array([None], pa.string()),
    }
    items = read_catalog(parquet(tmp_path / "items.parquet", columns))
    record = {"id": "a", "title": "1984", "price": 1.5, "sizes": [40.0], "since": "2020-01-02"}
    assert msgspec.json.decode(msgspec.json.encode(items.records[0])) == record
    assert items.texts == ["shoe. title: 1984. sizes: 40.0"]


def test_interactions_come_by_time(tmp_path: Path, catalog: Catalog) -> None:
    """Events are sorted by time, those of one second keep the file's order, and all
    columns move together.
    """
    log = read_interactions(csv(tmp_path / "log.csv", LOG), catalog)
    assert log.time.tolist() == [100, 100, 200, 300]
    assert [log.users[code] for code in log.user] == ["1", "01", "01", "01"]
    assert [catalog.ids[row] for row in log.item] == ["ß", "007", "7", "007"]
    assert log.reward.tolist() == [-1.0, 0.0, 0.5, 1.0]
    assert [log.kinds[code] for code in log.kind] == ["skip", "view", "click", "click"]
    assert (log.context.tolist(), log.contexts) == ([-1, -1, 0, 0], ["rainy"])
    last = log.select(log.time > 150)
    assert (len(last), last.users) == (2, log.users)


def test_optional_columns_have_defaults(tmp_path: Path, catalog: Catalog) -> None:
    """Without rewards every event is a like; without kinds the reward's sign is the kind;
    without contexts none.
    """
    bare = {name: LOG[name] for name in ("user_id", "item_id", "timestamp")}
    log = read_interactions(csv(tmp_path / "log.csv", bare), catalog)
    assert (log.reward.tolist(), log.kinds, log.context.tolist()) == ([1.0] * 4, ["like"], [-1] * 4)
    log = read_interactions(csv(tmp_path / "log.csv", {**bare, "reward": LOG["reward"]}), catalog)
    assert [log.kinds[code] for code in log.kind] == ["dislike", "neutral", "like", "like"]


MOMENT = 1_700_000_000
TIMES: dict[str, Any] = {
    "seconds": pa.array([MOMENT]),
    "fraction": pa.array([MOMENT + 0.9]),
    "text": ["1700000000"],
    "iso": ["2023-11-14T22:13:20"],
    "iso with Z": ["2023-11-14T22:13:20Z"],
    "iso with offset": ["2023-11-15T00:13:20+02:00"],
    "timestamp": pa.array([datetime(2023, 11, 14, 22, 13, 20)], pa.timestamp("ms")),
    "timestamp with zone": pa.array(
        [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)], pa.timestamp("ns", "UTC")
    ),
    "dictionary": pa.array(["1700000000"]).dictionary_encode(),
}


@pytest.mark.parametrize("name", TIMES)
def test_times(tmp_path: Path, catalog: Catalog, name: str) -> None:
    """A time may be seconds, a fraction, text, ISO 8601 with or without an offset,
    or Arrow's own type.
    """
    path = parquet(
        tmp_path / "log.parquet", {"user_id": ["a"], "item_id": ["7"], "timestamp": TIMES[name]}
    )
    assert read_interactions(path, catalog).time.tolist() == [MOMENT]


BAD_LOG: list[tuple[str, str, str]] = [
    ("user_id", "", "a user id of 1 to 512 characters, found nothing"),
    ("user_id", "x" * 513, "a user id of 1 to 512 characters, found `xxx"),
    ("item_id", "", "an item id of 1 to 512 characters, found nothing"),
    ("item_id", "08", "one of the 3 items of the catalog, found `08`"),
    ("timestamp", "", "ISO 8601 time, found nothing"),
    ("timestamp", "yesterday", "ISO 8601 time, found `yesterday`"),
    ("timestamp", "nan", "ISO 8601 time, found `nan`"),
    ("timestamp", "1700000000000", "(not milliseconds) or an ISO 8601 time, found `1700000000000`"),
    ("timestamp", "-inf", "ISO 8601 time, found `-inf`"),
    ("reward", "", "a number from -1 to 1, found nothing"),
    ("reward", "1.01", "a number from -1 to 1, found `1.01`"),
    ("reward", "nan", "a number from -1 to 1, found `nan`"),
    ("reward", "good", "a number from -1 to 1, found `good`"),
    ("kind", "", "a kind of 1 to 512 characters, found nothing"),
]


@pytest.mark.parametrize("write", [csv, parquet])
@pytest.mark.parametrize(("column", "cell", "expected"), BAD_LOG)
def test_bad_interactions(
    tmp_path: Path, catalog: Catalog, write: Any, column: str, cell: str, expected: str
) -> None:
    """A bad cell stops the reading and is named by file, row (from 1, without the
    header) and column.
    """
    path = write(
        tmp_path / f"log.{write.__name__}",
        {**LOG, column: [*LOG[column][:2], cell, LOG[column][3]]},
    )
    with pytest.raises(TableError) as raised:
        read_interactions(path, catalog)
    assert str(raised.value).startswith(f"{path}, row 3, column `{column}`: expected ")
    assert expected in str(raised.value)


def test_an_event_of_the_future_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    """One wrong clock would move every split in time: an event later than the latest
    second is an error.
    """
    log = csv(tmp_path / "log.csv", LOG)
    assert len(read_interactions(log, catalog, latest=300)) == 4
    with pytest.raises(
        TableError, match=r"row 1, column `timestamp`: expected .*not later than second 299, found"
    ):
        read_interactions(log, catalog, latest=299)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp", "reward", "kind"])
def test_nulls(tmp_path: Path, catalog: Catalog, column: str) -> None:
    """A null in a Parquet file is no value: the error names its row and column."""
    cells = [LOG[column][0], None, *LOG[column][2:]]
    path = parquet(tmp_path / "log.parquet", {**LOG, column: pa.array(cells, pa.string())})
    with pytest.raises(
        TableError, match=rf"log\.parquet, row 2, column `{column}`: .*found nothing"
    ):
        read_interactions(path, catalog)


def test_an_empty_id_is_named(tmp_path: Path) -> None:
    """An empty id is named by file, row and column, with what leaves such rows out."""
    path = csv(tmp_path / "items.csv", {**ITEMS, "item_id": ["a", "", ""]})
    with pytest.raises(TableError) as raised:
        read_catalog(path)
    assert str(raised.value) == (
        f"{path}, row 2, column `item_id`: expected an item id of 1 to 512 characters, found"
        " nothing; 2 rows lack a value, --drop-incomplete leaves such rows out"
    )


@pytest.mark.parametrize(("ids", "row"), [([1.0, 0.5], 2), ([True, False], 1), ([1e300, 1.0], 1)])
def test_ids_of_other_types(tmp_path: Path, ids: list[Any], row: int) -> None:
    """Ids that are fractions or booleans are refused: which text they mean is a guess."""
    path = parquet(tmp_path / "items.parquet", {"item_id": ids, "text": ["a", "b"]})
    with pytest.raises(
        TableError,
        match=rf"items\.parquet, row {row}, column `item_id`: expected text or a whole number",
    ):
        read_catalog(path)


def test_whole_floats_are_ids(tmp_path: Path) -> None:
    """What pandas makes of whole numbers with gaps is read as whole numbers; a gap is no id."""
    path = parquet(tmp_path / "items.parquet", {"item_id": [7.0, 42.0], "text": ["a", "b"]})
    assert read_catalog(path).ids == ["7", "42"]
    gap = parquet(tmp_path / "gap.parquet", {"item_id": [7.0, None], "text": ["a", "b"]})
    with pytest.raises(TableError, match=r"row 2, column `item_id`: .*found nothing"):
        read_catalog(gap)


@pytest.mark.parametrize(("ranks", "items", "expected"), [
    (["1", "3"], ["7", "8"], "row 2, column `rank`: expected 2 as the next rank of a, found `3`"),
    (["1", "1"], ["7", "8"], "row 2, column `rank`: expected 2 as the next rank of a, found `1`"),
    (["0", "1"], ["7", "8"], "row 1, column `rank`: expected a whole number from 1, found `0`"),
    (["1", "1.5"], ["7", "8"], "row 2, column `rank`: expected a whole number from 1, found `1.5`"),
    (["1", "inf"], ["7", "8"], "row 2, column `rank`: expected a whole number from 1, found `inf`"),
    (["1", "2"], ["7", "7"],
     "row 2, column `item_id`: expected an item new to the slate of a, found `7`"),
])  # fmt: skip
def test_bad_slates(tmp_path: Path, ranks: list[str], items: list[str], expected: str) -> None:
    """Ranks run 1, 2, 3… for each user without repeated items; the first bad row is named."""
    columns = {"user_id": ["a", "a"], "rank": ranks, "item_id": items, "score": ["1", "1"]}
    path = csv(tmp_path / "slates.csv", columns)
    with pytest.raises(TableError) as raised:
        read_slates(path)
    assert str(raised.value) == f"{path}, {expected}"


def test_missing_columns(tmp_path: Path, catalog: Catalog) -> None:
    """A table without a required column says which it has and which to add."""
    path = csv(tmp_path / "log.csv", {"user": ["a"], "item_id": ["7"]})
    with pytest.raises(TableError, match=r"found user, item_id; add or rename user_id, timestamp"):
        read_interactions(path, catalog)
    with pytest.raises(TableError, match=r"found a column `id`; rename it"):
        read_catalog(csv(tmp_path / "items.csv", {**ITEMS, "id": ["1", "2", "3"]}))
    with pytest.raises(TableError, match=r"found none of rank, score"):
        write_slates(tmp_path / "slates.csv", [{"user_id": "a", "item_id": "7"}])


BAD_FILES: dict[str, tuple[str, bytes | None, str]] = {
    "absent": ("x.csv", None, "expected a file or a folder, found nothing"),
    "extension": ("x.txt", b"a", r"expected the extension \.parquet, .*found `\.txt`"),
    "no extension": ("x", b"a", "found none; convert or rename"),
    "empty csv": ("x.csv", b"", "found an empty file"),
    "header only": ("x.csv", b"item_id,text\n", "expected at least one row"),
    "ragged": ("x.csv", b"item_id,text\na,b\na,b,c\n", "row 2: expected 2 cells, .*found 3"),
    "column twice": ("x.csv", b"item_id,text,text\na,b,c\n", "found 'text' more than once"),
    "not utf-8": ("x.csv", b"item_id,text\na,\xff\n", "line 2: expected UTF-8 text"),
    "csv named parquet": ("x.parquet", b"item_id,text\na,b\n", "expected a Parquet file"),
    "empty parquet": ("x.parquet", b"", "expected a Parquet file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path: Path, name: str) -> None:
    """A file that is not what it should be is a `TableError` that names it."""
    file, content, expected = BAD_FILES[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(TableError, match=expected) as raised:
        read_catalog(tmp_path / file)
    assert str(raised.value).startswith(str(tmp_path / file))


def test_folder_in_a_files_place(tmp_path: Path) -> None:
    """A folder without tables is not a table, not even one named like it."""
    (tmp_path / "x.parquet").mkdir()
    with pytest.raises(TableError, match="expected Parquet or CSV files in the folder, found none"):
        read_catalog(tmp_path / "x.parquet")


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_slates_round_trip(tmp_path: Path, end: str) -> None:
    """What is written is what is read, in either format; nothing else is left in the folder."""
    rows = [
        {"user_id": "01", "rank": rank, "item_id": item, "score": 1 / rank}
        for rank, item in [(1, "007"), (2, "7")]
    ]
    write_slates(tmp_path / f"slates.{end}", rows)
    assert read_slates(tmp_path / f"slates.{end}") == {"01": ["007", "7"]}
    assert [path.name for path in tmp_path.iterdir()] == [f"slates.{end}"]


def test_quoted_cells(tmp_path: Path) -> None:
    """Commas, quotes and line breaks inside a quoted cell belong to the text; CSV ends and a
    byte-order mark do not.
    """
    content = '\ufeffitem_id,text\r\n1,"a, ""b""\nc"\r\n'.encode()
    (tmp_path / "items.csv").write_bytes(content)
    items = read_catalog(tmp_path / "items.csv")
    assert (items.ids, items.texts) == (["1"], ['a, "b"\nc'])


def test_plain_rows(tmp_path: Path) -> None:
    """The command line's rows go out and come back as dictionaries, and mixed types
    are refused by name.
    """
    rows = [{"user_id": "a", "score": 0.5}, {"user_id": "b", "score": 1.0}]
    Parquet.write(tmp_path / "x.parquet", rows)
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == rows
    with pytest.raises(TableError, match=r"y\.parquet: expected one type in each column"):
        Parquet.write(tmp_path / "y.parquet", [{"a": 1}, {"a": "x"}])
    assert not (tmp_path / "y.parquet").exists()
