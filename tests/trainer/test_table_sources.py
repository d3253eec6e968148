"""Where tables come from: folders, packed files, object stores, frames; columns with other names;
logs that hold the items' texts too.
"""

from __future__ import annotations

import gzip
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from sanderling.errors import TableError
from sanderling.tables.columns import parse_columns
from sanderling.tables.event_log import ReadOptions
from sanderling_trainer.data.tables import read_catalog, read_interactions, read_likes, read_log

pytestmark = pytest.mark.lab

LOG = {
    "user_id": ["u", "v", "u", "w"],
    "item_id": ["a", "b", "b", "a"],
    "timestamp": ["4", "3", "2", "1"],
}
SALES = {
    "Invoice": ["1", "1", "2", "3", "3", "4"],
    "SKU": ["a", "b", "a", "a", "b", "c"],
    "Description": ["red shoe", "blue hat", "RED SHOE?", "red shoe", "", ""],
    "Colour": ["red", "blue", "red", "", "blue", "green"],
    "When": ["1", "2", "3", "4", "5", "6"],
    "Customer": ["u", "v", "", "u", "v", "w"],
}
OWN = parse_columns(["user_id=Customer,item_id=SKU", "text=Description,timestamp=When"])


def rows(path: Path, columns: dict[str, list[str]], start: int = 0, stop: int = 99) -> Path:
    lines = [
        ",".join(columns),
        *map(",".join, list(zip(*columns.values(), strict=True))[start:stop]),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    """A folder of CSV or of Parquet files is one table, in the order of the files' names; hidden
    files are none of it, and a hive folder's name is a column.
    """
    whole = read_log(rows(tmp_path / "whole.csv", LOG))
    rows(tmp_path / "csv" / "2.csv", LOG, 2)
    packed = rows(tmp_path / "1.csv", LOG, 0, 2).read_bytes()
    (tmp_path / "csv" / "1.csv.gz").write_bytes(gzip.compress(packed))
    (tmp_path / "csv" / "_SUCCESS").write_text("")
    (tmp_path / "csv" / ".hidden.csv").write_text("x")
    assert read_log(tmp_path / "csv") == whole

    table = pa.table(LOG)
    for name, part in {"kind=buy/1": table[:2], "kind=view/2": table[2:]}.items():
        (tmp_path / "parquet" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, tmp_path / "parquet" / f"{name}.parquet")
    log = read_log(tmp_path / "parquet")
    assert (log.users, log.items) == (whole.users, whole.items)
    assert log.kinds == ["view", "view", "buy", "buy"]


def test_a_bad_cell_of_a_folder_is_named_by_its_file(tmp_path: Path) -> None:
    """Rows count from the beginning of their own file, also when others were left out before."""
    rows(tmp_path / "csv" / "1.csv", LOG | {"user_id": ["", "v", "u", "w"]})
    rows(tmp_path / "csv" / "2.csv", LOG | {"timestamp": ["4", "x", "2", "1"]})
    with pytest.raises(TableError, match=r"csv/2\.csv, row 2, column `timestamp`: .*found `x`"):
        read_log(tmp_path / "csv", ReadOptions(drop_incomplete=True))
    with pytest.raises(TableError, match=r"csv/1\.csv, row 1, column `user_id`"):
        read_log(f"{tmp_path}/csv/")


def test_files_of_a_folder_must_agree(tmp_path: Path) -> None:
    """Files of two kinds, or with other columns, are named."""
    rows(tmp_path / "csv" / "1.csv", LOG)
    rows(tmp_path / "csv" / "2.csv", LOG | {"more": LOG["user_id"]})
    with pytest.raises(TableError, match=r"2\.csv: expected the columns of .*1\.csv, user_id"):
        read_log(tmp_path / "csv")
    pq.write_table(pa.table(LOG), tmp_path / "csv" / "3.parquet")
    with pytest.raises(TableError, match="found Parquet and CSV"):
        read_log(tmp_path / "csv")


def test_an_object_store_is_read(tmp_path: Path, bucket: str) -> None:
    """`s3://` names a file, or a folder of files, of both kinds."""
    remote, path = fs.FileSystem.from_uri(bucket)
    for name, content in {
        "log/1.csv": rows(tmp_path / "1.csv", LOG, 0, 2).read_bytes(),
        "log/2.csv.gz": gzip.compress(rows(tmp_path / "2.csv", LOG, 2).read_bytes()),
    }.items():
        with remote.open_output_stream(f"{path}/{name}", compression=None) as file:
            file.write(content)
    pq.write_table(pa.table(LOG), f"{path}/log.parquet", filesystem=remote)
    whole = read_log(rows(tmp_path / "whole.csv", LOG))
    assert read_log(f"{bucket}/log.parquet") == read_log(f"{bucket}/log") == whole
    assert read_log(f"{bucket}/log/2.csv.gz").users == ["w", "u"]
    with pytest.raises(TableError, match=r"none\.csv: expected a file or a folder, found nothing"):
        read_log(f"{bucket}/none.csv")


@pytest.mark.parametrize("source", ["ftp://host/log.csv", "s4://bucket/log.csv", "https://x/l.csv"])
def test_another_url_is_refused(source: str) -> None:
    """A URL that is no object store's is named; no folder of that name is looked for."""
    with pytest.raises(TableError, match=f"{source}: expected a path, or the URL of an object sto"):
        read_log(source)


class Frame:
    """A frame as pandas and polars give themselves away: by Arrow's C interface."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


def test_frames_are_tables() -> None:
    """An Arrow table and a frame with Arrow's C interface mean what a file means."""
    table = pa.table(LOG)
    assert read_log(table) == read_log(Frame(table))
    views = table.cast(pa.schema([(name, pa.string_view()) for name in LOG]))
    assert read_log(Frame(views)) == read_log(table)
    items = pa.table({"item_id": ["a"], "text": ["shoe"], "sizes": [["40", "41"]]})
    polars = items.cast(
        pa.schema(
            [
                ("item_id", pa.string_view()),
                ("text", pa.string_view()),
                ("sizes", pa.list_(pa.string_view())),
            ]
        )
    )
    assert read_catalog(Frame(polars)) == read_catalog(items)
    with pytest.raises(TableError, match=r"^the Frame, row 1, column `timestamp`: expected second"):
        read_log(Frame(pa.table(LOG | {"timestamp": ["x"] * 4})))


@pytest.mark.parametrize("source", [3, None, object(), ["a"]])
def test_what_is_no_table_is_refused(source: Any) -> None:
    """Anything else is a TableError that says what could be given."""
    with pytest.raises(TableError, match="expected a path, a URL, an Arrow table, or a frame"):
        read_log(source)


def test_own_names_of_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log with texts under a shop's own names is both tables, in one mapping."""
    caplog.set_level(logging.WARNING, "sanderling")
    path = rows(tmp_path / "sales.csv", SALES)
    options = ReadOptions(OWN, drop_incomplete=True)
    catalog = read_catalog(path, options)
    assert catalog.texts == ["red shoe. Colour: red", "blue hat. Colour: blue", "Colour: green"]
    assert catalog.records[0] == {"id": "a", "title": "red shoe", "Colour": "red"}
    log = read_interactions(path, catalog, options=options)
    assert (log.time.tolist(), log.left_out) == ([1, 2, 4, 5, 6], 1)
    assert read_likes(path, options) == {"u": {"a"}, "v": {"b"}, "w": {"c"}}
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        "several values of text, of which the most frequent is taken: 1" in text
        for text in messages
    ), messages
    assert any("left out Invoice: the rows of an item differ" in text for text in messages)
    assert any("left out: 1 row lacks a value" in text for text in messages)
    with pytest.raises(TableError, match=r"row 3, column `Customer`: .*1 row lacks a value"):
        read_interactions(path, catalog, options=ReadOptions(OWN))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_the_most_frequent_text_is_taken(pairs: list[tuple[int, int]]) -> None:
    """Each item gets the text that most of its rows have, the first of equally frequent ones."""
    items = [f"i{item}" for item, _ in pairs]
    texts = ["" if text == 0 else f"text {text}" for _, text in pairs]
    catalog = read_catalog(pa.table({"item_id": items, "text": texts}))
    assert catalog.ids == list(dict.fromkeys(items))
    for item, record in zip(catalog.ids, catalog.records, strict=True):
        own = [text for other, text in zip(items, texts, strict=True) if other == item and text]
        counted = Counter(own).most_common(1)  # of equally frequent ones the first
        assert record["title"] == (counted[0][0] if counted else item)


def test_attributes_that_differ_within_an_item_are_no_attributes() -> None:
    """A column is an item's if it has one value in all of the item's rows, of whatever type."""
    table = pa.table(
        {
            "item_id": ["a", "a", "b"],
            "text": ["shoe", "shoe", "hat"],
            "tags": [["x"], ["x"], ["y"]],
            "opens": pa.array([1, 1, 2], pa.time64("ns")),
            "price": [1.0, 2.0, 3.0],
            "size": pa.array([None, 40, 50]),
            "brand": pa.array(["k", "k", "m"]).dictionary_encode(),
        }
    )
    records = read_catalog(table).records
    assert [set(record) for record in records] == [
        {"id", "title", "tags", "opens", "size", "brand"}
    ] * 2
    assert (records[0]["tags"], records[0]["size"], records[1]["brand"]) == (["x"], 40, "m")


@pytest.mark.parametrize("text", [
    "user_id", "user_id=", "=a", "user=a", "user_id=a,user_id=b", "user_id=a,,item_id=b",
])  # fmt: skip
def test_a_mapping_that_is_none(text: str) -> None:
    """Anything but pairs of a known field and a column is a ValueError."""
    with pytest.raises(ValueError, match="expected"):
        parse_columns([text])


def test_a_mapping_may_be_split_and_quoted() -> None:
    """Several options add up; a column whose name has a comma is quoted with its field."""
    assert parse_columns(['"item_id=SKU, own" , text = Name', "user_id=a=b"]) == {
        "item_id": "SKU, own",
        "text": "Name",
        "user_id": "a=b",
    }


def test_a_mapped_optional_column_must_exist() -> None:
    """A mapping to an optional column that the table lacks is an error, not a log without it."""
    with pytest.raises(TableError, match="add or rename Rating"):
        read_log(pa.table(LOG), ReadOptions({"reward": "Rating"}))


INDEXED = {
    "item_id": ["a", "b"],
    "text": ["red shoe", "blue hat"],
    "": ["17", "93"],
    "Unnamed: 0": ["0", "1"],
    "__index_level_0__": ["4", "5"],
}


@pytest.mark.parametrize("column", [name for name in INDEXED if name not in ("item_id", "text")])
def test_the_index_of_pandas_is_no_attribute(tmp_path: Path, column: str) -> None:
    """A row index that pandas wrote along enters neither texts nor records."""
    columns = {name: INDEXED[name] for name in (column, "item_id", "text")}
    catalog = read_catalog(rows(tmp_path / "items.csv", columns))
    assert catalog.texts == ["red shoe", "blue hat"]
    assert [set(record) for record in catalog.records] == [{"id", "title"}] * 2


def test_a_named_index_of_pandas_is_no_attribute(tmp_path: Path) -> None:
    """What the metadata of a Parquet file name as its index is no attribute, but may be a field."""
    metadata = {b"pandas": b'{"index_columns": ["row", "item_id"], "columns": []}'}
    table = pa.table({"item_id": ["a"], "text": ["shoe"], "row": [17], "size": ["40"]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "items.parquet")
    assert read_catalog(tmp_path / "items.parquet").texts == ["shoe. size: 40"]


NANOSECONDS: dict[str, tuple[pa.Array, str]] = {
    "timestamp": (pa.array([10**18 + 1], pa.timestamp("ns")), "2001-09-09 01:46:40"),
    "in a list": (pa.array([[10**18 + 1]], pa.list_(pa.timestamp("ns"))), "2001-09-09 01:46:40"),
    "duration": (pa.array([10**9 + 1], pa.duration("ns")), "0:00:01"),
    "time": (pa.array([10**9 + 1], pa.time64("ns")), "00:00:01"),
}


@pytest.mark.parametrize("name", NANOSECONDS)
def test_attributes_in_nanoseconds_are_read(name: str) -> None:
    """Times that Python has only to the microsecond are cut off there."""
    values, text = NANOSECONDS[name]
    table = pa.table({"item_id": ["a"], "text": ["shoe"], "since": values})
    found = read_catalog(table).records[0]["since"]
    assert found == ([text] if isinstance(found, list) else text)


@pytest.mark.parametrize("values", [
    pa.array([2**40], pa.timestamp("s")), pa.array([-(2**45)], pa.timestamp("s")),
])  # fmt: skip
def test_attributes_that_python_has_not_are_named(values: pa.Array) -> None:
    """A time beyond the year 9999 in an attribute is an error that names the column."""
    table = pa.table({"item_id": ["a"], "text": ["shoe"], "until": values})
    with pytest.raises(TableError, match="the Table, column `until`: expected values that can be"):
        read_catalog(table)


def test_long_logs_are_read_in_parts(tmp_path: Path) -> None:
    """A CSV file of more rows than become an array at once has all of them, in order."""
    n = 150_000
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"u{k % 7},i,{k}\n" for k in range(n)))
    log = read_log(path)
    assert np.array_equal(log.times, np.arange(n))
